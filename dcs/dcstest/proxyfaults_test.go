package dcstest

import (
	"io"
	"net"
	"strings"
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

func TestProxyHoldsRequestsBack(t *testing.T) {
	addr, lines := echo(t)
	p := NewProxy(t, addr)
	const delay = 200 * time.Millisecond
	p.SetFaults(Faults{RequestDelay: delay})
	began := time.Now()
	c := dial(t, p.Addr())
	if got := ask(t, c, "one", short); got != "silence" || lines.Load() != 0 {
		t.Fatalf("at once: %q, and the server got %d requests", got, lines.Load())
	}
	if got := answer(t, c, long); got != "one" {
		t.Fatalf("later: %q", got)
	}
	if took := time.Since(began); took < delay {
		t.Fatalf("held for %v, not %v", took, delay)
	}
}

func TestProxyThrottles(t *testing.T) {
	addr, _ := echo(t)
	p := NewProxy(t, addr)
	p.SetFaults(Faults{Rate: 100_000})
	line := strings.Repeat("x", 20_000) // a fifth of a second in each direction
	began := time.Now()
	if got := ask(t, dial(t, p.Addr()), line, long); got != line {
		t.Fatalf("%d bytes came back", len(got))
	}
	if took := time.Since(began); took < 390*time.Millisecond {
		t.Fatalf("20 kB there and back at 100 kB/s took %v", took)
	}
}

func TestProxyLosesRequests(t *testing.T) {
	addr, lines := echo(t)
	p := NewProxy(t, addr)
	old, idle := dial(t, p.Addr()), dial(t, p.Addr())
	ask(t, old, "1", long)
	ask(t, idle, "2", long)
	p.SetFaults(Faults{ReplyDelay: 100 * time.Millisecond})
	if _, err := io.WriteString(idle, "3\n"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(long); lines.Load() != 3; wait(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a request before the loss did not arrive")
		}
	}
	p.SetMode(DropRequests)
	if got := answer(t, idle, long); got != "3" {
		t.Errorf("what the server says goes through: %q", got)
	}
	fresh := dial(t, p.Addr())
	if got := ask(t, old, "lost", short) + " " + ask(t, fresh, "lost", short); got != "silence silence" || lines.Load() != 3 {
		t.Errorf("lost requests: %q, and the server got %d", got, lines.Load())
	}
	p.SetMode(Pass)
	if got := answer(t, old, long) + " " + answer(t, fresh, long); got != "cut cut" {
		t.Errorf("afterwards: %q", got)
	}
}

func TestProxyStalls(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := NewProxy(t, l.Addr().String())
	c := dial(t, p.Addr())
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(long); p.Connections() != 1; wait(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections, want 1", p.Connections())
		}
	}
	p.SetMode(Stall)
	if got := ask(t, c, "lost", short); got != "silence" {
		t.Errorf("stalled: %q", got)
	}
	_ = server.Close()
	if got := answer(t, c, short); got != "silence" {
		t.Errorf("stalled, and the server is gone: %q", got)
	}
	fresh := dial(t, p.Addr())
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := io.WriteString(server, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if got := answer(t, fresh, long); got != "hello" {
		t.Errorf("a new connection: %q", got)
	}
	p.SetMode(Pass)
	if got := answer(t, c, long); got != "cut" {
		t.Errorf("afterwards: %q", got)
	}
}

func TestProxyHalfCloses(t *testing.T) {
	addr, lines := echo(t)
	p := NewProxy(t, addr)
	c := dial(t, p.Addr())
	ask(t, c, "1", long)
	p.SetMode(HalfClose)
	if got := answer(t, c, long); got != "end" {
		t.Errorf("half closed: %q", got)
	}
	if _, err := io.WriteString(c, "2\n"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(long); lines.Load() != 2; wait(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what the client sends does not arrive")
		}
	}
	if got := ask(t, dial(t, p.Addr()), "3", long); got != "3" {
		t.Errorf("a new connection: %q", got)
	}
}
