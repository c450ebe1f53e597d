package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/dcs/dcstest/consulserver"
)

// TestConsul drives three daemons, each beside its own agent, over three Consul servers: what happens to Consul stops no
// write, and what happens to a node is over in the same time as on any store.
func TestConsul(t *testing.T) {
	const servers = 3
	store := consulserver.StartWith(t, consulserver.Options{Servers: servers, Agents: 3})
	c := rig.New(t, rig.Options{PG: "15", Nodes: 3, DCS: fastConfig})
	agents := map[*rig.Node]int{}
	for i, d := range c.Nodes {
		agents[d] = servers + i
		unused := strings.TrimPrefix(c.Store.URLs()[0], "http://")
		d.Replace("etcd3:\n  hosts: ["+unused+"]", "consul:\n  host: "+store.Addr(servers+i)+"\n  register_service: true")
	}
	c.StartAll()
	w := c.StartWriter()

	t.Run("IdleCost", func(t *testing.T) {
		<-time.After(22 * time.Second) // two intervals of the agents' counters
		total := 0.0
		for _, d := range c.Nodes {
			n := requests(t, store.Addr(agents[d]))
			total += n
			t.Logf("%s, leader %v: %.1f requests a second", d.Name, d.Primary(), n)
		}
		t.Logf("three nodes: %.1f requests a second", total)
		require.Less(t, total, 15.0)
	})

	// Whatever is done to Consul, the same node leads and writes go on.
	undisturbed := func(name string, disturb func(leader *rig.Node)) {
		t.Run(name, func(t *testing.T) {
			l := c.Leader()
			require.NotNil(t, l)
			began, failed := time.Now(), w.Failures()
			disturb(l)
			<-time.After(10 * time.Second)
			outage := w.Outage(began, 20*time.Second)
			t.Logf("%s: the longest time without a write was %v", name, outage)
			require.Less(t, outage, time.Second)
			require.Equal(t, failed, w.Failures())
			require.Same(t, l, c.Leader())
			c.AwaitHealthy(20 * time.Second)
		})
	}
	undisturbed("ConsulLeaderKilled", func(*rig.Node) {
		i := store.Leader()
		store.Kill(i)
		<-time.After(8 * time.Second)
		store.Restart(i)
	})
	undisturbed("ConsulLeaderFrozen", func(*rig.Node) {
		i := store.Leader()
		store.Freeze(i)
		<-time.After(8 * time.Second)
		store.Thaw(i)
	})
	undisturbed("AgentRestarted", func(l *rig.Node) { store.Restart(agents[l]) })

	t.Run("NodeLost", func(t *testing.T) {
		l := c.Leader()
		began := time.Now()
		l.Lose()
		outage := w.Outage(began, 60*time.Second)
		t.Logf("node lost: outage %v, acknowledged writes lost (asynchronous): %d", outage, w.Lost())
		require.Less(t, outage, 10*time.Second)
		l.Start()
		c.AwaitHealthy(40 * time.Second)
	})

	t.Run("Catalog", func(t *testing.T) {
		rig.Eventually(t, 10*time.Second, "the catalog shows the leader as the primary", func() bool {
			var all []struct{ ServiceID string }
			ask(t, "http://"+store.Addr(0)+"/v1/catalog/service/demo?tag=primary", &all)
			return len(all) == 1 && all[0].ServiceID == "demo/"+c.Leader().Name
		})
	})
}

// requests is how many requests a second an agent answered, in the last interval of its counters, which is 10 s.
func requests(t *testing.T, address string) (n float64) {
	t.Helper()
	var all struct {
		Samples []struct {
			Name  string
			Count float64
		}
	}
	ask(t, "http://"+address+"/v1/agent/metrics", &all)
	for _, s := range all.Samples {
		if s.Name == "consul.api.http" {
			n += s.Count / 10
		}
	}
	return n
}

func ask(t *testing.T, url string, into any) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode, fmt.Sprint(url))
	require.NoError(t, json.NewDecoder(resp.Body).Decode(into))
}
