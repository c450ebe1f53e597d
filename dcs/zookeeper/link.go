package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgregent/pgregent/dcs"
)

const (
	dialLimit  = 750 * time.Millisecond // for a TCP connection, TLS included,
	helloLimit = 750 * time.Millisecond // and then for the server to give a session
	firstPause = 50 * time.Millisecond  // after every host has failed
	mostPause  = 500 * time.Millisecond
)

// link is a client of the library and what is known about it. It has at most one connection at a time. Either that
// connection is its whole life, or it makes new ones, one host after the other, for as long as the session lives.
type link struct {
	zk   *zk.Conn
	keep bool // make new connections, for the same session and for no other
	dial func(ctx context.Context, host string) (net.Conn, error)
	log  *slog.Logger

	hosts func() []string // the first is to be tried first
	event func(zk.Event)  // of nodes; nil when nobody watches

	ctx  context.Context // ends with the link
	stop context.CancelCauseFunc
	gone chan struct{} // closed when the library's goroutines have ended

	mu       sync.Mutex
	wire     *wire
	up       bool
	changed  chan struct{} // closed, and replaced, when up changes
	session  int64
	ttl      time.Duration
	closed   chan struct{} // closed when the server has answered that it ended the session
	order    []string      // the hosts of the current round
	failures int           // connections in a row that led to no session
	last     map[string]error
}

// newLink starts a link. Its session has the TTL that the server makes of ttl.
func newLink(s *Store, ttl time.Duration, keep bool, hosts func() []string, event func(zk.Event)) (*link, error) {
	l := &link{keep: keep, dial: s.config.dial, log: s.config.Logger, hosts: hosts, event: event,
		gone: make(chan struct{}), changed: make(chan struct{}), closed: make(chan struct{}), last: make(map[string]error)}
	l.ctx, l.stop = context.WithCancelCause(s.ctx)
	conn, events, err := zk.Connect([]string{"127.0.0.1:1"}, ttl, zk.WithHostProvider(provider{l}), zk.WithDialer(l.connect),
		zk.WithEventCallback(l.heard), zk.WithLogger(quiet{l}), zk.WithLogInfo(false))
	if err != nil {
		l.stop(err)
		return nil, err
	}
	l.zk = conn
	go func() {
		for range events { // it is closed when the library has ended
		}
		close(l.gone)
	}()
	context.AfterFunc(l.ctx, func() {
		l.cut()
		l.zk.Close() // within a second: there is nobody left to answer
	})
	return l, nil
}

// quiet hands the library's log on. What it says is told by the errors of calls, too.
type quiet struct{ l *link }

// Printf implements zk.Logger.
func (q quiet) Printf(format string, args ...any) {
	q.l.log.DebugContext(q.l.ctx, "zookeeper: the client library", "says", fmt.Sprintf(format, args...))
}

// provider tells the library the next host. Its own ones wait a second after each round.
type provider struct{ l *link }

func (p provider) Init([]string) error { return nil }
func (p provider) Len() int            { return len(p.l.hosts()) }
func (p provider) Connected()          {}

// Next implements zk.HostProvider. The second result makes the library give up requests that wait to be sent, and end if it
// was told to, which it looks for nowhere else.
func (p provider) Next() (string, bool) {
	l := p.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.order) == 0 {
		l.order = l.round()
	}
	if len(l.order) == 0 || l.ctx.Err() != nil {
		return "", l.ctx.Err() != nil
	}
	host := l.order[0]
	l.order = l.order[1:]
	return host, false
}

// round is the hosts for the next attempts: the one that was left last comes last.
func (l *link) round() []string {
	var all, left []string
	for _, h := range l.hosts() {
		if l.wire != nil && h == l.wire.server {
			left = append(left, h)
		} else {
			all = append(all, h)
		}
	}
	return append(all, left...)
}

// connect is the library's dialer. It fails for good when the link has ended: no connection means no new session.
func (l *link) connect(_, host string, _ time.Duration) (net.Conn, error) {
	if err := l.breathe(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(l.ctx, dialLimit)
	defer cancel()
	c, err := l.dial(ctx, host)
	if err != nil {
		l.failed(host, err)
		return nil, err
	}
	w := &wire{Conn: c, server: host, until: time.Now().Add(helloLimit), broken: make(chan struct{}),
		greeted: l.greeted, closed: sync.OnceFunc(func() { close(l.closed) })}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		_ = c.Close()
		return nil, context.Cause(l.ctx)
	}
	if l.wire != nil {
		_ = l.wire.Close() // the library leaves some open
	}
	l.wire = w
	return w, nil
}

// breathe waits when all hosts have failed, longer each time.
func (l *link) breathe() error {
	l.mu.Lock()
	rounds := l.failures / max(len(l.hosts()), 1)
	begin := l.failures%max(len(l.hosts()), 1) == 0
	l.mu.Unlock()
	if rounds > 0 && begin {
		timer := time.NewTimer(min(firstPause<<min(rounds-1, 8), mostPause))
		defer timer.Stop()
		select {
		case <-l.ctx.Done():
		case <-timer.C:
		}
	}
	return context.Cause(l.ctx)
}

