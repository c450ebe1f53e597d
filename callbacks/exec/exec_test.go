package exec

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/callbacks"
)

// script writes a shell script and returns its path.
func script(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "script")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700)) //nolint:gosec // it is run
	return path
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		require.True(t, time.Now().Before(end), what)
	}
}

func lines(path string) []string {
	b, _ := os.ReadFile(path)
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func gone(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil {
		return true
	}
	stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z") // nobody has to wait for it here
}

// TestArguments: argv is the words of the command line, then action, role and cluster; no password is in the environment.
func TestArguments(t *testing.T) {
	t.Setenv("PATRONI_SUPERUSER_PASSWORD", "canary")
	t.Setenv("PGPASSWORD", "canary")
	t.Setenv("SCRIPTS_OWN", "kept")
	out := filepath.Join(t.TempDir(), "out")
	s := New(map[callbacks.Action]string{callbacks.OnStart: script(t, `printf '%s|' "$#" "$@" >`+out+`; env >>`+out) + ` 'two words' --x="a b"`})
	require.NoError(t, s.Apply(t.Context(), callbacks.Event{Action: callbacks.OnStart, Role: "primary", Scope: "my cluster"}))
	require.NoError(t, s.Apply(t.Context(), callbacks.Event{Action: callbacks.OnStop}), "no command line")
	b, err := os.ReadFile(out)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(b), "5|two words|--x=a b|on_start|primary|my cluster|"), "%s", b)
	require.Contains(t, string(b), "SCRIPTS_OWN=kept")
	require.NotContains(t, string(b), "canary")
}

// TestFailures: exit status, a program that is not there, a line that is none.
func TestFailures(t *testing.T) {
	require.ErrorContains(t, Run(t.Context(), "sh -c 'exit 3'"), "exit status 3")
	require.ErrorContains(t, Run(t.Context(), "/nonexistent"), "no such file")
	require.ErrorContains(t, Run(t.Context(), "sh -c 'x"), "not closed")
	require.ErrorContains(t, Run(t.Context(), " "), "names no program")
}

// TestTimeout: the time limit kills the whole process group, children in the background too, and says how long it was.
func TestTimeout(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	s := New(nil)
	s.Set(map[callbacks.Action]string{callbacks.OnStop: script(t, `trap "" TERM INT; sleep 600 & echo $! >>`+pids+`; echo $$ >>`+pids+`; wait; sleep 600`)}, 300*time.Millisecond)
	began := time.Now()
	err := s.Apply(t.Context(), callbacks.Event{Action: callbacks.OnStop})
	require.ErrorContains(t, err, "longer than 300ms")
	require.Less(t, time.Since(began), 5*time.Second)
	for _, l := range lines(pids) {
		pid, err := strconv.Atoi(l)
		require.NoError(t, err)
		eventually(t, "killed", func() bool { return gone(pid) })
	}
	require.Len(t, lines(pids), 2)
}

// TestNewestWins drives real scripts through the Runner: the newer event kills the older one's script, of those that wait
// only the newest runs, and a reload neither ends a change nor waits for it.
func TestNewestWins(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	line := script(t, `echo "$1 $2 begins" >>`+log+`; [ "$2" = demoted ] && sleep 600; echo "$1 $2 ends" >>`+log)
	all := map[callbacks.Action]string{}
	for _, a := range []callbacks.Action{callbacks.OnStart, callbacks.OnStop, callbacks.OnRestart, callbacks.OnReload, callbacks.OnRoleChange} {
		all[a] = line
	}
	r := callbacks.NewRunner([]callbacks.Callback{New(all)}, nil)
	has := func(want string) func() bool {
		return func() bool { return strings.Contains(strings.Join(lines(log), "\n"), want) }
	}
	r.Call(callbacks.Event{Action: callbacks.OnStop, Role: "demoted"})
	eventually(t, "the first one runs", has("on_stop demoted begins"))
	r.Call(callbacks.Event{Action: callbacks.OnReload, Role: "replica"})
	eventually(t, "a reload runs beside it", has("on_reload replica ends"))
	r.Call(callbacks.Event{Action: callbacks.OnStart, Role: "replica"})
	r.Call(callbacks.Event{Action: callbacks.OnRestart, Role: "replica"})
	r.Call(callbacks.Event{Action: callbacks.OnRoleChange, Role: "primary"})
	eventually(t, "the newest runs", has("on_role_change primary ends"))
	r.Close(0)
	got := strings.Join(lines(log), "\n")
	require.NotContains(t, got, "on_stop demoted ends")
	require.NotContains(t, got, "on_start")
	require.NotContains(t, got, "on_restart")
}

// TestClose: what is the last event may come to its end; what hangs is killed after the grace.
func TestClose(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	s := New(map[callbacks.Action]string{
		callbacks.OnStop:   script(t, `sleep 0.3; echo stopped >`+out),
		callbacks.OnReload: script(t, `sleep 600`),
	})
	r := callbacks.NewRunner([]callbacks.Callback{s}, nil)
	r.Call(callbacks.Event{Action: callbacks.OnStop, Role: "replica"})
	r.Close(10 * time.Second)
	require.Equal(t, []string{"stopped"}, lines(out))

	r = callbacks.NewRunner([]callbacks.Callback{s}, nil)
	r.Call(callbacks.Event{Action: callbacks.OnReload, Role: "replica"})
	began := time.Now()
	r.Close(200 * time.Millisecond)
	require.Less(t, time.Since(began), 5*time.Second)
}

// TestReplaced: what a newer event ended is said so.
func TestReplaced(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := New(map[callbacks.Action]string{callbacks.OnStart: "sleep 600"})
	done := make(chan error, 1)
	go func() { done <- s.Apply(ctx, callbacks.Event{Action: callbacks.OnStart}) }()
	cancel()
	require.ErrorContains(t, <-done, "ended by a newer one")
}
