package ha_test

import (
	"context"
	"encoding/json"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// inBubble runs f with a healthy cluster of a, b and c.
func inBubble(t *testing.T, bootstrap map[string]any, f func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBubbleWith(t, bootstrap, "a", "b", "c")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		f(t, b)
	})
}

func (b *bubble) replica() *bubbleNode {
	l := b.leader()
	for _, name := range []string{"a", "b", "c"} {
		if n := b.nodes[name]; n != l {
			return n
		}
	}
	return nil
}

func refused(t *testing.T, err error, text string) {
	t.Helper()
	var r *rest.Refusal
	require.ErrorAs(t, err, &r)
	require.Equal(t, text, r.Text)
}

// A primary restarts in place: the same epoch, the same timeline, the lease renewed meanwhile; nobody else leads.
func TestRestartPrimary(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		l := b.leader()
		require.True(t, l.fake.Write(1))
		before, epoch := l.fake.Process(), l.node.Report().Epoch
		l.fake.Update(func(s *postgrestest.FakeState) { s.StartTime = 20 * time.Second }) // longer than the lease
		done := make(chan error, 1)
		go func() { done <- l.node.Restart(t.Context(), rest.RestartRequest{Role: "primary"}) }()
		b.until("it restarts", 5*time.Second, func() bool { return l.node.Report().Task == "restart" })
		require.Equal(t, cluster.StateRestarting, l.node.Report().State)
		require.Equal(t, cluster.RolePrimary, l.node.Report().Role)
		refused(t, l.node.Restart(t.Context(), rest.RestartRequest{}), "restart already in progress")
		b.until("it is back", 30*time.Second, func() bool {
			r := l.node.Report()
			require.True(t, r.IsLeader && time.Now().Before(r.LeaderUntil), "the lease is kept: %s", b.status())
			return l.fake.Write(1)
		})
		require.NoError(t, <-done)
		require.NotEqual(t, before, l.fake.Process())
		require.Equal(t, epoch, l.node.Report().Epoch)
		require.EqualValues(t, 1, l.fake.State().Timeline)
		b.until("healthy", 20*time.Second, b.healthy)
		require.Equal(t, l, b.leader())
		e := <-l.events
		for e.Action != callbacks.OnRestart {
			e = <-l.events
		}
		require.Equal(t, "primary", e.Role)
	})
}

func TestRestartConditions(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		r := b.replica()
		const unmet = "restart conditions are not satisfied"
		refused(t, r.node.Restart(t.Context(), rest.RestartRequest{Role: "primary"}), unmet)
		refused(t, r.node.Restart(t.Context(), rest.RestartRequest{Pending: true}), unmet)
		refused(t, r.node.Restart(t.Context(), rest.RestartRequest{Below: 90000}), unmet)
		before := r.fake.Process()
		require.NoError(t, r.node.Restart(t.Context(), rest.RestartRequest{Role: "replica", Below: 990000}))
		require.NotEqual(t, before, r.fake.Process())
		b.until("healthy", 20*time.Second, b.healthy)
	})
}

// A primary that does not come back within its limit is fenced as soon as another can lead: the rule for every start.
func TestRestartTakesTooLong(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		l := b.leader()
		l.fake.Update(func(s *postgrestest.FakeState) { s.StartTime = time.Hour })
		refused(t, l.node.Restart(t.Context(), rest.RestartRequest{Timeout: 5 * time.Second}), "postgres is still starting")
		b.until("another leads", 20*time.Second, func() bool { n := b.leader(); return n != nil && n != l })
		require.False(t, l.fake.Write(1))
		l.fake.Update(func(s *postgrestest.FakeState) { s.StartTime = 0 })
		if p := l.fake.Process(); p != nil { // it would take its hour
			p.Signal(syscall.SIGKILL)
		}
		b.until("healthy", 40*time.Second, b.healthy)
	})
}

