package local

import (
	"context"
	"maps"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// until looks until the status is as it should be.
func (r *rig) until(what string, ok func(postgres.Status) bool) postgres.Status {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	for {
		st := r.Observe(ctx)
		if ok(st) {
			return st
		}
		wait, end := context.WithTimeout(ctx, 50*time.Millisecond)
		<-wait.Done()
		end()
		if ctx.Err() != nil {
			r.t.Fatalf("%s: it does not come to that: %+v", what, st)
		}
	}
}

func with(s postgres.Settings, pairs ...string) postgres.Settings {
	s.Parameters = maps.Clone(s.Parameters)
	for i := 0; i < len(pairs); i += 2 {
		s.Parameters[pairs[i]] = pairs[i+1]
	}
	return s
}

// TestPendingCommandLine: what waits for a restart is told with its old and new values, also of parameters that stand on the
// command line, and is gone after the restart.
func TestPendingCommandLine(t *testing.T) {
	for _, major := range postgrestest.Versions() {
		t.Run(major, func(t *testing.T) {
			r := newRig(t, major, nil).primary()
			ctx := t.Context()
			changed := with(r.settings(), "max_connections", "120", "shared_buffers", "20MB", "work_mem", "5MB")
			reload, err := r.Configure(ctx, changed, postgres.RolePrimary, postgres.Upstream{})
			r.must(err)
			if !reload {
				t.Fatal("nothing to reload")
			}
			if st := r.Observe(ctx); st.PendingRestart["max_connections"] != (postgres.Change{Old: "100", New: "120"}) {
				t.Errorf("before the reload: %+v", st.PendingRestart)
			}
			r.must(r.Reload(ctx))
			st := r.until("both wait", func(st postgres.Status) bool { return len(st.PendingRestart) == 2 })
			if st.PendingRestart["max_connections"] != (postgres.Change{Old: "100", New: "120"}) || st.PendingRestart["shared_buffers"].Old != "16MB" {
				t.Errorf("%+v", st.PendingRestart)
			}
			if got := r.sql("SHOW work_mem"); got != "5MB" {
				t.Errorf("work_mem is %s", got)
			}
			r.proc.Stop(syscall.SIGINT)
			r.start(postgres.RolePrimary, changed, postgres.Upstream{})
			r.until("nothing waits", func(st postgres.Status) bool { return st.Answered && len(st.PendingRestart) == 0 })
			if got := r.sql("SHOW max_connections"); got != "120" {
				t.Errorf("max_connections is %s", got)
			}
		})
	}
}

// TestPromotedWaitsForNothing: what a standby had of recovery parameters and the primary has not is no reason for a restart.
func TestPromotedWaitsForNothing(t *testing.T) {
	source := newRig(t, "15", nil)
	ctx := t.Context()
	source.must(source.Initdb(ctx))
	source.start(postgres.RolePrimary, source.settings(), postgres.Upstream{})
	source.must(source.PrepareCluster(ctx))
	r := newRig(t, "15", nil)
	r.must(r.Clone(ctx, source.source(), nil))
	r.start(postgres.RoleReplica, r.settings(), postgres.Upstream{Name: "source", Host: "127.0.0.1", Port: source.port})
	r.until("it streams", func(st postgres.Status) bool { return st.Streaming })
	r.must(r.Promote(ctx))
	_, err := r.Configure(ctx, r.settings(), postgres.RolePrimary, postgres.Upstream{})
	r.must(err)
	r.must(r.Reload(ctx))
	if got := r.sql("SELECT count(*) FROM pg_settings WHERE pending_restart"); got == "0" {
		t.Log("this PostgreSQL counts none of them") // nothing to leave out
	}
	if st := r.until("it is a primary", func(st postgres.Status) bool { return st.Answered && st.Role == postgres.RolePrimary }); len(st.PendingRestart) != 0 {
		t.Errorf("%+v", st.PendingRestart)
	}
}

// TestLowerOnStandby: a standby does not start with lower values than pg_control has from its primary: it takes those and
// shows that the lower ones wait for a restart, which come into force once the primary was restarted (reference section
// 4.6). Raised on the primary first, they pause the replay of the standby, which says so.
func TestLowerOnStandby(t *testing.T) {
	source := newRig(t, "15", nil)
	ctx := t.Context()
	high := with(source.settings(), "max_connections", "150")
	source.must(source.Initdb(ctx))
	source.start(postgres.RolePrimary, high, postgres.Upstream{})
	source.must(source.PrepareCluster(ctx))
	r := newRig(t, "15", nil)
	r.must(r.Clone(ctx, source.source(), nil))
	up := postgres.Upstream{Name: "source", Host: "127.0.0.1", Port: source.port}
	low := with(r.settings(), "max_connections", "110")
	r.start(postgres.RoleReplica, low, up)
	st := r.until("it streams", func(st postgres.Status) bool { return st.Streaming })
	if st.PendingRestart["max_connections"] != (postgres.Change{Old: "150", New: "110"}) || st.TooLow != "" {
		t.Fatalf("pending %+v, too low %q", st.PendingRestart, st.TooLow)
	}
	if got := r.sql("SHOW max_connections"); got != "150" {
		t.Errorf("max_connections is %s", got)
	}

	restart := func(r *rig, role postgres.Role, s postgres.Settings, up postgres.Upstream) {
		r.proc.Stop(syscall.SIGINT)
		r.start(role, s, up)
	}
	restart(source, postgres.RolePrimary, with(source.settings(), "max_connections", "110"), postgres.Upstream{})
	r.until("the primary's value has arrived", func(st postgres.Status) bool { return st.Control.Settings["max_connections"] == 110 })
	restart(r, postgres.RoleReplica, low, up)
	st = r.until("it streams again", func(st postgres.Status) bool { return st.Streaming })
	if len(st.PendingRestart) != 0 || r.sql("SHOW max_connections") != "110" {
		t.Errorf("pending %+v", st.PendingRestart)
	}

	restart(source, postgres.RolePrimary, high, postgres.Upstream{})
	st = r.until("the replay is paused", func(st postgres.Status) bool { return st.ReplayPaused && st.TooLow != "" })
	if !strings.Contains(st.TooLow, "max_connections is 110, and the primary has 150") {
		t.Errorf("too low: %q", st.TooLow)
	}
	restart(r, postgres.RoleReplica, low, up)
	r.until("it streams and replays", func(st postgres.Status) bool { return st.Streaming && !st.ReplayPaused && st.TooLow == "" })
}
