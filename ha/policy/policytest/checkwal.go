package policytest

import (
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/policy"
)

// openedPrimary is told when a server begins to accept writes; lineMoved when its WAL grows.
func (w *World) openedPrimary(n *Node) {
	t := &w.truth
	if n.excused() && !n.isPatroni && (n.pg.epoch < t.openedEpoch || t.patroniLine) {
		return // a named exception: no other node can know of what it writes
	}
	t.openedEpoch = max(t.openedEpoch, n.pg.epoch)
	t.line, t.opened, t.lineNode, t.patroniLine = n.disk.tip, n.disk.tip, n, n.isPatroni
	if n.disk.mixed && !n.isPatroni {
		w.violate("I10", "%s is opened for clients with WAL of two promotions mixed", n.host)
	}
}

func (w *World) lineMoved(n *Node) {
	if t := &w.truth; t.lineNode == n {
		t.line = n.disk.tip
	}
}

// checkPromote is I12: the lease is held with time left, and the WAL is on the line of the last primary.
func (w *World) checkPromote(n *Node) {
	w.checkEpoch(n, "promotes")
	w.checkLineage(n)
}

func (w *World) checkEpoch(n *Node, does string) {
	g := n.guard
	if g == nil || g.dead || !g.open || n.clock() >= g.deadline {
		w.violate("I12", "%s %s without an open epoch that has time left", n.host, does)
		return
	}
	if nonce, ok := w.truth.released[g.epoch]; ok && nonce == g.nonce {
		w.violate("I13", "%s %s in epoch %d, which was released", n.host, does, g.epoch)
	}
	if a := n.agent; a != nil && a.seen.read && a.seen.epoch > g.epoch {
		w.violate("I4", "%s %s in epoch %d after it saw epoch %d", n.host, does, g.epoch, a.seen.epoch)
	}
	if n.believed.epoch != g.epoch || n.clock() > n.believed.until && !g.endless {
		w.violate("I18", "%s %s in epoch %d on a write whose success it never learned", n.host, does, g.epoch)
	}
}

// checkLineage: every record of the candidate is on the last primary's line, or the other way round. A line that only a
// Patroni member knew of is not held against a pgregent, which cannot know it; nor is one that an operator made the store forget.
func (w *World) checkLineage(n *Node) {
	t := &w.truth
	if t.deleted || t.line == nil || n.disk.tip == nil || t.patroniLine {
		return
	}
	if n.disk.tainted || w.patroniForked(n.disk.tip, t.line) {
		return
	}
	if !t.line.holds(n.disk.tip) && !n.disk.tip.holds(t.line) {
		w.violate("I12", "%s promotes at %s, which is not on the line of the last primary, at %s",
			n.host, position(n.disk.tip), position(t.line))
	}
}

// checkStartPrimary is the start gate (I12, I14) for a start in place. A crash between the start as primary and the
// writing of standby.signal leaves a directory that whoever starts it by hand gets a primary from: nothing can close that.
func (w *World) checkStartPrimary(n *Node, s start) {
	if n.isPatroni {
		return
	}
	if s.parent == nil {
		if g := n.guard; !n.disk.window && (g == nil || g.dead || !g.open || g.epoch != s.epoch || n.clock() >= g.deadline) {
			w.violate("I14", "PostgreSQL of %s is started past its guard as primary, without an open epoch that has time left", n.host)
		}
		return
	}
	if s.parent != n.guard || s.parent.epoch != s.epoch {
		w.violate("I12", "%s starts a primary for epoch %d, which its guard does not have", n.host, s.epoch)
		return
	}
	w.checkEpoch(n, "starts a primary")
	w.checkLineage(n)
}

