package dcstest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// echo serves lines back, and counts those that arrived.
func echo(t *testing.T) (addr string, lines *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	lines = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for sc := bufio.NewScanner(c); sc.Scan(); {
					lines.Add(1)
					_, _ = io.WriteString(c, sc.Text()+"\n")
					if sc.Text() == "bye" {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), lines
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends a line and returns what comes back: a line, or "silence", "cut" or "end".
func ask(t *testing.T, c net.Conn, line string, patience time.Duration) string {
	t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "cut"
	}
	return answer(t, c, patience)
}

func answer(t *testing.T, c net.Conn, patience time.Duration) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	got, err := bufio.NewReader(c).ReadString('\n')
	switch {
	case err == nil:
		return strings.TrimSpace(got)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "silence"
	case errors.Is(err, io.EOF):
		return "end"
	default:
		return "cut"
	}
}

const (
	long  = 10 * time.Second
	short = 50 * time.Millisecond
)

func TestProxyModes(t *testing.T) {
	addr, lines := echo(t)
	p := NewProxy(t, addr)
	expect := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	old, idle := dial(t, p.Addr()), dial(t, p.Addr())
	expect("pass", ask(t, old, "1", long), "1")
	expect("pass", ask(t, idle, "2", long), "2")
	last := dial(t, p.Addr())
	expect("the server's regular end", ask(t, last, "bye", long), "bye")
	expect("the server's regular end", answer(t, last, long), "end")

	p.SetMode(BlackHole)
	expect("black hole", ask(t, old, "lost", short), "silence")
	fresh := dial(t, p.Addr())
	expect("black hole, new connection", ask(t, fresh, "lost", short), "silence")
	if n := lines.Load(); n != 3 {
		t.Errorf("%d lines arrived, want 3: the black hole leaks", n)
	}
	p.SetMode(Pass)
	expect("after the black hole", answer(t, old, long), "cut")
	expect("after the black hole, new connection", answer(t, fresh, long), "cut")
	expect("a connection that lost nothing", ask(t, idle, "3", long), "3")

	p.SetMode(DropReplies)
	expect("drop replies", ask(t, idle, "4", short), "silence")
	expect("drop replies", ask(t, idle, "5", short), "silence")
	for end := time.Now().Add(long); lines.Load() != 6; wait(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d lines arrived, want 6: requests must go through", lines.Load())
		}
	}
	p.SetMode(Pass)
	expect("after lost replies", answer(t, idle, long), "cut")

	open := dial(t, p.Addr())
	expect("pass again", ask(t, open, "6", long), "6")
	p.SetMode(Refuse)
	expect("refuse, open connection", answer(t, open, long), "cut")
	if _, err := net.DialTimeout("tcp", p.Addr(), long); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refuse, new connection: %v", err)
	}
	p.SetMode(Pass)
	expect("pass after refuse", ask(t, dial(t, p.Addr()), "7", long), "7")
}

func TestProxyServerDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	p := NewProxy(t, addr)
	c, err := net.DialTimeout("tcp", p.Addr(), long)
	if err != nil {
		return // cut before the dialer had a look
	}
	defer c.Close()
	if got := ask(t, c, "x", long); got != "cut" {
		t.Errorf("the server is down: %q", got)
	}
}

func TestProxyCloseEndsEverything(t *testing.T) {
	addr, _ := echo(t)
	p := NewProxy(t, addr)
	c := dial(t, p.Addr())
	if got := ask(t, c, "1", long); got != "1" {
		t.Fatal(got)
	}
	p.SetMode(BlackHole)
	ask(t, dial(t, p.Addr()), "x", short)
	p.Close() // returns only when all goroutines have ended
	p.Close()
	if got := answer(t, c, long); got != "cut" {
		t.Errorf("after Close: %q", got)
	}
	p.SetMode(Pass)
}
