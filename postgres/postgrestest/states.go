package postgrestest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// testNotRunning: calls that need a server say that there is none.
func testNotRunning(s suite) {
	t, h := s.t, s.h
	n := newPrimary(t, h, "a")
	if _, err := n.ctl.WALEnd(n.ctx()); err == nil {
		t.Error("WALEnd of a running server has no error")
	}
	n.stop()
	ctx := n.ctx()
	for what, err := range map[string]error{
		"promote": n.ctl.Promote(ctx), "reload": n.ctl.Reload(ctx), "checkpoint": n.ctl.Checkpoint(ctx),
		"slots": n.ctl.SyncSlots(ctx, map[string]wal.LSN{"b": 0}), "prepare": n.ctl.PrepareCluster(ctx),
	} {
		if !errors.Is(err, postgres.ErrNotRunning) {
			t.Errorf("%s without a server: %v", what, err)
		}
	}
	st := n.ctl.Observe(ctx)
	if st.Answered || !errors.Is(st.Err, postgres.ErrNotRunning) || st.Role != postgres.RoleUnknown || st.Control.State != postgres.ControlShutDown {
		t.Errorf("a stopped server is seen as %+v", st)
	}
	// A server that ends while it is waited for.
	n.launch(postgres.RolePrimary, postgres.Upstream{})
	done := make(chan error, 1)
	n.must("wait", n.ctl.WaitAccepting(ctx))
	n.srv.KillPostmaster()
	go func() { done <- n.ctl.WaitAccepting(ctx) }()
	select {
	case err := <-done:
		if !errors.Is(err, postgres.ErrNotRunning) {
			t.Errorf("waiting for a server that was killed: %v", err)
		}
	case <-time.After(limit):
		t.Error("waiting for a server that was killed did not end")
	}
	st = n.ctl.Observe(ctx)
	if st.Answered || !errors.Is(st.Err, postgres.ErrNotRunning) || st.Control.State != postgres.ControlInProduction {
		t.Errorf("a killed server is seen as %+v", st)
	}
}

