package dcstest

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
)

// world is one memory server for one case, and the harness for it. Its network is made of the faults of its Stores.
type world struct {
	srv   *memory.Server
	clock *memory.ManualClock
	h     Harness

	mu     sync.Mutex
	stores map[*memory.Store]bool // that Open made and nobody closed
	fault  func(*memory.Store)    // what newly opened ones get; nil for nothing
	slow   time.Duration
	lossy  bool // one answer to a Commit in five is lost
}

func newWorld() *world {
	clock := memory.NewManualClock()
	w := &world{srv: memory.NewServer(clock), clock: clock, stores: make(map[*memory.Store]bool)}
	hook := func(f memory.Fault) func(testing.TB) func() {
		return func(testing.TB) func() { return w.inject(f, 0) }
	}
	w.h = Harness{
		Open:    func(_ testing.TB, prefix string) dcs.Store { return w.open(prefix) },
		Direct:  func(_ testing.TB, prefix string) dcs.Store { return w.srv.Open(prefix) },
		Block:   hook(memory.Hang),
		Mute:    hook(memory.Mute),
		Refuse:  hook(memory.Refuse),
		Disturb: w.disturb,
		Restart: func(testing.TB) { w.srv.Restart() },
		LoseLeader: func(testing.TB) func() {
			w.srv.Restart()
			return w.inject(memory.LoseReply, 1)
		},
		Connections: func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.stores)
		},
		Advance:         clock.Advance,
		Patience:        400 * time.Millisecond,
		RestartPatience: 400 * time.Millisecond,
		StallPatience:   2 * time.Second,
		Effort:          200 * time.Millisecond,
		Sessions:        200,
	}
	return w
}

// inject puts a fault into all Stores, also those opened later, until undo is called.
func (w *world) inject(f memory.Fault, count int) (undo func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = func(s *memory.Store) { s.Inject(f, count) }
	for s := range w.stores {
		w.fault(s)
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fault = nil
		for s := range w.stores {
			s.Clear()
		}
	}
}

func (w *world) disturb(_ testing.TB, trouble Trouble) (undo func()) {
	slowly := func(d time.Duration) func() {
		w.setSlow(d)
		return func() { w.setSlow(0) }
	}
	switch trouble {
	case Slow:
		return slowly(slowness)
	case Thin:
		return slowly(slowness / 4)
	case Deaf:
		return w.inject(memory.Hang, 0)
	case Lossy:
		w.setLossy(true)
		return func() { w.setLossy(false) }
	case Stalled:
		return w.inject(memory.Hang, 1)
	default:
		return w.inject(memory.LoseReply, 1)
	}
}

func (w *world) setSlow(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slow = d
}

// open makes a Store whose answers may be slow.
func (w *world) open(prefix string) dcs.Store {
	s := w.srv.Open(prefix)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stores[s] = true
	if w.fault != nil {
		w.fault(s)
	}
	return &broken{
		Store: s,
		read: func(ctx context.Context) (dcs.Snapshot, error) {
			snap, err := s.Read(ctx)
			return snap, w.late(ctx, err, ctx.Err)
		},
		commit: func(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
			r, err := s.Commit(ctx, txn)
			if err == nil && w.loses() {
				return dcs.Result{}, dcs.ErrUnknown
			}
			return r, w.late(ctx, err, unknown)
		},
		session: func(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
			ses, err := s.OpenSession(ctx, ttl)
			if err = w.late(ctx, err, unknown); err != nil {
				return nil, err
			}
			return &brokenSession{
				Session: ses,
				renew:   func(ctx context.Context) error { return w.late(ctx, ses.Renew(ctx), unknown) },
				closing: func(ctx context.Context) error { return w.late(ctx, ses.Close(ctx), unknown) },
			}, nil
		},
		closing: func() error {
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.stores, s)
			return s.Close()
		},
	}
}

func (w *world) setLossy(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lossy = on
}

func (w *world) loses() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lossy && rand.IntN(5) == 0
}

func unknown() error { return dcs.ErrUnknown }

// late holds an answer back. When ctx ends before, the answer is what gaveUp says.
func (w *world) late(ctx context.Context, err error, gaveUp func() error) error {
	w.mu.Lock()
	d := w.slow
	w.mu.Unlock()
	if d == 0 || ctx.Err() != nil {
		return err
	}
	select {
	case <-time.After(d):
		return err
	case <-ctx.Done():
		return gaveUp()
	}
}

// wrap puts every Store that the harness opens into a wrapper.
func (w *world) wrap(around func(s dcs.Store, prefix string) dcs.Store) {
	open := w.h.Open
	w.h.Open = func(t testing.TB, prefix string) dcs.Store {
		t.Helper()
		return around(open(t, prefix), prefix)
	}
}
