package onewriter

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// span is when a term acknowledged.
type span struct {
	term        term
	first, last time.Time
	acks        int
	exempt      time.Time // the last one that the named exception covers; zero: none
}

// verdict is what the acknowledgements of one run say.
type verdict struct {
	overlap time.Duration // of terms on different nodes; 0 is what must be
	exempt  time.Duration // the same, of what the named exception covers alone
	spans   []span        // by their first acknowledgement
	silence time.Duration // the longest time without any acknowledgement after the fault
}

// judge compares terms on different nodes: of two, all acknowledgements of the one that began earlier come before the
// first one of the other (invariant I1). inFlight says which acknowledgements the named exception covers; nil: none.
func judge(acks []ack, fault time.Time, inFlight func(ack) bool) verdict {
	var v verdict
	at := map[term]int{}
	previous := fault
	for _, a := range acks { // by time
		i, known := at[a.term]
		if !known {
			i = len(v.spans)
			at[a.term] = i
			v.spans = append(v.spans, span{term: a.term, first: a.at, last: a.at})
		}
		s := &v.spans[i]
		s.acks++
		if inFlight != nil && inFlight(a) {
			s.exempt = a.at
		} else {
			s.last = a.at
		}
		if a.at.After(fault) {
			v.silence = max(v.silence, a.at.Sub(previous))
			previous = a.at
		}
	}
	for i, earlier := range v.spans {
		for _, later := range v.spans[i+1:] {
			if earlier.term.node != later.term.node {
				v.overlap = max(v.overlap, earlier.last.Sub(later.first))
				if !earlier.exempt.IsZero() {
					v.exempt = max(v.exempt, earlier.exempt.Sub(later.first))
				}
			}
		}
	}
	return v
}

// TestJudge: a judge that sees no overlap where there is one would make every run pass.
func TestJudge(t *testing.T) {
	zero := time.Now()
	a, b := term{new(rig.Node), "1"}, term{new(rig.Node), "1"}
	again := term{a.node, "2"}
	list := func(acks ...ack) []ack {
		slices.SortFunc(acks, func(x, y ack) int { return cmp.Compare(x.at.UnixNano(), y.at.UnixNano()) })
		return acks
	}
	at := func(t term, ms int) ack {
		when := zero.Add(time.Duration(ms) * time.Millisecond)
		return ack{sent: when.Add(-time.Millisecond), at: when, term: t}
	}
	v := judge(list(at(a, 1), at(a, 2), at(b, 10), at(b, 11)), zero, nil)
	require.Zero(t, v.overlap)
	require.Equal(t, 8*time.Millisecond, v.silence)
	require.Len(t, v.spans, 2)

	v = judge(list(at(a, 1), at(b, 10), at(a, 13), at(b, 20)), zero, nil)
	require.Equal(t, 3*time.Millisecond, v.overlap)

	v = judge(list(at(a, 1), at(again, 5), at(a, 6), at(b, 10)), zero, nil)
	require.Zero(t, v.overlap, "terms of one node are one writer")

	v = judge(list(at(a, 1), at(b, 10), at(again, 13), at(b, 20)), zero, nil)
	require.Equal(t, 7*time.Millisecond, v.overlap, "a server that writes again, started by hand")

	late := at(a, 13)
	late.sent = zero
	v = judge(list(at(a, 1), at(b, 10), late), zero, func(x ack) bool { return x == late })
	require.Zero(t, v.overlap)
	require.Equal(t, 3*time.Millisecond, v.exempt)
}
