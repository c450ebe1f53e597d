package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// world is what daemons run on.
type world struct {
	name, pg, store string
	servers         int // of the store; with several, things happen to them, too
}

// worlds are what the scenarios run on. The names are parts of the paths of sockets.
var worlds = []world{ //nolint:gochecknoglobals // a table
	{"pg15-etcd", "15", "etcd", 3},
	{"pg18-etcd", "18", "etcd", 1},
	{"pg15-consul", "15", "consul", 3},
	{"pg17-zookeeper", "17", "zookeeper", 3},
}

const fastConfig = `
    ttl: 8
    loop_wait: 2
    retry_timeout: 3`

// TestDaemons drives three daemons through a life: bootstrap, switchovers, a killed postmaster, what happens to the
// store, a lost node, its return.
func TestDaemons(t *testing.T) {
	for _, o := range worlds {
		t.Run(o.name, func(t *testing.T) { testDaemons(t, o) })
	}
}

func testDaemons(t *testing.T, o world) {
	c := rig.New(t, rig.Options{PG: o.pg, Nodes: 3, DCS: fastConfig, Store: o.store, Servers: o.servers})
	took := c.StartAll()
	t.Logf("healthy from empty: %v", took)
	require.Less(t, took, 6*time.Second)
	w := c.StartWriter()

	t.Run("Switchover", func(t *testing.T) {
		var outages []time.Duration
		for i := range 3 {
			old := c.Leader()
			began := time.Now()
			code, text := old.Post("/switchover", fmt.Sprintf(`{"leader":%q}`, old.Name))
			require.Equal(t, http.StatusOK, code, text)
			outage := w.Outage(began, 20*time.Second)
			t.Logf("switchover %d: outage %v, answered after %v: %s", i, outage, time.Since(began), text)
			outages = append(outages, outage)
			c.AwaitHealthy(20 * time.Second)
		}
		slices.Sort(outages)
		require.LessOrEqual(t, outages[1], 500*time.Millisecond, "the median of %v", outages)
		require.LessOrEqual(t, outages[2], time.Second, "the worst of %v", outages)
		require.Zero(t, w.Lost(), "acknowledged writes lost in planned switchovers")
	})

	t.Run("SwitchoverToCandidate", func(t *testing.T) {
		old := c.Leader()
		target := c.Others(old)[1]
		code, text := old.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, old.Name, target.Name))
		require.Equal(t, http.StatusOK, code, text)
		require.Contains(t, text, target.Name)
		c.AwaitHealthy(20 * time.Second)
		rig.Eventually(t, 5*time.Second, "the target leads", target.Primary)
		code, text = target.Post("/switchover", `{"leader":"nobody"}`)
		require.Equal(t, http.StatusPreconditionFailed, code, text)
	})

	t.Run("PostmasterKilled", func(t *testing.T) {
		l := c.Leader()
		began := time.Now()
		require.NoError(t, syscall.Kill(l.Postmaster(), syscall.SIGKILL))
		rig.Eventually(t, 5*time.Second, "the crash is seen", func() bool { return !l.Primary() })
		outage := w.Outage(began, 30*time.Second)
		t.Logf("postmaster killed: outage %v", outage)
		require.LessOrEqual(t, outage, time.Second)
		rig.Eventually(t, 5*time.Second, "restarted in place: the same node says so, a moment after its server took the first write", l.Primary)
		c.AwaitHealthy(30 * time.Second)
		require.Zero(t, w.Lost())
	})

	if o.servers > 1 {
		testStore(t, c, w, o.store)
	}

	t.Run("NodeLost", func(t *testing.T) {
		l := c.Leader()
		began := time.Now()
		l.Lose()
		outage := w.Outage(began, 60*time.Second)
		t.Logf("node lost: outage %v, acknowledged writes lost (asynchronous): %d", outage, w.Lost())
		require.Less(t, outage, 10*time.Second)
		l.Start()
		back := rig.Eventually(t, 30*time.Second, "the lost node streams again", l.Streaming)
		t.Logf("killed node back to streaming: %v", back)
		require.LessOrEqual(t, back, 5*time.Second)
		c.AwaitHealthy(20 * time.Second)
	})

	t.Run("OrderlyEnd", func(t *testing.T) {
		l := c.Leader()
		began := time.Now()
		l.Stop()
		outage := w.Outage(began, 20*time.Second)
		t.Logf("leader stopped in order: outage %v", outage)
		require.LessOrEqual(t, outage, time.Second)
		require.Empty(t, l.Processes(), "nothing is left")
		l.Start()
		c.AwaitHealthy(20 * time.Second)
	})
}
