package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// follow makes a replica of a primary.
func (r *rig) follow(a *rig) *rig {
	r.t.Helper()
	r.must(r.Clone(r.t.Context(), a.source(), nil))
	r.start(postgres.RoleReplica, r.settings(), a.asUpstream())
	r.waitRows(a)
	return r
}

func (r *rig) asUpstream() postgres.Upstream {
	return postgres.Upstream{Name: "a", Host: "127.0.0.1", Port: r.port}
}

// waitRows waits until the replica has replayed what the primary has.
func (r *rig) waitRows(a *rig) {
	r.t.Helper()
	to := a.Observe(r.t.Context()).Current
	deadline := time.Now().Add(20 * time.Second)
	for {
		st := r.Observe(r.t.Context())
		if st.Replayed >= to {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("replayed %v of %v, last %+v\n%s", st.Replayed, to, st, r.proc.LogTail())
		}
		<-time.After(5 * time.Millisecond)
	}
}

// TestOutsideFolders clones a source with a tablespace into a server with a WAL folder of its own, twice (hazard D8).
func TestOutsideFolders(t *testing.T) {
	a := newRig(t, "15", nil).primary()
	// Both servers are on this machine, so the copy's tablespace has to go somewhere else; the second copy goes over it.
	space := t.TempDir()
	there, here := filepath.Join(space, "the=re"), filepath.Join(space, "here")
	a.must(os.Mkdir(there, 0o700))
	a.sql("CREATE TABLESPACE ts LOCATION '" + there + "'")
	a.sql("CREATE TABLE public.t TABLESPACE ts AS SELECT generate_series(1, 1000) AS i")
	b := newRig(t, "15", func(c *Config) { c.BasebackupOptions = []string{"waldir=" + filepath.Join(space, "wal")} })
	err := b.Clone(t.Context(), a.source(), nil)
	if err == nil || !strings.Contains(err.Error(), there) || !strings.Contains(err.Error(), "tablespace-mapping") {
		t.Fatalf("a clone into the source's own tablespace: %v", err)
	}
	if left, _ := filepath.Glob(b.cfg.DataDir + "*new*"); len(left) > 0 || !exists(filepath.Join(there, "PG_15_202209061")) {
		t.Errorf("the refused clone left %v", left)
	}
	mapped := "--tablespace-mapping=" + escapeEquals(there) + "=" + here
	b.cfg.BasebackupOptions = append(b.cfg.BasebackupOptions, mapped)
	b.follow(a)
	if to, err := os.Readlink(b.data("pg_wal")); err != nil || to != filepath.Join(space, "wal") {
		t.Errorf("pg_wal leads to %q, %v", to, err)
	}
	if got := b.sql("SELECT count(*) FROM public.t"); got != "1000" {
		t.Errorf("the copy has %s rows", got)
	}
	b.proc.Stop(syscall.SIGINT)
	b.must(b.WALEndError())
	// The source moves to the machine it was on: from now on its tablespace is at the path that the copy uses.
	b.cfg.BasebackupOptions = b.cfg.BasebackupOptions[:1]
	a.proc.Stop(syscall.SIGINT)
	a.must(os.Rename(there, filepath.Join(space, "source")))
	a.must(relink(a.cfg.DataDir, there, filepath.Join(space, "source")))
	a.start(postgres.RolePrimary, a.settings(), postgres.Upstream{})
	a.sql("INSERT INTO public.t VALUES (0)")
	b.must(relink(b.cfg.DataDir, here, filepath.Join(space, "source2")))
	b.must(os.Rename(here, filepath.Join(space, "source2")))
	b.cfg.BasebackupOptions = append(b.cfg.BasebackupOptions, "--tablespace-mapping="+filepath.Join(space, "source")+"="+here)
	b.follow(a)
	if got := b.sql("SELECT count(*) FROM public.t"); got != "1001" {
		t.Errorf("the second copy has %s rows", got)
	}
	if to, err := os.Readlink(filepath.Join(b.oldDir(), "pg_wal")); err != nil || to != filepath.Join(space, "wal.old") {
		t.Errorf("pg_wal of the earlier copy leads to %q, %v", to, err)
	}
	if !exists(filepath.Join(space, "wal.old", "archive_status")) || exists(filepath.Join(space, "wal.new")) {
		t.Error("the earlier WAL folder was not kept aside")
	}
}

