package onewriter

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// TestStoreFrozen: a store that answers nobody for two ttl. Without failsafe the leader demotes itself once and somebody
// leads again afterwards, and nothing that was acknowledged is lost. With failsafe nobody notices.
func TestStoreFrozen(t *testing.T) {
	f := unprivileged()
	t.Run("WithoutFailsafe", func(t *testing.T) {
		t.Parallel()
		field := newField(t, f.options(t), f)
		s := field.freezeStore(t, false)
		require.Len(t, s.spans, 2, "terms: one until the deadline, one after the store answers again")
		require.Zero(t, s.overlap)
		require.Zero(t, s.lost, "acknowledged writes that are lost")
	})
	o := f.options(t)
	o.DCS = times + "true"
	t.Run("WithFailsafe", func(t *testing.T) { testFailsafe(t, o, f, false) })
	t.Run("WithFailsafeAndReplicaDown", func(t *testing.T) { testFailsafe(t, o, f, true) })
}

func testFailsafe(t *testing.T, o rig.Options, f form, replicaDown bool) {
	t.Helper()
	t.Parallel()
	field := newField(t, o, f)
	s := field.freezeStore(t, replicaDown)
	require.Len(t, s.spans, 1, "terms")
	require.Less(t, s.silence, time.Second, "time without acknowledgements")
	require.Zero(t, s.lost)
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
	f.c.Store.Freeze(0)
	pause(context.Background(), 2*ttl)
	f.c.Store.Thaw(0)
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
