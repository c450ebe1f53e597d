// Package callbacks makes the outside agree with a change: move a DNS name, a virtual IP, a label. A node calls its
// Callbacks when its PostgreSQL changed its role or state.
//
// Callbacks run beside the node and never on its way: not before a promotion, not on the path of a fence (hazard E4).
// They are told what happened; they decide nothing, and their failure is logged and changes nothing.
package callbacks

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Action is what happened (reference section 5.23).
type Action string

// Actions.
const (
	OnStart      Action = "on_start"
	OnStop       Action = "on_stop"
	OnRestart    Action = "on_restart"
	OnReload     Action = "on_reload"
	OnRoleChange Action = "on_role_change"
)

// Event is one change of one member.
type Event struct {
	Action Action
	Role   string // primary, replica, demoted
	Scope  string // the cluster's name
	Member string
	// Epoch is the lease epoch under which the member is primary, 0 otherwise. It only grows, so a receiver can refuse
	// an event that is older than one it has seen.
	Epoch uint64
}

// Callback is told of events, never two at a time. ctx ends when a newer event replaces this one, or the node ends.
type Callback interface {
	// Apply makes the outside agree with e. An error is logged and changes nothing.
	Apply(ctx context.Context, e Event) error
}

// Func is a Callback made of a function.
type Func func(ctx context.Context, e Event) error

// Apply calls f.
func (f Func) Apply(ctx context.Context, e Event) error { return f(ctx, e) }

// Runner calls callbacks beside the caller, in order of registration and one event at a time. A newer event ends the one
// that is still being applied, and of several that wait only the newest is applied; reloads have a slot of their own
// with the same rule (reference section 5.23).
type Runner struct {
	all  []Callback
	log  *slog.Logger
	done sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	changes slot
	reloads slot
}

// slot is what is applied now, and what comes after it.
type slot struct {
	busy   bool
	cancel context.CancelFunc
	next   *Event
}

// NewRunner returns a Runner. log nil discards.
func NewRunner(all []Callback, log *slog.Logger) *Runner {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Runner{all: all, log: log}
}

// Call hands an event over and returns at once.
func (r *Runner) Call(e Event) {
	if len(r.all) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	s := r.slot(e)
	s.next = &e
	if s.busy {
		s.cancel()
		return
	}
	s.busy = true
	r.advance(s)
}

func (r *Runner) slot(e Event) *slot {
	if e.Action == OnReload {
		return &r.reloads
	}
	return &r.changes
}

// advance starts what comes next in a slot that was marked busy. The mutex is held.
func (r *Runner) advance(s *slot) {
	e := *s.next
	s.next = nil
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	r.done.Go(func() {
		r.apply(ctx, e)
		cancel()
		r.mu.Lock()
		defer r.mu.Unlock()
		if s.next == nil {
			s.busy = false
			return
		}
		r.advance(s)
	})
}

func (r *Runner) apply(ctx context.Context, e Event) {
	for _, c := range r.all {
		if err := c.Apply(ctx, e); err != nil {
			r.log.Warn("callback failed", "action", string(e.Action), "role", e.Role, "error", err)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// Close takes no more events, lets what is being applied and what waits come to its end for at most grace (the last event
// of a node is that its server stopped, and something outside may depend on it), then ends it, and returns when nothing
// runs any more.
func (r *Runner) Close(grace time.Duration) {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	timer := time.AfterFunc(grace, r.end)
	defer timer.Stop()
	r.done.Wait()
}

// end drops what waits and ends what is being applied.
func (r *Runner) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range []*slot{&r.changes, &r.reloads} {
		s.next = nil
		if s.busy {
			s.cancel()
		}
	}
}
