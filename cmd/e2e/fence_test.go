package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// run runs a command of the daemon's program, and returns what it says.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(os.Getenv(rig.ProgramsEnv), "pgregent"), args...).CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

// TestDetach: an upgrade of the agent. `pgregent detach`, and SIGUSR2, end the daemon alone; the next one goes on where it
// was, on leader and replica, and no client notices (rule R11).
func TestDetach(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 2, DCS: fastConfig})
	c.StartAll()
	w := c.StartWriter()
	leader := c.Leader()
	postmaster, epoch := leader.Postmaster(), fenceOf(t, leader)["epoch"]
	began := time.Now()
	for i, d := range []*rig.Node{leader, c.Others(leader)[0], leader} {
		before := d.Postmaster()
		if i == 2 {
			require.NoError(t, d.Cmd.Process.Signal(syscall.SIGUSR2))
		} else {
			require.Contains(t, run(t, "detach", d.File), "detached: process ")
		}
		d.Wait(10 * time.Second)
		require.Zero(t, d.Cmd.ProcessState.ExitCode(), d.Tail())
		d.Start()
		c.AwaitHealthy(20 * time.Second)
		require.Equal(t, before, d.Postmaster(), "the same server")
	}
	require.Less(t, w.Outage(began, 10*time.Second), 300*time.Millisecond)
	require.Equal(t, postmaster, leader.Postmaster())
	require.Equal(t, epoch, fenceOf(t, leader)["epoch"], "the same epoch")
	require.Zero(t, w.Failures(), "failed writes")
	require.Zero(t, w.Lost())

	out, err := exec.Command(filepath.Join(os.Getenv(rig.ProgramsEnv), "pgregent"), "detach", c.Add("nobody").File).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "no pgregent serves the data directory")
}

// fenceOf is the object `pgregent` of GET /patroni.
func fenceOf(t *testing.T, d *rig.Node) map[string]any {
	t.Helper()
	_, body := d.Get("/patroni")
	p, ok := body["pgregent"].(map[string]any)
	require.True(t, ok, "%v", body)
	return p
}

// TestFenceIsTold: which rungs are active and what they guarantee, in the log at the start, in /patroni, in the metrics and
// in the list.
func TestFenceIsTold(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 1, DCS: fastConfig})
	c.StartAll()
	d := c.Leader()
	f, ok := fenceOf(t, d)["fence"].(map[string]any)
	require.True(t, ok)
	require.Equal(t, true, f["bounded"])
	require.Contains(t, f["rungs"], "deadline")
	require.Contains(t, f["rungs"], "kernel-timer")
	require.Contains(t, f["guarantee"], "nothing is acknowledged after the deadline")
	require.Contains(t, d.Tail(), `msg="the fence"`)
	res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", d.APIPort))
	require.NoError(t, err)
	defer res.Body.Close()
	metrics, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	for _, name := range []string{"pgregent_fence_bounded", "pgregent_fence_rung_deadline", "pgregent_fence_rung_kernel_timer"} {
		require.Regexp(t, name+`\{.*\} 1\n`, string(metrics))
	}
	list := run(t, "list", "-c", d.File, "--verbose")
	require.Contains(t, list, "Guarantee")
	require.Contains(t, list, "Failsafe mode: on: without the store the leader goes on with 1 promises of pg1")
	require.Regexp(t, `pg1 .*\| yes .*deadline, kernel-timer.*nothing is acknowledged`, list)
}

// TestFenceRequired: with `fence: required` a node whose guard gives no bound neither creates a cluster nor leads one, and
// says why.
func TestFenceRequired(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 1, DCS: fastConfig})
	d := c.Nodes[0]
	d.Write("fence: required\npgregent: {guard: " + rig.Unguarded() + "}\n")
	d.Start()
	rig.Eventually(t, 20*time.Second, "it says why it does not lead", func() bool {
		_, body := d.Get("/patroni")
		p, _ := body["pgregent"].(map[string]any)
		unfit, _ := p["unfit"].(string)
		return strings.Contains(unfit, "fence is required")
	})
	require.Contains(t, run(t, "list", "-c", d.File, "--verbose"), "built without its fence")
	require.NoFileExists(t, filepath.Join(d.Data, "PG_VERSION"), "it did not bootstrap")
	d.Stop()
	d.Write("fence: required\n")
	c.StartAll()
}

// TestWatchdogRequired: the guard arms the device before the node leads, feeds it, and disarms it after the demotion.
// Without the device the node does not lead.
func TestWatchdogRequired(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 1, DCS: fastConfig})
	d := c.Nodes[0]
	fifo := filepath.Join(c.Root, "watchdog")
	d.Write("watchdog: {mode: required, safety_margin: -1, driver: testing, device: " + fifo + "}\n")
	d.Start()
	rig.Eventually(t, 20*time.Second, "it says why it does not lead", func() bool {
		_, body := d.Get("/patroni")
		return body["watchdog_failed"] == true
	})
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	device, err := os.OpenFile(fifo, os.O_RDWR, 0)
	require.NoError(t, err)
	defer device.Close()
	rig.Eventually(t, 30*time.Second, "it leads", d.Primary)
	said := make([]byte, 1<<16)
	n, err := device.Read(said)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(said[:n]), "Ctimeout=7\n1"), "%q", said[:n])
	rungs := fenceOf(t, d)["fence"].(map[string]any)["rungs"]
	require.Contains(t, rungs, "watchdog")
	_, err = device.Read(said)
	require.NoError(t, err, "it is fed again")
	d.Stop()
	n, err = device.Read(said)
	require.NoError(t, err)
	require.Equal(t, byte('V'), said[n-1], "%q", said[:n])
}

// TestSystemdUnit: the unit that is shipped is one that systemd takes.
func TestSystemdUnit(t *testing.T) {
	text, err := os.ReadFile("../../docs/systemd/pgregent@.service")
	require.NoError(t, err)
	for _, line := range []string{"Type=notify", "KillMode=process", "OOMPolicy=continue", "Delegate=yes", "ExecReload=", "AmbientCapabilities="} {
		require.Contains(t, string(text), "\n"+line)
	}
	unit := filepath.Join(t.TempDir(), "pgregent@pg1.service")
	program := filepath.Join(os.Getenv(rig.ProgramsEnv), "pgregent")
	require.NoError(t, os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), "/usr/bin/pgregent", program)), 0o600))
	verify := exec.Command("systemd-analyze", "verify", "--man=no", unit)
	out, err := verify.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Empty(t, string(out))
}
