package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// patroniConfig has the shortest ttl that Patroni takes, so that both programs use the same times.
const patroniConfig = `
    ttl: 20
    loop_wait: 2
    retry_timeout: 5`

// TestMixedCluster lets a Patroni member join a cluster of pgregent, lead it, and give it back; and changes the program
// on one data directory, both ways.
func TestMixedCluster(t *testing.T) {
	rig.Patroni(t, "patroni")
	c := rig.New(t, rig.Options{PG: "15", Nodes: 2, DCS: patroniConfig})
	c.StartAll()
	pat := c.Add("apat") // sorts first: with equal positions it is the target
	pat.RunPatroni()
	c.Nodes = append(c.Nodes, pat)
	w := c.StartWriter()
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
		t.Logf("write outage until Patroni led: %v", w.Outage(began, 40*time.Second))
		other := c.Others(l)[0]
		rig.Eventually(t, 30*time.Second, "the pgregent member follows it", other.Streaming)
		l.Start()
		rig.Eventually(t, 30*time.Second, "the stopped one comes back and follows it", l.Streaming)
		require.Zero(t, w.Lost())
	})

	t.Run("AndBack", func(t *testing.T) {
		target := c.Nodes[0]
		began := time.Now()
		code, text := pat.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, pat.Name, target.Name))
		require.Equal(t, http.StatusOK, code, text)
		t.Logf("write outage of the switchover back: %v", w.Outage(began, 40*time.Second))
		rig.Eventually(t, 5*time.Second, "the target leads", target.Primary)
		c.AwaitHealthy(40 * time.Second)
		require.Zero(t, w.Lost())
	})

	t.Run("PatroniIsLost", func(t *testing.T) {
		l := c.Leader()
		code, text := l.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, l.Name, pat.Name))
		require.Equal(t, http.StatusOK, code, text)
		c.AwaitHealthy(40 * time.Second)
		began := time.Now()
		pat.Lose()
		outage := w.Outage(began, 60*time.Second)
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
		d.RunPatroni()
		d.Start()
		rig.Eventually(t, 40*time.Second, "the same directory streams under Patroni", d.Streaming)
		require.NoDirExists(t, d.Data+".old", "it was not copied anew")
		d.Stop()
		d.RunPgregent()
		d.Start()
		rig.Eventually(t, 40*time.Second, "and under pgregent again", d.Streaming)
		require.NoDirExists(t, d.Data+".old", "it was not copied anew")
		after, err := os.ReadFile(filepath.Join(d.Data, "PG_VERSION"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after))
	})
}
