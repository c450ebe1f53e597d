package local

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
	"github.com/pgregent/pgregent/postgres/wal"
)

// TestArchiveBeforeRewind: WAL files that the archive waits for are in it before a rewind removes them (hazard B12).
func TestArchiveBeforeRewind(t *testing.T) {
	archive := t.TempDir()
	gate := filepath.Join(archive, "open")
	settings := func(r *rig) postgres.Settings {
		s := r.settings()
		s.Parameters["archive_mode"] = "on"
		s.Parameters["archive_command"] = "test -f " + gate + " && cp %p " + archive + "/%f"
		return s
	}
	a := newRig(t, "15", nil)
	a.must(a.Initdb(t.Context()))
	a.start(postgres.RolePrimary, settings(a), postgres.Upstream{})
	a.must(a.PrepareCluster(t.Context()))
	b := newRig(t, "15", nil).follow(a)
	a.sql("CREATE TABLE public.t AS SELECT 1 AS i")
	first := a.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
	a.sql("SELECT pg_switch_wal()")
	a.sql("CREATE TABLE public.u AS SELECT 1 AS i")
	b.waitRows(a)
	b.proc.Stop(syscall.SIGINT)
	a.sql("CREATE TABLE public.lost AS SELECT 1 AS i")
	last := a.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
	a.sql("SELECT pg_switch_wal()")
	a.proc.Kill()
	b.start(postgres.RoleReplica, b.settings(), postgres.Upstream{})
	b.must(b.Promote(t.Context()))
	b.must(b.Checkpoint(t.Context()))
	a.must(os.WriteFile(gate, nil, 0o600))
	a.must(a.Rewind(t.Context(), b.source()))
	if !exists(filepath.Join(archive, first)) {
		t.Errorf("%s is not in the archive", first)
	}
	if exists(filepath.Join(archive, last)) {
		t.Errorf("%s is in the archive, it holds WAL after the fork", last)
	}
}

// TestRewindImpossible: a rewind that cannot work says so and leaves the directory as it was.
func TestRewindImpossible(t *testing.T) {
	a := newRig(t, "15", nil)
	a.must(a.Initdb(t.Context()))
	s := a.settings()
	s.Parameters["wal_log_hints"] = "off"
	a.start(postgres.RolePrimary, s, postgres.Upstream{})
	a.must(a.PrepareCluster(t.Context()))
	b := newRig(t, "15", nil).follow(a)
	a.proc.Stop(syscall.SIGINT)
	if err := a.Rewind(t.Context(), b.source()); !errors.Is(err, postgres.ErrRewindImpossible) || !strings.Contains(err.Error(), "wal_log_hints") {
		t.Errorf("a rewind without checksums and hints: %v", err)
	}
	a.start(postgres.RolePrimary, a.settings(), postgres.Upstream{})
	b.waitRows(a)
	b.proc.Stop(syscall.SIGINT)
	a.sql("CREATE TABLE public.lost AS SELECT 1 AS i")
	a.proc.Kill()
	b.start(postgres.RoleReplica, b.settings(), postgres.Upstream{})
	b.must(b.Promote(t.Context()))
	b.must(b.Checkpoint(t.Context()))
	a.cfg.RewindOptions = []string{"--no-such-option"}
	before := a.Observe(t.Context())
	err := a.Rewind(t.Context(), b.source())
	after := a.Observe(t.Context())
	if !errors.Is(err, postgres.ErrRewindImpossible) || after.Data != postgres.DataReady || !after.Control.SignalStandby {
		t.Errorf("a rewind with a wrong option: %v, before %+v, after %+v", err, before.Control, after.Control)
	}
	a.cfg.RewindOptions = nil
	gone := b.source()
	gone.Port = postgrestest.FreePort(t)
	if err := a.Rewind(t.Context(), gone); err == nil || errors.Is(err, postgres.ErrRewindImpossible) {
		t.Errorf("a rewind to a server that is not there: %v", err)
	}
	a.must(a.Rewind(t.Context(), b.source()))
}

