package fence_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// agentEnv makes this binary an agent that connects to the guard of a folder, opens an epoch, and hangs.
const agentEnv = "PGREGENT_TEST_AGENT"

func TestMain(m *testing.M) {
	fence.Main()
	if dir := os.Getenv(agentEnv); dir != "" {
		agent(dir)
	}
	if os.Geteuid() == 0 {
		p := postgrestest.Privileges{Caps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_NICE}, Network: true, Cgroup: true}
		if code := postgrestest.MainPrivileged(m, p); code != 0 {
			os.Exit(code)
		}
	}
	os.Exit(postgrestest.Main(m))
}

// agent starts "sleep" under an epoch of 1.5 s and then does nothing more, until it is killed.
func agent(dir string) {
	ctx := context.Background()
	g, err := fence.Open(ctx, fence.Config{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	must := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	must(g.OpenEpoch(ctx, fence.Term{Epoch: 1, Deadline: dcs.Boottime().Now() + 1500*time.Millisecond, HeadStart: 300 * time.Millisecond}))
	_, err = g.Start(ctx, fence.StartRequest{Path: "/bin/sleep", Args: []string{"600"}, Dir: "/", Primary: true, Epoch: 1})
	must(err)
	fmt.Println("ready")
	select {}
}

func open(t *testing.T, dir string) *fence.Guard {
	t.Helper()
	g, err := fence.Open(ctx(t), fence.Config{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() {
		c, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = g.Stop(c, fence.ModeKill)
		_ = g.Shutdown(c)
		_ = g.Close()
	})
	return g
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return c
}

func state(t *testing.T, g *fence.Guard) fence.State {
	t.Helper()
	s, err := g.State(ctx(t))
	require.NoError(t, err)
	return s
}

func await(t *testing.T, g *fence.Guard, kind fence.EventKind) fence.Event {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e, ok := <-g.Events():
			require.True(t, ok, "the guard is gone while waiting for %s", kind)
			if e.Kind == kind {
				return e
			}
		case <-deadline:
			t.Fatalf("no event %s", kind)
		}
	}
}

func sleeper() fence.StartRequest {
	return fence.StartRequest{Path: "/bin/sleep", Args: []string{"600"}, Dir: "/"}
}

func TestStartStop(t *testing.T) {
	g := open(t, t.TempDir())
	pid, err := g.Start(ctx(t), sleeper())
	require.NoError(t, err)
	require.Equal(t, fence.Postmaster{Running: true, PID: pid}, state(t, g).Postmaster)
	_, err = g.Start(ctx(t), sleeper())
	require.ErrorIs(t, err, fence.ErrRunning)
	require.NoError(t, g.Stop(ctx(t), fence.ModeImmediate))
	e := await(t, g, fence.EventExit)
	require.Equal(t, int(syscall.SIGQUIT), e.Signal)
	require.False(t, state(t, g).Postmaster.Running)
	require.NoError(t, g.Stop(ctx(t), fence.ModeFast), "nothing to stop is stopped")

	_, err = g.Start(ctx(t), fence.StartRequest{Path: "/no/such/program"})
	require.ErrorContains(t, err, "/no/such/program")
}

// R7 and A17: as primary only under the open epoch, before its deadline; epochs only grow and never reopen.
func TestEpochRules(t *testing.T) {
	g := open(t, t.TempDir())
	now := dcs.Boottime().Now
	primary := sleeper()
	primary.Primary, primary.Epoch = true, 1
	_, err := g.Start(ctx(t), primary)
	require.ErrorIs(t, err, fence.ErrNoEpoch)
	require.ErrorIs(t, g.Extend(ctx(t), fence.Term{Epoch: 1, Deadline: now() + time.Hour, HeadStart: 0}), fence.ErrNoEpoch)

	require.NoError(t, g.OpenEpoch(ctx(t), fence.Term{Epoch: 1, Deadline: now() + time.Hour, HeadStart: time.Second}))
	require.ErrorIs(t, g.OpenEpoch(ctx(t), fence.Term{Epoch: 1, Deadline: now() + time.Hour, HeadStart: time.Second}), fence.ErrNoEpoch)
	_, err = g.Start(ctx(t), primary)
	require.NoError(t, err)
	require.NoError(t, g.CloseEpoch(ctx(t), 1), "closing ends what runs under it")
	s := state(t, g)
	require.False(t, s.Open)
	require.False(t, s.Postmaster.Running)
	require.ErrorIs(t, g.Extend(ctx(t), fence.Term{Epoch: 1, Deadline: now() + time.Hour, HeadStart: 0}), fence.ErrNoEpoch)
	require.ErrorIs(t, g.OpenEpoch(ctx(t), fence.Term{Epoch: 1, Deadline: now() + time.Hour, HeadStart: 0}), fence.ErrNoEpoch, "a closed epoch never opens again")

	require.NoError(t, g.OpenEpoch(ctx(t), fence.Term{Epoch: 2, Deadline: now() - time.Second, HeadStart: 0}))
	primary.Epoch = 2
	_, err = g.Start(ctx(t), primary)
	require.ErrorIs(t, err, fence.ErrNoEpoch, "its deadline has passed")
	_, err = g.Start(ctx(t), sleeper())
	require.NoError(t, err, "a replica needs no epoch")
	require.ErrorIs(t, g.AllowPromote(ctx(t), 2), fence.ErrNoEpoch)
}

// A1: the agent dies, the guard ends the primary at the deadline.
func TestDeadlineAfterTheAgentIsKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), agentEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	began := time.Now()
	line := make([]byte, 200)
	n, err := out.Read(line)
	require.NoError(t, err)
	require.Equal(t, "ready", strings.TrimSpace(string(line[:n])))

	second, err := fence.Open(ctx(t), fence.Config{Dir: dir})
	require.ErrorIs(t, err, fence.ErrInUse)
	require.ErrorContains(t, err, strconv.Itoa(cmd.Process.Pid))
	require.Nil(t, second)

	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	var g *fence.Guard
	require.Eventually(t, func() bool { // until the guard has seen the agent's end
		g, err = fence.Open(ctx(t), fence.Config{Dir: dir})
		return err == nil
	}, 5*time.Second, 5*time.Millisecond)
	t.Cleanup(func() { _ = g.Shutdown(ctx(t)); _ = g.Close() })
	s := state(t, g)
	require.True(t, s.Postmaster.Running && s.Open, "the guard and its child outlive the agent: %+v", s)
	await(t, g, fence.EventFenced)
	took := time.Since(began)
	require.GreaterOrEqual(t, took, time.Second, "not before the head start")
	require.Less(t, took, 2*time.Second)
	require.False(t, state(t, g).Open)
}

