package e2e

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// idleLimit is how many requests a second three idle nodes may make at loop_wait 2, as Store.Requests counts them:
// ZooKeeper's include the pings of every connection.
func idleLimit(store string) float64 {
	return map[string]float64{"etcd": 15, "consul": 15, "zookeeper": 80}[store]
}

// testStore is what happens to the store's own servers: the same node leads, no write fails, and none waits for long.
func testStore(t *testing.T, c *rig.Cluster, w *rig.Writer, kind string) {
	t.Run("IdleCost", func(t *testing.T) {
		const while = 10
		before, err := c.Store.Requests()
		require.NoError(t, err)
		<-time.After(while * time.Second)
		after, err := c.Store.Requests()
		require.NoError(t, err)
		n := (after - before) / while
		t.Logf("%s, %d servers: three idle nodes make %.1f requests a second", kind, c.Store.Servers(), n)
		require.Positive(t, n)
		require.Less(t, n, idleLimit(kind))
	})

	undisturbed := func(name string, disturb func(leader int)) {
		t.Run(name, func(t *testing.T) {
			l := c.Leader()
			require.NotNil(t, l)
			began, failed := time.Now(), w.Failures()
			for i, n := range c.Nodes {
				if n == l {
					disturb(i)
				}
			}
			<-time.After(5 * time.Second)
			outage := w.Outage(began, 20*time.Second)
			t.Logf("%s, %s: the longest time without a write was %v", kind, name, outage)
			require.Less(t, outage, time.Second)
			require.Equal(t, failed, w.Failures())
			require.Same(t, l, c.Leader())
			c.AwaitHealthy(20 * time.Second)
		})
	}
	// ttl is 8 s here: what is gone for that long must have been done without.
	undisturbed("StoreLeaderKilled", func(int) {
		i := c.Store.Leader()
		c.Store.Kill(i)
		<-time.After(8 * time.Second)
		c.Store.Restart(i)
	})
	undisturbed("StoreLeaderFrozen", func(int) {
		i := c.Store.Leader()
		c.Store.Freeze(i)
		<-time.After(8 * time.Second)
		c.Store.Thaw(i)
	})
	undisturbed("StoreLeaderRestarted", func(int) { c.Store.Restart(c.Store.Leader()) })
	if c.Store.Agent(0) >= 0 {
		undisturbed("AgentRestarted", func(leader int) { c.Store.Restart(c.Store.Agent(leader)) })
	}
	if kind == "consul" {
		t.Run("Catalog", func(t *testing.T) { testCatalog(t, c) })
	}
}

// testCatalog: Consul's catalog of services shows who leads.
func testCatalog(t *testing.T, c *rig.Cluster) {
	url := "http://" + c.Store.Addrs(0)[0] + "/v1/catalog/service/" + c.Scope + "?tag=primary"
	client := http.Client{Timeout: 5 * time.Second}
	rig.Eventually(t, 10*time.Second, "the catalog shows the leader as the primary", func() bool {
		resp, err := client.Get(url)
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		var all []struct{ ServiceID string }
		return json.NewDecoder(resp.Body).Decode(&all) == nil && len(all) == 1 && all[0].ServiceID == c.Scope+"/"+c.Leader().Name
	})
}