// The lease is lost while the primary is down for its restart: nothing starts as primary again.
func TestRestartLosesTheLease(t *testing.T) {
	inBubble(t, map[string]any{"failsafe_mode": false}, func(t *testing.T, b *bubble) {
		l := b.leader()
		l.fake.Delay("Configure", 20*time.Second) // it is stopped, and not started yet
		done := make(chan error, 1)
		go func() { done <- l.node.Restart(t.Context(), rest.RestartRequest{}) }()
		b.until("it is down", 5*time.Second, func() bool { return l.fake.Process() == nil })
		_, err := b.nodes[b.replica().name].store.Commit(t.Context(), dcs.Txn{Then: []dcs.Op{dcs.Delete(dcs.KeyLease)}})
		require.NoError(t, err)
		var refusal *rest.Refusal
		require.ErrorAs(t, <-done, &refusal)
		l.fake.Delay("Configure", 0)
		b.until("another leads", 30*time.Second, func() bool {
			if l.fake.Write(1) {
				require.NotEqual(t, uint64(1), l.node.Report().Epoch, "it writes under the epoch that it lost")
			}
			return b.leader() != nil
		})
		b.until("healthy", 40*time.Second, b.healthy)
	})
}

func TestScheduledRestart(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		r := b.replica()
		require.False(t, r.node.CancelRestart())
		at := time.Now().Add(5 * time.Second)
		require.NoError(t, r.node.ScheduleRestart(rest.RestartRequest{At: at, Role: "replica", Below: 150018, Timeout: time.Minute}))
		err := r.node.ScheduleRestart(rest.RestartRequest{At: at})
		refused(t, err, "Another restart is already scheduled")
		b.until("it is published", 5*time.Second, func() bool {
			c, err := r.node.ReadCluster(t.Context())
			require.NoError(t, err)
			m, _ := c.Member(r.name)
			return m.ScheduledRestart["role"] == "replica" && m.ScheduledRestart["postgres_version"] == "15.18" && m.ScheduledRestart["timeout"] != nil &&
				m.ScheduledRestart["schedule"] != nil
		})
		require.NotNil(t, r.node.Report().ScheduledRestart)
		require.True(t, r.node.CancelRestart())
		b.until("it is gone", 5*time.Second, func() bool {
			c, err := r.node.ReadCluster(t.Context())
			require.NoError(t, err)
			m, _ := c.Member(r.name)
			return m.ScheduledRestart == nil && r.node.Report().ScheduledRestart == nil
		})
		before := r.fake.Process()
		require.NoError(t, r.node.ScheduleRestart(rest.RestartRequest{At: time.Now().Add(5 * time.Second)}))
		<-time.After(4 * time.Second)
		require.Equal(t, before, r.fake.Process())
		b.until("it was restarted", 5*time.Second, func() bool { p := r.fake.Process(); return p != nil && p != before })
		b.until("healthy", 20*time.Second, b.healthy)
		require.Nil(t, r.node.Report().ScheduledRestart)
	})
}

func TestReinitialize(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		l, r := b.leader(), b.replica()
		refused(t, l.node.Reinitialize(rest.ReinitializeRequest{}), "I am the leader, can not reinitialize")
		require.False(t, r.node.CancelReinitialize())
		r.fake.Delay("Clone", 10*time.Second)
		require.NoError(t, r.node.Reinitialize(rest.ReinitializeRequest{}))
		refused(t, r.node.Reinitialize(rest.ReinitializeRequest{}), "reinitialize already in progress")
		clones := func() (k int) {
			for _, c := range r.fake.Calls() {
				if c.Method == "Clone" {
					k++
				}
			}
			return k
		}
		b.until("the copy is made", 10*time.Second, func() bool { return r.node.Report().State == cluster.StateCreatingReplica })
		require.Equal(t, "reinitialize", r.node.Report().Task)
		n := clones()
		require.NoError(t, r.node.Reinitialize(rest.ReinitializeRequest{Force: true, FromLeader: true}))
		b.until("another copy is made", 10*time.Second, func() bool { return clones() > n })
		b.until("healthy", 30*time.Second, b.healthy)

		require.NoError(t, r.node.Reinitialize(rest.ReinitializeRequest{}))
		b.until("the copy is made", 10*time.Second, func() bool { return r.node.Report().State == cluster.StateCreatingReplica })
		require.True(t, r.node.CancelReinitialize())
		b.until("it comes back with what it had", 10*time.Second, b.healthy)
		require.False(t, r.node.CancelReinitialize())
	})
}

