package fence_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// database is a data directory and how to start it.
type database struct {
	t         *testing.T
	bin, data string
	port      int
	settings  []string
}

// newDatabase makes a cluster of the oldest version that tests have, at rest: with standby.signal.
func newDatabase(t *testing.T, settings ...string) *database {
	t.Helper()
	d := &database{t: t, bin: postgrestest.Binaries(t, "15"), data: filepath.Join(t.TempDir(), "data"), port: postgrestest.FreePort(t), settings: settings}
	out, err := exec.Command(filepath.Join(d.bin, "initdb"), "-D", d.data, "-A", "trust", "-U", "postgres", "--no-sync").CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, os.WriteFile(d.signal(), nil, 0o600))
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(d.log())
			t.Logf("server log:\n%s", b)
		}
	})
	return d
}

func (d *database) signal() string { return filepath.Join(d.data, "standby.signal") }

func (d *database) log() string { return filepath.Join(filepath.Dir(d.data), "server.log") }

func (d *database) args() []string {
	args := []string{"-D", d.data, "-c", fmt.Sprintf("port=%d", d.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + filepath.Dir(d.data),
		"-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "restart_after_crash=off"}
	for _, s := range d.settings {
		args = append(args, "-c", s)
	}
	return args
}

func (d *database) start(primary bool, epoch uint64) fence.StartRequest {
	return fence.StartRequest{Path: filepath.Join(d.bin, "postgres"), Args: d.args(), Env: os.Environ(), Dir: d.data,
		Log: d.log(), Primary: primary, Epoch: epoch}
}

// connect waits until the server lets in.
func (d *database) connect(over string) *pgx.Conn {
	d.t.Helper()
	host := "127.0.0.1"
	if over == "socket" {
		host = filepath.Dir(d.data)
	}
	var conn *pgx.Conn
	require.Eventually(d.t, func() bool {
		var err error
		c, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn, err = pgx.Connect(c, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres sslmode=disable", host, d.port))
		return err == nil
	}, 20*time.Second, 5*time.Millisecond)
	d.t.Cleanup(func() {
		c, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = conn.Close(c)
	})
	return conn
}

// writer inserts without a pause until it fails; last is when the last acknowledgement came.
func (d *database) writer(conn *pgx.Conn, statement string) (last func() time.Duration) {
	_, err := conn.Exec(context.Background(), "create table if not exists t(id text)")
	require.NoError(d.t, err)
	ended := make(chan time.Duration, 1)
	go func() {
		at := dcs.Boottime().Now()
		for {
			c, cancel := context.WithTimeout(context.Background(), 4*time.Second)
			_, err := conn.Exec(c, statement)
			cancel()
			if err != nil {
				ended <- at
				return
			}
			at = dcs.Boottime().Now()
		}
	}()
	return func() time.Duration { return <-ended }
}

const (
	short = "insert into t values ('x')"
	long  = "copy t from program 'sleep 2; echo x'"
)

// openFor opens a guard for a directory, and an epoch that ends after d.
func openFor(t *testing.T, data string, o fence.Options, d time.Duration) (g *fence.Guard, dir string, deadline time.Duration) {
	t.Helper()
	dir = t.TempDir()
	o.DataDir = data
	g, err := fence.Open(ctx(t), fence.Config{Dir: dir, Options: o})
	require.NoError(t, err)
	t.Cleanup(func() { end(g) })
	deadline = dcs.Boottime().Now() + d
	require.NoError(t, g.OpenEpoch(ctx(t), fence.Term{Epoch: 1, Deadline: deadline, HeadStart: 500 * time.Millisecond, TTL: 8 * time.Second, LoopWait: time.Second}))
	return g, dir, deadline
}

func end(g *fence.Guard) {
	c, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = g.Stop(c, fence.ModeKill)
	_ = g.Shutdown(c)
	_ = g.Close()
}

// running counts the live server processes of a data directory.
func running(data string) int {
	n := 0
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if cwd, _ := os.Readlink("/proc/" + e.Name() + "/cwd"); cwd != data {
			continue
		}
		if exe, _ := os.Readlink("/proc/" + e.Name() + "/exe"); filepath.Base(exe) != "postgres" {
			continue
		}
		if stat, _ := os.ReadFile("/proc/" + e.Name() + "/stat"); !strings.Contains(string(stat), ") Z ") {
			n++
		}
	}
	return n
}

// A primary that nobody renews: what the arithmetic of the lease calls F passes after the deadline at most, until nothing
// is acknowledged and nothing is left any more (O5), whatever is the matter with its processes.
func TestFenceAtTheDeadline(t *testing.T) {
	for name, trouble := range map[string]func(*testing.T, fence.State){
		"Healthy":           func(*testing.T, fence.State) {},
		"PostmasterStopped": func(t *testing.T, s fence.State) { kill(t, s.Postmaster.PID, syscall.SIGSTOP) },
		"GuardStopped":      func(t *testing.T, s fence.State) { kill(t, s.PID, syscall.SIGSTOP) },
		"GuardKilled":       func(t *testing.T, s fence.State) { kill(t, s.PID, syscall.SIGKILL) },
		"PostmasterKilled":  func(t *testing.T, s fence.State) { kill(t, s.Postmaster.PID, syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			g, _, deadline := openFor(t, d.data, fence.Options{}, 4*time.Second)
			_, err := g.Start(ctx(t), d.start(true, 1))
			require.NoError(t, err)
			quick := d.writer(d.connect("tcp"), short)
			slow := d.writer(d.connect("socket"), long)
			trouble(t, state(t, g))
			last := max(quick(), slow())
			require.Eventually(t, func() bool { return running(d.data) == 0 }, 10*time.Second, 2*time.Millisecond)
			empty := dcs.Boottime().Now()
			t.Logf("last acknowledgement %v and emptiness %v after the deadline", last-deadline, empty-deadline)
			require.Less(t, last, deadline+dcs.FenceBound)
			require.Less(t, empty, deadline+dcs.FenceBound)
		})
	}
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, sig))
	if sig == syscall.SIGSTOP {
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	}
}

