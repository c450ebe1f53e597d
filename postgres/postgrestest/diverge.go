package postgrestest

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// diverge makes a cluster whose old primary a was killed with a row that the new primary b lacks. It returns the
// flushed end of a.
func diverge(t *testing.T, h Harness) (a, b *node, end wal.LSN) {
	t.Helper()
	a = newPrimary(t, h, "a")
	a.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) AS i")
	b = newReplica(t, h, "b", a)
	b.waitReplayed(a)
	b.stop()
	a.sql("INSERT INTO t VALUES (-1)")
	end = a.ctl.Observe(a.ctx()).Current
	a.srv.Kill()
	// The guard keeps this file there while a primary runs (design section 7).
	if err := os.WriteFile(filepath.Join(a.setup.DataDir, "standby.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(postgres.RoleReplica, postgres.Upstream{})
	b.must("promote", b.ctl.Promote(b.ctx()))
	b.sql("INSERT INTO t VALUES (-2)")
	b.must("checkpoint", b.ctl.Checkpoint(b.ctx())) // hazard B11: pg_rewind reads the timeline from pg_control
	b.must("slots", b.ctl.SyncSlots(b.ctx(), map[string]wal.LSN{"a": 0}))
	return a, b, end
}

// testDiverged: what a killed primary holds beyond the new leader's history is found, set aside, and rewound away.
func testDiverged(s suite) {
	t, h := s.t, s.h
	a, b, flushed := diverge(t, h)
	end, err := a.ctl.WALEnd(a.ctx())
	a.must("end of WAL", err)
	if end.Timeline != 1 || end.LSN != flushed {
		t.Errorf("the WAL of the killed primary ends at %+v, it had flushed %X", end, uint64(flushed))
	}
	line, err := a.ctl.Identify(a.ctx(), b.source())
	a.must("identify", err)
	st := b.ctl.Observe(b.ctx())
	if line.SystemID != st.SystemID || line.Position.Timeline != 2 || line.Replica || line.Position.LSN < st.Current-1<<20 || len(line.History.Switches) != 1 {
		t.Fatalf("the new leader identifies as %+v, its status is %+v", line, st)
	}
	fork := wal.Position{Timeline: 1, LSN: line.History.Switches[0].LSN}
	if fork.LSN >= end.LSN {
		t.Fatalf("no divergence: fork %X, end %X", uint64(fork.LSN), uint64(end.LSN))
	}
	loss, err := a.ctl.SetAside(a.ctx(), fork, end)
	a.must("set aside", err)
	checkLoss(t, a, loss, uint64(end.LSN-fork.LSN))
	again, err := a.ctl.SetAside(a.ctx(), fork, end)
	if err != nil || again.SavedTo != loss.SavedTo {
		t.Errorf("setting the same aside again: %+v, %v", again, err)
	}
	if none, err := a.ctl.SetAside(a.ctx(), fork, fork); err != nil || none.SavedTo != "" || none.Bytes != 0 {
		t.Errorf("setting nothing aside: %+v, %v", none, err)
	}
	a.must("rewind", a.ctl.Rewind(a.ctx(), b.source()))
	if !a.exists("standby.signal") {
		t.Error("a rewound directory has no standby.signal")
	}
	if _, err := a.ctl.Configure(a.ctx(), a.settings(), postgres.RoleReplica, b.upstream(a)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ctl.Command(a.ctx(), postgres.RolePrimary); !errors.Is(err, postgres.ErrDataDir) {
		t.Errorf("a replica's directory may be started as a primary without a promotion: %v", err)
	}
	a.start(postgres.RoleReplica, b.upstream(a))
	a.waitStreaming(b)
	a.waitReplayed(b)
	if got := a.sql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t WHERE i < 0"); got != "-2" {
		t.Errorf("after the rewind the rows are %s, wanted only -2", got)
	}
}

// checkLoss looks at what was set aside.
func checkLoss(t *testing.T, n *node, loss postgres.Loss, bytes uint64) {
	t.Helper()
	if loss.Bytes != bytes || len(loss.Segments) == 0 || loss.SavedTo == "" {
		t.Fatalf("the loss is %+v, wanted %d bytes", loss, bytes)
	}
	for _, name := range loss.Segments {
		was, err1 := os.ReadFile(filepath.Join(n.setup.DataDir, "pg_wal", name))
		is, err2 := os.ReadFile(filepath.Join(loss.SavedTo, name))
		if err := errors.Join(err1, err2); err != nil || string(was) != string(is) {
			t.Errorf("%s was not saved: %v", name, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(loss.SavedTo, "report.json"))
	if err != nil || !json.Valid(data) {
		t.Errorf("the report: %v\n%s", err, data)
	}
}

// testRewindInterrupted: a rewind that stops never leaves a directory that may be started by mistake (hazard D5).
func testRewindInterrupted(s suite) {
	t, h := s.t, s.h
	a, b, _ := diverge(t, h)
	for _, wait := range []string{"at once", "on the way"} {
		ctx, cancel := context.WithCancel(a.ctx())
		if wait == "at once" {
			cancel()
		} else {
			go func() { // as soon as the marker is there, or the rewind has ended
				defer cancel()
				for a.ctl.Observe(ctx).Data == postgres.DataReady {
				}
			}()
		}
		err := a.ctl.Rewind(ctx, b.source())
		cancel()
		if err == nil {
			t.Logf("%s: the rewind was quicker", wait)
			break
		}
		st := a.ctl.Observe(a.ctx())
		t.Logf("%s: %v, %v", wait, err, st.Data)
		if st.Data != postgres.DataReady && st.Data != postgres.DataInterrupted {
			t.Errorf("%s: an interrupted rewind left %v: %s", wait, st.Data, st.DataErr)
		}
		if st.Data == postgres.DataReady && !a.exists("standby.signal") {
			t.Errorf("%s: an interrupted rewind left a directory that would start writable", wait)
		}
	}
	a.open()
	if a.ctl.Observe(a.ctx()).Data == postgres.DataInterrupted {
		if _, err := a.ctl.Command(a.ctx(), postgres.RoleReplica); !errors.Is(err, postgres.ErrDataDir) {
			t.Errorf("an interrupted rewind may be started: %v", err)
		}
		if err := a.ctl.Rewind(a.ctx(), b.source()); !errors.Is(err, postgres.ErrRewindImpossible) {
			t.Errorf("a rewind of an interrupted rewind: %v", err)
		}
	}
	a.must("clone", a.ctl.Clone(a.ctx(), b.source(), nil))
	a.start(postgres.RoleReplica, b.upstream(a))
	a.waitStreaming(b)
}

// testRewindOfNothing: a killed primary that shipped everything joins without a rewind.
func testRewindOfNothing(s suite) {
	t, h := s.t, s.h
	a := newPrimary(t, h, "a")
	b := newReplica(t, h, "b", a)
	a.sql("CREATE TABLE t AS SELECT 1 AS i")
	b.waitReplayed(a)
	a.srv.Kill()
	b.must("promote", b.ctl.Promote(b.ctx()))
	b.must("checkpoint", b.ctl.Checkpoint(b.ctx()))
	b.must("slots", b.ctl.SyncSlots(b.ctx(), map[string]wal.LSN{"a": 0}))
	before := a.ctl.Observe(a.ctx()).Control
	a.must("rewind", a.ctl.Rewind(a.ctx(), b.source()))
	if after := a.ctl.Observe(a.ctx()).Control; after.State != before.State || after.Checkpoint != before.Checkpoint {
		t.Errorf("a rewind of nothing changed the directory: %+v, before %+v", after, before)
	}
	a.start(postgres.RoleReplica, b.upstream(a))
	a.waitStreaming(b)
}

// testSameTimeline: two servers were promoted to one timeline number (hazard B10). Each holds rows of its own; a rewind
// of the one that is ahead says that it cannot help, and a clone does.
func testSameTimeline(s suite) {
	t, h := s.t, s.h
	a := newPrimary(t, h, "a")
	a.sql("CREATE TABLE t (i int)")
	b := newReplica(t, h, "b", a)
	c := newReplica(t, h, "c", a)
	a.stop()
	for _, n := range []*node{b, c} {
		n.waitFor("cut off", func(st postgres.Status) bool { return !st.Streaming })
		n.must("promote", n.ctl.Promote(n.ctx()))
	}
	b.sql("INSERT INTO t VALUES (1)")
	c.sql("INSERT INTO t SELECT generate_series(1, 10000)")
	c.must("checkpoint", c.ctl.Checkpoint(c.ctx()))
	c.srv.Kill()
	end, err := c.ctl.WALEnd(c.ctx())
	c.must("end of WAL", err)
	line, err := c.ctl.Identify(c.ctx(), b.source())
	c.must("identify", err)
	if end.Timeline != 2 || line.Position.Timeline != 2 || line.Position.LSN >= end.LSN {
		t.Fatalf("here the WAL ends at %+v, the other server is at %+v", end, line.Position)
	}
	if err := c.ctl.Rewind(c.ctx(), b.source()); !errors.Is(err, postgres.ErrRewindImpossible) {
		t.Errorf("a rewind between two servers of one timeline: %v", err)
	}
	if st := c.ctl.Observe(c.ctx()); st.Data != postgres.DataReady {
		t.Errorf("the refused rewind left %v", st.Data)
	}
	b.must("slots", b.ctl.SyncSlots(b.ctx(), map[string]wal.LSN{"c": 0}))
	c.must("clone", c.ctl.Clone(c.ctx(), b.source(), nil))
	c.start(postgres.RoleReplica, b.upstream(c))
	c.waitStreaming(b)
	c.waitReplayed(b)
	if got := c.sql("SELECT count(*) FROM t"); got != "1" {
		t.Errorf("the clone has %s rows", got)
	}
}

// testForeignCluster: data of another cluster is neither copied over nor rewound (hazard D1).
func testForeignCluster(s suite) {
	t, h := s.t, s.h
	a := newPrimary(t, h, "a")
	x := newPrimary(t, h, "x")
	x.stop()
	before := x.ctl.Observe(x.ctx()).Control.SystemID
	if err := x.ctl.Clone(x.ctx(), a.source(), nil); !errors.Is(err, postgres.ErrSystemID) {
		t.Errorf("a clone of another cluster: %v", err)
	}
	if err := x.ctl.Rewind(x.ctx(), a.source()); !errors.Is(err, postgres.ErrSystemID) {
		t.Errorf("a rewind to another cluster: %v", err)
	}
	if after := x.ctl.Observe(x.ctx()); after.Data != postgres.DataReady || after.Control.SystemID != before {
		t.Errorf("the directory changed: %+v", after)
	}
}
