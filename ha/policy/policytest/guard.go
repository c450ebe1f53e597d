package policytest

import (
	"strconv"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// guard is the model of the guard process: the parent of the postmaster, which holds nonce, epoch and deadline and
// survives the agent. That its fence works is the model's axiom (PerfectFence); everything else about it is modelled.
type guard struct {
	n        *Node
	nonce    string
	epoch    uint64
	open     bool
	deadline time.Duration // on the node's clock
	ttl      time.Duration // of the record that gave the deadline
	proof    string        // how the last epoch ended
	fencing  bool
	endless  bool // pause: no deadline (design section 7)
	dead     bool
}

func (n *Node) newGuard() *guard {
	n.boots++
	nonce := n.host + "-" + strconv.Itoa(n.boots)
	if n.w.broken(MistakeNameOnly) {
		nonce = n.name
	}
	return &guard{n: n, nonce: nonce}
}

// begin opens an epoch; an old one, or one that was closed before, is refused.
func (g *guard) begin(epoch uint64, deadline, ttl time.Duration) bool {
	if g.dead || epoch <= g.epoch && !g.n.w.broken(MistakeNameOnly) || g.n.clock() >= deadline {
		return false
	}
	g.epoch, g.open, g.deadline, g.ttl, g.proof = epoch, true, deadline, ttl, ""
	g.fencing, g.endless = false, false
	g.arm()
	return true
}

// extend sets the deadline of the open epoch; in pause there is none.
func (g *guard) extend(epoch uint64, deadline, ttl time.Duration, paused bool) {
	if g.dead || !g.open || g.epoch != epoch {
		return
	}
	g.deadline, g.ttl, g.endless = deadline, ttl, paused
	if paused {
		g.deadline = g.n.clock() + 100*365*24*time.Hour
		return
	}
	g.arm()
}

// arm schedules the ladder: a fast stop at deadline-g, and the fence at the deadline.
func (g *guard) arm() {
	if g.n.w.broken(MistakeNoGuard) {
		return
	}
	start := g.n.realAt(g.deadline - dcs.FenceHeadStart(g.ttl))
	epoch := g.epoch
	g.n.w.at(start, func() { g.due(epoch) })
}

func (g *guard) due(epoch uint64) {
	if g.dead || !g.open || g.epoch != epoch {
		return
	}
	if g.n.clock() < g.deadline-dcs.FenceHeadStart(g.ttl) {
		return // extended: another timer is armed
	}
	if !g.fencing {
		g.fence("the lease runs out", nil)
	}
}

// fence is the ladder, from now: fast stop, kill at the deadline, and the epoch is closed when nothing is left.
func (g *guard) fence(why string, done func()) {
	n, w := g.n, g.n.w
	if !g.fencing {
		g.fencing = true
		w.logf(n, "guard: fence (%s)", why)
	}
	epoch := g.epoch
	end := func() {
		if g.dead {
			return
		}
		g.close()
		if done != nil {
			done()
		}
	}
	if n.pg.state == pgStopped || !n.pg.asPrimary {
		end()
		return
	}
	pg := n.pg.life
	killAt := max(n.realAt(g.deadline), w.now)
	if !g.open {
		killAt = w.now
	}
	if killAt == w.now {
		killAt += w.opt.FenceLag
	} else if w.opt.FenceLag > 0 {
		killAt += time.Duration(w.opt.Rand.Int64N(int64(w.opt.FenceLag)))
	}
	n.pgStop(func() { end() })
	w.at(killAt, func() {
		if g.dead || g.epoch != epoch || n.pg.life != pg || n.pg.state == pgStopped {
			return
		}
		n.pgKill("killed by the guard")
		end()
	})
}

// close ends the epoch: it never opens again.
func (g *guard) close() {
	if !g.open {
		return
	}
	g.open, g.fencing = false, false
	g.proof = dcs.ProofEmpty
	if g.n.disk.clean {
		g.proof = dcs.ProofShutdown
	}
	g.n.w.logf(g.n, "guard: epoch %d is closed, proof %s", g.epoch, g.proof)
	if g.n.agent != nil {
		g.n.agent.wake()
	}
}