// WALEndError is WALEnd without the position.
func (r *rig) WALEndError() error {
	_, err := r.WALEnd(r.t.Context())
	return err
}

// TestTablespaceInPlace: a member's own tablespace is replaced by a new copy, and the old one stays with the old data.
func TestTablespaceInPlace(t *testing.T) {
	space := t.TempDir()
	at := filepath.Join(space, "ts")
	source := newRig(t, "15", nil).primary()
	b := newRig(t, "15", nil)
	b.must(b.Clone(t.Context(), source.source(), nil))
	// The old data of b has a tablespace at a path where the new copy is to have one.
	old := filepath.Join(at, "old file")
	b.must(os.MkdirAll(at, 0o700))
	b.must(os.WriteFile(old, nil, 0o600))
	b.must(os.Symlink(at, b.data("pg_tblspc", "99999")))
	plan := outsideDirs{dirs: []outsideDir{{at: at, new: at + ".new", option: "--tablespace-mapping="}}}
	next := b.cfg.DataDir + ".new-aaaaaaaaaaaa"
	b.must(os.MkdirAll(filepath.Join(next, "pg_tblspc"), 0o700))
	b.must(os.MkdirAll(filepath.Join(at+".new", "new file"), 0o700))
	b.must(os.Symlink(at+".new", filepath.Join(next, "pg_tblspc", "12345")))
	b.must(b.putInPlace(work{path: next}, plan))
	for path, want := range map[string]string{
		b.data("pg_tblspc", "12345"): at, filepath.Join(b.oldDir(), "pg_tblspc", "99999"): at + ".old",
	} {
		if to, err := os.Readlink(path); err != nil || to != want {
			t.Errorf("%s leads to %q (%v), want %q", path, to, err, want)
		}
	}
	if !exists(filepath.Join(at, "new file")) || !exists(filepath.Join(at+".old", "old file")) {
		t.Error("the folders did not change places")
	}
}

// TestNoRoomBeside: where nothing can be renamed, an empty data directory is filled in place, with a marker.
func TestNoRoomBeside(t *testing.T) {
	a := newRig(t, "15", nil).primary()
	parent := filepath.Join(t.TempDir(), "parent")
	b := newRig(t, "15", func(c *Config) {
		c.StateDir, c.DataDir = c.DataDir+".state", filepath.Join(parent, "data")
	})
	b.must(os.MkdirAll(b.cfg.DataDir, 0o700))
	b.must(os.Chmod(parent, 0o500))
	t.Cleanup(func() { os.Chmod(parent, 0o700) })
	// As a clone leaves it that was killed on the way.
	b.must(b.mark(markClone, "in place"))
	b.must(os.WriteFile(b.data("PG_VERSION"), []byte("15\n"), 0o600))
	if st := b.Observe(t.Context()); st.Data != postgres.DataInterrupted {
		t.Errorf("a clone that was killed in place is seen as %v", st.Data)
	}
	b.follow(a)
	b.proc.Stop(syscall.SIGINT)
	if st := b.Observe(t.Context()); st.Data != postgres.DataReady {
		t.Errorf("after a clone in place: %v %s", st.Data, st.DataErr)
	}
	err := b.Clone(t.Context(), a.source(), nil)
	if err == nil || !strings.Contains(err.Error(), "one level below") || b.Observe(t.Context()).Data != postgres.DataReady {
		t.Errorf("a clone over data that cannot be renamed: %v", err)
	}
}

// TestLink: a data directory behind a symbolic link is replaced where it is, and the link stays.
func TestLink(t *testing.T) {
	a := newRig(t, "15", nil).primary()
	var link string
	b := newRig(t, "15", func(c *Config) {
		link = c.DataDir + "-link"
		if err := errors.Join(os.Mkdir(c.DataDir, 0o700), os.Symlink(c.DataDir, link)); err != nil {
			t.Fatal(err)
		}
		c.DataDir, c.StateDir = link, ""
	})
	b.follow(a)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
}

