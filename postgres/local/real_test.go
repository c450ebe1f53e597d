package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// TestControlFile compares what is read from pg_control with what pg_controldata prints, for each version.
func TestControlFile(t *testing.T) {
	for _, major := range postgrestest.Versions() {
		t.Run(major, func(t *testing.T) {
			r := newRig(t, major, func(c *Config) { c.InitdbOptions = append(c.InitdbOptions, "data-checksums", "wal-segsize=1") }).primary()
			r.proc.Stop(syscall.SIGINT)
			cmd := exec.Command(filepath.Join(r.cfg.BinDir, "pg_controldata"), r.cfg.DataDir)
			cmd.Env = append(os.Environ(), "LC_ALL=C")
			out, err := cmd.Output()
			r.must(err)
			printed := map[string]string{}
			for line := range strings.Lines(string(out)) {
				name, value, _ := strings.Cut(line, ":")
				printed[name] = strings.TrimSpace(value)
			}
			c, err := readControl(r.cfg.DataDir)
			r.must(err)
			for name, value := range map[string]string{
				"Database system identifier": c.SystemID, "Database cluster state": string(c.State),
				"Latest checkpoint location": c.Checkpoint.LSN.String(), "Latest checkpoint's REDO location": c.redo.String(),
				"Latest checkpoint's TimeLineID":     fmt.Sprint(c.Checkpoint.Timeline),
				"Minimum recovery ending location":   c.MinRecovery.LSN.String(),
				"Min recovery ending loc's timeline": fmt.Sprint(c.MinRecovery.Timeline),
				"wal_log_hints setting":              map[bool]string{true: "on", false: "off"}[c.WALLogHints],
				"Data page checksum version":         map[bool]string{true: "1", false: "0"}[c.DataChecksums],
				"max_connections setting":            fmt.Sprint(c.Settings["max_connections"]),
				"max_worker_processes setting":       fmt.Sprint(c.Settings["max_worker_processes"]),
				"max_wal_senders setting":            fmt.Sprint(c.Settings["max_wal_senders"]),
				"max_prepared_xacts setting":         fmt.Sprint(c.Settings["max_prepared_xacts"]),
				"max_locks_per_xact setting":         fmt.Sprint(c.Settings["max_locks_per_xact"]),
				"Bytes per WAL segment":              fmt.Sprint(c.segmentSize),
			} {
				if printed[name] != value {
					t.Errorf("%s: %q, pg_controldata prints %q", name, value, printed[name])
				}
			}
			data, err := os.ReadFile(r.data("global", "pg_control"))
			r.must(err)
			data[100] ^= 1
			if _, err := parseControl(data); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("a damaged pg_control: %v", err)
			}
		})
	}
}

// TestMarkers: what has begun and not ended is never taken for ready (hazards D3, D5), and a clone mends it.
func TestMarkers(t *testing.T) {
	source := newRig(t, "15", nil).primary()
	r := newRig(t, "15", nil)
	ctx := t.Context()
	r.must(r.Clone(ctx, source.source(), nil))
	if _, err := r.Configure(ctx, r.settings(), postgres.RoleReplica, postgres.Upstream{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{markRewind, markClone} {
		r.must(r.mark(name, "test"))
		st := r.Observe(ctx)
		if st.Data != postgres.DataInterrupted || st.DataErr == "" || st.Control.SystemID == "" {
			t.Errorf("with marker %s: %+v", name, st)
		}
		if _, err := r.Command(ctx, postgres.RoleReplica); !errors.Is(err, postgres.ErrDataDir) {
			t.Errorf("with marker %s a server may be started: %v", name, err)
		}
		if err := r.Rewind(ctx, source.source()); !errors.Is(err, postgres.ErrRewindImpossible) {
			t.Errorf("with marker %s: rewind: %v", name, err)
		}
		r.must(os.MkdirAll(r.cfg.DataDir+".new-0123456789ab", 0o700)) // as a killed process leaves it
		r.must(os.WriteFile(filepath.Join(r.cfg.StateDir, "pgpass-left"), nil, 0o600))
		r.must(r.Clone(ctx, source.source(), nil))
		if st := r.Observe(ctx); st.Data != postgres.DataReady {
			t.Errorf("after a clone: %v %s", st.Data, st.DataErr)
		}
		if exists(r.cfg.DataDir+".new-0123456789ab") || exists(filepath.Join(r.cfg.StateDir, "pgpass-left")) {
			t.Error("an unfinished directory or a password file was left")
		}
	}
	// An empty directory of a member that had data is a missing mount, not a new member (hazard D2).
	r.must(os.RemoveAll(r.cfg.DataDir))
	if err := r.Initdb(ctx); !errors.Is(err, postgres.ErrDataDir) || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("initdb where data was: %v", err)
	}
	r.must(r.Clone(ctx, source.source(), nil))
}

// TestInvalidDirectories: what cannot be read is told in one sentence and never touched.
func TestInvalidDirectories(t *testing.T) {
	r := newRig(t, "15", nil)
	r.must(os.Mkdir(r.cfg.DataDir, 0o700))
	file := r.data("somebody's")
	r.must(os.WriteFile(file, nil, 0o600))
	if st := r.Observe(t.Context()); st.Data != postgres.DataInvalid || !strings.Contains(st.DataErr, "no PostgreSQL cluster") {
		t.Errorf("a folder with other files: %v %q", st.Data, st.DataErr)
	}
	if err := r.Initdb(t.Context()); !errors.Is(err, postgres.ErrDataDir) || !exists(file) {
		t.Errorf("initdb: %v", err)
	}
	r.must(os.WriteFile(r.data("PG_VERSION"), []byte("15\n"), 0o600))
	r.must(os.MkdirAll(r.data("global"), 0o700))
	r.must(os.WriteFile(r.data("global", "pg_control"), []byte("short"), 0o600))
	if st := r.Observe(t.Context()); st.Data != postgres.DataInvalid || !strings.Contains(st.DataErr, "pg_control") {
		t.Errorf("a short pg_control: %v %q", st.Data, st.DataErr)
	}
	r.must(os.Chmod(r.data("global"), 0))
	if st := r.Observe(t.Context()); st.Data != postgres.DataUnknown || st.DataErr == "" {
		t.Errorf("a folder that may not be read: %v %q", st.Data, st.DataErr)
	}
	r.must(os.Chmod(r.data("global"), 0o700))
}

// TestStuckStorage: a read that hangs holds a look no longer than its context, and holds no other look back.
func TestStuckStorage(t *testing.T) {
	r := newRig(t, "15", nil)
	r.must(os.Mkdir(r.cfg.DataDir, 0o700))
	pipe := r.data("PG_VERSION")
	r.must(syscall.Mkfifo(pipe, 0o600)) // opening it waits for a writer
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			begin := time.Now()
			st := r.Observe(ctx)
			if took := time.Since(begin); took > time.Second || st.Data != postgres.DataUnknown || !strings.Contains(st.DataErr, "stuck") {
				t.Errorf("a look took %v and saw %v %q", took, st.Data, st.DataErr)
			}
		})
	}
	all.Wait()
	// The storage comes back.
	r.must(os.Rename(pipe, r.data("pipe")))
	r.must(os.WriteFile(pipe, []byte("15\n"), 0o600))
	f, err := os.OpenFile(r.data("pipe"), os.O_WRONLY, 0)
	r.must(err)
	r.must(f.Close())
	if st := r.Observe(t.Context()); st.Data != postgres.DataInvalid {
		t.Errorf("after the storage came back a look sees %v %q", st.Data, st.DataErr)
	}
}

