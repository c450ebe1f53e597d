package ha_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs/memory"
)

// freeze makes the store silent for every node.
func (b *bubble) freeze() {
	for _, n := range b.nodes {
		n.store.Inject(memory.Hang, 0)
	}
}

func (b *bubble) thaw() {
	for _, n := range b.nodes {
		n.store.Clear()
	}
}

func (b *bubble) listed() []string {
	c, err := b.leader().node.ReadCluster(b.t.Context())
	require.NoError(b.t, err)
	var names []string
	for name := range c.Failsafe.Members {
		names = append(names, name)
	}
	return names
}

// outage is how long no write was acknowledged during d.
func (b *bubble) outage(d time.Duration) time.Duration {
	var down time.Duration
	const step = 50 * time.Millisecond
	for range d / step {
		wrote := false
		for _, n := range b.nodes {
			wrote = n.fake.Write(1) || wrote
		}
		if !wrote {
			down += step
		}
		<-time.After(step)
		synctest.Wait()
	}
	return down
}

// The store is silent for more than two ttl. With failsafe mode, the default of a new cluster, there is no write outage,
// also with one replica of two down; without it the leader ends, and one clean return follows.
func TestStoreFrozen(t *testing.T) {
	for name, c := range map[string]struct {
		bootstrap map[string]any
		replicas  int // how many of two are down
		outage    bool
	}{
		"failsafe":                    {nil, 0, false},
		"failsafe, a replica down":    {nil, 1, false},
		"failsafe, both down":         {nil, 2, true},
		"no failsafe":                 {map[string]any{"failsafe_mode": false}, 0, true},
		"failsafe, Patroni's timings": {map[string]any{"ttl": 30, "loop_wait": 10, "retry_timeout": 10}, 0, false},
		"failsafe, ttl 4":             {map[string]any{"ttl": 4, "loop_wait": 1, "retry_timeout": 1}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubbleWith(t, c.bootstrap, "a", "b", "c")
				defer b.stop()
				b.until("healthy", 40*time.Second, b.healthy)
				l := b.leader()
				if v, ok := c.bootstrap["failsafe_mode"]; !ok || v == true {
					b.until("the list is complete", 40*time.Second, func() bool { return len(b.listed()) == 3 })
					b.until("it is reported", 20*time.Second, func() bool { f := l.node.Report().Failsafe; return f != nil && len(f.List) == 3 && f.Votes == 2 })
				}
				for name := range b.nodes {
					if name != l.name && len(b.down) < c.replicas {
						b.down[name] = true
					}
				}
				b.freeze()
				ttl := l.node.Report().TTL
				down := b.outage(5 * ttl / 2)
				t.Logf("no writer for %v of %v", down, 5*ttl/2)
				if c.outage {
					require.Greater(t, down, ttl)
				} else {
					require.Zero(t, down, b.status())
					require.True(t, l.node.Report().FailsafeActive)
					require.Equal(t, "failsafe-active", l.node.Report().Reason)
				}
				clear(b.down)
				b.thaw()
				b.until("healthy again", 60*time.Second, b.healthy)
				if !c.outage {
					b.until("failsafe mode ends", 2*ttl, func() bool { return !l.node.Report().FailsafeActive })
					require.Equal(t, l, b.leader())
					require.EqualValues(t, 1, l.fake.State().Timeline)
				}
			})
		})
	}
}

// The leader alone is cut from the store, and then lost: the others leave it alone as long as they have promised, then one
// takes with votes.
func TestLeaderGoesOnAndIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, "a", "b", "c")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		b.until("the list is complete", 20*time.Second, func() bool { return len(b.listed()) == 3 })
		old := b.leader()
		old.store.Inject(memory.Hang, 0)
		require.Zero(t, b.outage(20*time.Second), b.status())
		require.Equal(t, old, b.leader())
		for name := range b.nodes { // nobody answers it any more
			if name != old.name {
				b.down[name] = true
			}
		}
		b.until("it ends", 10*time.Second, func() bool { return !old.fake.Write(1) })
		clear(b.down)
		b.down[old.name] = true
		took := b.until("another leads", 20*time.Second, func() bool {
			for _, n := range b.nodes {
				if n != old && n.fake.Write(1) {
					return true
				}
			}
			return false
		})
		t.Logf("another leads after %v", took)
		require.False(t, old.fake.Write(1))
		clear(b.down)
		old.store.Clear()
		b.until("healthy again", 60*time.Second, b.healthy)
	})
}
