package dcs_test

import (
	"fmt"
	"math/bits"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
)

func TestQuorums(t *testing.T) {
	for n, want := range [][2]int{1: {1, 1}, 2: {2, 1}, 3: {2, 2}, 4: {3, 2}, 5: {3, 3}} {
		if n == 0 {
			require.Zero(t, dcs.List{}.Votes())
			continue
		}
		l := dcs.List{Members: []string{"a", "b", "c", "d", "e"}[:n]}
		require.Equal(t, want, [2]int{l.Promises(), l.Votes()}, "%d members", n)
		l.Unanimous = true
		require.Equal(t, [2]int{n, 1}, [2]int{l.Promises(), l.Votes()}, "%d members, all", n)
	}
	// Every set of promises that suffices meets every set of votes that does.
	for n := 1; n <= 5; n++ {
		for _, all := range []bool{false, true} {
			l := dcs.List{Members: []string{"a", "b", "c", "d", "e"}[:n], Unanimous: all}
			for p := range uint(1 << n) {
				for v := range uint(1 << n) {
					if bits.OnesCount(p) >= l.Promises() && bits.OnesCount(v) >= l.Votes() {
						require.NotZero(t, p&v)
					}
				}
			}
		}
	}
}

// holding is a holder h and a taker k, with the list that the holder was given.
func holding(t *testing.T, list ...string) (*memory.ManualClock, *member, *member) {
	clock := memory.NewManualClock()
	srv := memory.NewServer(clock)
	h, k := newMember(t, clock, srv, "h", "nonce-h"), newMember(t, clock, srv, "k", "nonce-k")
	require.NoError(t, h.take(true))
	h.lease.SetFailsafe(true, 0)
	k.lease.SetFailsafe(true, 0)
	h.lease.WantMembers(dcs.List{Members: list})
	for !h.lease.ListSettled() {
		h.look()
		_, err := h.renew(ttl)
		require.NoError(t, err)
	}
	h.look()
	k.look()
	return clock, h, k
}

func (m *member) list() dcs.List {
	r, _, _, _ := m.lease.Record()
	return r.List()
}

func TestListChangesOneAtATime(t *testing.T) {
	clock := memory.NewManualClock()
	h := newMember(t, clock, memory.NewServer(clock), "h", "n")
	require.NoError(t, h.take(true))
	var seen []string
	step := func(want dcs.List) {
		h.lease.WantMembers(want)
		for range 10 {
			if h.lease.ListSettled() {
				return
			}
			_, err := h.renew(ttl)
			require.NoError(t, err)
			seen = append(seen, h.list().String())
		}
		t.Fatal("the list does not settle")
	}
	step(dcs.List{Members: []string{"h", "b", "a"}})
	step(dcs.List{Members: []string{"c", "h", "b"}})
	step(dcs.List{Members: []string{"b", "c", "h", "p"}, Unanimous: true})
	step(dcs.List{Members: []string{"b", "c", "h"}})
	step(dcs.List{})
	require.Equal(t, []string{
		"h", "a, h", "a, b, h", "a, b, c, h", "b, c, h", "b, c, h, p (all)", "b, c, h", "c, h", "h", "",
	}, seen)
}

func TestPromisesLengthenTheDeadline(t *testing.T) {
	clock, h, _ := holding(t, "h", "k", "x")
	before := h.lease.Deadline()
	clock.Advance(4 * time.Second)
	r, err := h.lease.Round(clock.Now(), ttl)
	require.NoError(t, err)
	require.Equal(t, []string{"k", "x"}, r.Members)
	require.Equal(t, "nonce-h", r.Request.Nonce)
	sent := clock.Now()
	clock.Advance(time.Second)
	require.Zero(t, h.lease.SettleRound(r), "one of three is too few")
	require.Equal(t, before, h.lease.Deadline())
	r.Accepted("x")
	require.Zero(t, h.lease.SettleRound(r), "consent without a memory does not count in a list of majorities")
	r.Promised("k")
	require.True(t, r.Enough())
	require.Equal(t, []string{"h", "k", "x"}, r.Yes())
	require.Equal(t, sent+dcs.Validity(ttl), h.lease.SettleRound(r), "from before the first question")
	require.Zero(t, h.lease.SettleRound(r), "twice gives nothing more")
	r2, err := h.lease.Round(clock.Now(), 3*time.Second)
	require.NoError(t, err)
	r2.Promised("k")
	require.Zero(t, h.lease.SettleRound(r2), "never less than it was")
	h.lease.Close()
	r.Promised("x")
	require.Zero(t, h.lease.SettleRound(r), "the epoch is closed")
	_, err = h.lease.Round(clock.Now(), ttl)
	require.ErrorIs(t, err, dcs.ErrNotHeld)
}

