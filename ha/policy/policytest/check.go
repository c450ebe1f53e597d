package policytest

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
)

// Violation is one broken invariant.
type Violation struct {
	ID string // I1, I2, ... of the invariants list; G2, G4 for clusters with Patroni members
	At time.Duration
	// What is a sentence with the facts.
	What string
}

// String names the invariant, the time and the facts.
func (v Violation) String() string {
	return fmt.Sprintf("%s violated at %.3fs: %s", v.ID, v.At.Seconds(), v.What)
}

const maxViolations = 20

// truth is what the world knows and no node does.
type truth struct {
	performing *sentStep // the lease step that is being performed at the store right now

	// The line is the WAL that counts: that of the server that was opened for clients last.
	line        *record // its end as written
	opened      *record // its end when it was opened
	lineNode    *Node
	patroniLine bool // that was a Patroni member

	nonces   []string          // nonces[e] took epoch e
	highest  uint64            // the highest epoch that was ever in the record
	deleted  bool              // an operator deleted or overwrote the record: epochs may repeat, identities are forgotten
	released map[uint64]string // epoch -> nonce: released with proof

	openedEpoch  uint64 // the highest epoch in which a server was opened for clients
	acknowledged uint64 // the highest epoch of which a write was acknowledged
}

func (t *truth) init() { t.released = map[uint64]string{} }

// sentStep goes with a step of the lease protocol on its way to the store.
type sentStep struct {
	n      *Node
	sent   time.Duration // when the first request of the sequence was sent, on the sender's clock
	record dcs.Record
	closed bool       // the sender's guard had no open epoch
	obs    seenRecord // what its process knew of the record
}

// seenRecord is what one process knows of the key `lease`, kept apart from dcs.Lease, which is what is tested.
type seenRecord struct {
	version dcs.Version
	read    bool
	since   time.Duration // when the first read of this very version, or of its absence, arrived
	holder  time.Duration // when the holder and epoch were first seen (for a mistake)
	epoch   uint64
	nonce   string
	highest uint64
	longest time.Duration
}

func (s *seenRecord) observe(a *agent, snap dcs.Snapshot, now time.Duration) {
	it, _ := snap.Item(dcs.KeyLease)
	if s.read && it.Version == s.version {
		return
	}
	s.read, s.version, s.since = true, it.Version, now
	rec, err := a.w.parse(it)
	if it.Version == dcs.Absent || err != nil {
		s.epoch, s.nonce, s.holder = 0, "", now
		return
	}
	if rec.Epoch != s.epoch || rec.Nonce != s.nonce {
		s.epoch, s.nonce, s.holder = rec.Epoch, rec.Nonce, now
	}
	s.highest = max(s.highest, rec.Epoch)
	s.longest = max(s.longest, time.Duration(rec.TTL))
}

// parse reads a lease record; the last two versions are remembered.
func (w *World) parse(it dcs.Item) (dcs.Record, error) {
	for i := range w.parsed {
		if p := &w.parsed[i]; p.version == it.Version && it.Version != dcs.Absent {
			return p.record, p.err
		}
	}
	w.parsed[1] = w.parsed[0]
	rec, err := dcs.ParseRecord(it.Value)
	w.parsed[0] = parsedRecord{it.Version, rec, err}
	return rec, err
}

type parsedRecord struct {
	version dcs.Version
	record  dcs.Record
	err     error
}

func (w *World) violate(id, format string, args ...any) {
	v := Violation{ID: id, At: w.now, What: fmt.Sprintf(format, args...)}
	for _, old := range w.violations {
		if old.ID == v.ID && old.What == v.What {
			return
		}
	}
	w.violations = append(w.violations, v)
	if w.opt.Out != nil {
		w.opt.Out("!! " + v.String())
	}
}

// Violations are the broken invariants so far.
func (w *World) Violations() []Violation { return w.violations }

// check runs after every event.
func (w *World) check() {
	var first *Node
	for _, n := range w.nodes {
		if n.pg.state == pgStopped && len(n.orphans) == 0 {
			continue
		}
		n.noteHelpless()
		if !n.mayAcknowledge() || n.excused() {
			continue
		}
		if first != nil {
			w.twoWriters(first, n)
		}
		first = n
		if !n.isPatroni && !n.endless() {
			w.checkBelief(n)
			w.checkBesidePatroni(n)
		}
	}
}

