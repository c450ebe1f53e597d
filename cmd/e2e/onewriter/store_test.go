package onewriter

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// TestStoreFrozen: a store that answers nobody for two ttl, with all members up and with one replica just lost. Without
// failsafe the leader demotes itself once and somebody leads again afterwards, and nothing that was acknowledged is lost.
// With failsafe no writer notices.
func TestStoreFrozen(t *testing.T) {
	for _, c := range []struct {
		name                  string // short and plain: it is part of the path of a socket
		failsafe, replicaDown bool
	}{
		{"Plain", false, false}, {"PlainReplicaDown", false, true}, {"Failsafe", true, false}, {"FailsafeReplicaDown", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testStoreFrozen(t, c.failsafe, c.replicaDown)
		})
	}
}

func testStoreFrozen(t *testing.T, failsafe, replicaDown bool) {
	t.Helper()
	f := unprivileged()
	o := f.options(t)
	terms := 2 // one until the deadline, one after the store answers again
	if failsafe {
		o.DCS = times + "true"
		terms = 1
	}
	field := newField(t, o, f)
	var silences []time.Duration
	for range counted(t, 20, 1) {
		s := field.freezeStore(t, replicaDown)
		require.Len(t, s.spans, terms, "terms")
		require.Zero(t, s.overlap)
		require.Zero(t, s.lost, "acknowledged writes that are lost")
		if failsafe {
			require.Less(t, s.silence, time.Second, "time without acknowledgements")
		}
		silences = append(silences, s.silence)
	}
	slices.Sort(silences)
	t.Logf("%d outages of the store; longest time without an acknowledgement: median %v, maximum %v", len(silences), silences[len(silences)/2], silences[len(silences)-1])
}

// frozen is what an outage of the store did to the writers.
type frozen struct {
	verdict
	lost int
}

// freezeStore freezes the store for two ttl, with a replica just lost or not.
func (f *field) freezeStore(t *testing.T, replicaDown bool) frozen {
	t.Helper()
	dice := dice(t.Name())
	leader := f.leader(30 * time.Second)
	require.NotNil(t, leader)
	from := f.load.forget()
	pause(context.Background(), between(dice, 500*time.Millisecond, 500*time.Millisecond+loopWait))
	if replicaDown {
		f.c.Others(leader)[0].Lose()
		pause(context.Background(), between(dice, 0, ttl))
	}
	began := time.Now()
	rig.FreezeAll(f.c.Store)
	pause(context.Background(), 2*ttl)
	rig.ThawAll(f.c.Store)
	thawed := time.Now()
	rig.Eventually(t, newTerm, "somebody acknowledges", func() bool {
		n := f.c.Leader()
		if n == nil {
			return false
		}
		a, ok := f.load.last(n)
		return ok && a.at.After(thawed)
	})
	pause(context.Background(), ttl) // what the store's return sets off is over
	acks := f.load.record()
	f.heal()
	leader = f.leader(60 * time.Second)
	require.NotNil(t, leader, "all is well again")
	s := frozen{verdict: judge(acks, began, nil)}
	var err error
	s.lost, err = f.lost(leader, acks, from)
	require.NoError(t, err)
	t.Logf("%d terms, longest time without an acknowledgement %v, %d writes lost", len(s.spans), s.silence, s.lost)
	return s
}