// An earlier process of the node may have sent a list that is still under way: no promises count before a renewal of this
// one did (R11).
func TestNoRoundBeforeARenewalOfThisProcess(t *testing.T) {
	clock, h, _ := holding(t, "h", "k", "x")
	epoch, _ := h.lease.Open()
	lease := dcs.NewLease(dcs.Identity{Name: "h", Nonce: "nonce-h"})
	lease.Resume(epoch, true, h.lease.Deadline())
	h.lease = lease
	_, err := h.lease.Round(clock.Now(), ttl)
	require.ErrorIs(t, err, dcs.ErrNotObserved)
	h.look()
	_, err = h.lease.Round(clock.Now(), ttl)
	require.ErrorIs(t, err, dcs.ErrNotRenewed)
	_, err = h.renew(ttl)
	require.NoError(t, err)
	_, err = h.lease.Round(clock.Now(), ttl)
	require.NoError(t, err)
}

func TestNoListNoPromises(t *testing.T) {
	clock, h, k := holding(t)
	_, err := h.lease.Round(clock.Now(), ttl)
	require.ErrorIs(t, err, dcs.ErrNoList)
	clock.Advance(ttl)
	require.True(t, k.lease.Takeable(clock.Now(), false).Allowed, "and no votes")
}

// While the answer to a changed list is out, both lists count (R12), whichever is in the record.
func TestUnansweredListCountsBoth(t *testing.T) {
	for _, c := range []struct {
		old, want dcs.List
		promises  []string
		enough    bool
	}{
		{dcs.List{Members: []string{"c", "h", "k"}}, dcs.List{Members: []string{"h", "k"}}, []string{"c"}, false},
		{dcs.List{Members: []string{"c", "h", "k"}}, dcs.List{Members: []string{"h", "k"}}, []string{"k"}, true},
		{dcs.List{Members: []string{"h", "k"}}, dcs.List{Members: []string{"c", "h", "k"}}, []string{"c"}, false},
		{dcs.List{Members: []string{"c", "h", "k"}}, dcs.List{Members: []string{"c", "h", "k"}, Unanimous: true}, []string{"k"}, false},
		{dcs.List{Members: []string{"c", "h", "k"}}, dcs.List{Members: []string{"c", "h", "k"}, Unanimous: true}, []string{"c", "k"}, true},
		{dcs.List{Members: []string{"h"}}, dcs.List{}, []string{"c", "k"}, false},
	} {
		for _, performed := range []bool{false, true} {
			t.Run(fmt.Sprint(c, performed), func(t *testing.T) {
				clock, h, _ := holding(t, c.old.Members...)
				h.lease.WantMembers(c.want)
				step, err := h.lease.Renew(clock.Now(), h.session.ID(), ttl, nil)
				require.NoError(t, err)
				if performed {
					_, err = h.store.Commit(t.Context(), step.Txn)
					require.NoError(t, err)
				}
				h.lease.Settle(step, dcs.Result{}, dcs.ErrUnknown)
				require.False(t, h.lease.ListSettled())
				clock.Advance(time.Second)
				r, err := h.lease.Round(clock.Now(), ttl)
				if err == nil {
					for _, p := range c.promises {
						r.Promised(p)
					}
					require.Equal(t, c.enough, h.lease.SettleRound(r) != 0)
				} else {
					require.False(t, c.enough)
				}
				// A read of the same version says nothing of a late write; any other settles it.
				h.look()
				_, err = h.renew(ttl)
				require.NoError(t, err)
				h.look()
				require.Equal(t, c.want, h.list())
				require.True(t, h.lease.ListSettled())
			})
		}
	}
}

// A round that began under the old list does not lengthen anything under one that was sent meanwhile.
func TestListSentDuringARound(t *testing.T) {
	clock, h, _ := holding(t, "c", "h", "k")
	clock.Advance(time.Second)
	r, err := h.lease.Round(clock.Now(), ttl)
	require.NoError(t, err)
	r.Promised("c")
	h.lease.WantMembers(dcs.List{Members: []string{"h", "k"}})
	_, err = h.lease.Renew(clock.Now(), h.session.ID(), ttl, nil)
	require.NoError(t, err)
	require.Zero(t, h.lease.SettleRound(r))
	r.Promised("k")
	require.NotZero(t, h.lease.SettleRound(r))
}

