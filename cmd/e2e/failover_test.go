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

// versions are the PostgreSQL versions that the scenarios run on.
var versions = []string{"15", "18"} //nolint:gochecknoglobals // a table

const fastConfig = `
    ttl: 8
    loop_wait: 2
    retry_timeout: 3`

// TestDaemons drives three daemons through a life: bootstrap, switchovers, a killed postmaster, a lost node, its return.
func TestDaemons(t *testing.T) {
	for _, pg := range versions {
		t.Run("PostgreSQL"+pg, func(t *testing.T) { testDaemons(t, pg) })
	}
}

func testDaemons(t *testing.T, pg string) {
	c := rig.New(t, rig.Options{PG: pg, Nodes: 3, DCS: fastConfig})
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
		require.True(t, target.Primary())
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
		require.True(t, l.Primary(), "restarted in place")
		c.AwaitHealthy(30 * time.Second)
		require.Zero(t, w.Lost())
	})

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
