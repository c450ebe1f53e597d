package operate

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// notable is a time without an acknowledged write that counts as an outage: beside it is what a busy machine does.
const notable = 400 * time.Millisecond

// TestTakeOver hands a Patroni cluster of three over to pgregent, node by node, under a writer, and gives it back: the
// same files, the same data directories, nothing copied anew.
func TestTakeOver(t *testing.T) {
	rig.Patroni(t, "patroni")
	c := rig.New(t, rig.Options{PG: "15", Nodes: 3, DCS: patroniTimes, Extra: fastCopy})
	for _, d := range c.Nodes {
		d.RunPatroni()
	}
	c.Nodes[0].Start()
	rig.Eventually(t, steady, "pg1 leads", c.Nodes[0].Primary)
	c.Nodes[1].Start()
	c.Nodes[2].Start()
	c.AwaitHealthy(steady)
	born := map[string]os.FileInfo{}
	for _, d := range c.Nodes {
		born[d.Name] = versionFile(t, d)
	}
	w := c.StartWriter()
	first := c.Leader()

	var moves []rig.Gap
	t.Run("taken", func(t *testing.T) { moves = append(moves, handOver(t, c, w, (*rig.Node).RunPgregent)) })
	t.Run("kept", func(t *testing.T) {
		for _, d := range c.Nodes {
			require.True(t, pgregentRuns(d), "%s is run by pgregent", d.Name)
		}
	})
	t.Run("given", func(t *testing.T) { moves = append(moves, handOver(t, c, w, (*rig.Node).RunPatroni)) })

	w.Stop()
	for _, d := range c.Nodes {
		require.False(t, pgregentRuns(d), "%s is run by Patroni", d.Name)
		if d != first {
			require.True(t, os.SameFile(born[d.Name], versionFile(t, d)), "%s was copied anew", d.Name)
			continue
		}
		// The last Patroni leader has followed our first promotion without being told its identity. Nothing on its disk can
		// say that it was this promotion and no other of the same number (hazard B10), so it is copied, and what it had is kept.
		if !os.SameFile(born[d.Name], versionFile(t, d)) {
			require.DirExists(t, d.Data+".old")
		}
	}
	require.NoFileExists(t, leaderSignal(c.Leader()), "the leader carries no standby.signal")
	for _, g := range w.Gaps(notable) {
		t.Logf("%v without an acknowledged write", g)
		within := false
		for _, m := range moves {
			within = within || g.From.After(m.From.Add(-notable)) && g.To.Before(m.To.Add(notable))
		}
		require.True(t, within, "no writes for %v outside of the two switchovers", g)
	}
	lost := w.Lost()
	t.Logf("%d writes acknowledged, %d lost, %d failed", w.Acked(), lost, w.Failures())
	require.Zero(t, lost)
}

// handOver changes the program of each node, the leader last, and returns when the leadership moved.
func handOver(t *testing.T, c *rig.Cluster, w *rig.Writer, program func(*rig.Node)) rig.Gap {
	old := c.Leader()
	require.NotNil(t, old)
	failed := w.Failures()
	others := c.Others(old)
	for _, d := range others {
		swap(t, d, program)
	}
	require.Equal(t, failed, w.Failures(), "no write fails while replicas are handed over")
	if pgregentRuns(others[0]) && !pgregentRuns(old) {
		// There is no lease record yet. Whoever takes the first one has watched for a ttl that there is none (lease rule
		// R4), and an operator waits for that before the switchover.
		<-time.After(20 * time.Second)
	}
	began := time.Now()
	code, text := old.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, old.Name, others[0].Name))
	require.Equal(t, http.StatusOK, code, text)
	outage := w.Outage(began, steady)
	move := rig.Gap{From: began, To: time.Now()}
	t.Logf("switchover to %s: write outage %v: %s", others[0].Name, outage, text)
	require.Less(t, outage, 10*time.Second)
	rig.Eventually(t, steady, "the old leader follows", old.Streaming)
	failed = w.Failures()
	swap(t, old, program)
	require.Equal(t, failed, w.Failures(), "no write fails while the old leader is handed over")
	c.AwaitHealthy(steady)
	return move
}

// swap stops what runs a replica and starts the other program on the same file and directory.
func swap(t *testing.T, d *rig.Node, program func(*rig.Node)) {
	began := time.Now()
	d.Stop()
	program(d)
	d.Start()
	rig.Eventually(t, steady, d.Name+" streams under the other program", d.Streaming)
	t.Logf("%s was handed over within %v", d.Name, time.Since(began).Round(10*time.Millisecond))
}

// pgregentRuns says that a node's answers have our own object.
func pgregentRuns(d *rig.Node) bool {
	_, body := d.Get("/patroni")
	return body["pgregent"] != nil
}

// versionFile is a file that nobody writes again, unless the data directory is made anew.
func versionFile(t testing.TB, d *rig.Node) os.FileInfo {
	t.Helper()
	info, err := os.Stat(filepath.Join(d.Data, "PG_VERSION"))
	require.NoError(t, err)
	return info
}

// leaderSignal is where a leader's standby.signal would be.
func leaderSignal(d *rig.Node) string {
	if !d.Primary() {
		return filepath.Join(d.Data, "of a replica it may be")
	}
	return filepath.Join(d.Data, "standby.signal")
}