func TestVotesForATake(t *testing.T) {
	clock, h, k := holding(t, "c", "h", "k")
	clock.Advance(ttl)
	got := k.lease.Takeable(clock.Now(), false)
	require.False(t, got.Allowed)
	require.True(t, got.NeedVotes)
	require.Contains(t, got.Why, "0 of 2 votes of the failsafe list (c, h, k)")
	b, needed := k.lease.Ballot(false)
	require.True(t, needed)
	require.Equal(t, []string{"c", "h", "k"}, b.Members)
	require.Equal(t, 2, b.Need)
	k.lease.Voted(b.Version, "c", "h")
	require.False(t, k.lease.Takeable(clock.Now(), false).Allowed, "its own is among them")
	k.lease.Voted(b.Version+100, "k")
	require.False(t, k.lease.Takeable(clock.Now(), false).Allowed, "votes for another version")
	k.lease.Voted(b.Version, "k")
	require.True(t, k.lease.Takeable(clock.Now(), false).Allowed)
	h.open()
	h.look()
	_, err := h.renew(ttl) // it still lives
	require.NoError(t, err)
	k.look()
	clock.Advance(ttl)
	require.True(t, k.lease.Takeable(clock.Now(), false).NeedVotes, "another version, other votes")
	b, _ = k.lease.Ballot(false)
	k.lease.Voted(b.Version, "c", "k")
	require.NoError(t, k.take(false))
	require.Equal(t, []string{"c", "h", "k"}, k.list().Members, "a take copies the list")
}

func TestNoVotesForAReleaseOrTheOwnRecord(t *testing.T) {
	_, h, k := holding(t, "c", "h", "k")
	h.lease.Close()
	require.True(t, h.lease.Takeable(0, false).Allowed, "R4c")
	step, err := h.lease.Release(dcs.ProofEmpty, nil)
	require.NoError(t, err)
	_, err = h.send(step)
	require.NoError(t, err)
	k.look()
	require.True(t, k.lease.Takeable(0, false).Allowed, "R4a")
}

// R4d with R13: the list of a record that is gone is its copy and what was last read, and the votes close every epoch.
func TestVotesForAnAbsentRecord(t *testing.T) {
	clock, h, k := holding(t, "c", "h", "k")
	_, err := h.store.Commit(t.Context(), dcs.Txn{Then: []dcs.Op{dcs.Delete(dcs.KeyLease), dcs.Delete(dcs.KeyLeader)}})
	require.NoError(t, err)
	k.look()
	clock.Advance(ttl)
	require.True(t, k.lease.Takeable(clock.Now(), false).NeedVotes)
	b, _ := k.lease.Ballot(false)
	require.EqualValues(t, 1, b.Request.Stamp.Epoch)
	v := joined()
	require.True(t, v.Vote(0, true, b.Request).Yes)
	require.False(t, v.Promise(0, true, ask("nonce-h", 1, 1<<60)).Yes)
	k.lease.KnowMembers([]string{"k", "d", "e"})
	k.lease.Voted(b.Version, "c", "k")
	require.False(t, k.lease.Takeable(clock.Now(), false).Allowed, "both lists")
	k.lease.Voted(b.Version, "e")
	require.True(t, k.lease.Takeable(clock.Now(), false).Allowed)

	fresh := newMember(t, clock, memory.NewServer(clock), "z", "nonce-z")
	fresh.lease.SetFailsafe(true, 0)
	fresh.look()
	clock.Advance(ttl)
	require.Contains(t, fresh.lease.Takeable(clock.Now(), false).Why, "no failsafe list is known")
	fresh.lease.KnowMembers([]string{"c", "h", "k"})
	require.Contains(t, fresh.lease.Takeable(clock.Now(), false).Why, "this node is not in the failsafe list (c, h, k)")
}

// Switched off by an operator: no votes, but the waiting time starts anew.
func TestFailsafeOff(t *testing.T) {
	clock, _, k := holding(t, "c", "h", "k")
	clock.Advance(ttl)
	k.lease.SetFailsafe(false, clock.Now())
	require.Equal(t, ttl, k.lease.Takeable(clock.Now(), false).In)
	clock.Advance(ttl)
	require.True(t, k.lease.Takeable(clock.Now(), false).Allowed)
}