// TestOtherServer: a server that answers at this one's address and is another's is not taken for this one.
func TestOtherServer(t *testing.T) {
	a := newRig(t, "15", nil).primary()
	b := newRig(t, "15", func(c *Config) { c.Listen = a.cfg.Listen })
	st := b.Observe(t.Context())
	if st.Answered || !errors.Is(st.Err, errWrongServer) {
		t.Errorf("another server is seen as %+v", st)
	}
	if err := b.Promote(t.Context()); err == nil {
		t.Error("another server was promoted")
	}
}

// TestPendingRestart tells old and new values.
func TestPendingRestart(t *testing.T) {
	r := newRig(t, "15", nil).primary()
	s := r.settings()
	s.Parameters["max_connections"], s.Parameters["shared_buffers"] = "77", "32MB"
	reload, err := r.Configure(t.Context(), s, postgres.RolePrimary, postgres.Upstream{})
	if err != nil || !reload {
		t.Fatal(reload, err)
	}
	r.must(r.Reload(t.Context()))
	deadline := time.Now().Add(10 * time.Second)
	for {
		got := r.Observe(t.Context()).PendingRestart
		want := map[string]postgres.Change{"max_connections": {Old: "100", New: "77"}, "shared_buffers": {Old: "16MB", New: "32MB"}}
		if fmt.Sprint(got) == fmt.Sprint(want) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting for a restart: %v, want %v", got, want)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// TestCanary: while a cluster is made, cloned and rewound, no password is in an argument, an environment, a log or a
// file that others may read (hazard E2).
func TestCanary(t *testing.T) {
	secret := regexp.MustCompile(`canary-47\d\d`)
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, path := range paths {
				for _, p := range []string{path, filepath.Join(filepath.Dir(path), "environ")} {
					if data, err := os.ReadFile(p); err == nil && secret.Match(data) {
						t.Errorf("%s has a password: %q", p, data)
						return
					}
				}
			}
		}
	})
	a := newRig(t, "15", func(c *Config) { c.PostBootstrap = "sh -c 'test -r \"$PGPASSFILE\" && test \"$0\" != \"\"'" })
	r := a.settings
	loud := func() postgres.Settings {
		s := r()
		s.Parameters["log_statement"], s.Parameters["log_min_duration_statement"] = "all", "0"
		return s
	}
	a.must(a.Initdb(t.Context()))
	a.start(postgres.RolePrimary, loud(), postgres.Upstream{})
	a.must(a.PrepareCluster(t.Context()))
	b := newRig(t, "15", nil)
	b.must(b.Clone(t.Context(), a.source(), nil))
	b.start(postgres.RoleReplica, loud(), postgres.Upstream{Name: "a", Host: "127.0.0.1", Port: a.port})
	close(stop)
	watch.Wait()
	if secret.MatchString(a.proc.Log() + b.proc.Log()) {
		t.Error("the server's log has a password")
	}
	for _, x := range []*rig{a, b} {
		err := filepath.WalkDir(filepath.Dir(x.cfg.DataDir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if err == nil && secret.Match(data) && path != x.cfg.PGPass {
				t.Errorf("%s has a password", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
