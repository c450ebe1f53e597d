package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// versions are the PostgreSQL versions that the scenarios run on.
var versions = []string{"15", "18"} //nolint:gochecknoglobals // a table

// TestDaemons drives three daemons through a life: bootstrap, switchovers, a killed postmaster, a lost node, its return.
func TestDaemons(t *testing.T) {
	for _, pg := range versions {
		t.Run("PostgreSQL"+pg, func(t *testing.T) { testDaemons(t, pg) })
	}
}

func testDaemons(t *testing.T, pg string) {
	c := newCluster(t, pg, 3, fastConfig)
	took := c.startAll()
	t.Logf("healthy from empty: %v", took)
	require.Less(t, took, 6*time.Second)
	w := c.write()

	t.Run("Switchover", func(t *testing.T) {
		var outages []time.Duration
		for i := range 3 {
			old := c.leader()
			began := time.Now()
			code, text := old.post("/switchover", fmt.Sprintf(`{"leader":%q}`, old.name))
			require.Equal(t, http.StatusOK, code, text)
			outage := w.outage(began, 20*time.Second)
			t.Logf("switchover %d: outage %v, answered after %v: %s", i, outage, time.Since(began), text)
			outages = append(outages, outage)
			c.awaitHealthy(20 * time.Second)
		}
		slices.Sort(outages)
		require.LessOrEqual(t, outages[1], 500*time.Millisecond, "the median of %v", outages)
		require.LessOrEqual(t, outages[2], time.Second, "the worst of %v", outages)
		require.Zero(t, w.lost(c), "acknowledged writes lost in planned switchovers")
	})

	t.Run("SwitchoverToCandidate", func(t *testing.T) {
		old := c.leader()
		target := c.others(old)[1]
		code, text := old.post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, old.name, target.name))
		require.Equal(t, http.StatusOK, code, text)
		require.Contains(t, text, target.name)
		c.awaitHealthy(20 * time.Second)
		require.True(t, target.primary())
		code, text = target.post("/switchover", `{"leader":"nobody"}`)
		require.Equal(t, http.StatusPreconditionFailed, code, text)
	})

	t.Run("PostmasterKilled", func(t *testing.T) {
		l := c.leader()
		began := time.Now()
		require.NoError(t, syscall.Kill(l.postmaster(), syscall.SIGKILL))
		eventually(t, 5*time.Second, "the crash is seen", func() bool { return !l.primary() })
		outage := w.outage(began, 30*time.Second)
		t.Logf("postmaster killed: outage %v", outage)
		require.LessOrEqual(t, outage, time.Second)
		require.True(t, l.primary(), "restarted in place")
		c.awaitHealthy(30 * time.Second)
		require.Zero(t, w.lost(c))
	})

	t.Run("NodeLost", func(t *testing.T) {
		l := c.leader()
		began := time.Now()
		l.lose()
		outage := w.outage(began, 60*time.Second)
		t.Logf("node lost: outage %v, acknowledged writes lost (asynchronous): %d", outage, w.lost(c))
		require.Less(t, outage, 10*time.Second)
		began = time.Now()
		l.start()
		back := eventually(t, 30*time.Second, "the lost node streams again", l.streaming)
		t.Logf("killed node back to streaming: %v", back)
		require.LessOrEqual(t, back, 5*time.Second)
		c.awaitHealthy(20 * time.Second)
	})

	t.Run("OrderlyEnd", func(t *testing.T) {
		l := c.leader()
		began := time.Now()
		l.stop()
		outage := w.outage(began, 20*time.Second)
		t.Logf("leader stopped in order: outage %v", outage)
		require.LessOrEqual(t, outage, time.Second)
		require.Empty(t, l.processes(), "nothing is left")
		l.start()
		c.awaitHealthy(20 * time.Second)
	})
}
