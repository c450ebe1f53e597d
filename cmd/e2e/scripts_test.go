package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// scriptDir is a folder with the scripts of all nodes and the log that they write: NAME SCRIPT ARGUMENTS.
type scriptDir struct {
	t    *testing.T
	path string
}

func newScriptDir(t *testing.T) scriptDir {
	s := scriptDir{t, t.TempDir()}
	s.write("log.sh", `echo "$@" >>`+s.path+`/log`)
	// A file says what a node's script does: NAME-refuse, NAME-hang.
	s.write("gate.sh", `echo "$@" >>`+s.path+`/log; test -e `+s.path+`/$1-hang && sleep 600; test ! -e `+s.path+`/$1-refuse`)
	return s
}

func (s scriptDir) write(name, text string) {
	require.NoError(s.t, os.WriteFile(filepath.Join(s.path, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755)) //nolint:gosec // it is run
}

// set makes or removes one of the files that say what a script does.
func (s scriptDir) set(name string, there bool) {
	path := filepath.Join(s.path, name)
	if !there {
		require.NoError(s.t, os.Remove(path))
		return
	}
	require.NoError(s.t, os.WriteFile(path, nil, 0o644)) //nolint:gosec // a switch
}

// log is what the scripts of a node have written.
func (s scriptDir) log(node string) []string {
	b, _ := os.ReadFile(filepath.Join(s.path, "log"))
	var out []string
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if rest, ok := strings.CutPrefix(l, node+" "); ok {
			out = append(out, rest)
		}
	}
	return out
}

func (s scriptDir) forget() { _ = os.Remove(filepath.Join(s.path, "log")) }

// awaits waits until a node's scripts were called like this, and nothing else.
func (s scriptDir) awaits(node string, want ...string) {
	s.t.Helper()
	if !rig.Await(10*time.Second, func() bool { return slices.Equal(s.log(node), want) }) {
		require.Equal(s.t, want, s.log(node), node)
	}
}

// use puts the scripts into a node's file.
func (s scriptDir) use(d *rig.Node, extra string) {
	call := func(what string) string { return fmt.Sprintf("%s/%s.sh %s", s.path, what, d.Name) }
	d.Write(fmt.Sprintf(`  callbacks:
    on_start: %[1]s
    on_stop: %[1]s
    on_restart: %[1]s
    on_reload: %[1]s
    on_role_change: %[1]s
  pre_promote: %[2]s pre_promote
  before_stop: %[2]s before_stop
%[3]s`, call("log"), call("gate"), extra))
}

// TestScripts: the callbacks, pre_promote and before_stop of a real cluster, in the order and with the arguments of Patroni.
func TestScripts(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 3, DCS: fastConfig + "\n    failsafe_mode: false"})
	s := newScriptDir(t)
	for _, d := range c.Nodes {
		s.use(d, "pgregent: {timeouts: {before_stop: 300}}\n")
	}
	c.StartAll()
	leader := c.Leader()
	s.awaits(leader.Name, "on_start primary demo")
	for _, d := range c.Others(leader) {
		s.awaits(d.Name, "on_start replica demo")
	}

	t.Run("Switchover", func(t *testing.T) {
		s.forget()
		target := c.Others(leader)[0]
		switchTo(t, leader, target)
		c.AwaitHealthy(20 * time.Second)
		s.awaits(leader.Name, "before_stop", "on_stop demoted demo", "on_role_change replica demo")
		got := slices.DeleteFunc(s.log(target.Name), func(l string) bool { return strings.HasPrefix(l, "on_reload") })
		require.Equal(t, []string{"pre_promote", "on_role_change primary demo"}, got)
	})

	t.Run("Refused", func(t *testing.T) {
		leader := c.Leader()
		target := c.Others(leader)[0]
		s.set(target.Name+"-refuse", true)
		server := target.Postmaster()
		code, text := leader.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, leader.Name, target.Name))
		t.Logf("%d %s", code, text)
		rig.Eventually(t, 20*time.Second, "another one leads", func() bool { l := c.Leader(); return l != nil && l != target })
		require.Equal(t, server, target.Postmaster(), "the replica runs on")
		require.Contains(t, fenceOf(t, target)["unfit"], "pre_promote refused the promotion")
		s.set(target.Name+"-refuse", false)
		rig.Eventually(t, 20*time.Second, "it may lead again", func() bool { return fenceOf(t, target)["unfit"] == nil })
		c.AwaitHealthy(30 * time.Second)
	})

	t.Run("Reload", func(t *testing.T) {
		d := c.Others(c.Leader())[0]
		s.forget()
		d.Replace("shared_buffers: 16MB", "shared_buffers: 16MB\n    work_mem: 7MB")
		require.NoError(t, d.Cmd.Process.Signal(syscall.SIGHUP))
		s.awaits(d.Name, "on_reload replica demo")
	})

	t.Run("Detach", func(t *testing.T) {
		d := c.Leader()
		run(t, "detach", d.File)
		d.Wait(10 * time.Second)
		s.forget()
		d.Start()
		s.awaits(d.Name, "on_start primary demo")
	})

	t.Run("HungBeforeStop", func(t *testing.T) { hungBeforeStop(t, c, s) })

	t.Run("Stop", func(t *testing.T) {
		d := c.Others(c.Leader())[0]
		s.forget()
		d.Stop()
		s.awaits(d.Name, "before_stop", "on_stop replica demo")
	})
}