// A17: at rest the directory is a standby's, from the moment on when the server is up as primary; what is started by hand
// comes up read-only. A start that is refused leaves the file as well.
func TestStandbySignalAtRest(t *testing.T) {
	d := newDatabase(t)
	g, _, _ := openFor(t, d.data, fence.Options{}, time.Hour)
	require.NoError(t, os.Remove(d.signal())) // as whoever prepares a start as primary does
	_, err := g.Start(ctx(t), d.start(true, 2))
	require.ErrorIs(t, err, fence.ErrNoEpoch)
	require.FileExists(t, d.signal(), "after a refused start")

	_, err = g.Start(ctx(t), d.start(true, 1))
	require.NoError(t, err)
	conn := d.connect("tcp")
	require.Equal(t, "f", value(t, conn, "select pg_is_in_recovery()::text")[:1])
	require.Eventually(t, func() bool { return state(t, g).Postmaster.AtRest }, 10*time.Second, 2*time.Millisecond)
	require.FileExists(t, d.signal())
	_, err = conn.Exec(ctx(t), "create table after_the_file(x int)")
	require.NoError(t, err, "the running server does not mind")
	require.NoError(t, g.CloseEpoch(ctx(t), 1))

	byHand := exec.Command(filepath.Join(d.bin, "postgres"), d.args()...)
	byHand.Dir = d.data
	require.NoError(t, byHand.Start())
	ended := make(chan struct{})
	go func() { _ = byHand.Wait(); close(ended) }()
	t.Cleanup(func() { _ = byHand.Process.Signal(syscall.SIGQUIT); <-ended })
	conn = d.connect("tcp")
	require.Equal(t, "true", value(t, conn, "select pg_is_in_recovery()::text"))
	_, err = conn.Exec(ctx(t), "create table by_hand(x int)")
	require.ErrorContains(t, err, "read-only")

	// It is not the guard's child: nothing is started beside it, and the guard takes charge of it.
	_, err = g.Start(ctx(t), d.start(false, 0))
	require.ErrorIs(t, err, fence.ErrRunning)
	require.Error(t, g.Adopt(ctx(t), os.Getpid()))
	require.NoError(t, g.Adopt(ctx(t), byHand.Process.Pid))
	s := state(t, g)
	require.True(t, s.Postmaster.Running && s.Postmaster.Foreign && !s.Postmaster.Primary && !s.Bounded, "%+v", s)
	require.NoError(t, g.Stop(ctx(t), fence.ModeFast))
	require.Zero(t, running(d.data))
	s = state(t, g)
	require.True(t, !s.Postmaster.Running && !s.Postmaster.Foreign && s.Bounded, "%+v", s)
}