// twoWriters is I1. Beside Patroni members it holds between pgregent members.
func (w *World) twoWriters(a, b *Node) {
	if a.isPatroni || b.isPatroni || a.endless() || b.endless() {
		return
	}
	ea, _ := a.serving()
	eb, _ := b.serving()
	w.violate("I1", "%s (epoch %d) and %s (epoch %d) can both acknowledge writes", a.host, ea, b.host, eb)
}

// acknowledged is told when a write of an epoch is acknowledged. That is I1 over time: none after one of a later epoch.
func (w *World) acknowledged(n *Node, epoch uint64) {
	t := &w.truth
	if n.isPatroni || n.endless() || t.deleted || n.excused() {
		return
	}
	if epoch < t.acknowledged {
		w.violate("I1", "%s acknowledges a write of epoch %d after one of epoch %d was acknowledged", n.host, epoch, t.acknowledged)
	}
	t.acknowledged = max(t.acknowledged, epoch)
}

// noteHelpless keeps until when nobody was able to end what serves at n.
func (n *Node) noteHelpless() {
	h := n.helpless()
	if h || n.wasHelpless {
		n.helplessUntil = n.w.now
	}
	n.wasHelpless = h
}

// excused is the model's named exception (design section 7): while agent and guard are both dead or stand still, and the
// postmaster is dead or stands still too, nobody can end what it left: statements in flight, and, as long as a postmaster
// that stands still keeps them, its sessions. Whoever is able to act again first has F for it. The other exception is a
// server that is started by hand after a crash between its start as primary and the writing of standby.signal, with what
// its postmaster leaves.
func (n *Node) excused() bool {
	left := slices.ContainsFunc(n.orphans, func(s *statement) bool { return s.unmarked })
	return n.pg.unmarked || left || n.wasHelpless || n.helplessUntil > 0 && n.w.now-n.helplessUntil <= dcs.FenceBound
}

// endless says that the node's guard holds no deadline because the cluster was paused when it last renewed: until it
// hears of the end of the pause, one writer is the operator's promise (hazard A20).
func (n *Node) endless() bool { return n.guard != nil && n.guard.open && n.guard.endless }

// checkBelief is I2, and the second half of I13: a writer has an open epoch that was renewed by a write that counted.
func (w *World) checkBelief(n *Node) {
	epoch, g := n.serving()
	if n.believed.epoch != epoch || n.clock() > n.believed.until+n.bound() {
		w.violate("I2", "%s can acknowledge writes in epoch %d at %v on its clock, no counted renewal reaches further than %v",
			n.host, epoch, n.clock()-n.base, n.believed.until-n.base)
	}
	if g == nil {
		return
	}
	if !g.dead && !g.open && g.epoch == epoch {
		w.violate("I2", "%s can acknowledge writes in epoch %d, which its guard has closed", n.host, epoch)
	}
	if nonce, ok := w.truth.released[epoch]; ok && nonce == g.nonce {
		w.violate("I13", "%s can acknowledge writes in epoch %d, which was released", n.host, epoch)
	}
}

// bound is F on the node's clock.
func (n *Node) bound() time.Duration {
	return time.Duration(float64(dcs.FenceBound)*n.rate) + time.Microsecond
}

// checkBesidePatroni is G2: with an honest store no pgregent writes while a Patroni member rightly holds `leader`.
func (w *World) checkBesidePatroni(n *Node) {
	if w.opt.Dishonest {
		return
	}
	it := w.store.item(dcs.KeyLeader)
	if se := w.store.sessions[it.Session]; se != nil && se.patroni && se.host != n && !n.beyondRules(se.host) {
		w.violate("G2", "%s accepts writes while the Patroni member %s rightly holds leader", n.host, se.host.host)
	}
}

// belief is what counted renewals allow a node, worked out beside dcs.Lease.
type belief struct {
	epoch uint64
	until time.Duration // on the node's clock
	// renewed is when a renewal was last confirmed; promised says that promises have lengthened the deadline since.
	renewed  time.Duration
	promised bool
}

// sending notes a lease step before it is sent.
func (w *World) sending(a *agent, step dcs.Step) *sentStep {
	return &sentStep{n: a.n, sent: a.trueSent, record: stepRecord(step), obs: a.seen, closed: !a.guard.open}
}

// stepRecord is the record that a step writes.
func stepRecord(step dcs.Step) dcs.Record {
	for _, op := range step.Txn.Then {
		if op.Key == dcs.KeyLease {
			r, _ := dcs.ParseRecord(op.Value)
			return r
		}
	}
	return dcs.Record{}
}

