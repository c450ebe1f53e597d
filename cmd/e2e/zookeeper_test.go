package e2e

import (
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/dcs/dcstest/zookeeperserver"
)

// TestZooKeeper drives three daemons over three ZooKeeper servers: what happens to ZooKeeper stops no write, and what
// happens to a node is over in the same time as on any store.
func TestZooKeeper(t *testing.T) {
	store := zookeeperserver.Start(t, 3)
	c := rig.New(t, rig.Options{PG: "15", Nodes: 3, DCS: fastConfig})
	for _, d := range c.Nodes {
		unused := strings.TrimPrefix(c.Store.URLs()[0], "http://")
		d.Replace("etcd3:\n  hosts: ["+unused+"]", "zookeeper:\n  hosts: ["+strings.Join(store.Addrs(), ", ")+"]")
	}
	c.StartAll()
	w := c.StartWriter()

	t.Run("IdleCost", func(t *testing.T) {
		const while = 10
		before := packets(t, store.Addrs())
		<-time.After(while * time.Second)
		n := float64(packets(t, store.Addrs())-before) / while
		t.Logf("three nodes: %.1f requests a second, pings included", n)
		require.Less(t, n, 80.0)
	})

	// Whatever is done to ZooKeeper, the same node leads and writes go on.
	for how, disturb := range map[string]func(int) (restore func(int)){
		"LeaderKilled": func(i int) func(int) { store.Kill(i); return store.Restart },
		"LeaderFrozen": func(i int) func(int) { store.Freeze(i); return store.Thaw },
	} {
		t.Run(how, func(t *testing.T) {
			l := c.Leader()
			require.NotNil(t, l)
			began, failed := time.Now(), w.Failures()
			i := store.Leader()
			restore := disturb(i)
			<-time.After(8 * time.Second)
			restore(i)
			<-time.After(5 * time.Second)
			outage := w.Outage(began, 20*time.Second)
			t.Logf("the longest time without a write was %v", outage)
			require.Less(t, outage, time.Second)
			require.Equal(t, failed, w.Failures())
			require.Same(t, l, c.Leader())
			c.AwaitHealthy(20 * time.Second)
		})
	}

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
}

// packets is how many messages of clients all servers have received.
func packets(t *testing.T, addrs []string) (sum int) {
	t.Helper()
	for _, addr := range addrs {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
		_, err = conn.Write([]byte("mntr"))
		require.NoError(t, err)
		text, err := io.ReadAll(conn)
		require.NoError(t, err)
		_ = conn.Close()
		_, after, found := strings.Cut(string(text), "zk_packets_received\t")
		require.True(t, found, "%s", text)
		line, _, _ := strings.Cut(after, "\n")
		n, err := strconv.Atoi(strings.TrimSpace(line))
		require.NoError(t, err)
		sum += n
	}
	return sum
}