func value(t *testing.T, conn *pgx.Conn, query string) string {
	t.Helper()
	var s string
	require.NoError(t, conn.QueryRow(ctx(t), query).Scan(&s))
	return s
}

// Promotion rewrites standby.signal, which PostgreSQL removes.
func TestStandbySignalAfterPromotion(t *testing.T) {
	d := newDatabase(t)
	g, _, _ := openFor(t, d.data, fence.Options{}, time.Hour)
	_, err := g.Start(ctx(t), d.start(false, 0))
	require.NoError(t, err)
	conn := d.connect("tcp")
	require.NoError(t, g.AllowPromote(ctx(t), 1))
	require.Equal(t, "true", value(t, conn, "select pg_promote()::text"))
	require.Eventually(t, func() bool { return state(t, g).Postmaster.AtRest }, 10*time.Second, 2*time.Millisecond)
	require.FileExists(t, d.signal())
	require.Equal(t, "false", value(t, conn, "select pg_is_in_recovery()::text"))
}

// The proof "shutdown": an archive_command that takes long holds the postmaster, not the lease (hazard A19).
func TestProofOfAShutdown(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate")
	require.NoError(t, syscall.Mkfifo(gate, 0o600))
	d := newDatabase(t, "archive_mode=on", "archive_command=cat "+gate)
	g, _, _ := openFor(t, d.data, fence.Options{}, time.Hour)
	_, err := g.Start(ctx(t), d.start(true, 1))
	require.NoError(t, err)
	last := d.writer(d.connect("tcp"), short)
	second := d.connect("tcp")
	_, err = second.Exec(ctx(t), "select pg_switch_wal()")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return state(t, g).Postmaster.AtRest }, 10*time.Second, 2*time.Millisecond)
	proof, err := g.Retire(ctx(t), 1)
	proved := dcs.Boottime().Now()
	require.NoError(t, err)
	require.Equal(t, fence.ProofShutdown, proof)
	require.Less(t, last(), proved)
	s := state(t, g)
	require.True(t, s.Postmaster.Running && !s.Postmaster.Primary && !s.Open, "the archiver still runs: %+v", s)
	_, err = g.Start(ctx(t), d.start(false, 0))
	require.ErrorIs(t, err, fence.ErrRunning)
	require.NoError(t, g.Stop(ctx(t), fence.ModeKill))
	require.Zero(t, running(d.data))

	// Without anything slow the proof may be either, and the epoch is closed with it.
	require.NoError(t, g.OpenEpoch(ctx(t), fence.Term{Epoch: 2, Deadline: dcs.Boottime().Now() + time.Hour}))
	d.settings = nil
	_, err = g.Start(ctx(t), d.start(true, 2))
	require.NoError(t, err)
	d.connect("tcp")
	proof, err = g.Retire(ctx(t), 2)
	require.NoError(t, err)
	require.Contains(t, []fence.Proof{fence.ProofEmpty, fence.ProofShutdown}, proof)
	require.False(t, state(t, g).Open)
}

