package dcs_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
)

func joined() *dcs.Voter {
	v := dcs.NewVoter("boot 1")
	v.Join(dcs.Stamp{})
	return v
}

func ask(nonce string, epoch, counter uint64) dcs.PromiseRequest {
	return dcs.PromiseRequest{Holder: "h-" + nonce, Nonce: nonce, Stamp: dcs.Stamp{Epoch: epoch, Counter: counter}, TTL: dcs.Seconds(8 * time.Second)}
}

func ballot(epoch, counter uint64) dcs.VoteRequest {
	return dcs.VoteRequest{Taker: "t", Stamp: dcs.Stamp{Epoch: epoch, Counter: counter}}
}

func TestVoter(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name string
		do   func(*dcs.Voter) dcs.VoterAnswer
		why  string // of a no; empty: yes
	}{
		{"a promise", func(v *dcs.Voter) dcs.VoterAnswer { return v.Promise(0, true, ask("a", 1, 1)) }, ""},
		{"a promise again", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Promise(0, true, ask("a", 1, 1))
			return v.Promise(s, true, ask("a", 1, 2))
		}, ""},
		{"a promise to another", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Promise(0, true, ask("a", 1, 1))
			return v.Promise(s, true, ask("b", 2, 1))
		}, "a promise to h-a stands"},
		{"a promise to another, later", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Promise(0, true, ask("a", 1, 1))
			return v.Promise(8*s, true, ask("b", 2, 1))
		}, ""},
		{"a promise to an earlier epoch", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Promise(0, true, ask("b", 2, 1))
			return v.Promise(9*s, true, ask("a", 1, 7))
		}, "a later epoch is known (2.1)"},
		{"a promise of a holder", func(v *dcs.Voter) dcs.VoterAnswer { return v.Promise(0, false, ask("a", 1, 1)) }, "this member's own epoch is open"},
		{"no nonce", func(v *dcs.Voter) dcs.VoterAnswer { return v.Promise(0, true, ask("", 1, 1)) }, "the request has no nonce or no ttl"},
		{"a vote", func(v *dcs.Voter) dcs.VoterAnswer { return v.Vote(0, true, ballot(1, 1)) }, ""},
		{"a vote of a holder", func(v *dcs.Voter) dcs.VoterAnswer { return v.Vote(0, false, ballot(1, 1)) }, "this member's own epoch is open"},
		{"a vote under a promise", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Promise(0, true, ask("a", 1, 1))
			return v.Vote(8*s-1, true, ballot(1, 1))
		}, "a promise to h-a stands"},
		{"a vote after a promise", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Promise(0, true, ask("a", 1, 1))
			return v.Vote(8*s, true, ballot(1, 1))
		}, ""},
		{"a vote for a version that is gone", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Promise(0, true, ask("a", 1, 5))
			return v.Vote(8*s, true, ballot(1, 4))
		}, "a later write is known (1.5)"},
		{"a vote binds", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Vote(0, true, ballot(1, 3))
			return v.Promise(s, true, ask("a", 1, 3))
		}, "this member voted for a taker of 1.3, and the holder knows no later write of its own than 1.3"},
		{"a renewal lifts a vote", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Vote(0, true, ballot(1, 3))
			return v.Promise(s, true, ask("a", 1, 4))
		}, ""},
		{"an accepted leader stops votes", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Accept(0, true, "p", 8*s)
			return v.Vote(s, true, ballot(1, 3))
		}, "a promise to p stands"},
		{"an accepted leader stops promises", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Accept(0, true, "p", 8*s)
			return v.Promise(s, true, ask("a", 1, 4))
		}, "a promise to p stands"},
		{"a promise stops acceptance", func(v *dcs.Voter) dcs.VoterAnswer {
			v.Promise(0, true, ask("a", 1, 4))
			return v.Accept(s, true, "p", 8*s)
		}, "a promise to h-a stands"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.do(joined())
			require.Equal(t, c.why, got.Why)
			require.Equal(t, c.why == "", got.Yes)
		})
	}
}

