package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
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
	rules  []rule
	late   []func()
}

var _ dcs.Store = (*Store)(nil)

// Fault is something that goes wrong between a Store and its Server.
type Fault int

// Faults.
const (
	// Refuse: the call fails at once and nothing happens, as when no connection can be made (ErrRefused).
	Refuse Fault = iota + 1
	// Hang: the call does not reach the server and returns when its context ends: the server accepts and never answers.
	// With a context that cannot end it never returns.
	Hang
	// Mute: as Hang, but the call was performed: the server does what it is asked, and its reply never arrives.
	Mute
	// LoseRequest: the call fails at once with dcs.ErrUnknown (reads: ErrLost), and nothing happened.
	LoseRequest
	// LoseReply: the call fails at once with dcs.ErrUnknown (reads: ErrLost), and was performed.
	LoseReply
	// Late: as LoseRequest, but the request is still under way: DeliverLate performs it, with no one to hear the outcome.
	Late
	// Stale: Read returns the keys as they were when the fault was injected. Other calls are not affected.
	Stale
)

// Errors that the contract does not define. Both say that nothing was changed by the call.
var (
	ErrRefused = errors.New("memory: connection refused")
	ErrLost    = errors.New("memory: connection lost")
)

// rule is one injected fault.
type rule struct {
	fault Fault
	left  int // 0: no limit
	calls []dcs.Call
	stale dcs.Snapshot
}

// Inject makes the next count calls of the given kinds fail as f says; with count 0 all until Clear, with no calls those
// of every kind. Calls of this Store's sessions count as well. Of several faults that apply, the one injected first
// counts, and is used up first.
func (s *Store) Inject(f Fault, count int, calls ...dcs.Call) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	r := rule{fault: f, left: count, calls: slices.Clone(calls)}
	if f == Stale {
		s.server.expire()
		r.calls = []dcs.Call{dcs.CallRead}
		r.stale = s.server.read(s.prefix)
	}
	s.rules = append(s.rules, r)
}

// Clear ends all faults. Calls that hang go on hanging, and late requests stay under way.
func (s *Store) Clear() {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.rules = nil
}

// DeliverLate performs the requests that the fault Late kept back, in the order in which they were sent, and returns
// how many there were. It works on a closed Store as well: its owner may be dead.
func (s *Store) DeliverLate() int {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.expire()
	n := len(s.late)
	for _, perform := range s.late {
		perform()
	}
	s.late = nil
	return n
}

// fault returns the fault that applies to call, or none, and uses it up. For Stale it returns the snapshot too.
func (s *Store) fault(call dcs.Call) (Fault, dcs.Snapshot) {
	for i := range s.rules {
		r := &s.rules[i]
		if len(r.calls) > 0 && !slices.Contains(r.calls, call) {
			continue
		}
		f, snap := r.fault, r.stale
		if r.left > 0 {
			if r.left--; r.left == 0 {
				s.rules = slices.Delete(s.rules, i, i+1)
			}
		}
		return f, snap
	}
	return 0, dcs.Snapshot{}
}

// do makes one call: what perform does, under the server's lock, unless a fault says otherwise. Only a Read has a use
// for stale.
func (s *Store) do(ctx context.Context, call dcs.Call, perform func() error, stale func(dcs.Snapshot)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.closed {
		return dcs.ErrClosed
	}
	s.server.expire()
	if len(s.rules) == 0 {
		return perform()
	}
	switch f, snap := s.fault(call); f {
	case Refuse:
		return ErrRefused
	case Hang, Mute:
		if f == Mute {
			_ = perform()
		}
		s.server.mu.Unlock()
		<-ctx.Done()
		s.server.mu.Lock()
		return lost(call, ctx.Err())
	case LoseRequest:
		return lost(call, ErrLost)
	case Late:
		s.late = append(s.late, func() { _ = perform() })
		return lost(call, ErrLost)
	case LoseReply:
		_ = perform()
		return lost(call, ErrLost)
	case Stale:
		stale(snap)
		return nil
	default:
		return perform()
	}
}

// lost is the error of a call whose reply did not come.
func lost(call dcs.Call, err error) error {
	if call == dcs.CallRead || call == dcs.CallWatch {
		return err
	}
	return fmt.Errorf("%w: %w", dcs.ErrUnknown, err)
}

// Read implements dcs.Store. The values are the caller's to change.
func (s *Store) Read(ctx context.Context) (dcs.Snapshot, error) {
	var snap dcs.Snapshot
	err := s.do(ctx, dcs.CallRead, func() error {
		snap = s.server.read(s.prefix)
		return nil
	}, func(stale dcs.Snapshot) {
		for _, it := range stale.Items {
			it.Value = bytes.Clone(it.Value)
			snap.Items = append(snap.Items, it)
		}
	})
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
