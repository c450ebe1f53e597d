package dcs

import (
	"errors"
	"sync/atomic"
	"time"
)

// Call names a kind of call to a Store or a Session, as a metric label: lower case, underscores.
type Call string

// Calls. Limits and Store.Close are local and not counted.
const (
	CallRead         Call = "read"
	CallCommit       Call = "commit"
	CallWatch        Call = "watch"
	CallOpenSession  Call = "open_session"
	CallRenew        Call = "renew"
	CallCloseSession Call = "close_session"
)

// Outcome is how a call ended, as a metric label: lower case, underscores.
type Outcome string

// Outcomes.
const (
	OutcomeDone        Outcome = "done"
	OutcomeConflict    Outcome = "conflict"     // ErrConflict
	OutcomeSessionLost Outcome = "session_lost" // ErrSessionLost
	OutcomeUnknown     Outcome = "unknown"      // ErrUnknown
	OutcomeFailed      Outcome = "failed"       // any other error
)

// Stats is what a Client counted since it was made.
type Stats struct {
	// Calls has an entry for every Call, also for those that were never made.
	Calls map[Call]CallStats
}

// CallStats is the counters of one kind of call.
type CallStats struct {
	// Outcomes has an entry for every Outcome, also for those that never came.
	Outcomes map[Outcome]uint64

	// Abandoned is how many of the calls did not return when their context had ended, so that the Client went on without
	// them. They are in Outcomes as well, as unknown or failed. Other than 0, it is a bug of the backend.
	Abandoned uint64

	// Latency is the time the calls took, whatever their outcome. Calls that were refused before the backend was asked
	// are not in it.
	Latency Latency
}

// Latency is a histogram.
type Latency struct {
	// Bounds are the inclusive upper bounds of the buckets, ascending; the last bucket has none.
	Bounds []time.Duration
	// Counts has one more entry than Bounds; each call is counted in one bucket only.
	Counts []uint64
	// Sum is the time of all calls together.
	Sum time.Duration
	// Max is the longest call.
	Max time.Duration
}

// Count is the number of calls in the histogram.
func (l Latency) Count() uint64 {
	var n uint64
	for _, c := range l.Counts {
		n += c
	}
	return n
}

const (
	buckets    = 15                     // bounds from firstBound, each twice the one before: 250 µs to 4.1 s
	firstBound = 250 * time.Microsecond // a store in the same rack answers in about 1 ms
)

// counters are a Client's: indexed by callIndex and outcomeIndex.
type counters [6]callCounters

type callCounters struct {
	outcomes  [5]atomic.Uint64
	abandoned atomic.Uint64
	counts    [buckets + 1]atomic.Uint64
	sum, max  atomic.Int64
}

func calls() [6]Call {
	return [...]Call{CallRead, CallCommit, CallWatch, CallOpenSession, CallRenew, CallCloseSession}
}

func outcomes() [5]Outcome {
	return [...]Outcome{OutcomeDone, OutcomeConflict, OutcomeSessionLost, OutcomeUnknown, OutcomeFailed}
}

func (c *counters) of(call Call) *callCounters {
	for i, other := range calls() {
		if other == call {
			return &c[i]
		}
	}
	return &c[0] // not reached: every Call is in calls()
}

func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return OutcomeDone
	case errors.Is(err, ErrUnknown): // first: unknown wins over whatever else was wrapped with it
		return OutcomeUnknown
	case errors.Is(err, ErrConflict):
		return OutcomeConflict
	case errors.Is(err, ErrSessionLost):
		return OutcomeSessionLost
	default:
		return OutcomeFailed
	}
}

func (c *callCounters) count(o Outcome) {
	for i, other := range outcomes() {
		if other == o {
			c.outcomes[i].Add(1)
		}
	}
}

// refuse counts a call that was not made.
func (c *counters) refuse(call Call) { c.of(call).count(OutcomeFailed) }

// end counts a call that was made.
func (c *counters) end(call Call, o Outcome, abandoned bool, took time.Duration) {
	cc := c.of(call)
	cc.count(o)
	if abandoned {
		cc.abandoned.Add(1)
	}
	took = max(took, 0)
	cc.sum.Add(int64(took))
	for old := cc.max.Load(); int64(took) > old && !cc.max.CompareAndSwap(old, int64(took)); {
		old = cc.max.Load()
	}
	i := 0
	for bound := firstBound; i < buckets && took > bound; i++ {
		bound *= 2
	}
	cc.counts[i].Add(1)
}

func (c *counters) snapshot() Stats {
	s := Stats{Calls: make(map[Call]CallStats, len(c))}
	for i, call := range calls() {
		s.Calls[call] = c[i].snapshot()
	}
	return s
}

func (c *callCounters) snapshot() CallStats {
	cs := CallStats{
		Outcomes:  make(map[Outcome]uint64, len(c.outcomes)),
		Abandoned: c.abandoned.Load(),
		Latency: Latency{
			Bounds: make([]time.Duration, buckets),
			Counts: make([]uint64, buckets+1),
			Sum:    time.Duration(c.sum.Load()),
			Max:    time.Duration(c.max.Load()),
		},
	}
	for i, o := range outcomes() {
		cs.Outcomes[o] = c.outcomes[i].Load()
	}
	for i := range cs.Latency.Bounds {
		cs.Latency.Bounds[i] = firstBound << i
	}
	for i := range cs.Latency.Counts {
		cs.Latency.Counts[i] = c.counts[i].Load()
	}
	return cs
}
