package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pgregent/pgregent/dcs"
)

// Fault is something that goes wrong between a Store and its Server.
type Fault int

// Faults.
const (
	// Refuse: the call fails at once and nothing happens, as when no connection can be made (ErrRefused).
	Refuse Fault = iota + 1
	// Hang: the call does not reach the server and returns when its context ends, or with Clear: the server accepts and
	// never answers. With a context that cannot end only Clear helps.
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

// faults are what was injected into a Store or a Server. Guarded by the lock of the server.
type faults struct {
	rules []rule
	hung  chan struct{} // closed by clear, for the calls that hang now; nil when there were none since
}

// rule is one injected fault.
type rule struct {
	fault Fault
	left  int // 0: no limit
	calls []dcs.Call
	stale []entry
}

// next returns the fault that applies to call, or 0, and uses it up. For Stale it returns the old keys too.
func (f *faults) next(call dcs.Call) (Fault, []entry) {
	for i := range f.rules {
		r := &f.rules[i]
		if len(r.calls) > 0 && !slices.Contains(r.calls, call) {
			continue
		}
		fault, stale := r.fault, r.stale
		if r.left > 0 {
			if r.left--; r.left == 0 {
				f.rules = slices.Delete(f.rules, i, i+1)
			}
		}
		return fault, stale
	}
	return 0, nil
}

func (f *faults) clear() {
	f.rules = nil
	if f.hung != nil {
		close(f.hung)
		f.hung = nil
	}
}

// hang lets go of the lock and waits until ctx ends or f is cleared.
func (s *Server) hang(ctx context.Context, f *faults) error {
	if f.hung == nil {
		f.hung = make(chan struct{})
	}
	cleared := f.hung
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-cleared:
		return ErrLost
	}
}

// Inject makes the next count calls of the given kinds fail as f says; with count 0 all until Clear, with no calls those
// of every kind. Calls of this Store's sessions count as well. Of several faults that apply, the one injected first
// counts, and is used up first.
func (s *Store) Inject(f Fault, count int, calls ...dcs.Call) {
	s.server.inject(&s.faults, f, count, calls)
}

// Clear ends all faults of this Store. Calls that hang return as if their connection were cut; late requests stay under
// way.
func (s *Store) Clear() {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.faults.clear()
}

// Inject is Store.Inject for the calls of all Stores, also of those that are opened later. A fault of the Store itself
// comes first.
func (s *Server) Inject(f Fault, count int, calls ...dcs.Call) {
	s.inject(&s.faults, f, count, calls)
}

func (s *Server) inject(to *faults, f Fault, count int, calls []dcs.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := rule{fault: f, left: count, calls: slices.Clone(calls)}
	if f == Stale {
		s.expire()
		r.calls, r.stale = []dcs.Call{dcs.CallRead}, slices.Clone(s.entries)
	}
	to.rules = append(to.rules, r)
}

// Clear ends the faults that were injected into the Server; those of its Stores stay.
func (s *Server) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.clear()
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

// lost is the error of a call whose reply did not come.
func lost(call dcs.Call, err error) error {
	if call == dcs.CallRead || call == dcs.CallWatch {
		return err
	}
	return fmt.Errorf("%w: %w", dcs.ErrUnknown, err)
}