// checkStore judges a change of the store.
func (w *World) checkStore(by *Node, before []dcs.Item) {
	old := dcs.Snapshot{Items: before}
	was, _ := old.Item(dcs.KeyLease)
	is := w.store.item(dcs.KeyLease)
	if was.Version != is.Version && is.Version != dcs.Absent {
		w.checkRecord(old, was, is)
	}
	key, _ := old.Item(dcs.KeyLeader)
	if key.Version != w.store.item(dcs.KeyLeader).Version && by != nil && !by.isPatroni {
		if se := w.store.sessions[key.Session]; se != nil && se.patroni && se.host != by {
			w.violate("G4", "%s removed the leader key of %s, whose session lives", by.host, se.host.host)
		}
	}
}

// checkRecord is I3, I4 and the first half of I13.
func (w *World) checkRecord(before dcs.Snapshot, was, is dcs.Item) {
	t := &w.truth
	rec, err := w.parse(is)
	if err != nil {
		return // an operator's garbage
	}
	old, oldErr := w.parse(was)
	known := was.Version != dcs.Absent && oldErr == nil
	if known && rec.Epoch < old.Epoch {
		w.violate("I4", "the epoch went back from %d to %d", old.Epoch, rec.Epoch)
	}
	s := t.performing
	if s == nil {
		return // an operator
	}
	if (!known || rec.Epoch != old.Epoch) && rec.State == dcs.Held {
		w.checkTake(s, before, old, known, rec)
	}
	if rec.State == dcs.Released && (!known || old.State == dcs.Held) {
		t.released[rec.Epoch] = rec.Nonce
		for _, n := range w.nodes {
			epoch, g := n.serving()
			if (n.pg.state == pgStopped || n.pg.asPrimary) && epoch == rec.Epoch && g != nil && g.nonce == rec.Nonce {
				w.violate("I13", "epoch %d is released while PostgreSQL of %s still runs in it", rec.Epoch, n.host)
			}
		}
	}
}

// checkTake is I3: released with proof, or unchanged for its ttl on the taker's clock, or the taker's own closed epoch.
func (w *World) checkTake(s *sentStep, before dcs.Snapshot, old dcs.Record, known bool, rec dcs.Record) {
	was, _ := before.Item(dcs.KeyLease)
	t := &w.truth
	if !known && t.highest > 0 {
		t.deleted = true
	}
	for int(rec.Epoch) >= len(t.nonces) {
		t.nonces = append(t.nonces, "")
	}
	if had := t.nonces[rec.Epoch]; had != "" && had != rec.Nonce && !t.deleted {
		w.violate("I4", "epoch %d was taken by %s and by %s", rec.Epoch, had, rec.Nonce)
	}
	t.nonces[rec.Epoch] = rec.Nonce
	delete(t.released, rec.Epoch)
	now := s.n.clock()
	waited := s.obs.read && s.obs.version == was.Version && now-s.obs.since >= time.Duration(old.TTL)
	switch {
	case known && old.State == dcs.Released:
	case known && old.Nonce == rec.Nonce && s.closed:
	case known && waited:
	case known:
		w.violate("I3", "%s took epoch %d from %s without a release and before its ttl had passed", s.n.host, rec.Epoch, old.Holder)
	case t.highest == 0 || w.newCluster(s.n, before):
	case s.obs.read && s.obs.version == was.Version && now-s.obs.since >= s.obs.longest:
	default:
		w.violate("I3", "%s took an absent or unreadable record without waiting", s.n.host)
	}
	t.highest = max(t.highest, rec.Epoch)
	for _, n := range w.nodes {
		if n != s.n && n.mayAcknowledge() && !n.isPatroni && !n.endless() && !n.excused() {
			w.violate("I3", "%s took epoch %d while %s can acknowledge writes", s.n.host, rec.Epoch, n.host)
		}
	}
}

// newCluster says that the cluster is new in the sense of rule R4d: nobody claims to have initialised it but n itself.
func (w *World) newCluster(n *Node, before dcs.Snapshot) bool {
	it, _ := before.Item(cluster.KeyInitialize)
	se := w.store.sessions[it.Session]
	return it.Version == dcs.Absent || se != nil && se.host == n
}

// confirmed notes that a lease write was acknowledged to its sender: from then on it may be believed.
func (w *World) confirmed(s *sentStep) {
	if s.record.State != dcs.Held {
		return
	}
	until := s.sent + dcs.Validity(time.Duration(s.record.TTL))
	if s.n.believed.epoch != s.record.Epoch {
		s.n.believed = belief{epoch: s.record.Epoch}
	}
	s.n.believed.until = max(s.n.believed.until, until)
	s.n.believed.renewed, s.n.believed.promised = w.now, false
}
