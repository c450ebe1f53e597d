package postgrestest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// suite is what a case gets.
type suite struct {
	t *testing.T
	h Harness
}

// RunController runs the conformance suite on a Controller of real servers. It makes clusters of up to three servers,
// which it starts from Command, promotes, kills, freezes, cuts apart and joins again, and it needs a minute or two.
func RunController(t *testing.T, h Harness) {
	t.Helper()
	cases := []struct {
		name string
		run  func(suite)
	}{
		{"Bootstrap", testBootstrap},
		{"Clone", testClone},
		{"CloneInterrupted", testCloneInterrupted},
		{"Follow", testFollow},
		{"Slots", testSlots},
		{"Diverged", testDiverged},
		{"RewindInterrupted", testRewindInterrupted},
		{"RewindOfNothing", testRewindOfNothing},
		{"SameTimeline", testSameTimeline},
		{"ForeignCluster", testForeignCluster},
		{"NotRunning", testNotRunning},
		{"Starting", testStarting},
		{"Frozen", testFrozen},
		{"WrongPassword", testWrongPassword},
		{"GarbagePID", testGarbagePID},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(suite{t, h}) })
	}
}

// testBootstrap: an empty directory becomes a cluster, its server a primary, and what Observe says fits each step.
func testBootstrap(s suite) {
	t, h := s.t, s.h
	n := newNode(t, h, "a")
	st := n.ctl.Observe(n.ctx())
	if st.Data != postgres.DataEmpty || st.Answered || !errors.Is(st.Err, postgres.ErrNotRunning) {
		t.Errorf("before initdb: %+v", st)
	}
	if _, err := n.ctl.Command(n.ctx(), postgres.RolePrimary); err == nil {
		t.Error("Command without a cluster has no error")
	}
	n.must("initdb", n.ctl.Initdb(n.ctx()))
	st = n.ctl.Observe(n.ctx())
	if st.Data != postgres.DataReady || st.Answered || st.Control.State != postgres.ControlShutDown || st.Control.SystemID == "" {
		t.Errorf("after initdb: %+v", st)
	}
	if !n.exists("standby.signal") {
		t.Error("after initdb there is no standby.signal: a server started by hand would be writable (design section 7)")
	}
	if err := n.ctl.Initdb(n.ctx()); !errors.Is(err, postgres.ErrDataDir) {
		t.Errorf("initdb over a cluster: %v", err)
	}
	n.start(postgres.RolePrimary, postgres.Upstream{})
	if n.exists("standby.signal") {
		t.Error("standby.signal is there although Command was asked for a primary")
	}
	n.must("prepare cluster", n.ctl.PrepareCluster(n.ctx()))
	n.must("prepare cluster again", n.ctl.PrepareCluster(n.ctx()))
	n.sql("CREATE TABLE t AS SELECT 1 AS i")
	checkPrimary(t, n)
	if strings.Contains(n.srv.Log(), "SCRAM-SHA-256$") || strings.Contains(n.srv.Log(), n.setup.ReplicationPassword) {
		t.Error("the server's log has a password (hazard E2)")
	}
	n.must("checkpoint", n.ctl.Checkpoint(n.ctx()))
	n.must("promote a primary", n.ctl.Promote(n.ctx()))
}

// checkPrimary looks at a running primary on timeline 1.
func checkPrimary(t *testing.T, n *node) {
	t.Helper()
	st := n.ctl.Observe(n.ctx())
	if !st.Answered || st.Role != postgres.RolePrimary || st.Timeline != 1 || st.Current == 0 || st.Err != nil {
		t.Errorf("a primary is seen as %+v", st)
	}
	if st.SystemID == "" || st.SystemID != st.Control.SystemID || st.Version < 140000 || time.Since(st.PostmasterStart) > time.Hour {
		t.Errorf("a primary is seen as %+v", st)
	}
	if st.Control.PostmasterPIDNow != n.srv.PID() || st.Control.State != postgres.ControlInProduction {
		t.Errorf("pg_control of a primary is seen as %+v, its process is %d", st.Control, n.srv.PID())
	}
	if len(st.PendingRestart) != 0 {
		t.Errorf("a server that was just started waits for a restart: %v", st.PendingRestart)
	}
}