// TestConfigFolder: with a configuration folder of its own a server is made, cloned, killed and rewound.
func TestConfigFolder(t *testing.T) {
	apart := func(c *Config) { c.ConfigDir = filepath.Join(filepath.Dir(c.DataDir), "etc") }
	a := newRig(t, "15", apart).primary()
	b := newRig(t, "15", apart).follow(a)
	for _, name := range []string{"postgresql.conf", "postgresql.base.conf", "pg_hba.conf", "pg_ident.conf"} {
		if !exists(filepath.Join(b.cfg.ConfigDir, name)) {
			t.Errorf("the copy has no %s in its configuration folder", name)
		}
	}
	b.proc.Stop(syscall.SIGINT)
	a.sql("CREATE TABLE public.lost AS SELECT 1 AS i")
	a.proc.Kill()
	b.start(postgres.RoleReplica, b.settings(), postgres.Upstream{})
	b.must(b.Promote(t.Context()))
	b.must(b.Checkpoint(t.Context()))
	a.must(a.Rewind(t.Context(), b.source()))
	a.start(postgres.RoleReplica, a.settings(), postgres.Upstream{Name: "b", Host: "127.0.0.1", Port: b.port})
	a.waitRows(b)
	if got := a.sql("SELECT count(*) FROM pg_class WHERE relname = 'lost'"); got != "0" {
		t.Error("the row was not rewound")
	}
}

// TestUnixSocket: the own server is reached through its socket, the folder is taken from what the server says.
func TestUnixSocket(t *testing.T) {
	folder, err := os.MkdirTemp("", "s") //nolint:usetesting // the name of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	r := newRig(t, "15", func(c *Config) { c.UseUnixSocket, c.UseUnixSocketRepl = true, true })
	r.must(r.Initdb(t.Context()))
	s := r.settings()
	s.Parameters["unix_socket_directories"] = folder
	s.HBA = []string{"local all all scram-sha-256", "local replication all scram-sha-256", "host replication all 127.0.0.1/32 scram-sha-256"}
	r.start(postgres.RolePrimary, s, postgres.Upstream{})
	r.must(r.PrepareCluster(t.Context()))
	if st := r.Observe(t.Context()); !st.Answered {
		t.Errorf("over the socket: %v", st.Err)
	}
	if host, port := r.localAddress(true); host != folder || port != r.port {
		t.Errorf("the local address is %s %d", host, port)
	}
}

// TestCrashedReplica: the WAL of a killed replica is found on the timeline that it had come to, although pg_control
// still knows only the one before.
func TestCrashedReplica(t *testing.T) {
	a := newRig(t, "15", nil).primary()
	b := newRig(t, "15", nil).follow(a)
	c := newRig(t, "15", nil).follow(a)
	a.proc.Stop(syscall.SIGINT)
	b.must(b.Promote(t.Context()))
	up := postgres.Upstream{Name: "b", Host: "127.0.0.1", Port: b.port}
	if reload, err := c.Configure(t.Context(), c.settings(), postgres.RoleReplica, up); err != nil || !reload {
		t.Fatal(reload, err)
	}
	c.must(c.Reload(t.Context()))
	b.flushed("CREATE TABLE public.t AS SELECT generate_series(1, 1000) AS i")
	c.waitRows(b)
	b.proc.Kill()
	deadline := time.Now().Add(10 * time.Second)
	st := c.Observe(t.Context())
	for st.Streaming && time.Now().Before(deadline) {
		<-time.After(5 * time.Millisecond)
		st = c.Observe(t.Context())
	}
	if st.Streaming || st.Timeline != 2 {
		t.Errorf("a replica that lost its upstream is seen on timeline %d", st.Timeline)
	}
	if c.look.line.timeline = 0; c.Observe(t.Context()).Timeline != 2 { // as after a restart of this program
		t.Error("a replica without a receiver is seen on another timeline by a new observer")
	}
	c.proc.Kill()
	control := c.Observe(t.Context()).Control
	end, err := c.WALEnd(t.Context())
	if err != nil || end != (wal.Position{Timeline: 2, LSN: max(st.Received, st.Replayed)}) {
		t.Errorf("the WAL ends at %v (%v), received %v, replayed %v, pg_control %+v", end, err, st.Received, st.Replayed, control)
	}
}
