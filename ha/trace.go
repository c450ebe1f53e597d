package ha

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
)

// tracer cuts the time between two steady states into phases. The loop tells it the reason of each decision, tasks tell
// it their steps. It decides nothing.
type tracer struct {
	clock func() time.Duration // monotonic

	mu      sync.Mutex
	from    policy.Reason // the steady state before; empty: the agent has just started
	open    bool
	began   time.Duration
	wall    time.Time
	phase   string
	since   time.Duration
	phases  []rest.Phase
	seen    map[string]bool // reasons and steps
	history []rest.Operation
	times   map[string]rest.Histogram // by the name of the metric, with its labels
}

const tracesKept = 50

// steady are the reasons of decisions that end an operation.
func steady(r policy.Reason) bool {
	switch r {
	case policy.ReasonLeader, policy.ReasonFollower, policy.ReasonPaused, policy.ReasonPausedLeader, policy.ReasonStopped, policy.ReasonScheduled,
		policy.ReasonUnfit, policy.ReasonFailsafe, policy.ReasonPromised:
		return true
	}
	return false
}

// traced tells the tracer what was decided, unless a task runs, which tells its steps itself.
func (n *Node) traced(v policy.View, d policy.Decision) *rest.Operation {
	if n.task != nil && !n.task.over {
		return nil
	}
	released := d.Reason == policy.ReasonTaking && v.Lease.Present && !v.Lease.Held
	op := n.trace.decided(d.Reason, released, v.Lease.Epoch)
	if op != nil {
		n.counters.add(fmt.Sprintf("operations_total{operation=%q,result=%q}", op.Kind, op.Result), 1)
	}
	return op
}

// decided is told the reason of every decision that no task runs beside. It returns the operation that ended with it.
func (t *tracer) decided(r policy.Reason, released bool, epoch uint64) *rest.Operation {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !steady(r) {
		t.step(string(r))
		if released {
			t.seen["released"] = true
		}
		return nil
	}
	if !t.open {
		t.from = r
		return nil
	}
	t.end()
	op := rest.Operation{Kind: t.kind(r), Began: t.wall, Took: t.clock() - t.began, Result: string(r), Epoch: epoch, Phases: t.phases}
	t.open, t.from, t.phases, t.seen, t.phase = false, r, nil, nil, ""
	if len(t.history) == tracesKept {
		t.history = slices.Delete(t.history, 0, 1)
	}
	t.history = append(t.history, op)
	t.count(fmt.Sprintf("operation_seconds{operation=%q}", op.Kind), op.Took)
	for _, p := range op.Phases {
		t.count(fmt.Sprintf("phase_seconds{operation=%q,phase=%q}", op.Kind, p.Name), p.Took)
	}
	return &op
}

// begin is told the step of a task that begins now.
func (t *tracer) begin(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step(name)
}

// step ends the phase before. The same name again goes on with it.
func (t *tracer) step(name string) {
	now := t.clock()
	if !t.open {
		t.open, t.began, t.wall, t.seen = true, now, time.Now(), map[string]bool{}
	}
	t.seen[name] = true
	if name == t.phase {
		return
	}
	t.end()
	t.phase, t.since = name, now
}

func (t *tracer) end() {
	if t.phase != "" {
		t.phases = append(t.phases, rest.Phase{Name: t.phase, Took: t.clock() - t.since})
	}
}

// kind says what an operation was that ends with r; see rest.Operation.
func (t *tracer) kind(r policy.Reason) string {
	leads := func(r policy.Reason) bool {
		return r == policy.ReasonLeader || r == policy.ReasonPausedLeader || r == policy.ReasonScheduled
	}
	saw := func(reasons ...policy.Reason) bool {
		return slices.ContainsFunc(reasons, func(r policy.Reason) bool { return t.seen[string(r)] })
	}
	switch {
	case r == policy.ReasonStopped:
		return "stop"
	case saw(policy.ReasonBootstrapping):
		return "bootstrap"
	case t.from == "":
		return "start"
	case leads(t.from) && leads(r):
		return "restart"
	case leads(r) && t.seen["released"]:
		return "switchover"
	case leads(r):
		return "failover"
	case leads(t.from) && t.seen[stepRelease]:
		return "handover"
	case leads(t.from):
		return "demotion"
	case saw(policy.ReasonRejoining, policy.ReasonCloning, policy.ReasonDiverged, policy.ReasonRestarting):
		return "rejoin"
	}
	return "repoint"
}

// bounds of the histograms, in seconds.
func bounds() []float64 { return []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60} }

func (t *tracer) count(name string, took time.Duration) {
	if t.times == nil {
		t.times = map[string]rest.Histogram{}
	}
	h, ok := t.times[name]
	if !ok {
		h = rest.Histogram{Bounds: bounds(), Counts: make([]uint64, len(bounds())+1)}
	}
	i, _ := slices.BinarySearch(h.Bounds, took.Seconds())
	h.Counts[i]++
	h.Sum += took.Seconds()
	t.times[name] = h
}

// histograms are how long operations and their phases took so far, as Report has them.
func (t *tracer) histograms() map[string]rest.Histogram {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := maps.Clone(t.times)
	for name, h := range out {
		h.Counts = slices.Clone(h.Counts)
		out[name] = h
	}
	return out
}

// operations are the last ones, oldest first.
func (t *tracer) operations() []rest.Operation {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.history)
}

// Steps of tasks, as phases are named.
const (
	stepCheckpoint = "checkpoint"
	stepBeforeStop = "before-stop" // the script
	stepStop       = "stop"
	stepRelease    = "release"
	stepRest       = "rest" // what is left of a server whose lease has been released: archiver, walsenders
	stepConfigure  = "configure"
	stepStart      = "start"
	stepAccept     = "accept"
	stepPromote    = "promote"
	stepSetAside   = "set-aside"
	stepRewind     = "rewind"
	stepLook       = "look" // after a task, at what it did
)
