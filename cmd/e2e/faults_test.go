package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// endsSaying runs the daemon until it ends by itself, which it must not do with 0, and returns what it said.
func endsSaying(d *rig.Node, within time.Duration) string {
	d.C.T.Helper()
	d.Start()
	d.Wait(within)
	require.NotZero(d.C.T, d.Cmd.ProcessState.ExitCode(), d.Tail())
	return d.Tail()
}

// TestRefusals: what the daemon cannot go on with ends it, with one sentence that says what, where and what to do.
func TestRefusals(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 1, DCS: fastConfig})
	good := c.Nodes[0]
	d := func(name string) *rig.Node {
		n := c.Add(name)
		return n
	}
	t.Run("MissingBinary", func(t *testing.T) {
		n := d("nobin")
		n.Replace("bin_dir: "+c.Bin, "bin_dir: /no/such/folder")
		require.Contains(t, endsSaying(n, 10*time.Second), "/no/such/folder")
	})
	t.Run("WrongType", func(t *testing.T) {
		n := d("types")
		n.Replace("data_dir: "+n.Data, "data_dir: [a, b]")
		require.Contains(t, endsSaying(n, 10*time.Second), "postgresql.data_dir is [a b], expected a text")
	})
	t.Run("UnsupportedSafetySetting", func(t *testing.T) {
		n := d("sync")
		n.Replace("loop_wait: 2", "loop_wait: 2\n    synchronous_mode: true")
		require.Contains(t, endsSaying(n, 10*time.Second), "synchronous_mode = true is not supported yet")
	})
	t.Run("APIPortInUse", func(t *testing.T) {
		n := d("port")
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n.APIPort)))
		require.NoError(t, err)
		defer l.Close()
		require.Contains(t, endsSaying(n, 20*time.Second), "restapi.listen")
	})
	t.Run("NameInUse", func(t *testing.T) {
		good.Start()
		rig.Eventually(t, 30*time.Second, "it leads", good.Primary)
		n := d("twin")
		n.Replace("name: twin", "name: pg1")
		out := endsSaying(n, 20*time.Second)
		require.Contains(t, out, `a member named "pg1" is running already`)
		require.True(t, good.Primary())
	})
}

// TestFaultsThatAreWaitedOut: nothing is deleted, nothing ends, and the node goes on when the fault is gone.
func TestFaultsThatAreWaitedOut(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 2, DCS: fastConfig + "\n    failsafe_mode: false"})
	a, b := c.Nodes[0], c.Nodes[1]
	a.Start()
	rig.Eventually(t, 30*time.Second, "it leads", a.Primary)

	t.Run("ForeignDataDirectory", func(t *testing.T) {
		initdb := exec.Command(filepath.Join(c.Bin, "initdb"), "-D", b.Data, "-A", "trust", "-U", "postgres", "--no-sync")
		out, err := initdb.CombinedOutput()
		require.NoError(t, err, string(out))
		b.Start()
		rig.Eventually(t, 20*time.Second, "it says whose directory it is", func() bool {
			_, body := b.Get("/patroni")
			p, _ := body["pgregent"].(map[string]any)
			return p["reason"] == "foreign-data"
		})
		require.FileExists(t, filepath.Join(b.Data, "PG_VERSION"))
		require.Zero(t, b.Postmaster(), "it is not started")
		require.NoError(t, os.Rename(b.Data, b.Data+".mine"))
		rig.Eventually(t, 30*time.Second, "with the directory moved away it joins", b.Streaming)
	})

	t.Run("GarbageInTheStore", func(t *testing.T) {
		for key, value := range map[string]string{"failover": "{{{", "history": "[[]]", "sync": "x", "status": "?", "members/zzz": "7", "config": `{"ttl":`} {
			require.NoError(t, c.Store.Put(key, value))
		}
		began := time.Now()
		rig.Eventually(t, 30*time.Second, "some turns later all is well", func() bool { return time.Since(began) > 5*time.Second && a.Primary() && b.Streaming() })
	})

	t.Run("StoreUnreachable", func(t *testing.T) {
		w := c.StartWriter()
		began := time.Now()
		c.Store.Freeze(0)
		rig.Eventually(t, 20*time.Second, "the leader is fenced and comes back read-only", func() bool {
			_, body := a.Get("/patroni")
			return body["role"] == "replica"
		})
		t.Logf("read-only after %v", time.Since(began))
		require.False(t, a.Primary())
		c.Store.Thaw(0)
		outage := w.Outage(began, 40*time.Second)
		t.Logf("the store was silent: write outage %v in all", outage)
		c.AwaitHealthy(40 * time.Second)
		require.Zero(t, w.Lost())
	})

	t.Run("DataDirectoryLost", func(t *testing.T) {
		l := c.Leader()
		other := c.Others(l)[0]
		require.NoError(t, os.Rename(l.Data, l.Data+".gone"))
		rig.Eventually(t, 40*time.Second, "the other one leads", other.Primary)
		c.AwaitHealthy(60 * time.Second)
		require.FileExists(t, filepath.Join(l.Data, "PG_VERSION"))
	})
}
