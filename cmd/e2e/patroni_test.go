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

	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// patroniConfig has the shortest ttl that Patroni takes, so that both programs use the same times.
const patroniConfig = `
    ttl: 20
    loop_wait: 2
    retry_timeout: 5`

// patroniTool is a program of Patroni 4.1, unpacked beside the system.
func patroniTool(t *testing.T, name string) string {
	t.Helper()
	cache := os.Getenv("PGREGENT_CACHE")
	path := filepath.Join(cache, "bin", name)
	if _, err := os.Stat(path); cache == "" || err != nil {
		postgrestest.Require(t, "Patroni: PGREGENT_CACHE/bin/"+name+" (.ci/deps installs it)")
	}
	return path
}

// patronictl runs the real patronictl with the node's own file.
func (d *daemon) patronictl(args ...string) (string, error) {
	cmd := exec.Command(patroniTool(d.c.t, "patronictl"), append([]string{"-c", d.file}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run switches the node's program; the daemon is not running.
func (d *daemon) use(program ...string) { d.program = program }

func (c *testCluster) pgregent() []string {
	return []string{filepath.Join(os.Getenv(programsEnv), "pgregent"), "run"}
}

// TestPatronictl drives the real patronictl against a cluster of pgregent.
func TestPatronictl(t *testing.T) {
	patroniTool(t, "patronictl")
	c := newCluster(t, "15", 3, fastConfig)
	c.startAll()

	out, err := c.nodes[0].patronictl("list", "-f", "json")
	require.NoError(t, err, out)
	var theirs []map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &theirs), out)
	cmd := exec.Command(filepath.Join(os.Getenv(programsEnv), "pgregent"), "list", "-c", c.nodes[0].file, "-f", "json")
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

	out, err = c.nodes[0].patronictl("show-config")
	require.NoError(t, err, out)
	require.Contains(t, out, "ttl: 8")

	old := c.leader()
	target := c.others(old)[0]
	out, err = old.patronictl("switchover", "--leader", old.name, "--candidate", target.name, "--force")
	require.NoError(t, err, out)
	require.Contains(t, out, fmt.Sprintf("Successfully switched over to %q", target.name))
	c.awaitHealthy(20 * time.Second)
	require.True(t, target.primary())

	out, err = target.patronictl("pause", "--wait")
	require.NoError(t, err)
	require.Contains(t, out, "does not support this operation", "PATCH /config is not there yet, and says so")
}

// TestMixedCluster lets a Patroni member join a cluster of pgregent, lead it, and give it back; and changes the program
// on one data directory, both ways.
func TestMixedCluster(t *testing.T) {
	patroni := patroniTool(t, "patroni")
	c := newCluster(t, "15", 2, patroniConfig)
	c.startAll()
	pat := c.add("apat") // sorts first: with equal positions it is the target
	pat.use(patroni)
	c.nodes = append(c.nodes, pat)
	w := c.write()
	pat.start()
	took := eventually(t, 60*time.Second, "the Patroni member streams", pat.streaming)
	t.Logf("a Patroni member joined after %v", took)
	c.awaitHealthy(20 * time.Second)

	t.Run("PatroniTakesOver", func(t *testing.T) {
		l := c.leader()
		require.NotEqual(t, pat, l)
		began := time.Now()
		l.stop()
		eventually(t, 40*time.Second, "the Patroni member leads", pat.primary)
		t.Logf("write outage until Patroni led: %v", w.outage(began, 40*time.Second))
		other := c.others(l)[0]
		eventually(t, 30*time.Second, "the pgregent member follows it", other.streaming)
		l.start()
		eventually(t, 30*time.Second, "the stopped one comes back and follows it", l.streaming)
		require.Zero(t, w.lost(c))
	})

	t.Run("AndBack", func(t *testing.T) {
		target := c.nodes[0]
		began := time.Now()
		code, text := pat.post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, pat.name, target.name))
		require.Equal(t, http.StatusOK, code, text)
		t.Logf("write outage of the switchover back: %v", w.outage(began, 40*time.Second))
		require.True(t, target.primary())
		c.awaitHealthy(40 * time.Second)
		require.Zero(t, w.lost(c))
	})

	t.Run("PatroniIsLost", func(t *testing.T) {
		l := c.leader()
		code, text := l.post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, l.name, pat.name))
		require.Equal(t, http.StatusOK, code, text)
		c.awaitHealthy(40 * time.Second)
		began := time.Now()
		pat.lose()
		outage := w.outage(began, 60*time.Second)
		t.Logf("the Patroni leader's machine was lost: write outage %v (its own ttl is 20 s)", outage)
		pat.start()
		c.awaitHealthy(60 * time.Second)
	})

	t.Run("SwapProgram", func(t *testing.T) {
		l := c.leader()
		d := c.others(l)[0]
		if d == pat {
			d = c.others(l)[1]
		}
		before, err := os.ReadFile(filepath.Join(d.data, "PG_VERSION"))
		require.NoError(t, err)
		d.stop()
		d.use(patroni)
		d.start()
		eventually(t, 40*time.Second, "the same directory streams under Patroni", d.streaming)
		require.NoDirExists(t, d.data+".old", "it was not copied anew")
		d.stop()
		d.use(c.pgregent()...)
		d.start()
		eventually(t, 40*time.Second, "and under pgregent again", d.streaming)
		require.NoDirExists(t, d.data+".old", "it was not copied anew")
		after, err := os.ReadFile(filepath.Join(d.data, "PG_VERSION"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after))
	})
}
