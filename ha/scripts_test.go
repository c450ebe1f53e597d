package ha_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// bubbleScripts are a node's scripts, which do what a test says.
type bubbleScripts struct {
	mu         sync.Mutex
	dynamic    map[string]any
	prePromote func(context.Context) error
	beforeStop func(context.Context) error
	stops      int
}

func (s *bubbleScripts) set(f func(*bubbleScripts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *bubbleScripts) Configure(dynamic map[string]any) {
	s.set(func(s *bubbleScripts) { s.dynamic = dynamic })
}

func (s *bubbleScripts) PrePromote(ctx context.Context) error {
	s.mu.Lock()
	f := s.prePromote
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(ctx)
}

func (s *bubbleScripts) BeforeStop(ctx context.Context) error {
	s.mu.Lock()
	f := s.beforeStop
	s.stops++
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(ctx)
}

// hang waits until its context ends.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// A node whose pre_promote refuses gives the lease back, keeps its replica running, and another member is promoted.
func TestPrePromoteRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, "a", "b", "c")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		old := b.leader()
		var refuses, other *bubbleNode
		for _, n := range b.nodes {
			if n != old && refuses == nil {
				refuses = n
			} else if n != old {
				other = n
			}
		}
		refuses.scripts.set(func(s *bubbleScripts) {
			s.prePromote = func(context.Context) error { return errors.New("exit status 1") }
		})
		server := refuses.fake.Process()
		c, err := old.node.ReadCluster(t.Context())
		require.NoError(t, err)
		f := c.Failover
		f.Leader, f.Candidate = old.name, refuses.name
		require.NoError(t, old.node.WriteFailover(t.Context(), f, nil))
		b.until("it says why", 10*time.Second, func() bool {
			return refuses.node.Report().Unfit == "pre_promote refused the promotion: exit status 1"
		})
		b.until("another one leads", 10*time.Second, func() bool { return b.leader() == other || b.leader() == old })
		require.Same(t, server, refuses.fake.Process(), "the replica runs on")
		require.EqualValues(t, 2, b.leader().fake.State().Timeline)
		b.until("healthy", 20*time.Second, b.healthy)
		b.until("it may lead again after a ttl", 20*time.Second, func() bool { return refuses.node.Report().Unfit == "" })
	})
}

// A pre_promote that hangs is ended when primary_start_timeout is over, and refuses. The loop renews meanwhile.
func TestPrePromoteHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubbleWith(t, map[string]any{"primary_start_timeout": 20}, "a", "b")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		old := b.leader()
		for _, n := range b.nodes {
			if n != old {
				n.scripts.set(func(s *bubbleScripts) { s.prePromote = hang })
			}
		}
		c, err := old.node.ReadCluster(t.Context())
		require.NoError(t, err)
		f := c.Failover
		f.Leader = old.name
		require.NoError(t, old.node.WriteFailover(t.Context(), f, nil))
		b.until("the old leader goes", 5*time.Second, func() bool { return b.leader() == nil })
		took := b.until("it leads again", 40*time.Second, func() bool { return b.leader() == old })
		require.Greater(t, took, 15*time.Second, "the script had its time")
	})
}

// before_stop runs before an orderly stop. One that hangs costs a planned stop no more than its limit.
func TestBeforeStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubbleWith(t, map[string]any{"primary_stop_timeout": 7}, "a", "b")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		old := b.leader()
		old.scripts.set(func(s *bubbleScripts) { s.beforeStop = hang })
		defer old.scripts.set(func(s *bubbleScripts) { s.beforeStop = nil })
		c, err := old.node.ReadCluster(t.Context())
		require.NoError(t, err)
		f := c.Failover
		f.Leader = old.name
		require.NoError(t, old.node.WriteFailover(t.Context(), f, nil))
		took := b.until("another leads", 30*time.Second, func() bool { l := b.leader(); return l != nil && l != old })
		require.Greater(t, took, 6*time.Second, "it waited for the script")
		require.Less(t, took, 10*time.Second, "not for longer than its limit")
		require.Equal(t, 1, old.scripts.stops)
	})
}

