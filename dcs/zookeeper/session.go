package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgregent/pgregent/dcs"
)

// session is a session with a connection of its own, through which the puts bound to it go.
type session struct {
	store *Store
	link  *link
	id    int64
	ttl   time.Duration
	timer *time.Timer // ends it when Renew was not called for the TTL

	closing chan struct{} // holds one value during Close

	mu       sync.Mutex
	renewing int       // calls of Renew under way
	renewed  time.Time // when the last of them succeeded
	expired  bool      // by the timer
}

var _ dcs.Session = (*session)(nil)

const renewPause = 50 * time.Millisecond // until the timer looks again for a Renew that is late

// errUnrenewed is why a session was closed by this side.
var errUnrenewed = fmt.Errorf("%w: it was not renewed for its TTL", dcs.ErrSessionLost)

// errUnconfirmed is why a session cannot be used after a Close that the servers did not answer.
var errUnconfirmed = errors.New("the session was closed, and no server has confirmed it")

// OpenSession implements dcs.Store. A TTL below Limits.MinTTL is raised; one above what the servers allow (by default 20 of
// their ticks, 40 s) is an error, as they would make it shorter. An unknown outcome leaves at most a session without keys.
func (s *Store) OpenSession(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	ttl = max(ttl.Round(0), time.Duration(s.minTTL.Load()))
	ttl = (ttl + time.Millisecond - 1).Truncate(time.Millisecond)
	if ttl > math.MaxInt32*time.Millisecond {
		return nil, fmt.Errorf("%w: a session of %v; ZooKeeper's longest is %v", dcs.ErrMalformed, ttl, math.MaxInt32*time.Millisecond)
	}
	n := &session{store: s, closing: make(chan struct{}, 1)}
	var err error
	if n.link, err = newLink(s, ttl, true, s.rotation, nil); err != nil {
		return nil, err
	}
	if err = n.link.await(ctx); err == nil {
		err = s.authenticate(ctx, n.link)
	}
	if err != nil {
		n.link.stop(err)
		if s.closing.Load() {
			err = dcs.ErrClosed
		}
		return nil, fmt.Errorf("%w: %w", dcs.ErrUnknown, err)
	}
	n.link.mu.Lock()
	n.id, n.ttl = n.link.session, n.link.ttl
	n.link.mu.Unlock()
	if n.ttl < ttl {
		n.link.bye(time.Second)
		return nil, fmt.Errorf("%s keeps no session longer than %v, and one of %v is needed; raise maxSessionTimeout or tickTime of the servers", n.link.server(), n.ttl, ttl)
	}
	if n.ttl > ttl {
		s.minTTL.Store(max(s.minTTL.Load(), int64(n.ttl)))
	}
	n.mu.Lock()
	n.renewed = time.Now()
	n.timer = time.AfterFunc(n.ttl, n.expire)
	n.mu.Unlock()
	s.mu.Lock()
	s.sessions[n.ID()] = n
	s.mu.Unlock()
	context.AfterFunc(n.link.ctx, func() {
		n.mu.Lock()
		n.timer.Stop()
		n.mu.Unlock()
		s.mu.Lock()
		delete(s.sessions, n.ID())
		s.mu.Unlock()
	})
	return n, nil
}

// expire closes a session that its owner has forgotten. Without it, the library's pings would keep it for ever.
func (n *session) expire() {
	n.mu.Lock()
	if n.link.ctx.Err() != nil { // it has ended, of whatever
		n.mu.Unlock()
		return
	}
	left := n.ttl - time.Since(n.renewed)
	if n.renewing > 0 { // it is not forgotten, but perhaps beyond help
		left = max(left, renewPause)
	}
	if left > 0 {
		n.timer.Reset(left)
		n.mu.Unlock()
		return
	}
	n.expired = true
	n.mu.Unlock()
	n.link.end(errUnrenewed, time.Second)
}

// begin and finish are the beginning and the end of a Renew. One that has begun is not overtaken by the timer.
func (n *session) begin() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.expired {
		return errUnrenewed
	}
	n.renewing++
	return nil
}

func (n *session) finish(succeeded bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.renewing--
	if succeeded {
		n.renewed = time.Now()
	}
}

// ID implements dcs.Session: ZooKeeper's session in 16 hexadecimal digits.
func (n *session) ID() string { return sessionID(n.id) }

