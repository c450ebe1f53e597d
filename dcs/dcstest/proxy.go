package dcstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Mode is what a Proxy does with what passes through it.
type Mode int

// Modes.
const (
	// Pass passes everything on.
	Pass Mode = iota
	// BlackHole accepts connections and bytes and lets nothing through, in neither direction: the server seems to accept
	// and never answers.
	BlackHole
	// DropReplies passes on what clients send and loses what the server answers. Only on connections that were made
	// before: a new one has its handshake lost too.
	DropReplies
	// DropRequests loses what clients send and passes on what the server says: a loss in the other direction. Connections
	// are made, and nothing that is asked arrives.
	DropRequests
	// Stall makes the connections that are open lose everything, in both directions, for as long as the mode stays, and
	// ends none of them; new connections work. So does a firewall that forgot its flows: no reset, no end.
	Stall
	// HalfClose ends what the server sends on the connections that are open, in order, as a server does that shuts its side
	// down; what their clients send still arrives. New connections work.
	HalfClose
	// Refuse cuts all connections and refuses new ones.
	Refuse
)

// Proxy is a TCP proxy whose network can break. It knows nothing of what it carries, TLS included.
//
// A connection on which bytes were lost is cut when the mode changes to another: no stream goes on with a hole in it.
type Proxy struct {
	t      testing.TB
	target string

	mu       sync.Mutex
	addr     string
	mode     Mode
	faults   Faults
	listener net.Listener // nil while refusing or closed
	links    map[*link]struct{}
	closed   bool
	running  sync.WaitGroup
}

// link is one connection through the proxy.
type link struct {
	proxy  *Proxy
	client net.Conn

	// Guarded by proxy.mu.
	server net.Conn // nil until it was made; never made in BlackHole
	lossy  [2]bool  // bytes were lost in this direction: nothing must follow them
	held   bool     // stalled: it stays open, whatever its server does
}

// Directions.
const (
	requests = iota
	replies
)

// NewProxy starts a proxy to the TCP address target, in the mode Pass. It is closed when the test ends, before what was
// registered for clean-up earlier.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, target: target, addr: "127.0.0.1:0", links: make(map[*link]struct{})}
	if err := p.listen(); err != nil {
		t.Fatalf("dcstest: proxy to %s: %v", target, err)
	}
	t.Cleanup(p.Close)
	return p
}

// base never ends: Close ends everything.
func (p *Proxy) base() context.Context { return context.WithoutCancel(p.t.Context()) }

// Addr is the host:port for clients to connect to. It does not change.
func (p *Proxy) Addr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// SetMode changes the mode, for open connections and new ones. When it returns, the mode is in effect, except for bytes
// that were already on their way.
func (p *Proxy) SetMode(m Mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || m == p.mode {
		return
	}
	p.mode = m
	for l := range p.links {
		switch {
		case l.lossy[requests] || l.lossy[replies] || m == Refuse:
			l.cut()
		case m == Stall:
			l.lossy, l.held = [2]bool{true, true}, true
		case m == HalfClose:
			l.lossy[replies] = true
			if tcp, ok := l.client.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
		}
	}
	switch {
	case m == Refuse && p.listener != nil:
		_ = p.listener.Close()
		p.listener = nil
	case m != Refuse && p.listener == nil:
		p.listenAgain()
	}
}

// Connections is how many connections of clients are open now.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Close cuts all connections and waits until every goroutine of the proxy has ended.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for l := range p.links {
		l.cut()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// listen starts to accept at addr, and remembers the port that it got.
func (p *Proxy) listen() error {
	l, err := new(net.ListenConfig).Listen(p.base(), "tcp", p.addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	p.listener, p.addr = l, l.Addr().String()
	p.running.Add(1)
	go p.accept(l)
	return nil
}

// listenAgain takes the port again that was left for Refuse. Somebody's outgoing connection may have it for a moment.
func (p *Proxy) listenAgain() {
	for end := time.Now().Add(10 * time.Second); ; wait(10 * time.Millisecond) {
		err := p.listen()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			p.t.Errorf("dcstest: proxy to %s: the port was taken while it refused connections: %v", p.target, err)
			return
		}
	}
}

func (p *Proxy) accept(l net.Listener) {
	defer p.running.Done()
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		k := &link{proxy: p, client: c}
		p.mu.Lock()
		if p.closed || p.mode == Refuse {
			k.cut()
		} else {
			p.links[k] = struct{}{}
			p.running.Add(1)
			go k.run()
		}
		p.mu.Unlock()
	}
}

// cut ends a link with a reset, so that nobody takes it for a regular end. The lock is held.
func (l *link) cut() {
	for _, c := range []net.Conn{l.client, l.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
		}
	}
}

func (l *link) run() {
	defer l.proxy.running.Done()
	defer func() {
		l.proxy.mu.Lock()
		defer l.proxy.mu.Unlock()
		delete(l.proxy.links, l)
		_ = l.client.Close()
		if l.server != nil {
			_ = l.server.Close()
		}
	}()
	if !l.connect() {
		_, _ = io.Copy(io.Discard, l.client) // until the mode changes, which cuts the link
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.copy(l.client, l.server, replies)
	}()
	l.copy(l.server, l.client, requests)
	<-done
}

// connect makes the connection to the server, unless the mode forbids that.
func (l *link) connect() bool {
	p := l.proxy
	p.mu.Lock()
	hole := p.mode == BlackHole
	if hole {
		l.lossy = [2]bool{true, true}
	}
	p.mu.Unlock()
	if hole {
		return false
	}
	server, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(p.base(), "tcp", p.target)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		l.cut() // the server is down: the client's connection ends as well
		return false
	}
	l.server = server
	if _, there := p.links[l]; !there || p.closed || p.mode == Refuse {
		l.cut()
	}
	return true
}

// copy passes bytes on in one direction, or loses them, until from ends; then to ends in the same way.
func (l *link) copy(to, from net.Conn, direction int) {
	buf := make([]byte, 32<<10)
	late := newLate(l, to, direction)
	defer late.end()
	for {
		n, err := from.Read(buf)
		if n > 0 && l.passes(direction) {
			if writeErr := l.forward(to, buf[:n], direction, late); writeErr != nil {
				err = writeErr
			}
		}
		if err == nil {
			continue
		}
		if tcp, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) && l.whole(direction) {
			late.end()
			_ = tcp.CloseWrite() // a regular end; the other direction may go on
			return
		}
		l.proxy.mu.Lock()
		if !l.held || direction == requests { // the client does not hear of the end of a server that it cannot hear
			l.cut()
		}
		l.proxy.mu.Unlock()
		return
	}
}

// passes says whether bytes go through now, and notes it when they do not.
func (l *link) passes(direction int) bool {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	switch l.proxy.mode {
	case Pass, Stall, HalfClose: // which look at each link once, when they begin
		return !l.lossy[direction]
	case DropReplies:
		l.lossy[direction] = l.lossy[direction] || direction == replies
	case DropRequests:
		l.lossy[direction] = l.lossy[direction] || direction == requests
	default:
		l.lossy[direction] = true
	}
	return !l.lossy[direction]
}

// whole says that no byte was lost in this direction.
func (l *link) whole(direction int) bool {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	return !l.lossy[direction]
}
