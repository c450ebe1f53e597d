package dcstest

import (
	"testing"
	"time"
)

func TestProxyHoldsRepliesBack(t *testing.T) {
	addr, lines := echo(t)
	p := NewProxy(t, addr)
	c := dial(t, p.Addr())
	if got := ask(t, c, "one", time.Second); got != "one" {
		t.Fatalf("without faults: %q", got)
	}
	const delay = 300 * time.Millisecond
	p.SetFaults(Faults{ReplyDelay: delay})
	began := time.Now()
	if got := ask(t, c, "two", 50*time.Millisecond); got != "silence" {
		t.Fatalf("at once: %q", got)
	}
	if lines.Load() != 2 {
		t.Fatalf("the server got %d requests, not 2", lines.Load())
	}
	p.SetFaults(Faults{}) // what is held stays held, and nothing overtakes it
	if got := ask(t, c, "three", 5*time.Second); got != "two" {
		t.Fatalf("later: %q", got)
	}
	if took := time.Since(began); took < delay {
		t.Fatalf("held for %v, not %v", took, delay)
	}
}

func TestProxyLosesReplies(t *testing.T) {
	addr, lines := echo(t)
	p := NewProxy(t, addr)
	p.SetFaults(Faults{ReplyLoss: 1})
	if got := ask(t, dial(t, p.Addr()), "one", 5*time.Second); got != "cut" {
		t.Fatalf("a lost reply: %q", got)
	}
	if lines.Load() != 1 {
		t.Fatal("the request did not arrive")
	}
	p.SetFaults(Faults{})
	if got := ask(t, dial(t, p.Addr()), "two", 5*time.Second); got != "two" {
		t.Fatalf("on a new connection: %q", got)
	}
}