// A4, A5: what a killed guard leaves behind, a postmaster that was stopped or the orphans of one that was killed, is ended by
// the next guard at once. A postmaster that no guard started is not: see TestStandbySignalAtRest.
func TestTheNextGuardEndsOrphans(t *testing.T) {
	d := newDatabase(t)
	g, dir, _ := openFor(t, d.data, fence.Options{}, time.Hour)
	_, err := g.Start(ctx(t), d.start(true, 1))
	require.NoError(t, err)
	last := d.writer(d.connect("tcp"), long)
	s := state(t, g)
	kill(t, s.Postmaster.PID, syscall.SIGSTOP)
	kill(t, s.PID, syscall.SIGKILL)
	await(t, g, fence.EventGuardLost)
	next := func() *fence.Guard {
		g, err := fence.Open(ctx(t), fence.Config{Dir: dir, Options: fence.Options{DataDir: d.data}})
		require.NoError(t, err)
		t.Cleanup(func() { end(g) })
		return g
	}
	began := dcs.Boottime().Now()
	g = next()
	require.Zero(t, running(d.data), "before the first request was answered")
	require.Less(t, last(), began+dcs.FenceBound)
	require.FileExists(t, d.signal())

	pid := s.Postmaster.PID
	_, err = syscall.Wait4(pid, nil, 0, nil) // this test is the subreaper; PostgreSQL takes a zombie for alive
	require.NoError(t, err)
	require.NoError(t, g.OpenEpoch(ctx(t), fence.Term{Epoch: 1, Deadline: dcs.Boottime().Now() + time.Hour}))
	_, err = g.Start(ctx(t), d.start(true, 1))
	require.NoError(t, err)
	last = d.writer(d.connect("tcp"), long)
	s = state(t, g)
	require.NoError(t, syscall.Kill(s.PID, syscall.SIGSTOP))            // so that it does not see the end of its child,
	require.NoError(t, syscall.Kill(s.Postmaster.PID, syscall.SIGKILL)) // whose session with a statement lives on,
	require.NoError(t, syscall.Kill(s.PID, syscall.SIGKILL))            // and is nobody's then
	await(t, g, fence.EventGuardLost)
	require.NotZero(t, running(d.data))
	next()
	require.Zero(t, running(d.data), "before the first request was answered")
	last()
}

// A replica that somebody promotes past the guard is a primary all the same: under the open epoch its deadline counts, and
// without one it is not called empty.
func TestPromotedByHand(t *testing.T) {
	d := newDatabase(t)
	g, _, deadline := openFor(t, d.data, fence.Options{}, 6*time.Second)
	_, err := g.Start(ctx(t), d.start(false, 0))
	require.NoError(t, err)
	conn := d.connect("tcp")
	require.Equal(t, "true", value(t, conn, "select pg_promote()::text"))
	require.Eventually(t, func() bool { return state(t, g).Postmaster.Primary }, 5*time.Second, 5*time.Millisecond)
	last := d.writer(conn, short)()
	require.Less(t, last, deadline)
	await(t, g, fence.EventFenced)

	require.NoError(t, os.WriteFile(d.signal(), nil, 0o600))
	_, err = g.Start(ctx(t), d.start(false, 0))
	require.NoError(t, err)
	conn = d.connect("tcp")
	require.NoError(t, g.OpenEpoch(ctx(t), fence.Term{Epoch: 2, Deadline: dcs.Boottime().Now() + time.Hour}))
	require.Equal(t, "true", value(t, conn, "select pg_promote()::text"))
	proof, err := g.Retire(ctx(t), 2)
	require.NoError(t, err)
	require.Contains(t, []fence.Proof{fence.ProofEmpty, fence.ProofShutdown}, proof)
	_, err = conn.Exec(ctx(t), "select 1")
	require.Error(t, err, "its sessions have ended before the proof")
}

// A crashed server leaves a lock file that says "ready", and in a PID namespace every server has the number 1: a server
// that starts as primary does not find standby.signal, written on the word of the last one's file.
func TestPrivilegedStaleLockFile(t *testing.T) {
	d := newDatabase(t)
	g, _, _ := openFor(t, d.data, fence.Options{PIDNamespace: true}, time.Hour)
	for range 3 {
		pid, err := g.Start(ctx(t), d.start(true, 1))
		require.NoError(t, err)
		conn := d.connect("tcp")
		require.Equal(t, "false", value(t, conn, "select pg_is_in_recovery()::text"))
		require.Eventually(t, func() bool { return state(t, g).Postmaster.AtRest }, 10*time.Second, 2*time.Millisecond)
		kill(t, pid, syscall.SIGKILL)
		await(t, g, fence.EventEmpty)
	}
}
