package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// tool runs a program with input, and returns what it printed, its errors, and whether it failed.
func tool(input, program string, args ...string) (out, errOut string, err error) {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "PGPASSWORD=super-secret", "PGUSER=postgres", "TZ=UTC", "HOME=/nonexistent")
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// TestCommandLine compares the commands that read with the real patronictl's, byte by byte, on a cluster with tags, a
// scheduled restart and switchover, and parameters that wait for a restart, and runs those that change something.
func TestCommandLine(t *testing.T) {
	theirs := rig.Patroni(t, "patronictl")
	c := rig.New(t, rig.Options{PG: "15", Nodes: 3, DCS: fastConfig})
	c.Nodes[0].Replace("bootstrap:\n", "tags: {clonefrom: true, color: 'on', speed: 5}\nbootstrap:\n")
	c.StartAll()
	ours := filepath.Join(t.TempDir(), "patronictl")
	require.NoError(t, os.Symlink(rig.Program("pgregent"), ours))
	file := c.Nodes[0].File
	leader := c.Leader()
	replica := c.Others(leader)[0]
	var code int
	var text string
	arrange := func() {
		code, text = replica.Post("/restart", `{"schedule":"2036-01-01T00:00:00+00:00","postgres_version":"16.0"}`)
		require.Equal(t, 202, code, text)
		patch(t, leader, `{"postgresql":{"parameters":{"max_connections":70,"archive_command":"a very long command that has to be hidden in the table /%p /%f"}}}`)
		rig.Eventually(t, 20*time.Second, "a restart is pending", func() bool { return pending(leader, "max_connections") != "" })
		code, text = leader.Post("/switchover", `{"leader":"`+leader.Name+`","candidate":"`+replica.Name+`","scheduled_at":"2036-01-01T00:00:00+00:00"}`)
		require.Equal(t, 202, code, text)
	}

	lsn := regexp.MustCompile(`[0-9A-F]+/[0-9A-F]+`)
	same := func(args ...string) {
		t.Helper()
		args = append([]string{"-c", file}, args...)
		var a, b string
		var errA, errB error
		if !rig.Await(5*time.Second, func() bool { // positions move
			a, _, errA = tool("", theirs, args...)
			b, _, errB = tool("", ours, args...)
			a, b = lsn.ReplaceAllString(a, "LSN"), lsn.ReplaceAllString(b, "LSN")
			return a == b && (errA == nil) == (errB == nil)
		}) {
			t.Errorf("patronictl %v\nPatroni's (%v):\n%s\nours (%v):\n%s", args[2:], errA, a, errB, b)
		}
	}
	code, text = leader.Post("/failover", `{"candidate":"`+replica.Name+`"}`) // so that there is a history
	require.Equal(t, 200, code, text)
	c.AwaitHealthy(20 * time.Second)
	code, text = replica.Post("/failover", `{"candidate":"`+leader.Name+`"}`)
	require.Equal(t, 200, code, text)
	c.AwaitHealthy(20 * time.Second)
	arrange()
	for _, f := range []string{"pretty", "tsv", "json", "yaml"} {
		same("list", "-f", f)
		same("list", "-e", "-f", f)
		same("history", "-f", f)
		same("query", "-c", "select 1 as one, null as none, true as yes, 'a b' as text, 1.5::float8 as half", "--format", f)
	}
	same("list", c.Scope)
	same("topology")
	same("show-config")
	same("dsn")
	same("dsn", "-r", "replica")
	same("dsn", "-m", replica.Name)
	same("dsn", "-m", "nobody")
	same("dsn", "-m", replica.Name, "-r", "leader")
	same("query", "-r", "replica", "-c", "select pg_is_in_recovery()")
	same("query", "-c", "select 1/0")
	same("query", "-m", "nobody", "-c", "select 1")

	run := func(input string, args ...string) (string, error) {
		out, errOut, err := tool(input, rig.Program("pgregent"), append(args, "-c", file)...)
		return out + errOut, err
	}
	ok := func(want string, args ...string) string {
		t.Helper()
		out, err := run("", args...)
		require.NoError(t, err, out)
		require.Contains(t, out, want)
		return out
	}

	t.Run("NobodyAnswers", func(t *testing.T) {
		for _, args := range [][]string{{"restart"}, {"reload"}, {"reinit", replica.Name}, {"switchover"}, {"failover", "--candidate", replica.Name}, {"edit-config", "-s", "ttl=9"}, {"remove", c.Scope}} {
			out, err := run("", args...)
			require.Error(t, err, out)
			require.Contains(t, out, "nobody answers the question, so nothing was changed", args)
		}
		out, err := run("n\n", "reload", leader.Name)
		require.Error(t, err)
		require.Contains(t, out, "Aborted reload")
	})

	t.Run("DryRun", func(t *testing.T) {
		before, err := c.Store.Get("config")
		require.NoError(t, err)
		pid := leader.Postmaster()
		ok("Would restart PostgreSQL on "+leader.Name+" now: it keeps the lease", "restart", leader.Name, "--dry-run")
		ok("Would stop PostgreSQL on "+replica.Name, "reinit", replica.Name, "--dry-run")
		ok("Would shut "+leader.Name+" down in order, hand the lease to "+replica.Name, "switchover", "--candidate", replica.Name, "--dry-run")
		ok("Would pause", "pause", "--dry-run")
		ok("Would write", "edit-config", "-s", "ttl=9", "--dry-run")
		ok("Would forget the restart of "+replica.Name, "flush", replica.Name, "restart", "--dry-run")
		ok("Would forget the switchover", "flush", "switchover", "--dry-run")
		ok("Would delete every key below /service/demo", "remove", c.Scope, "--dry-run")
		after, err := c.Store.Get("config")
		require.NoError(t, err)
		require.Equal(t, before, after)
		require.Equal(t, pid, leader.Postmaster())
		require.True(t, leader.Primary())
	})

	t.Run("ConfigDiff", func(t *testing.T) {
		out := ok(leader.Name+" (primary): a reload, and a restart", "config", "diff", "-p", "max_connections=80", "-p", "work_mem=8MB", "-s", "ttl=9")
		require.Contains(t, out, "max_connections: 70 -> 80: restart")
		require.Contains(t, out, "work_mem: nothing -> 8MB: reload")
		require.Contains(t, out, "ttl: 8 -> 9: at once")
	})

	t.Run("Act", func(t *testing.T) {
		ok("Success: flush scheduled restart for member "+replica.Name, "flush", replica.Name, "restart", "--force")
		ok("Success: scheduled switchover deleted", "flush", "switchover", "--force")
		ok("Reload request received for member "+leader.Name, "reload", "--force")
		ok("Success: restart on member "+replica.Name, "restart", replica.Name, "--force")
		ok("Success: restart on member "+leader.Name, "restart", leader.Name, "--pending", "--force")
		c.AwaitHealthy(20 * time.Second)
		ok("Reinitialize is completed on: "+replica.Name, "reinit", replica.Name, "--force", "--wait")
		c.AwaitHealthy(20 * time.Second)
		ok("Success: cluster management is paused", "pause", "--wait")
		out, err := run("", "pause")
		require.Error(t, err)
		require.Contains(t, out, "Cluster is already paused")
		ok("Success: cluster management is resumed", "resume", "--wait")
		ok("Configuration changed", "edit-config", "-p", "work_mem=7MB", "--force")
		rig.Eventually(t, 10*time.Second, "it is in force", func() bool { return show(t, leader, "work_mem") == "7MB" })
		out = ok("Successfully switched over to \""+replica.Name+"\"", "switchover", "--candidate", replica.Name, "--force")
		require.Contains(t, out, "Current cluster topology")
		c.AwaitHealthy(20 * time.Second)
		ok("switchover", "history", "--phases")
		ok(replica.Name+": pgregent ", "version", c.Scope)
		out, err = run("", "demote-cluster")
		require.Error(t, err)
		require.Contains(t, out, "no standby clusters yet; nothing was changed")
	})

	t.Run("Errors", func(t *testing.T) {
		for want, args := range map[string][]string{
			"is not a member of cluster":   {"restart", "nobody", "--force"},
			"there is no format":           {"list", "-f", "xml"},
			"is not the leader of cluster": {"switchover", "--leader", "pgx", "--force"},
			"unknown command":              {"lisst"},
			"Invalid parameter setting":    {"edit-config", "-s", "ttl", "--force"},
		} {
			out, err := run("", args...)
			require.Error(t, err, out)
			require.Contains(t, out, want)
		}
	})
}