// TestRewindKilled stops a rewind at many points. Whatever it leaves is either a directory that a later rewind mends, or
// one that is marked and never started (hazards B11, D5).
func TestRewindKilled(t *testing.T) {
	a := newRig(t, "15", nil).primary()
	b := newRig(t, "15", nil).follow(a)
	b.proc.Stop(syscall.SIGINT)
	a.sql("CREATE TABLE public.lost AS SELECT generate_series(1, 1000) AS i")
	a.proc.Kill()
	b.start(postgres.RoleReplica, b.settings(), postgres.Upstream{})
	b.must(b.Promote(t.Context()))
	b.must(b.SyncSlots(t.Context(), map[string]wal.LSN{"a": 0}))                                       // the WAL since the fork stays
	b.sql("CREATE TABLE public.big AS SELECT generate_series(1, 2000000) AS i, repeat('x', 100) AS t") // takes a while to copy
	b.must(b.Checkpoint(t.Context()))
	saved := a.cfg.DataDir + ".saved"
	if out, err := exec.Command("cp", "-a", a.cfg.DataDir, saved).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	seen := map[postgres.DataState]int{}
	var err error
	for delay := 20 * time.Millisecond; delay < time.Minute; delay += delay / 4 {
		a.must(os.RemoveAll(a.cfg.DataDir))
		if out, err := exec.Command("cp", "-a", saved, a.cfg.DataDir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		a.must(a.unmark(markRewind))
		ctx, cancel := context.WithTimeout(t.Context(), delay)
		err = a.Rewind(ctx, b.source())
		cancel()
		if err == nil {
			break
		}
		st := a.Observe(t.Context())
		seen[st.Data]++
		switch {
		case st.Data == postgres.DataReady && !errors.Is(err, postgres.ErrRewindImpossible):
			if delay > 300*time.Millisecond { // a second attempt mends it
				a.must(a.Rewind(t.Context(), b.source()))
			}
		case st.Data == postgres.DataInterrupted && errors.Is(err, postgres.ErrRewindImpossible):
		default:
			t.Errorf("stopped after %v: %v, left %v %s", delay, err, st.Data, st.DataErr)
		}
	}
	t.Logf("stopped %d times before it wrote and %d times after", seen[postgres.DataReady], seen[postgres.DataInterrupted])
	if seen[postgres.DataReady] == 0 || seen[postgres.DataInterrupted] == 0 {
		t.Errorf("the rewind was not stopped in both phases: %v", seen)
	}
	a.must(err)
	a.start(postgres.RoleReplica, a.settings(), postgres.Upstream{Name: "b", Host: "127.0.0.1", Port: b.port, Slot: "a"})
	a.waitRows(b)
	if got := a.sql("SELECT count(*) FROM public.big"); got != "2000000" {
		t.Errorf("%s rows", got)
	}
}

// TestRewindWithoutWAL: the source has removed WAL that the rewound server would need. It is told, and not started to
// wait for ever (hazard B11).
func TestRewindWithoutWAL(t *testing.T) {
	small := func(c *Config) { c.InitdbOptions = append(c.InitdbOptions, "wal-segsize=1") }
	a := newRig(t, "15", small).primary()
	b := newRig(t, "15", nil).follow(a)
	b.proc.Stop(syscall.SIGINT)
	a.sql("CREATE TABLE public.lost AS SELECT generate_series(1, 1000) AS i")
	a.proc.Kill()
	s := b.settings()
	s.Parameters["wal_keep_size"], s.Parameters["max_wal_size"], s.Parameters["min_wal_size"] = "16MB", "2MB", "2MB"
	b.start(postgres.RoleReplica, s, postgres.Upstream{})
	b.must(b.Promote(t.Context()))
	b.sql("CREATE TABLE public.big AS SELECT generate_series(1, 500000) AS i")
	for range 3 {
		b.must(b.Checkpoint(t.Context()))
		b.sql("SELECT pg_switch_wal()")
	}
	err := a.Rewind(t.Context(), b.source())
	st := a.Observe(t.Context())
	if !errors.Is(err, postgres.ErrRewindImpossible) || !strings.Contains(err.Error(), "is needed") || st.Data != postgres.DataInterrupted {
		t.Errorf("a rewind to a source without the WAL: %v, left %v", err, st.Data)
	}
	a.must(a.Clone(t.Context(), b.source(), nil))
}