// checkStream is I10: what is about to be streamed continues what is there, by content. WAL that came to be mixed through
// a promotion that a Patroni member made, which leaves no identity, taints a directory and is not held against anybody; nor
// is what PostgreSQL's receiver does by itself, under the old name, while the agent is dead, frozen or without the store,
// nor what nobody can know after an operator made the store forget the record.
func (w *World) checkStream(n, up *Node) {
	if up.disk.tainted {
		n.disk.tainted = true
	}
	if n.disk.tainted || up.disk.tip.holds(n.disk.tip) && !up.disk.mixed {
		return
	}
	if n.isPatroni || w.patroniForked(n.disk.tip, up.disk.tip) || n.agentless() || n.pg.parent == nil || w.truth.deleted {
		n.disk.tainted = true
		return
	}
	n.disk.mixed = true
	w.violate("I10", "%s at %s streams from %s at %s, which has other WAL under the same numbers",
		n.host, position(n.disk.tip), up.host, position(up.disk.tip))
}

// agentless says that the receiver is left to itself.
func (n *Node) agentless() bool {
	a := n.agent
	return a == nil || n.w.now < a.frozen || a.failed || a.busy && n.clock()-a.readSent > a.dynamic.LoopWait
}

// patroniForked says that one side of the fork between a and b was made by a Patroni member, which leaves no identity.
func (w *World) patroniForked(a, b *record) bool {
	c := a.common(b)
	made := func(r *record) bool {
		for br := r.branch; br != nil && (c == nil || br != c.branch); br = br.parent {
			if br.patroni {
				return true
			}
		}
		return false
	}
	return made(a) || made(b)
}

// checkRewind is I11: pg_rewind believes numbers; when they lie, the result is a mixture.
func (w *World) checkRewind(n, src *Node, safe bool) {
	if safe || w.truth.deleted || n.isPatroni || n.disk.tainted || src.disk.tainted || w.patroniForked(n.disk.tip, src.disk.tip) {
		return
	}
	w.violate("I11", "%s at %s is rewound onto %s at %s, which shares its timeline number and not its WAL",
		n.host, position(n.disk.tip), src.host, position(src.disk.tip))
}

// checkDestroy is I16: a data directory goes only when another member has what clients were last promised to find.
func (w *World) checkDestroy(n, src *Node) {
	t := &w.truth
	if n.isPatroni || t.patroniLine || n.disk.tip == nil || t.opened == nil || !n.disk.tip.holds(t.opened) {
		return
	}
	for _, o := range w.nodes {
		if o != n && o.disk.data == policy.DataReady && o.disk.tip.holds(t.opened) && w.link(n, o) {
			return
		}
	}
	w.violate("I16", "%s at %s is replaced from %s at %s, and nobody else has the WAL of the last primary up to %s",
		n.host, position(n.disk.tip), src.host, position(src.disk.tip), position(t.opened))
}

// copied is told when a copy of src was completed at n.
func (w *World) copied(n, src *Node) {
	w.logf(n, "  copy of %s is complete at %s", src.host, position(src.disk.tip))
}

// checkFence is L4: nobody fences a primary that is well while the record and `leader` are its own and time is left.
func (w *World) checkFence(a *agent, why string) {
	n, g := a.n, a.guard
	if !n.writable() || g.dead || !g.open || a.stop || w.truth.deleted || w.opt.Dishonest {
		return
	}
	rec, err := dcs.ParseRecord(w.store.item(dcs.KeyLease).Value)
	key := w.store.item(dcs.KeyLeader)
	se := w.store.sessions[key.Session]
	if err != nil || rec.Nonce != g.nonce || rec.Epoch != g.epoch || rec.State != dcs.Held || se == nil || se.host != n {
		return
	}
	if left := g.deadline - n.clock(); left > dcs.FenceHeadStart(g.ttl)+100*time.Millisecond {
		w.violate("L4", "%s fences a healthy primary whose lease is good for %v (%s)", n.host, left, why)
	}
}

// hotLooks is how many looks in a second of real time are taken for a hot loop.
const hotLooks = 300

func (a *agent) checkHot() {
	if s := a.w.now.Truncate(time.Second); s != a.second {
		a.second, a.looks = s, 0
	}
	a.looks++
	if a.looks == hotLooks {
		a.w.violate("HOT", "%s looks more than %d times in a second: %s", a.n.host, hotLooks, a.reason)
	}
}
