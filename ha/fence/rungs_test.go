package fence_test

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// stubborn is a server that notes the signals it gets, with the time of CLOCK_BOOTTIME, and ends by none that it can ignore.
func stubborn(t *testing.T) (fence.StartRequest, func() []string) {
	file := filepath.Join(t.TempDir(), "signals")
	script := `for s in INT QUIT TERM; do trap "cut -d' ' -f1 /proc/uptime | sed s/^/$s./ >> ` + file + `" $s; done
		: > ` + file + `; while :; do sleep 0.02; done`
	return fence.StartRequest{Path: "/bin/bash", Args: []string{"-c", script}, Dir: "/", Env: os.Environ(), Primary: true, Epoch: 1}, func() []string {
		b, _ := os.ReadFile(file)
		return strings.Fields(string(b))
	}
}

// The ladder: SIGINT at deadline minus head start, SIGQUIT at the deadline, SIGKILL 200 ms later; the epoch is closed when
// nothing is left, not before. The descriptors of the guard are not the server's.
func TestLadder(t *testing.T) {
	g, _, deadline := openFor(t, "", fence.Options{}, 2*time.Second)
	req, signals := stubborn(t)
	pid, err := g.Start(ctx(t), req)
	require.NoError(t, err)
	fds, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		to, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + fd.Name())
		require.NotContains(t, to, "socket:", fd.Name())
		require.NotContains(t, to, "pipe:", fd.Name()+": its output is never a pipe to agent or guard")
	}
	require.Eventually(t, func() bool { return len(signals()) == 1 }, 5*time.Second, time.Millisecond)
	fast := dcs.Boottime().Now()
	require.True(t, strings.HasPrefix(signals()[0], "INT."))
	require.InDelta(t, -500, (fast - deadline).Milliseconds(), 100)
	require.NoError(t, g.Extend(ctx(t), fence.Term{Epoch: 1, Deadline: deadline + time.Hour}), "the epoch is open still")
	deadline = fast + 3*time.Second
	require.Eventually(t, func() bool { return len(signals()) == 2 }, 5*time.Second, time.Millisecond)
	immediate := dcs.Boottime().Now()
	require.True(t, strings.HasPrefix(signals()[1], "QUIT."))
	require.InDelta(t, 0, (immediate - deadline).Milliseconds(), 100, "a ladder that was begun goes on: a lease that was renewed gives it three seconds in all")
	await(t, g, fence.EventEmpty)
	require.InDelta(t, 200, (dcs.Boottime().Now() - deadline).Milliseconds(), 100)
	require.True(t, state(t, g).Open, "it was extended, and nothing runs under it: it may start again")
	require.NoError(t, g.Extend(ctx(t), fence.Term{Epoch: 1, Deadline: dcs.Boottime().Now()}), "every shortening is accepted")
	await(t, g, fence.EventFenced)
	require.False(t, state(t, g).Open)
}

// A2: the kernel ends a guard that is frozen past its deadline, 300 ms after it, and its death ends the server. One that
// is thawed before goes on.
func TestFrozenGuard(t *testing.T) {
	g, _, deadline := openFor(t, "", fence.Options{}, 1500*time.Millisecond)
	req := sleeper()
	req.Primary, req.Epoch = true, 1
	pid, err := g.Start(ctx(t), req)
	require.NoError(t, err)
	s := state(t, g)
	require.Contains(t, s.Rungs, fence.RungKernelTimer)
	require.True(t, s.Bounded)
	require.NoError(t, syscall.Kill(s.PID, syscall.SIGSTOP))
	require.NoError(t, syscall.Kill(s.PID, syscall.SIGCONT))
	require.NoError(t, g.Extend(ctx(t), fence.Term{Epoch: 1, Deadline: deadline + 500*time.Millisecond}))
	deadline += 500 * time.Millisecond
	require.NoError(t, syscall.Kill(s.PID, syscall.SIGSTOP))
	var status syscall.WaitStatus
	require.Eventually(t, func() bool {
		got, _ := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		return got == pid
	}, 10*time.Second, time.Millisecond)
	took := dcs.Boottime().Now() - deadline
	t.Logf("the server ended %v after the deadline", took)
	require.Equal(t, syscall.SIGQUIT, status.Signal())
	require.Greater(t, took, time.Duration(0))
	require.Less(t, took, dcs.FenceBound)
	await(t, g, fence.EventGuardLost)
}