// testClone: a copy streams, shows where it is, and a second copy keeps the first aside.
func testClone(s suite) {
	t, h := s.t, s.h
	a := newPrimary(t, h, "a")
	a.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) AS i")
	b := newNode(t, h, "b")
	var last postgres.Progress
	a.must("slots", a.ctl.SyncSlots(a.ctx(), map[string]wal.LSN{"b": 0}))
	b.must("clone", b.ctl.Clone(b.ctx(), a.source(), func(p postgres.Progress) { last = p }))
	if last.DoneBytes == 0 || last.TotalBytes == 0 {
		t.Errorf("the progress of a base backup ended at %+v", last)
	}
	if !b.exists("standby.signal") {
		t.Error("a copy has no standby.signal: a server started by hand would be writable (design section 7)")
	}
	b.start(postgres.RoleReplica, a.upstream(b))
	st := b.waitStreaming(a)
	if st.Role != postgres.RoleReplica || st.Timeline != 1 || !strings.Contains(st.ConnInfo, "host=127.0.0.1") || strings.Contains(st.ConnInfo, b.setup.ReplicationPassword) {
		t.Errorf("a replica is seen as %+v", st)
	}
	b.waitReplayed(a)
	if got := b.sql("SELECT count(*) FROM t"); got != "100000" {
		t.Errorf("the copy has %s rows", got)
	}
	sender := a.waitFor("seeing the replica", func(st postgres.Status) bool {
		return len(st.Walsenders) == 1 && st.Walsenders[0].State == "streaming" && st.Walsenders[0].Flushed != 0
	})
	if w := sender.Walsenders[0]; w.ApplicationName != "b" || w.User != "replicator" || w.Flushed == 0 || w.ClientAddr != "127.0.0.1" {
		t.Errorf("the replica is seen as %+v", w)
	}
	if len(sender.Slots) != 1 || sender.Slots[0].Name != "b" || !sender.Slots[0].Active || sender.Slots[0].Type != "physical" {
		t.Errorf("the slot is seen as %+v", sender.Slots)
	}
	if err := b.ctl.Clone(b.ctx(), a.source(), nil); err == nil {
		t.Error("a running server's data directory was replaced")
	}
	b.stop()
	if err := os.WriteFile(filepath.Join(b.setup.DataDir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.must("clone again", b.ctl.Clone(b.ctx(), a.source(), nil))
	if _, err := os.Stat(filepath.Join(b.setup.DataDir+".old", "mine")); err != nil || b.exists("mine") {
		t.Errorf("the earlier data directory was not kept aside (hazard C10): %v", err)
	}
	b.start(postgres.RoleReplica, a.upstream(b))
	b.waitStreaming(a)
}

// testCloneInterrupted: a copy that stops on the way leaves the data directory as it was, and nothing behind after the
// next one (hazard D3).
func testCloneInterrupted(s suite) {
	t, h := s.t, s.h
	a := newPrimary(t, h, "a")
	a.sql("CREATE TABLE t AS SELECT generate_series(1, 1000000) AS i")
	b := newNode(t, h, "b")
	interrupt := func() {
		t.Helper()
		ctx, cancel := context.WithCancel(b.ctx())
		err := b.ctl.Clone(ctx, a.source(), func(postgres.Progress) { cancel() })
		cancel()
		if err == nil {
			t.Fatal("a cancelled clone has no error")
		}
	}
	interrupt()
	if st := b.ctl.Observe(b.ctx()); st.Data != postgres.DataEmpty && st.Data != postgres.DataInterrupted {
		t.Errorf("after an interrupted first copy: %v", st.Data)
	}
	b.open()
	b.must("clone", b.ctl.Clone(b.ctx(), a.source(), nil))
	interrupt()
	if st := b.ctl.Observe(b.ctx()); st.Data != postgres.DataReady {
		t.Errorf("an interrupted copy touched the data directory: %v %s", st.Data, st.DataErr)
	}
	b.must("clone", b.ctl.Clone(b.ctx(), a.source(), nil))
	b.start(postgres.RoleReplica, postgres.Upstream{Name: "a", Host: a.setup.Host, Port: a.setup.Port})
	b.waitStreaming(a)
	left, err := filepath.Glob(filepath.Join(b.setup.Home, "*new*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// testFollow: after a promotion the other replica follows the new leader by a reload.
func testFollow(s suite) {
	t, h := s.t, s.h
	a := newPrimary(t, h, "a")
	b := newReplica(t, h, "b", a)
	c := newReplica(t, h, "c", a)
	b.must("slots", b.ctl.SyncSlots(b.ctx(), map[string]wal.LSN{"c": 0, "a": 0}))
	a.sql("CREATE TABLE t AS SELECT 1 AS i")
	a.stop()
	end := b.waitFor("caught up", func(st postgres.Status) bool { return st.Answered && !st.Streaming })
	if end.Timeline != 1 {
		t.Errorf("a replica that lost its upstream is on timeline %d", end.Timeline)
	}
	begin := time.Now()
	b.must("promote", b.ctl.Promote(b.ctx()))
	t.Logf("promoted in %v", time.Since(begin))
	b.sql("INSERT INTO t VALUES (2)")
	st := b.ctl.Observe(b.ctx())
	if st.Role != postgres.RolePrimary || st.Timeline != 2 || st.History.Tip != 2 || len(st.History.Switches) != 1 {
		t.Errorf("after the promotion: %+v", st)
	}
	pid := c.srv.PID()
	begin = time.Now()
	reload, err := c.ctl.Configure(c.ctx(), c.settings(), postgres.RoleReplica, b.upstream(c))
	c.must("configure", err)
	if !reload {
		t.Error("following another leader asks for no reload")
	}
	c.must("reload", c.ctl.Reload(c.ctx()))
	c.waitStreaming(b)
	t.Logf("follows the new leader after %v", time.Since(begin))
	c.waitReplayed(b)
	if got := c.sql("SELECT count(*) FROM t"); got != "2" || c.srv.PID() != pid {
		t.Errorf("the follower has %s rows", got)
	}
	if reload, err := c.ctl.Configure(c.ctx(), c.settings(), postgres.RoleReplica, b.upstream(c)); reload || err != nil {
		t.Errorf("configuring the same again: reload %v, %v", reload, err)
	}
	if line, err := a.ctl.Identify(a.ctx(), c.source()); err != nil || !line.Replica || line.Position.Timeline != 2 || len(line.History.Switches) != 1 {
		t.Errorf("a replica identifies as %+v, %v", line, err)
	}
	follower := c.ctl.Observe(c.ctx())
	if follower.Timeline != 2 || follower.History.Tip != 2 {
		t.Errorf("the follower is on timeline %d, history %+v", follower.Timeline, follower.History)
	}
	// The old primary was shut down cleanly, its WAL is all on the new one: it joins without a rewind.
	a.start(postgres.RoleReplica, b.upstream(a))
	a.waitStreaming(b)
}

// testSlots: slots are made on both roles, advanced, and only own ones dropped.
func testSlots(s suite) {
	t, h := s.t, s.h
	a := newPrimary(t, h, "a")
	b := newReplica(t, h, "b", a)
	a.sql("SELECT pg_create_physical_replication_slot('operators')")
	for _, n := range []*node{a, b} {
		n.must("slots", n.ctl.SyncSlots(n.ctx(), map[string]wal.LSN{"c": 0, "d": 0, "b": 0}))
	}
	a.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) AS i")
	b.waitReplayed(a)
	to := b.ctl.Observe(b.ctx()).Replayed
	for _, n := range []*node{a, b} {
		n.must("advance", n.ctl.SyncSlots(n.ctx(), map[string]wal.LSN{"c": to, "d": to + 1<<40, "b": 0}))
		slots := map[string]postgres.Slot{}
		for _, s := range n.ctl.Observe(n.ctx()).Slots {
			slots[s.Name] = s
		}
		if slots["c"].RestartLSN < to || slots["d"].RestartLSN < to {
			t.Errorf("%s: slots were not advanced to %X: %+v", n.setup.Name, uint64(to), slots)
		}
	}
	a.open() // which slots are its own is known to the next process, too
	a.must("drop", a.ctl.SyncSlots(a.ctx(), map[string]wal.LSN{"c": 0}))
	names := map[string]bool{}
	for _, s := range a.ctl.Observe(a.ctx()).Slots {
		names[s.Name] = true
	}
	if !names["c"] || !names["b"] || !names["operators"] || names["d"] {
		t.Errorf("the slots are %v; wanted c, b because it is in use, operators because somebody else made it", names)
	}
	if err := a.ctl.SyncSlots(a.ctx(), map[string]wal.LSN{"Bad-Name": 0, "e": 0}); err == nil {
		t.Error("a bad slot name has no error")
	} else if a.sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'e'") != "1" {
		t.Error("one bad name kept the others from being made")
	}
}