func TestChangeConfig(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		r := b.replica()
		set := func(value string) func(json.RawMessage) (json.RawMessage, error) {
			return func(json.RawMessage) (json.RawMessage, error) { return json.RawMessage(value), nil }
		}
		_, err := r.node.ChangeConfig(t.Context(), true, set(`{"ttl":8,"loop_wait":2,"retry_timeout":3,"maximum_lag_on_failover":4711}`))
		require.NoError(t, err)
		b.until("all take it over", 2*time.Second, func() bool {
			for _, n := range b.nodes {
				if n.node.Report().MaxLag != 4711 {
					return false
				}
			}
			return true
		})
		// Somebody else writes in between.
		tries := 0
		change := func(json.RawMessage) (json.RawMessage, error) {
			tries++
			if tries == 1 {
				_, err := b.leader().node.ChangeConfig(t.Context(), true, set(`{"ttl":8,"loop_wait":2,"retry_timeout":3,"maximum_lag_on_failover":1}`))
				require.NoError(t, err)
			}
			return json.RawMessage(`{"ttl":8,"loop_wait":2,"retry_timeout":3,"maximum_lag_on_failover":2}`), nil
		}
		_, err = r.node.ChangeConfig(t.Context(), true, change)
		require.ErrorIs(t, err, dcs.ErrConflict)
		tries = 0
		_, err = r.node.ChangeConfig(t.Context(), false, set(`{"ttl":8,"loop_wait":2,"retry_timeout":3,"maximum_lag_on_failover":5}`))
		require.NoError(t, err)
		_, err = r.node.ChangeConfig(t.Context(), false, change)
		require.NoError(t, err)
		require.Equal(t, 2, tries)
		b.until("it is taken over", 2*time.Second, func() bool { return r.node.Report().MaxLag == 2 })
		no := errors.New("no")
		_, err = r.node.ChangeConfig(t.Context(), false, func(json.RawMessage) (json.RawMessage, error) { return nil, no })
		require.ErrorIs(t, err, no)
		// One whose parameters are no mapping is not taken over (reference section 4.1).
		_, err = r.node.ChangeConfig(t.Context(), false, set(`{"ttl":8,"loop_wait":2,"retry_timeout":3,"maximum_lag_on_failover":3,"postgresql":{"parameters":[1]}}`))
		require.NoError(t, err)
		<-time.After(5 * time.Second)
		require.EqualValues(t, 2, r.node.Report().MaxLag)
	})
}

// What an operator asked for is not left waiting when the node stops, or is not running.
func TestRequestsEndWithTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, "a")
		b.until("it leads", 20*time.Second, func() bool { return b.leader() != nil })
		a := b.nodes["a"]
		b.stop()
		for _, err := range []error{
			a.node.Restart(context.Background(), rest.RestartRequest{}), a.node.ScheduleRestart(rest.RestartRequest{}),
			a.node.Reinitialize(rest.ReinitializeRequest{}),
		} {
			refused(t, err, "this node is stopping")
		}
		require.False(t, a.node.CancelRestart() || a.node.CancelReinitialize())
	})
}

// A role's own parameters come with the role and go with it (reference section 5.20).
func TestRoleSettings(t *testing.T) {
	inBubble(t, map[string]any{"ttl": 8, "loop_wait": 2, "retry_timeout": 3, "postgresql": map[string]any{
		"parameters":         map[string]any{"work_mem": "4MB"},
		"parameters_primary": map[string]any{"work_mem": "8MB", "max_connections": 77}, "pg_hba_replica": []any{"local all all trust"},
	}}, func(t *testing.T, b *bubble) {
		l, r := b.leader(), b.replica()
		is := func(n *bubbleNode, mem string, hba int) func() bool {
			return func() bool {
				s := n.fake.Settings()
				return s.Parameters["work_mem"] == mem && len(s.HBA) == hba && s.Parameters["max_connections"] == ""
			}
		}
		b.until("the primary's", 5*time.Second, is(l, "8MB", 0))
		b.until("the replica's", 5*time.Second, is(r, "4MB", 1))
		c, err := l.node.ReadCluster(t.Context())
		require.NoError(t, err)
		f := c.Failover
		f.Leader, f.Candidate = l.name, r.name
		require.NoError(t, l.node.WriteFailover(t.Context(), f, nil))
		b.until("they changed places", 20*time.Second, func() bool { return b.leader() == r })
		b.until("the new primary's", 10*time.Second, is(r, "8MB", 0))
		b.until("the new replica's", 10*time.Second, is(l, "4MB", 1))
		b.until("healthy", 20*time.Second, b.healthy)
	})
}
