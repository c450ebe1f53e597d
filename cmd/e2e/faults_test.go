package e2e

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// endsSaying runs the daemon until it ends by itself, which it must not do with 0, and returns what it said.
func (d *daemon) endsSaying(within time.Duration) string {
	d.c.t.Helper()
	d.start()
	d.wait(within)
	require.NotZero(d.c.t, d.cmd.ProcessState.ExitCode(), d.tail())
	return d.tail()
}

func (d *daemon) replace(old, with string) {
	b, err := os.ReadFile(d.file)
	require.NoError(d.c.t, err)
	require.Contains(d.c.t, string(b), old)
	require.NoError(d.c.t, os.WriteFile(d.file, []byte(strings.ReplaceAll(string(b), old, with)), 0o600))
}

// TestRefusals: what the daemon cannot go on with ends it, with one sentence that says what, where and what to do.
func TestRefusals(t *testing.T) {
	c := newCluster(t, "15", 1, fastConfig)
	good := c.nodes[0]
	d := func(name string) *daemon {
		n := c.add(name)
		return n
	}
	t.Run("MissingBinary", func(t *testing.T) {
		n := d("nobin")
		n.replace("bin_dir: "+c.bin, "bin_dir: /no/such/folder")
		require.Contains(t, n.endsSaying(10*time.Second), "/no/such/folder")
	})
	t.Run("WrongType", func(t *testing.T) {
		n := d("types")
		n.replace("data_dir: "+n.data, "data_dir: [a, b]")
		require.Contains(t, n.endsSaying(10*time.Second), "postgresql.data_dir is [a b], expected a text")
	})
	t.Run("UnsupportedSafetySetting", func(t *testing.T) {
		n := d("sync")
		n.replace("loop_wait: 2", "loop_wait: 2\n    synchronous_mode: true")
		require.Contains(t, n.endsSaying(10*time.Second), "synchronous_mode = true is not supported yet")
	})
	t.Run("APIPortInUse", func(t *testing.T) {
		n := d("port")
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n.apiPort)))
		require.NoError(t, err)
		defer l.Close()
		require.Contains(t, n.endsSaying(20*time.Second), "restapi.listen")
	})
	t.Run("NameInUse", func(t *testing.T) {
		good.start()
		eventually(t, 30*time.Second, "it leads", good.primary)
		n := d("twin")
		n.replace("name: twin", "name: pg1")
		out := n.endsSaying(20 * time.Second)
		require.Contains(t, out, `a member named "pg1" is running already`)
		require.True(t, good.primary())
	})
}

// TestFaultsThatAreWaitedOut: nothing is deleted, nothing ends, and the node goes on when the fault is gone.
func TestFaultsThatAreWaitedOut(t *testing.T) {
	c := newCluster(t, "15", 2, fastConfig+"\n    failsafe_mode: false")
	a, b := c.nodes[0], c.nodes[1]
	a.start()
	eventually(t, 30*time.Second, "it leads", a.primary)

	t.Run("ForeignDataDirectory", func(t *testing.T) {
		initdb := exec.Command(filepath.Join(c.bin, "initdb"), "-D", b.data, "-A", "trust", "-U", "postgres", "--no-sync")
		out, err := initdb.CombinedOutput()
		require.NoError(t, err, string(out))
		b.start()
		eventually(t, 20*time.Second, "it says whose directory it is", func() bool {
			_, body := b.get("/patroni")
			p, _ := body["pgregent"].(map[string]any)
			return p["reason"] == "foreign-data"
		})
		require.FileExists(t, filepath.Join(b.data, "PG_VERSION"))
		require.Zero(t, b.postmaster(), "it is not started")
		require.NoError(t, os.Rename(b.data, b.data+".mine"))
		eventually(t, 30*time.Second, "with the directory moved away it joins", b.streaming)
	})

	t.Run("GarbageInTheStore", func(t *testing.T) {
		for key, value := range map[string]string{"failover": "{{{", "history": "[[]]", "sync": "x", "status": "?", "members/zzz": "7", "config": `{"ttl":`} {
			c.etcdPut(t, key, value)
		}
		began := time.Now()
		eventually(t, 30*time.Second, "some turns later all is well", func() bool { return time.Since(began) > 5*time.Second && a.primary() && b.streaming() })
	})

	t.Run("StoreUnreachable", func(t *testing.T) {
		w := c.write()
		began := time.Now()
		c.store.Freeze(0)
		eventually(t, 20*time.Second, "the leader is fenced and comes back read-only", func() bool {
			_, body := a.get("/patroni")
			return body["role"] == "replica"
		})
		t.Logf("read-only after %v", time.Since(began))
		require.False(t, a.primary())
		c.store.Thaw(0)
		outage := w.outage(began, 40*time.Second)
		t.Logf("the store was silent: write outage %v in all", outage)
		c.awaitHealthy(40 * time.Second)
		require.Zero(t, w.lost(c))
	})

	t.Run("DataDirectoryLost", func(t *testing.T) {
		l := c.leader()
		other := c.others(l)[0]
		require.NoError(t, os.Rename(l.data, l.data+".gone"))
		eventually(t, 40*time.Second, "the other one leads", other.primary)
		c.awaitHealthy(60 * time.Second)
		require.FileExists(t, filepath.Join(l.data, "PG_VERSION"))
	})
}

// etcdPut writes a key below the cluster's prefix, over etcd's own HTTP gateway.
func (c *testCluster) etcdPut(t *testing.T, key, value string) {
	t.Helper()
	b64 := base64.StdEncoding.EncodeToString
	body := fmt.Sprintf(`{"key":%q,"value":%q}`, b64([]byte("/service/"+c.scope+"/"+key)), b64([]byte(value)))
	res, err := http.Post(c.store.URLs()[0]+"/v3/kv/put", "application/json", strings.NewReader(body))
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
}