// testStarting: a replica that cannot reach consistency is starting, for as long as it takes.
func testStarting(s suite) {
	t, h := s.t, s.h
	a := newPrimary(t, h, "a")
	b := newNode(t, h, "b")
	b.must("clone", b.ctl.Clone(b.ctx(), a.source(), nil))
	segments, err := filepath.Glob(filepath.Join(b.setup.DataDir, "pg_wal", "0*"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("the copy has no WAL: %v", err)
	}
	for _, path := range segments {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	b.launch(postgres.RoleReplica, postgres.Upstream{})
	st := b.waitFor("starting", func(st postgres.Status) bool { return errors.Is(st.Err, postgres.ErrStarting) })
	if st.Answered || st.Role != postgres.RoleUnknown {
		t.Errorf("a starting server is seen as %+v", st)
	}
	ctx, cancel := context.WithTimeout(b.ctx(), 300*time.Millisecond)
	defer cancel()
	if err := b.ctl.WaitAccepting(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a server that goes on starting: %v", err)
	}
	// With an upstream, by a reload, it gets there.
	reload, err := b.ctl.Configure(b.ctx(), b.settings(), postgres.RoleReplica, postgres.Upstream{Name: "a", Host: a.setup.Host, Port: a.setup.Port})
	if err != nil || !reload {
		t.Fatalf("configure: %v %v", reload, err)
	}
	b.must("reload", b.ctl.Reload(b.ctx()))
	b.must("wait", b.ctl.WaitAccepting(b.ctx()))
}

// testFrozen: a server that does not answer at all holds nobody longer than the context says.
func testFrozen(s suite) {
	t, h := s.t, s.h
	n := newPrimary(t, h, "a")
	if st := n.ctl.Observe(n.ctx()); !st.Answered {
		t.Fatalf("not answered: %v", st.Err)
	}
	n.srv.Freeze()
	for range 3 { // the kept connection first, then new ones
		ctx, cancel := context.WithTimeout(n.ctx(), 400*time.Millisecond)
		begin := time.Now()
		st := n.ctl.Observe(ctx)
		took := time.Since(begin)
		cancel()
		if took > 800*time.Millisecond || st.Answered || st.Err == nil {
			t.Errorf("a look at a frozen server took %v: answered %v, %v", took, st.Answered, st.Err)
		}
		if errors.Is(st.Err, postgres.ErrNotRunning) {
			t.Errorf("a frozen server is seen as not running: %v", st.Err)
		}
		if st.Data != postgres.DataReady || st.Control.State != postgres.ControlInProduction {
			t.Errorf("the files of a frozen server are seen as %v %q", st.Data, st.Control.State)
		}
	}
	n.srv.Thaw()
	n.waitFor("answering", func(st postgres.Status) bool { return st.Answered })
	n.srv.Stop(syscall.SIGQUIT)
	n.start(postgres.RolePrimary, postgres.Upstream{}) // a restart behind the kept connection
	if st := n.ctl.Observe(n.ctx()); !st.Answered {
		t.Errorf("the first look after a restart: %v", st.Err)
	}
}

// testWrongPassword: the error says so, and nothing was touched.
func testWrongPassword(s suite) {
	t, h := s.t, s.h
	a := newPrimary(t, h, "a")
	b := newNode(t, h, "b")
	b.setup.ReplicationPassword, b.setup.SuperuserPassword = "wrong1", "wrong2"
	b.open()
	for what, err := range map[string]error{
		"clone":    b.ctl.Clone(b.ctx(), a.source(), nil),
		"identify": func() error { _, err := b.ctl.Identify(b.ctx(), a.source()); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "password") || strings.Contains(err.Error(), "wrong1") {
			t.Errorf("%s with a wrong password: %v", what, err)
		}
	}
	if st := b.ctl.Observe(b.ctx()); st.Data != postgres.DataEmpty {
		t.Errorf("a clone with a wrong password left %v", st.Data)
	}
	a.setup.SuperuserPassword = "wrong3"
	a.open()
	st := a.ctl.Observe(a.ctx())
	if st.Answered || st.Err == nil || !strings.Contains(st.Err.Error(), "password") || errors.Is(st.Err, postgres.ErrNotRunning) {
		t.Errorf("a look with a wrong password: %+v", st)
	}
}

// testGarbagePID: a damaged postmaster.pid is told, not believed and not removed.
func testGarbagePID(s suite) {
	t, h := s.t, s.h
	n := newNode(t, h, "a")
	n.must("initdb", n.ctl.Initdb(n.ctx()))
	path := filepath.Join(n.setup.DataDir, "postmaster.pid")
	for _, content := range []string{"", "\x00\x00\x00", "hello\nworld\n", "99999999999999999999\n", "1\n/somewhere/else\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		st := n.ctl.Observe(n.ctx())
		if st.Answered || !errors.Is(st.Err, postgres.ErrNotRunning) || st.Data != postgres.DataReady {
			t.Errorf("with postmaster.pid %q: %+v", content, st)
		}
		if err := n.ctl.Reload(n.ctx()); !errors.Is(err, postgres.ErrNotRunning) {
			t.Errorf("reload with postmaster.pid %q: %v", content, err)
		}
	}
	if err := os.WriteFile(path, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.ctl.Configure(n.ctx(), n.settings(), postgres.RolePrimary, postgres.Upstream{}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.ctl.Command(n.ctx(), postgres.RolePrimary); err == nil || !strings.Contains(err.Error(), "postmaster.pid") {
		t.Errorf("Command with a damaged postmaster.pid: %v", err)
	}
	// A number that belongs to another process of this user now is no obstacle, as after a restart of a container.
	other := exec.CommandContext(n.ctx(), "cat")
	stdin, err := other.StdinPipe()
	n.must("start another process", errors.Join(err, other.Start()))
	defer func() {
		_ = stdin.Close()
		_ = other.Wait()
	}()
	stale := []byte(strconv.Itoa(other.Process.Pid) + "\n" + n.setup.DataDir + "\n")
	if err := os.WriteFile(path, stale, 0o600); err != nil {
		t.Fatal(err)
	}
	n.start(postgres.RolePrimary, postgres.Upstream{})
}