// In a pause there is no deadline: neither the ladder nor the kernel's timer ends anything.
func TestPause(t *testing.T) {
	g, _, _ := openFor(t, "", fence.Options{}, 100*365*24*time.Hour)
	req := sleeper()
	req.Primary, req.Epoch = true, 1
	_, err := g.Start(ctx(t), req)
	require.NoError(t, err)
	s := state(t, g)
	require.True(t, s.Open && s.Postmaster.Running)
	require.NoError(t, g.Extend(ctx(t), fence.Term{Epoch: 1, Deadline: dcs.Boottime().Now() + 300*time.Millisecond}))
	await(t, g, fence.EventFenced)
}

// The watchdog, over a FIFO instead of the device as Patroni's own tests do it: armed with the time-out that the ttl
// gives, fed with each renewal, disarmed when nothing is left, not before.
func TestWatchdog(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "watchdog")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	device, err := os.OpenFile(fifo, os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = device.Close() })
	dog := fence.Watchdog{Mode: fence.WatchdogRequired, Device: fifo, Margin: 5 * time.Second, Testing: true}
	require.NoError(t, dog.Usable(8*time.Second, 2*time.Second))
	require.ErrorContains(t, dog.Usable(8*time.Second, 10*time.Second), "loop_wait")
	require.ErrorContains(t, fence.Watchdog{Mode: fence.WatchdogRequired, Device: fifo + "x", Margin: -1}.Usable(8*time.Second, 2*time.Second), "cannot be written")

	g, _, deadline := openFor(t, "", fence.Options{Watchdog: dog}, time.Minute)
	said := bufio.NewReader(device)
	expect := func(what string) {
		t.Helper()
		_ = device.SetReadDeadline(time.Now().Add(5 * time.Second))
		b := make([]byte, len(what))
		for i := range b {
			b[i], err = said.ReadByte()
			require.NoError(t, err, "%q after %q", what, b[:i])
		}
		require.Equal(t, what, string(b))
	}
	expect("Ctimeout=7\n1") // not 8 s - 5 s: the fence comes first, after D + F = 6.6 s
	require.Contains(t, state(t, g).Rungs, fence.RungWatchdog)
	req, _ := stubborn(t)
	_, err = g.Start(ctx(t), req)
	require.NoError(t, err)
	term := fence.Term{Epoch: 1, Deadline: deadline, TTL: 8 * time.Second, LoopWait: time.Second}
	require.NoError(t, g.Extend(ctx(t), term))
	expect("1")
	term.TTL = 40 * time.Second
	require.NoError(t, g.Extend(ctx(t), term))
	expect("Ctimeout=35\n1")
	term.TTL, term.LoopWait = 8*time.Second, 10*time.Second
	require.ErrorIs(t, g.Extend(ctx(t), term), fence.ErrWatchdog)
	expect("1") // a setting that does not fit leaves no armed device unfed
	require.NoError(t, g.CloseEpoch(ctx(t), 1))
	expect("V")
	require.False(t, state(t, g).Postmaster.Running, "nothing is left when it is disarmed")
	require.NotContains(t, state(t, g).Rungs, fence.RungWatchdog)

	require.NoError(t, os.Remove(fifo))
	err = g.OpenEpoch(ctx(t), fence.Term{Epoch: 2, Deadline: deadline, TTL: 8 * time.Second})
	require.ErrorIs(t, err, fence.ErrWatchdog)
	require.False(t, state(t, g).Open)
}

// What the next tests need is given to them by MainPrivileged: capabilities, a network and a cgroup.

// PostgreSQL lives in a cgroup of its own and is killed by one write. It gets no capability, priority or score of the guard's.
func TestPrivilegedCgroup(t *testing.T) {
	require.True(t, postgrestest.Privileged())
	d := newDatabase(t)
	g, _, _ := openFor(t, d.data, fence.Options{Cgroup: true}, time.Hour)
	pid, err := g.Start(ctx(t), d.start(true, 1))
	require.NoError(t, err)
	last := d.writer(d.connect("tcp"), long)
	s := state(t, g)
	require.Contains(t, s.Rungs, fence.RungCgroup, s.Problem)
	own, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	its, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	require.NoError(t, err)
	require.NotEqual(t, string(own), string(its))
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	require.NoError(t, err)
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		if set != "CapInh" { // inheritable alone gives nothing to a program without file capabilities
			require.Contains(t, string(status), set+":\t0000000000000000")
		}
	}
	score, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/oom_score_adj")
	require.NoError(t, err)
	require.Equal(t, "0\n", string(score))
	require.Equal(t, "0", nice(t, pid))
	require.Equal(t, "-20", nice(t, s.PID))
	began := dcs.Boottime().Now()
	require.NoError(t, g.CloseEpoch(ctx(t), 1))
	took := dcs.Boottime().Now() - began
	t.Logf("cgroup.kill: empty after %v", took)
	require.Less(t, last(), began+dcs.FenceBound)
	require.Zero(t, running(d.data))

	_, err = g.Start(ctx(t), d.start(false, 0))
	require.NoError(t, err)
	d.connect("tcp")
	require.Contains(t, state(t, g).Rungs, fence.RungCgroup, "the next server gets a group that was not killed")
}