// A hung before_stop, in the middle of a switchover, does not delay the fence of a leader that loses the store: the server
// is down before its deadline, and no script was asked on that way (hazard E4).
func TestHungScriptDoesNotDelayTheFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubbleWith(t, map[string]any{"failsafe_mode": false, "primary_stop_timeout": 600}, "a", "b")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		old := b.leader()
		ended := make(chan time.Time, 1)
		old.scripts.set(func(s *bubbleScripts) {
			s.beforeStop = func(ctx context.Context) error {
				_ = hang(ctx)
				ended <- time.Now()
				return nil
			}
		})
		c, err := old.node.ReadCluster(t.Context())
		require.NoError(t, err)
		f := c.Failover
		f.Leader = old.name
		require.NoError(t, old.node.WriteFailover(t.Context(), f, nil))
		b.until("the script hangs", 5*time.Second, func() bool {
			old.scripts.mu.Lock()
			defer old.scripts.mu.Unlock()
			return old.scripts.stops == 1
		})
		require.True(t, old.fake.Write(1), "the server still runs")
		old.store.Inject(memory.Hang, 0)
		var deadline time.Time
		b.until("it is fenced", 10*time.Second, func() bool {
			if r := old.node.Report(); r.IsLeader {
				deadline = r.LeaderUntil
			}
			return old.fake.Process() == nil
		})
		require.False(t, time.Now().After(deadline), "%v after the deadline", time.Since(deadline))
		<-ended
		old.scripts.mu.Lock()
		require.Equal(t, 1, old.scripts.stops, "the fence asks no script")
		old.scripts.mu.Unlock()
		old.scripts.set(func(s *bubbleScripts) { s.beforeStop = nil })
		old.store.Clear()
		b.until("healthy again", 40*time.Second, b.healthy)
	})
}

// A bootstrap whose users or post_bootstrap fail is undone: the data is set aside, the store says nothing of the cluster,
// another member creates it, and the one that failed joins that.
func TestBootstrapFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		defer b.stop()
		postgrestest.Join(map[string]*postgrestest.Fake{"a": b.make("a"), "b": b.make("b")})
		a, other := b.nodes["a"], b.nodes["b"]
		delete(b.nodes, "b")
		b.start("a")
		a.fake.Fail("PrepareCluster", errors.New("post_bootstrap: exit status 1"))
		b.until("it gives up", 20*time.Second, func() bool {
			return a.node.Report().Server.Data == postgres.DataEmpty && a.fake.Process() == nil && calls(a, "AbandonCluster") > 0
		})
		<-time.After(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, calls(a, "PrepareCluster"), "it does not try again")
		require.Contains(t, a.node.Report().Detail, "post_bootstrap: exit status 1; its data is kept in aside")
		c, err := a.node.ReadCluster(t.Context())
		require.NoError(t, err)
		require.False(t, c.Initialize.Present)
		require.False(t, c.Config.Present)
		require.Empty(t, c.Leader.Name)
		b.nodes["b"] = other
		b.start("b")
		b.until("the other one creates it", 30*time.Second, b.healthy)
		require.Equal(t, "b", b.leader().name)
	})
}

func calls(n *bubbleNode, method string) int {
	count := 0
	for _, c := range n.fake.Calls() {
		if c.Method == method {
			count++
		}
	}
	return count
}

// The scripts hear what the dynamic configuration says of them.
func TestScriptsHearTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubbleWith(t, map[string]any{"postgresql": map[string]any{"pre_promote": "/bin/true"}}, "a", "b")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		for _, n := range b.nodes {
			n.scripts.set(func(s *bubbleScripts) { require.Equal(t, "/bin/true", s.dynamic["pre_promote"], n.name) })
			require.Empty(t, n.node.Report().Unfit)
			require.Equal(t, cluster.StateRunning, n.node.Report().State)
		}
	})
}

// Settings that change while another call has the server, or whose reload fails, are applied by a later turn.
func TestSettingsAreNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, "a", "b")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		l := b.leader()
		l.fake.Fail("Reload", errors.New("the disk is full"))
		before := calls(l, "Reload")
		store := b.server.Open("/service/demo")
		_, err := store.Commit(t.Context(), dcs.Txn{Then: []dcs.Op{dcs.Put(cluster.KeyConfig, []byte(`{"ttl":8,"loop_wait":2,"retry_timeout":3,"postgresql":{"parameters":{"work_mem":"7MB"}}}`))}})
		require.NoError(t, err)
		b.until("it was tried twice", 20*time.Second, func() bool { return calls(l, "Reload") >= before+2 })
		l.fake.Fail("Reload", nil)
		reloaded := func() bool {
			for len(l.events) > 0 {
				if e := <-l.events; e.Action == callbacks.OnReload {
					return true
				}
			}
			return false
		}
		b.until("it is read", 20*time.Second, reloaded)
	})
}