// Lost memory neither votes nor promises until a list without this member was read (R14).
func TestVoterWithoutMemory(t *testing.T) {
	v := dcs.NewVoter("boot 1")
	require.False(t, v.Promise(0, true, ask("a", 1, 1)).Yes)
	require.False(t, v.Vote(0, true, ballot(1, 1)).Yes)
	v = dcs.LoadVoter(v.State(), "boot 1", 0, time.Second)
	require.False(t, v.Vote(0, true, ballot(1, 1)).Yes, "a restart does not bring it back")
	require.True(t, v.Join(dcs.Stamp{Epoch: 2, Counter: 5}))
	require.False(t, v.Join(dcs.Stamp{Epoch: 9, Counter: 5}))
	require.False(t, v.Promise(0, true, ask("a", 2, 5)).Yes)
	require.True(t, v.Promise(0, true, ask("a", 2, 6)).Yes)
}

func TestVoterRestarts(t *testing.T) {
	const s = time.Second
	v := joined()
	require.True(t, v.Promise(100*s, true, ask("a", 1, 1)).Yes)
	v.Vote(0, true, ballot(1, 1))
	b, err := json.Marshal(v.State())
	require.NoError(t, err)
	load := func(boot string, bootAt, now time.Duration) *dcs.Voter {
		var st dcs.VoterState
		require.NoError(t, json.Unmarshal(b, &st))
		return dcs.LoadVoter(st, boot, bootAt, now)
	}
	left := func(v *dcs.Voter, now time.Duration) time.Duration { _, l := v.Promised(now); return l }
	require.Equal(t, 5*s, left(load("boot 1", 0, 103*s), 103*s), "an agent restart keeps it")
	require.Zero(t, left(load("boot 1", 0, 108*s), 108*s))
	require.Equal(t, 5*s, left(load("boot 2", 0, 3*s), 3*s), "after a reboot it counts from boot, in full")
	require.Zero(t, left(load("boot 2", 0, 9*s), 9*s))
	require.Equal(t, 8*s, left(load("boot 1", 0, 50*s), 50*s), "a clock that went back counts as another one")
}

// TestVoterExhaustively plays every sequence of six requests, waits and restarts in a small world, and compares what
// was answered with the rules themselves.
func TestVoterExhaustively(t *testing.T) {
	const unit = 8 * time.Second
	steps := []string{"promise a 1", "promise a 2", "promise b 3", "vote 1", "vote 2", "tick", "restart", "reboot"}
	type world struct {
		voter            dcs.VoterState
		now, boot        time.Duration
		boots            int
		promised         string
		until            time.Duration // of the promise, on this world's own account
		closed, promises uint64
		log              string
	}
	var played int
	var play func(w world, depth int)
	play = func(w world, depth int) {
		if depth == 0 {
			played++
			return
		}
		for _, step := range steps {
			n := w
			n.log += step + "; "
			name := fmt.Sprintf("boot %d", n.boots)
			v := dcs.LoadVoter(n.voter, name, n.boot, n.now)
			var nonce string
			var c uint64
			switch {
			case step == "tick":
				n.now += unit / 2
			case step == "restart":
			case step == "reboot":
				n.boots++
				n.boot = n.now
				if n.promised != "" {
					n.until = n.now + unit // nobody can know how long ago it was
				}
				v = dcs.LoadVoter(n.voter, fmt.Sprintf("boot %d", n.boots), n.boot, n.now)
			case step[0] == 'p':
				_, err := fmt.Sscanf(step, "promise %s %d", &nonce, &c)
				require.NoError(t, err)
				yes := v.Promise(n.now, true, ask(nonce, c, 1)).Yes
				free := n.promised == nonce || n.now >= n.until
				if want := c > n.closed && free && c >= n.promises; yes != want {
					require.Equal(t, want, yes, n.log)
				}
				if yes {
					n.promised, n.until, n.promises = nonce, n.now+unit, max(n.promises, c)
				}
			default:
				_, err := fmt.Sscanf(step, "vote %d", &c)
				require.NoError(t, err)
				yes := v.Vote(n.now, true, ballot(c, 1)).Yes
				if want := n.now >= n.until && c >= n.promises; yes != want {
					require.Equal(t, want, yes, n.log)
				}
				if yes {
					n.closed = max(n.closed, c)
				}
			}
			n.voter = v.State()
			play(n, depth-1)
		}
	}
	play(world{voter: joined().State(), boots: 1}, 6)
	require.Equal(t, 262144, played)
}
