package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// patroniConfig has the shortest ttl that Patroni takes, so that both programs use the same times.
const patroniConfig = `
    ttl: 20
    loop_wait: 2
    retry_timeout: 5`

// patroniTool is a program of Patroni 4.1, unpacked beside the system.
func patroniTool(t testing.TB, name string) string {
	t.Helper()
	cache := os.Getenv("PGREGENT_CACHE")
	path := filepath.Join(cache, "bin", name)
	if _, err := os.Stat(path); cache == "" || err != nil {
		postgrestest.Require(t, "Patroni: PGREGENT_CACHE/bin/"+name+" (.ci/deps installs it)")
	}
	return path
}

// patronictl runs the real patronictl with the node's own file.
func patronictl(d *rig.Node, args ...string) (string, error) {
	cmd := exec.Command(patroniTool(d.C.T, "patronictl"), append([]string{"-c", d.File}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func pgregent() []string {
	return []string{filepath.Join(os.Getenv(rig.ProgramsEnv), "pgregent"), "run"}
}

// TestPatronictl drives the real patronictl against a cluster of pgregent.
func TestPatronictl(t *testing.T) {
	patroniTool(t, "patronictl")
	c := rig.New(t, rig.Options{PG: "15", Nodes: 3, DCS: fastConfig})
	c.StartAll()

	out, err := patronictl(c.Nodes[0], "list", "-f", "json")
	require.NoError(t, err, out)
	var theirs []map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &theirs), out)
	cmd := exec.Command(filepath.Join(os.Getenv(rig.ProgramsEnv), "pgregent"), "list", "-c", c.Nodes[0].File, "-f", "json")
	var ours []map[string]any
	b, err := cmd.Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &ours))
	require.Len(t, theirs, 3)
	require.Len(t, ours, 3)
	sort.Slice(theirs, func(i, j int) bool { return fmt.Sprint(theirs[i]["Member"]) < fmt.Sprint(theirs[j]["Member"]) })
	for i := range theirs {
		require.Equal(t, theirs[i]["Member"], ours[i]["name"])
		require.Equal(t, theirs[i]["State"], ours[i]["state"])
		require.EqualValues(t, theirs[i]["TL"], ours[i]["timeline"])
		require.Equal(t, strings.ToLower(fmt.Sprint(theirs[i]["Role"])), fmt.Sprint(ours[i]["role"]))
		require.Equal(t, theirs[i]["Host"], fmt.Sprintf("%v:%v", ours[i]["host"], ours[i]["port"]))
	}

	out, err = patronictl(c.Nodes[0], "show-config")
	require.NoError(t, err, out)
	require.Contains(t, out, "ttl: 8")

	old := c.Leader()
	target := c.Others(old)[0]
	out, err = patronictl(old, "switchover", "--leader", old.Name, "--candidate", target.Name, "--force")
	require.NoError(t, err, out)
	require.Contains(t, out, fmt.Sprintf("Successfully switched over to %q", target.Name))
	c.AwaitHealthy(20 * time.Second)
	require.True(t, target.Primary())

	out, err = patronictl(target, "pause", "--wait")
	require.NoError(t, err)
	require.Contains(t, out, "does not support this operation", "PATCH /config is not there yet, and says so")
}

// TestMixedCluster lets a Patroni member join a cluster of pgregent, lead it, and give it back; and changes the program
// on one data directory, both ways.
func TestMixedCluster(t *testing.T) {
	patroni := patroniTool(t, "patroni")
	c := rig.New(t, rig.Options{PG: "15", Nodes: 2, DCS: patroniConfig})
	c.StartAll()
	pat := c.Add("apat") // sorts first: with equal positions it is the target
	pat.Program = []string{patroni}
	c.Nodes = append(c.Nodes, pat)
	w := startWriter(c)
	pat.Start()
	took := rig.Eventually(t, 60*time.Second, "the Patroni member streams", pat.Streaming)
	t.Logf("a Patroni member joined after %v", took)
	c.AwaitHealthy(20 * time.Second)

	t.Run("PatroniTakesOver", func(t *testing.T) {
		l := c.Leader()
		require.NotEqual(t, pat, l)
		began := time.Now()
		l.Stop()
		rig.Eventually(t, 40*time.Second, "the Patroni member leads", pat.Primary)
		t.Logf("write outage until Patroni led: %v", w.outage(began, 40*time.Second))
		other := c.Others(l)[0]
		rig.Eventually(t, 30*time.Second, "the pgregent member follows it", other.Streaming)
		l.Start()
		rig.Eventually(t, 30*time.Second, "the stopped one comes back and follows it", l.Streaming)
		require.Zero(t, w.lost(c))
	})

	t.Run("AndBack", func(t *testing.T) {
		target := c.Nodes[0]
		began := time.Now()
		code, text := pat.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, pat.Name, target.Name))
		require.Equal(t, http.StatusOK, code, text)
		t.Logf("write outage of the switchover back: %v", w.outage(began, 40*time.Second))
		require.True(t, target.Primary())
		c.AwaitHealthy(40 * time.Second)
		require.Zero(t, w.lost(c))
	})

	t.Run("PatroniIsLost", func(t *testing.T) {
		l := c.Leader()
		code, text := l.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, l.Name, pat.Name))
		require.Equal(t, http.StatusOK, code, text)
		c.AwaitHealthy(40 * time.Second)
		began := time.Now()
		pat.Lose()
		outage := w.outage(began, 60*time.Second)
		t.Logf("the Patroni leader's machine was lost: write outage %v (its own ttl is 20 s)", outage)
		pat.Start()
		c.AwaitHealthy(60 * time.Second)
	})

	t.Run("SwapProgram", func(t *testing.T) {
		l := c.Leader()
		d := c.Others(l)[0]
		if d == pat {
			d = c.Others(l)[1]
		}
		before, err := os.ReadFile(filepath.Join(d.Data, "PG_VERSION"))
		require.NoError(t, err)
		d.Stop()
		d.Program = []string{patroni}
		d.Start()
		rig.Eventually(t, 40*time.Second, "the same directory streams under Patroni", d.Streaming)
		require.NoDirExists(t, d.Data+".old", "it was not copied anew")
		d.Stop()
		d.Program = pgregent()
		d.Start()
		rig.Eventually(t, 40*time.Second, "and under pgregent again", d.Streaming)
		require.NoDirExists(t, d.Data+".old", "it was not copied anew")
		after, err := os.ReadFile(filepath.Join(d.Data, "PG_VERSION"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after))
	})
}