func switchTo(t *testing.T, leader, target *rig.Node) {
	t.Helper()
	code, text := leader.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, leader.Name, target.Name))
	require.Equal(t, http.StatusOK, code, text)
}

// hungBeforeStop: while a switchover waits for a before_stop that hangs, the store freezes. The leader's server is gone by
// the deadline, 6.1 s after the last renewal at ttl 8 (hazard E4), and the script's process group with it.
func hungBeforeStop(t *testing.T, c *rig.Cluster, s scriptDir) {
	c.AwaitHealthy(20 * time.Second)
	leader := c.Leader()
	target := c.Others(leader)[0]
	rig.Eventually(t, 20*time.Second, "the target may lead: its pre_promote refused long ago", func() bool {
		_, body := target.Get("/patroni")
		p, _ := body["pgregent"].(map[string]any)
		return p != nil && p["unfit"] == nil
	})
	s.set(leader.Name+"-hang", true)
	s.forget()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for range 20 { // the agent that was just started may not know its replicas yet
			code, text := leader.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, leader.Name, target.Name))
			t.Logf("%d %s", code, text)
			if code != http.StatusPreconditionFailed {
				return
			}
			<-time.After(100 * time.Millisecond)
		}
	}()
	s.awaits(leader.Name, "before_stop")
	postmaster := leader.Postmaster()
	require.NotZero(t, postmaster, "it runs while the script hangs")
	c.Store.Freeze(0)
	frozen := time.Now()
	took := rig.Eventually(t, 20*time.Second, "fenced", func() bool { return leader.Postmaster() != postmaster })
	t.Logf("fenced %v after the store froze, with before_stop hanging", time.Since(frozen))
	require.Less(t, took, 6500*time.Millisecond)
	c.Store.Thaw(0)
	s.set(leader.Name+"-hang", false)
	<-answered
	c.AwaitHealthy(40 * time.Second)
	rig.Eventually(t, 5*time.Second, "the script is gone", func() bool { return !commandRuns(s.path + "/gate.sh") })
	require.NotContains(t, s.log(leader.Name)[1:], "before_stop", "a fence asks no script")
}

// commandRuns says that a process was started with this path on its command line.
func commandRuns(path string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	return slices.ContainsFunc(all, func(p string) bool {
		b, _ := os.ReadFile(p)
		return strings.Contains(string(b), path)
	})
}

// TestPostInit: the script gets a connection string without a password, and a password file; when it fails the bootstrap
// is undone, and another member creates the cluster.
func TestPostInit(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 2, DCS: fastConfig})
	dir := t.TempDir()
	script := filepath.Join(dir, "post_init.sh")
	require.NoError(t, os.WriteFile(script, []byte(fmt.Sprintf("#!/bin/sh\necho \"$@\" >>%s/args\nenv >>%s/env\n"+
		"test \"$1\" = good && exec %s/psql -X -d \"$2\" -c 'CREATE TABLE made_by_post_init (a int)'\necho 'no such schema' >&2; exit 3\n", dir, dir, c.Bin)), 0o755)) //nolint:gosec // it is run
	bad, good := c.Nodes[0], c.Nodes[1]
	bad.Replace("  initdb:\n", "  post_init: "+script+" bad\n  initdb:\n")
	good.Replace("  initdb:\n", "  post_bootstrap: "+script+" good\n  initdb:\n")
	bad.Start()
	failed := bad.Data + ".failed"
	rig.Eventually(t, 30*time.Second, "the data is set aside", func() bool {
		_, err := os.Stat(filepath.Join(failed, "PG_VERSION"))
		return err == nil
	})
	rig.Eventually(t, 10*time.Second, "it says why", func() bool {
		return strings.Contains(fmt.Sprint(fenceOf(t, bad)["detail"]), "no such schema")
	})
	for _, key := range []string{"initialize", "leader", "lease", "config"} {
		_, err := c.Store.Get(key)
		require.ErrorContains(t, err, "absent", key)
	}
	require.NoDirExists(t, bad.Data)
	good.Start()
	c.AwaitHealthy(40 * time.Second)
	require.True(t, good.Primary())
	b, err := os.ReadFile(filepath.Join(dir, "env"))
	require.NoError(t, err)
	require.Contains(t, string(b), "PGPASSFILE=")
	require.Contains(t, string(b), "PGOPTIONS=-c synchronous_commit=local -c statement_timeout=0")
	require.NotContains(t, string(b), "super-secret")
	b, err = os.ReadFile(filepath.Join(dir, "args"))
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(b), "\n"), "one try each: %s", b)
	require.NotContains(t, string(b), "super-secret")
	conn, err := pgx.Connect(t.Context(), c.DSN())
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "SELECT a FROM made_by_post_init")
	require.NoError(t, err)
}
