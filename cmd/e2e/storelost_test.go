package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// TestStoreLosesItsKeys: the store is gone for a while and comes back empty. The leader goes on meanwhile in failsafe mode. Nobody
// takes the empty store for a new cluster while the leader may still serve: nothing diverges, and nothing is lost.
func TestStoreLosesItsKeys(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 3, DCS: fastConfig + "\n    failsafe_mode: true"})
	c.StartAll()
	w := c.StartWriter()
	leader := c.Leader()
	c.Store.(interface{ Wipe(int) }).Wipe(0) // etcd
	rig.Eventually(t, 20*time.Second, "failsafe mode", func() bool {
		_, body := leader.Get("/patroni")
		return body["failsafe_mode_is_active"] == true
	})
	began := time.Now()
	c.Store.Restart(0)
	rig.Eventually(t, 60*time.Second, "the cluster is in the store again", func() bool {
		_, err := c.Store.Get("lease")
		return err == nil
	})
	c.AwaitHealthy(60 * time.Second)
	t.Logf("write outage when the store came back empty: %v", w.Outage(began, 60*time.Second))
	require.Zero(t, w.Lost())
	for _, d := range c.Nodes {
		diverged, err := filepath.Glob(filepath.Join(d.Data+".pgregent", "diverged", "*"))
		require.NoError(t, err)
		require.Empty(t, diverged, "two members wrote at the same time")
	}
}