func nice(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.Fields(rest)[16]
}

// With a PID namespace the named exception is none: agent and guard dead, postmaster stopped, and still nothing of a
// statement in flight is acknowledged.
func TestPrivilegedPIDNamespace(t *testing.T) {
	d := newDatabase(t)
	g, _, deadline := openFor(t, d.data, fence.Options{PIDNamespace: true}, 4*time.Second)
	pid, err := g.Start(ctx(t), d.start(true, 1))
	require.NoError(t, err)
	last := d.writer(d.connect("tcp"), long)
	s := state(t, g)
	require.Contains(t, s.Rungs, fence.RungPIDNamespace)
	found, ok := fence.FindPostmaster(d.data)
	require.True(t, ok)
	require.Equal(t, pid, found, "postmaster.pid says 1")
	require.Eventually(t, func() bool { return state(t, g).Postmaster.AtRest }, 10*time.Second, 2*time.Millisecond)
	kill(t, pid, syscall.SIGSTOP)
	kill(t, s.PID, syscall.SIGSTOP) // the kernel ends it after the deadline, and PostgreSQL with it
	at := last()
	require.Eventually(t, func() bool { return running(d.data) == 0 }, 10*time.Second, time.Millisecond)
	t.Logf("last acknowledgement %v, emptiness %v after the deadline", at-deadline, dcs.Boottime().Now()-deadline)
	require.Less(t, at, deadline+dcs.FenceBound)
	require.Less(t, dcs.Boottime().Now(), deadline+dcs.FenceBound+100*time.Millisecond)
}

// Admission: with the guard dead and the postmaster stopped, which is the named exception, the kernel drops what a client
// over TCP would be told after the deadline. The next start as a replica lets everybody in.
func TestPrivilegedAdmission(t *testing.T) {
	d := newDatabase(t)
	g, dir, deadline := openFor(t, d.data, fence.Options{AdmissionPort: d.port}, 4*time.Second)
	_, err := g.Start(ctx(t), d.start(true, 1))
	require.NoError(t, err)
	s := state(t, g)
	require.Contains(t, s.Rungs, fence.RungAdmission, s.Problem)
	require.NoError(t, g.Extend(ctx(t), fence.Term{Epoch: 1, Deadline: deadline + time.Second, HeadStart: 500 * time.Millisecond}))
	deadline += time.Second
	quick := d.writer(d.connect("tcp"), short)
	slow := d.writer(d.connect("tcp"), long)
	kill(t, s.Postmaster.PID, syscall.SIGSTOP)
	kill(t, s.PID, syscall.SIGKILL)
	last := max(quick(), slow())
	t.Logf("last acknowledgement %v after the deadline", last-deadline)
	require.Less(t, last, deadline+100*time.Millisecond)
	require.Greater(t, last, deadline-2*time.Second)

	next, err := fence.Open(ctx(t), fence.Config{Dir: dir, Options: fence.Options{DataDir: d.data, AdmissionPort: d.port}})
	require.NoError(t, err)
	t.Cleanup(func() { end(next) })
	_, err = syscall.Wait4(s.Postmaster.PID, nil, 0, nil)
	require.NoError(t, err)
	_, err = next.Start(ctx(t), d.start(false, 0))
	require.NoError(t, err)
	d.connect("tcp")
}

// A deadline that moves into the past is the ladder's to enforce: the kernel's timer leaves it the time.
func TestDeadlineInThePast(t *testing.T) {
	g, _, _ := openFor(t, "", fence.Options{}, time.Hour)
	req, _ := stubborn(t)
	_, err := g.Start(ctx(t), req)
	require.NoError(t, err)
	moved := dcs.Boottime().Now()
	require.NoError(t, g.Extend(ctx(t), fence.Term{Epoch: 1, Deadline: moved - 2*time.Second}))
	await(t, g, fence.EventFenced)
	require.Less(t, dcs.Boottime().Now()-moved, dcs.FenceBound)
	require.False(t, state(t, g).Open, "the guard is there to say so")
}
