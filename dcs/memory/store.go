package memory

import (
	"context"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// Store is one client of a Server: one prefix, and faults of its own. It is safe for concurrent use.
//
// Bound keys may name any live session of the Server, also one that another Store opened.
type Store struct {
	server *Server
	prefix string

	// Guarded by server.mu.
	closed bool
	faults faults
	late   []func()
}

var _ dcs.Store = (*Store)(nil)

// do makes one call: what perform does, under the server's lock, unless a fault says otherwise. Only a Read has a use
// for stale.
func (s *Store) do(ctx context.Context, call dcs.Call, perform func() error, stale func([]entry)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.closed {
		return dcs.ErrClosed
	}
	s.server.expire()
	from := &s.faults
	f, old := from.next(call)
	if f == 0 {
		from = &s.server.faults
		f, old = from.next(call)
	}
	switch f {
	case 0:
		return perform()
	case Refuse:
		return ErrRefused
	case Hang, Mute:
		if f == Mute {
			_ = perform()
		}
		return lost(call, s.server.hang(ctx, from))
	case LoseRequest:
		return lost(call, ErrLost)
	case Late:
		s.late = append(s.late, func() { _ = perform() })
		return lost(call, ErrLost)
	case LoseReply:
		_ = perform()
		return lost(call, ErrLost)
	case Stale:
		stale(old)
		return nil
	default:
		return fmt.Errorf("memory: there is no fault %d", f)
	}
}

// Read implements dcs.Store. The values are the caller's to change.
func (s *Store) Read(ctx context.Context) (dcs.Snapshot, error) {
	var snap dcs.Snapshot
	err := s.do(ctx, dcs.CallRead, func() error {
		snap = read(s.server.entries, s.prefix)
		return nil
	}, func(old []entry) { snap = read(old, s.prefix) })
	if err != nil {
		return dcs.Snapshot{}, err
	}
	return snap, nil
}

// Commit implements dcs.Store.
func (s *Store) Commit(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
	if err := txn.Validate(); err != nil {
		return dcs.Result{}, err
	}
	if err := s.Limits().Check(txn); err != nil {
		return dcs.Result{}, err
	}
	var r dcs.Result
	err := s.do(ctx, dcs.CallCommit, func() (err error) {
		r, err = s.server.commit(s.prefix, txn)
		return err
	}, nil)
	if err != nil {
		return dcs.Result{}, err
	}
	return r, nil
}

// Watch implements dcs.Store.
func (s *Store) Watch(ctx context.Context, keys ...string) (<-chan struct{}, error) {
	var c <-chan struct{}
	err := s.do(ctx, dcs.CallWatch, func() error {
		c = s.server.watch(ctx, s.prefix, keys)
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// OpenSession implements dcs.Store.
func (s *Store) OpenSession(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
	var opened *Session
	err := s.do(ctx, dcs.CallOpenSession, func() error {
		ses := s.server.open(ttl)
		opened = &Session{store: s, id: ses.id, ttl: ses.ttl}
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// Limits implements dcs.Store.
func (s *Store) Limits() dcs.Limits {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	return s.server.limits
}

// Close implements dcs.Store. Its watches go on until their contexts end.
func (s *Store) Close() error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.closed = true
	return nil
}

// Session is one session of a Store, subject to the faults of that Store.
type Session struct {
	store *Store
	id    string
	ttl   time.Duration
}

var _ dcs.Session = (*Session)(nil)

// ID implements dcs.Session.
func (s *Session) ID() string { return s.id }

// TTL implements dcs.Session.
func (s *Session) TTL() time.Duration { return s.ttl }

// Renew implements dcs.Session.
func (s *Session) Renew(ctx context.Context) error {
	return s.store.do(ctx, dcs.CallRenew, func() error { return s.store.server.renew(s.id) }, nil)
}

// Close implements dcs.Session.
func (s *Session) Close(ctx context.Context) error {
	return s.store.do(ctx, dcs.CallCloseSession, func() error {
		s.store.server.end(s.id)
		s.store.server.arm()
		return nil
	}, nil)
}