// A4: the postmaster is killed and a busy child of it lives on; the guard ends that one too, and only then says empty.
func TestOrphans(t *testing.T) {
	g := open(t, t.TempDir())
	pid, err := g.Start(ctx(t), fence.StartRequest{Path: "/bin/sh", Args: []string{"-c", "setsid sleep 601 & wait"}, Dir: "/", Env: os.Environ()})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(children(pid)) == 1 }, 5*time.Second, 5*time.Millisecond)
	orphan := children(pid)[0]
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	await(t, g, fence.EventExit)
	await(t, g, fence.EventEmpty)
	require.ErrorIs(t, syscall.Kill(orphan, 0), syscall.ESRCH)
	s := state(t, g)
	require.False(t, s.Postmaster.Running)
	require.Zero(t, s.Orphans)
}

func children(parent int) []int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", parent, parent))
	var out []int
	for f := range strings.FieldsSeq(string(b)) {
		pid, _ := strconv.Atoi(f)
		out = append(out, pid)
	}
	return out
}

// The guard dies: its child goes with it, and the agent is told.
func TestGuardKilled(t *testing.T) {
	g := open(t, t.TempDir())
	pid, err := g.Start(ctx(t), sleeper())
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(state(t, g).PID, syscall.SIGKILL))
	await(t, g, fence.EventGuardLost)
	_, err = g.State(ctx(t))
	require.ErrorIs(t, err, fence.ErrGuardLost)
	require.Eventually(t, func() bool {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil) // this test is the subreaper
		return got == pid || err != nil
	}, 5*time.Second, 5*time.Millisecond)
}

// What does not speak the protocol gets nothing, and disturbs nobody.
func TestGarbageOnTheSocket(t *testing.T) {
	dir := t.TempDir()
	g := open(t, dir)
	for _, garbage := range []string{"\n", "{}\n", "GET / HTTP/1.1\r\n\r\n", `{"id":1,"op":"start"}` + "\n", strings.Repeat("x", 2<<20)} {
		cmd := exec.Command("python3", "-c", `
import socket,sys
s=socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1])
try:
    s.sendall(sys.stdin.buffer.read()); s.recv(100)
except OSError: pass
`, filepath.Join(dir, "guard.sock"))
		cmd.Stdin = strings.NewReader(garbage)
		require.NoError(t, cmd.Run())
	}
	require.NotZero(t, state(t, g).PID)
}

// An agent that comes right after the last one ended its guard gets a new one.
func TestOpenWhileTheGuardEnds(t *testing.T) {
	dir := t.TempDir()
	for range 20 {
		g, err := fence.Open(ctx(t), fence.Config{Dir: dir})
		require.NoError(t, err)
		require.NoError(t, g.Shutdown(ctx(t)))
		_ = g.Close()
	}
	open(t, dir)
}

func TestFindPostmaster(t *testing.T) {
	dir := t.TempDir()
	_, ok := fence.FindPostmaster(dir)
	require.False(t, ok)
	cmd := exec.Command("/bin/sleep", "600")
	cmd.Dir = dir
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	for content, want := range map[string]bool{"": false, "garbage": false, "1\n": false, strconv.Itoa(os.Getpid()): false, strconv.Itoa(cmd.Process.Pid) + "\nx": true} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(content), 0o600))
		pid, ok := fence.FindPostmaster(dir)
		require.Equal(t, want, ok, "%q", content)
		if ok {
			require.Equal(t, cmd.Process.Pid, pid)
		}
	}
	require.NoError(t, cmd.Process.Kill())
	<-ended
	_, ok = fence.FindPostmaster(dir)
	require.False(t, ok, "gone")
}
