package policytest

import (
	"errors"
	"strconv"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// guard is one life of the guard process: the parent of the postmaster, which holds nonce, epoch and deadline and outlives
// the agent. It can die and stand still like every process; then only the kernel works: its timer ends a guard that stands
// still past the deadline, and its death signal asks the postmaster to end (design section 7).
type guard struct {
	process
	nonce    string
	epoch    uint64
	open     bool
	deadline time.Duration // on the node's clock
	ttl      time.Duration // of the record that gave the deadline
	proof    string        // how the last epoch ended
	endless  bool          // pause: no deadline (design section 7)
	stopping bool          // it was told to end what runs, or does so by itself: nothing starts in this epoch any more
	ladder   bool          // the way down at the deadline has begun
	kernel   time.Duration // when the kernel ends this process, on the node's clock; 0: not set
	waiting  []func()      // until nothing is left
}

// Times of the ladder; package fence has the same.
const (
	quitPatience = time.Second            // from SIGINT to SIGQUIT when the agent orders a fence
	killAfter    = 200 * time.Millisecond // from SIGQUIT to SIGKILL
	kernelAfter  = 300 * time.Millisecond // from the deadline to the end of a guard that did not get that far
	killPause    = 10 * time.Millisecond  // until SIGKILL has reached every orphan
)

// MaxFenceLag is how late a signal may take effect so that the whole fence stays within dcs.FenceBound.
const MaxFenceLag = 100 * time.Millisecond

var (
	errGuardLost   = errors.New("the guard is gone")
	errGuardSilent = errors.New("the guard does not answer")
)

func (n *Node) newGuard() *guard {
	n.boots++
	nonce := n.host + "-" + strconv.Itoa(n.boots)
	if n.w.broken(MistakeNameOnly) {
		nonce = n.name
	}
	n.nonces = append(n.nonces, nonce) // on the disk, as the guard's folder
	return &guard{process: process{n: n}, nonce: nonce}
}

// openGuard starts a guard where none is. What an earlier one left is killed before anything else, because nobody else
// counts it: a postmaster that did not take the death signal in, and orphans. A server that was started by hand is not
// its business. Then the directory is at rest, and is marked as such.
func (n *Node) openGuard() {
	n.guard = n.newGuard()
	if n.w.broken(MistakeLeftovers) {
		return
	}
	if n.pg.state != pgStopped && n.pg.parent != nil {
		n.pgKill("killed: an earlier guard left it")
	}
	n.endOrphans()
	if n.pg.state == pgStopped {
		n.disk.mark(n.w)
	}
}

// reopenGuard replaces a guard that is gone.
func (n *Node) reopenGuard() {
	if n.guard == nil || n.guard.dead {
		n.openGuard()
	}
}

// begin opens an epoch; an old one, or one that was closed before, is refused.
func (g *guard) begin(epoch uint64, deadline, ttl time.Duration) bool {
	if epoch <= g.epoch && !g.n.w.broken(MistakeNameOnly) || g.n.clock() >= deadline {
		return false
	}
	g.epoch, g.open, g.deadline, g.ttl, g.proof = epoch, true, deadline, ttl, ""
	g.stopping, g.ladder, g.endless = false, false, false
	g.arm()
	return true
}

// extend sets the deadline of the open epoch; in pause there is none.
func (g *guard) extend(epoch uint64, deadline, ttl time.Duration, paused bool) {
	if !g.open || g.epoch != epoch {
		return
	}
	if g.endless && !paused {
		g.n.helplessUntil = g.n.w.now // the deadline that begins to count again may have passed: F counts from here
	}
	g.deadline, g.ttl, g.endless = deadline, ttl, paused
	if paused {
		g.deadline = g.n.clock() + 100*365*24*time.Hour
	}
	g.arm()
}

// leading says that something runs, or is left, that may be primary under this guard.
func (g *guard) leading() bool {
	return g.n.pg.asPrimary && g.n.pg.parent == g || g.n.orphansOf(g) > 0
}

// arm sets the timers: the guard's own for the ladder, and the kernel's for a guard that stands still.
func (g *guard) arm() {
	n := g.n
	if n.w.broken(MistakeNoGuard) || g.endless || !g.open {
		g.kernel = 0
		return
	}
	epoch := g.epoch
	g.postAt(n.realAt(g.deadline-dcs.FenceHeadStart(g.ttl)), func() { g.due(epoch) })
	if !g.leading() || n.w.broken(MistakeNoKernelTimer) {
		g.kernel = 0
		return
	}
	at := g.deadline + kernelAfter
	g.kernel = at
	n.w.at(n.realAt(at), func() {
		if !g.dead && g.kernel == at && n.clock() >= at {
			g.die("killed by the kernel's timer")
		}
	})
}

func (g *guard) due(epoch uint64) {
	if !g.open || g.epoch != epoch || g.ladder || g.n.clock() < g.deadline-dcs.FenceHeadStart(g.ttl) {
		return // closed, begun, or extended: another timer is armed
	}
	g.ladder = true
	g.fence("the lease runs out", g.deadline, nil)
}

// fence is the ladder: a fast stop now, an immediate one at quit (on the node's clock), SIGKILL to everything soon after.
// When nothing is left the epoch is closed. Signals may be late by Options.FenceLag.
func (g *guard) fence(why string, quit time.Duration, done func()) {
	n, w := g.n, g.n.w
	if !g.stopping {
		g.stopping = true
		w.logf(n, "guard: fence (%s)", why)
	}
	end := func() {
		g.close()
		if done != nil {
			done()
		}
	}
	switch {
	case n.pg.state == pgStopped && g.busy():
		g.waiting = append(g.waiting, end)
		return
	case n.pg.state == pgStopped || !n.pg.asPrimary:
		end()
		return
	}
	life := n.pg.life
	g.postAt(n.realAt(quit), func() { n.pgQuit(life, "stopped at once") })
	g.postAt(n.realAt(quit+killAfter)+w.lag(), func() {
		if n.pg.life == life {
			n.pgKill("killed by the guard")
		}
	})
	n.pgStop(end)
}

// quitAt is when a fence that the agent orders turns to SIGQUIT.
func (g *guard) quitAt() time.Duration {
	now := g.n.clock()
	if !g.open || g.deadline < now {
		return now
	}
	return min(g.deadline, now+quitPatience)
}

// reap is told that the postmaster ended. Busy backends outlive it, serve nobody any more, and can still acknowledge a
// write (hazard A4): they are counted and killed before anything is said to be empty.
func (g *guard) reap(waiting []func()) {
	n := g.n
	g.waiting = append(g.waiting, waiting...)
	if !g.busy() {
		g.emptied()
		n.tell()
		return
	}
	n.w.logf(n, "guard: the postmaster is gone and %d of its processes are left: they are killed", n.orphansOf(g))
	n.tell()
	g.post(killPause+n.w.lag()/2, func() {
		n.endOrphans()
		g.emptied()
		n.tell()
	})
}

// busy says that orphans are left.
func (g *guard) busy() bool { return g.n.orphansOf(g) > 0 && !g.n.w.broken(MistakeOrphans) }

// emptied settles what waited until nothing is left.
func (g *guard) emptied() {
	g.kernel = 0
	g.n.disk.mark(g.n.w)
	waiting := g.waiting
	g.waiting = nil
	for _, f := range waiting {
		f()
	}
}

// close ends the epoch: it never opens again.
func (g *guard) close() {
	if !g.open {
		return
	}
	g.open, g.stopping, g.ladder, g.kernel = false, false, false, 0
	g.proof = dcs.ProofEmpty
	if g.n.disk.clean {
		g.proof = dcs.ProofShutdown
	}
	g.n.w.logf(g.n, "guard: epoch %d is closed, proof %s", g.epoch, g.proof)
	if g.n.agent != nil {
		g.n.agent.wake()
	}
}

// die ends the process. The kernel sends the postmaster SIGQUIT, and the agent sees its connection end.
func (g *guard) die(why string) {
	n := g.n
	g.dead = true
	n.w.logf(n, "guard: %s", why)
	if n.pg.parent == g && !n.w.broken(MistakeNoDeathSignal) {
		n.pgQuit(n.pg.life, "ended with its guard")
	}
	if n.agent != nil {
		n.agent.post(0, n.agent.lostGuard)
	}
}

// lag is how late a signal takes effect.
func (w *World) lag() time.Duration {
	if w.opt.FenceLag <= 0 || w.opt.Rand == nil {
		return 0
	}
	return time.Duration(w.opt.Rand.Int64N(int64(w.opt.FenceLag)))
}