// failed notes that a host gave no session. It is the end of a link that has one connection.
func (l *link) failed(host string, err error) {
	l.mu.Lock()
	l.failures++
	l.last[host] = fmt.Errorf("%s: %w", host, err)
	l.mu.Unlock()
	if !l.keep {
		l.stop(fmt.Errorf("%s: %w", host, err))
	}
}

// greeted is called when the server has answered the first message. The session 0 says that the one asked for has ended.
func (l *link) greeted(ttl time.Duration, session int64) {
	if session == 0 {
		l.stop(dcs.ErrSessionLost)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session, l.ttl, l.failures, l.order = session, ttl, 0, nil
	clear(l.last)
}

// heard is called by the library for everything that happens.
func (l *link) heard(e zk.Event) {
	switch {
	case e.Type != zk.EventSession:
		if l.event != nil {
			l.event(e)
		}
	case e.State == zk.StateHasSession:
		l.setUp(true)
	case e.State == zk.StateDisconnected:
		l.dropped()
	}
}

// dropped is the end of a connection.
func (l *link) dropped() {
	l.mu.Lock()
	w := l.wire
	served := w != nil && w.served
	l.mu.Unlock()
	switch {
	case w == nil:
	case !served:
		l.failed(w.server, errNoSession)
	case !l.keep:
		l.stop(fmt.Errorf("%s: %w", w.server, errCut))
	}
	l.setUp(false)
}

func (l *link) setUp(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setUpLocked(up)
}

func (l *link) setUpLocked(up bool) {
	if up {
		l.wire.served = true
	}
	if l.up != up {
		l.up = up
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// Why a call got no answer.
var (
	errNoSession = errors.New("the server closed the connection, or did not answer in time, before it gave a session")
	errCut       = errors.New("the connection was closed")
	errNoAnswer  = errors.New("no answer in time")
)

// await waits until there is a connection. When the link has ended, or ctx, it says why.
func (l *link) await(ctx context.Context) error {
	for {
		l.mu.Lock()
		up, changed := l.up, l.changed
		l.mu.Unlock()
		if l.ctx.Err() != nil {
			return context.Cause(l.ctx)
		}
		if up {
			return nil
		}
		select {
		case <-ctx.Done():
			return failures(append([]error{context.Cause(ctx)}, l.failing()...))
		case <-l.ctx.Done():
		case <-changed:
		}
	}
}

// failing is what the hosts said last.
func (l *link) failing() (all []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, host := range slices.Sorted(maps.Keys(l.last)) {
		if err := l.last[host]; err != nil {
			all = append(all, err)
		}
	}
	return all
}

// cut closes the connection, which ends every call on it.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cutLocked(l.wire)
}

// cutLocked closes w, if it is still the connection: nothing is to be sent from now on until there is another.
func (l *link) cutLocked(w *wire) {
	if w != nil && w == l.wire {
		_ = w.Close()
		l.setUpLocked(false)
	}
}

// zxid is the newest change that the server is known to have.
func (l *link) zxid() int64 {
	l.mu.Lock()
	w := l.wire
	l.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.zxid
}

// server is the host of the connection.
func (l *link) server() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wire == nil {
		return ""
	}
	return l.wire.server
}

// on makes one request, or several in a row. It returns by the end of ctx. A request that was not answered by then ends with the
// connection: the library cannot take it back. When ctx was cancelled, which says nothing about the server, the connection
// has as long as any other call would give it: it serves others, too.
func on[R any](ctx context.Context, l *link, f func(*zk.Conn) (R, error)) (R, error) {
	type reply struct {
		r   R
		err error
	}
	replies := make(chan reply, 1)
	l.mu.Lock()
	w := l.wire
	l.mu.Unlock()
	go func() {
		r, err := f(l.zk)
		replies <- reply{r, err}
	}()
	select {
	case p := <-replies:
		return p.r, p.err
	case <-ctx.Done():
		if cancelled(ctx) {
			go func() {
				timer := time.NewTimer(mostShare)
				defer timer.Stop()
				select {
				case <-replies:
				case <-l.ctx.Done():
				case <-timer.C:
					l.cutOnly(w)
				}
			}()
		} else {
			l.cutOnly(w)
		}
		var none R
		return none, fmt.Errorf("%s: %w: %w", l.server(), errNoAnswer, context.Cause(ctx))
	}
}

// cancelled says that a caller has gone away before its time was over.
func cancelled(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// cutOnly closes w, unless there is another connection by now.
func (l *link) cutOnly(w *wire) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cutLocked(w)
}

// lost says that a request got no answer, so that nobody knows what became of it.
func lost(err error) bool {
	for _, kind := range []error{zk.ErrConnectionClosed, zk.ErrClosing, zk.ErrNoServer, zk.ErrSessionMoved, errNoAnswer, errCut} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// failures is several errors in one line.
type failures []error

// Error implements error.
func (f failures) Error() string {
	text := ""
	for i, err := range f {
		if i > 0 {
			text += "; "
		}
		text += err.Error()
	}
	return text
}

// Unwrap is for errors.Is and errors.As.
func (f failures) Unwrap() []error { return f }