// TTL implements dcs.Session.
func (n *session) TTL() time.Duration { return n.ttl }

// Renew implements dcs.Session. It is a transaction of this session that changes nothing and is committed by the quorum;
// answers to pings come from the connected server alone and prove nothing (hazard A11).
func (n *session) Renew(ctx context.Context) error {
	if err := n.begin(); err != nil {
		return err
	}
	err := n.renew(ctx)
	n.finish(err == nil)
	return err
}

func (n *session) renew(ctx context.Context) error {
	ctx, cancel := n.store.limit(ctx)
	defer cancel()
	var last error
	for {
		if err := n.usable(ctx); err != nil {
			return unknown(err, last)
		}
		_, err := asks(ctx, n.link, func(c *zk.Conn) (struct{}, error) {
			_, err := c.Multi(&zk.CheckVersionRequest{Path: n.store.prefix, Version: -1})
			return struct{}{}, err
		})
		switch {
		case err == nil && n.link.ctx.Err() == nil:
			return nil
		case errors.Is(err, zk.ErrSessionExpired):
			n.link.stop(dcs.ErrSessionLost)
		case errors.Is(err, zk.ErrNoNode):
			if err = n.store.mkdirs(ctx, n.link, append(foldersOf(n.store.prefix), n.store.prefix)); err != nil && !lost(err) {
				return err
			}
		case err != nil && !lost(err):
			return fmt.Errorf("%s: %w", n.link.server(), err)
		}
		if err != nil {
			last = err
		}
	}
}

// usable waits for the session's connection, and says why there is none.
func (n *session) usable(ctx context.Context) error {
	if n.store.closing.Load() {
		return dcs.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	err := n.link.await(ctx)
	if err != nil && n.store.closing.Load() {
		return dcs.ErrClosed
	}
	return err
}

// unknown is the error of a call that may have happened when one of its attempts, last, may.
func unknown(err, last error) error {
	switch {
	case errors.Is(err, dcs.ErrSessionLost) || last == nil:
		return err
	default:
		return fmt.Errorf("%w: %w", dcs.ErrUnknown, failures{err, last})
	}
}

// Close implements dcs.Session. When the servers do not answer, the session ends by itself after its TTL, as this side
// drops its connection.
func (n *session) Close(ctx context.Context) error {
	ctx, cancel := n.store.limit(ctx)
	defer cancel()
	select {
	case n.closing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-n.closing }()
	switch err := n.usable(ctx); {
	case errors.Is(err, dcs.ErrSessionLost):
		return nil
	case err != nil:
		return err
	}
	limit := n.store.config.Timeout
	if end, limited := ctx.Deadline(); limited {
		limit = time.Until(end)
	}
	stop := context.AfterFunc(ctx, n.link.cut)
	defer stop()
	if !n.link.end(errUnconfirmed, limit) {
		return fmt.Errorf("%w: %w", dcs.ErrUnknown, errUnconfirmed)
	}
	return nil
}

// bye ends the session of a link, if that takes no longer than limit, and the link in any case. It says whether the server
// has confirmed it.
func (l *link) bye(limit time.Duration) bool { return l.end(dcs.ErrClosed, limit) }

// end is bye with the reason that calls get from now on when the server has not confirmed it.
func (l *link) end(reason error, limit time.Duration) (confirmed bool) {
	defer func() {
		if confirmed {
			reason = dcs.ErrSessionLost
		}
		l.stop(reason)
	}()
	l.mu.Lock()
	up, w := l.up, l.wire
	l.mu.Unlock()
	if !up {
		return false
	}
	go l.zk.Close() // a second at most; the link's own end makes it shorter
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-l.closed:
		return true
	case <-w.broken:
	case <-l.ctx.Done():
	case <-timer.C:
	}
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// sessionID is a session as ZooKeeper's tools print it, in 16 digits.
func sessionID(id int64) string { return fmt.Sprintf("%016x", uint64(id)) }

// sessionOf finds an open session of this Store.
func (s *Store) sessionOf(id string) (*session, error) {
	if n, err := strconv.ParseUint(id, 16, 64); err != nil || n == 0 || len(id) != 16 {
		return nil, fmt.Errorf("%w: %q is no session ID; want 16 hexadecimal digits", dcs.ErrMalformed, id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.sessions[id]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("%w: this store has no open session %s", dcs.ErrSessionLost, id)
}
