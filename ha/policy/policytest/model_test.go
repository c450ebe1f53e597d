package policytest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/policy"
)

// idle is a policy that does nothing, so that a test drives the model by hand.
func idle(policy.View, policy.Config) policy.Decision { return policy.Decision{Reason: "idle"} }

func idleWorld() *World { return NewWorld(Options{Decide: idle}) }

// standby returns a node with a running replica whose WAL ends at tip.
func standby(w *World, name string, tip *record) *Node {
	n := w.AddNode(name, name, false)
	n.disk = disk{data: policy.DataReady, tip: tip, newest: tip.branch.tli, control: tip.branch.tli, clean: true}
	n.Start()
	n.pgStart(start{parent: n.guard}, func(error) {})
	w.Run(time.Second)
	return n
}

// TestTwoPromotionsOneNumber is hazard B10: two servers that are promoted apart from each other choose the same timeline
// number, PostgreSQL's own check lets one stream from the other, pg_rewind sees nothing to do, and the model knows.
func TestTwoPromotionsOneNumber(t *testing.T) {
	w := idleWorld()
	base := newCluster("1").append(100)
	a, b := standby(w, "a", base), standby(w, "b", base)
	for _, n := range []*Node{a, b} {
		n.isPatroni = true // nobody asks for a lease here
		n.pgPromote(0, n.host, false, func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	w.Run(3 * time.Second)
	if a.disk.tip.branch.tli != 2 || b.disk.tip.branch.tli != 2 {
		t.Fatalf("timelines %d and %d, want 2 and 2", a.disk.tip.branch.tli, b.disk.tip.branch.tli)
	}
	b.Write(100)
	if !numbersAllow(a.disk.tip, b.disk.tip) {
		t.Error("PostgreSQL compares numbers only, so it would stream")
	}
	if b.disk.tip.holds(a.disk.tip) {
		t.Error("the two are different WAL")
	}
	if needed, safe := rewindTarget(a.disk.tip, b.disk.tip, 2, 2); needed || safe {
		t.Errorf("pg_rewind: needed %v, safe %v; it says that no rewind is required, and it is wrong", needed, safe)
	}
	a.isPatroni = false
	w.checkStream(a, b)
	if v := w.Violations(); len(v) != 1 || v[0].ID != "I10" {
		t.Errorf("violations %v, want one of I10", v)
	}
}

// TestPromotionSeesHistories: the number is 1 + the highest history that is visible, also one that was only received.
func TestPromotionSeesHistories(t *testing.T) {
	w := idleWorld()
	base := newCluster("1")
	a, b := standby(w, "a", base), standby(w, "b", base.append(500)) // b is beyond where a will fork
	a.isPatroni, b.isPatroni = true, true
	a.pgPromote(0, "a", false, func(error) {})
	w.Run(time.Second)
	b.follow("a") // cannot stream, but the history file comes first
	w.Run(time.Second)
	if b.pg.streaming {
		t.Fatal("b is beyond the fork and streams")
	}
	b.pgPromote(0, "b", false, func(error) {})
	w.Run(time.Second)
	if got := b.disk.tip.branch.tli; got != 3 {
		t.Errorf("b chose timeline %d, want 3", got)
	}
}

func TestRewindFindsTheFork(t *testing.T) {
	base := newCluster("1").append(100)
	old := base.append(300)
	next := base.fork(2, "x", false).append(100)
	if needed, safe := rewindTarget(old, next, 1, 2); !needed || !safe {
		t.Errorf("needed %v, safe %v; want both", needed, safe)
	}
	other := base.append(50).fork(2, "y", false).append(10).fork(3, "z", false)
	if needed, safe := rewindTarget(next, other, 2, 3); !needed || !safe {
		t.Errorf("histories that part at timeline 1: needed %v, safe %v; want both", needed, safe)
	}
	third := base.fork(2, "y", false).fork(3, "z", false)
	if needed, safe := rewindTarget(next, third, 2, 3); !needed || safe {
		t.Errorf("two promotions under number 2: needed %v, safe %v; want it needed and unsafe", needed, safe)
	}
}

// TestGuardFences: nothing is acknowledged after the deadline, with the agent dead.
func TestGuardFences(t *testing.T) {
	w := idleWorld()
	n := standby(w, "a", newCluster("1"))
	n.pgStop(func() {})
	w.Run(time.Second)
	if !n.guard.begin(1, n.clock()+5*time.Second, 8*time.Second) {
		t.Fatal("the guard refused an epoch")
	}
	n.believed = belief{epoch: 1, until: n.guard.deadline}
	n.pgStart(start{parent: n.guard, primary: true, epoch: 1}, func(error) {})
	w.Run(time.Second)
	if !n.Writable() {
		t.Fatal("no primary")
	}
	n.KillAgent()
	w.Run(4 * time.Second)
	if n.Writable() || n.guard.open {
		t.Error("it writes, or the epoch is open, after the deadline")
	}
	if n.guard.begin(1, n.clock()+5*time.Second, 8*time.Second) {
		t.Error("a closed epoch opened again")
	}
	if v := w.Violations(); len(v) > 0 {
		t.Error(v)
	}
}

func TestStoreTransactions(t *testing.T) {
	w := idleWorld()
	n := w.AddNode("a", "a", false)
	s := w.store
	se := s.open(n, 5*time.Second, false)
	r, err := s.commit(n, dcs.Txn{If: []dcs.Cond{{Key: "x"}}, Then: []dcs.Op{dcs.Put("x", nil), dcs.PutSession("y", nil, se.id)}})
	if err != nil || r.Versions["x"] == 0 || r.Versions["x"] != r.Versions["y"] {
		t.Fatalf("%v, %v", r, err)
	}
	if _, err := s.commit(n, dcs.Txn{If: []dcs.Cond{{Key: "x"}}, Then: []dcs.Op{dcs.Delete("x")}}); !errors.Is(err, dcs.ErrConflict) {
		t.Errorf("%v, want a conflict", err)
	}
	w.Run(4 * time.Second)
	if err := s.renew(se.id); err != nil {
		t.Fatal(err)
	}
	w.Run(4 * time.Second)
	if s.item("y").Version == dcs.Absent {
		t.Error("the session ended early")
	}
	w.Run(2 * time.Second)
	if s.item("y").Version != dcs.Absent || s.item("x").Version == dcs.Absent {
		t.Error("the session did not take its keys, and only these, along")
	}
	if _, err := s.commit(n, dcs.Txn{Then: []dcs.Op{dcs.PutSession("y", nil, se.id)}}); !errors.Is(err, dcs.ErrSessionLost) {
		t.Errorf("%v, want the session lost", err)
	}
}

func TestClockRates(t *testing.T) {
	w := idleWorld()
	n := w.AddNode("a", "a", false)
	n.drift(1.1)
	before := n.clock()
	w.Run(10 * time.Second)
	if got := n.clock() - before; got < 10999*time.Millisecond || got > 11001*time.Millisecond {
		t.Errorf("10s at rate 1.1 are %v", got)
	}
	if d := n.real(11 * time.Second); d < 10*time.Second || d > 10*time.Second+10 {
		t.Errorf("11s of its clock take %v", d)
	}
}

func TestStoryText(t *testing.T) {
	for text, want := range map[string]string{
		"run 1s\n----\n":                     "must begin with the command cluster",
		"cluster empty a\n----\n\nfly\n----": "line 4",
		"cluster empty a\n\n----\n":          "needs ----",
		"cluster empty a\nkill b\n----\n":    `no node "b"`,
		"cluster empty a\nrun\n----\n":       "wrong arguments",
	} {
		if _, _, err := Play(text, Options{Decide: idle}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	text := "# Prose.\n\ncluster empty a\nstatus\n----\nwhat was recorded\n\nwrite a\n----\n"
	got, _, err := Play(text, Options{Decide: idle})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got, "a refuses the write") || strings.Contains(got, "recorded") || !strings.HasPrefix(got, "# Prose.\n\ncluster") {
		t.Errorf("%s", got)
	}
	again, _, err := Play(got, Options{Decide: idle})
	if err != nil || again != got {
		t.Errorf("playing what was recorded gives something else: %v\n%s", err, again)
	}
}
