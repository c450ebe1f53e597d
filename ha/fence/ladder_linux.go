package fence

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// ladder is how far the way down has gone. Once begun it goes on to its end: a server that is shutting down serves nobody
// any more (hazard A5). A deadline that moves on meanwhile gives a fast shutdown fastPatience in all, because an immediate
// one would not ship what walsenders still hold.
type ladder struct {
	stage stage
	begun time.Duration // of stageFast
	at    time.Duration // when the next step is due; of stageFast and stageImmediate
	known map[int]bool  // processes that got SIGKILL, of stageKill
}

type stage int

const (
	stageNone stage = iota
	stageFast
	stageImmediate
	stageKill
)

// endless says that the cluster is paused: there is no deadline (design section 7).
func (g *guard) endless() bool { return g.state.Deadline-g.clock.Now() > noDeadline }

// arm sets the timers for the next step, ours and the kernel's.
func (g *guard) arm() {
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	if at, ok := g.next(); ok {
		g.timer = g.clock.Timer(max(at-g.clock.Now(), 0))
	}
	g.armKernel()
}

// armKernel sets the kernel's timer whenever a primary may run; it is cleared only when SIGKILL was sent to all of it, or
// nothing is left: a guard that is frozen at any point in between cannot keep it alive (hazard A2). So it comes before the
// fork of a primary, and before the answer to whatever makes one or moves the deadline.
func (g *guard) armKernel() {
	switch {
	case unguarded || !g.leading() || g.endless() || g.foreign != nil: // the death of this guard does not end a foreign one
		g.kernel.clear()
	case g.state.Open && g.ladder.stage != stageKill:
		g.kernel.set(g.hard)
	}
}

// setDeadline moves the deadline. One in the past leaves the ladder the time that it needs before the kernel steps in.
func (g *guard) setDeadline(at time.Duration) {
	g.state.Deadline = at
	g.hard = max(at, g.clock.Now()) + kernelAfter
}

// next is when the next step is due.
func (g *guard) next() (at time.Duration, ok bool) {
	switch g.ladder.stage {
	case stageKill:
		return g.clock.Now() + killPause, true // until wait says that nothing is left
	case stageFast:
		return g.ladder.at, true
	case stageImmediate:
		return g.ladder.at + killAfter, true
	}
	switch {
	case unguarded || !g.state.Open || g.endless():
		return 0, false
	case g.leading():
		return g.state.Deadline - g.head, true
	}
	return g.state.Deadline, true
}

// step does what is due.
func (g *guard) step() {
	at, ok := g.next()
	if !ok || (g.clock.Now() < at && g.ladder.stage != stageKill) {
		return
	}
	switch g.ladder.stage {
	case stageKill, stageImmediate:
		g.kill()
	case stageFast:
		g.ladder.stage = stageImmediate
		g.signal(syscall.SIGQUIT)
	case stageNone:
		if !g.leading() {
			g.closeEpoch(ProofEmpty) // nothing runs under it
			g.push(Event{Kind: EventFenced, Epoch: g.state.Epoch})
			return
		}
		g.ladder = ladder{stage: stageFast, begun: g.clock.Now(), at: g.state.Deadline}
		g.signal(syscall.SIGINT)
	}
}

func (g *guard) signal(sig syscall.Signal) {
	switch {
	case !g.state.Postmaster.Running:
	case g.foreign != nil:
		g.foreign.signal(sig)
	default:
		_ = syscall.Kill(g.state.Postmaster.PID, sig)
	}
}

// kill sends SIGKILL to the postmaster, so that it forks no more, and to every other process of it, again and again until
// wait says that none is left: a fork may race with it. SIGKILL also ends what is stopped, and what waits for a disk
// never returns to user space to answer a client (hazards A4, A5).
func (g *guard) kill() {
	if g.ladder.stage != stageKill {
		g.ladder = ladder{stage: stageKill, known: map[int]bool{}}
	}
	var before []int
	if g.foreign != nil { // what it forked is nobody's descendant once it is dead
		before = g.others()
	}
	g.signal(syscall.SIGKILL)
	if unguarded {
		return
	}
	g.cgroup.kill()
	news := 0
	for _, pid := range append(before, g.others()...) {
		if !g.ladder.known[pid] {
			g.ladder.known[pid] = true
			news++
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if news == 0 {
		g.kernel.clear() // SIGKILL is pending everywhere: the kernel's help is not needed, and this process still is
	}
}

// others are the live processes that came from the postmaster, itself included when it is a child.
func (g *guard) others() []int {
	if g.foreign == nil {
		return descendants(os.Getpid())
	}
	return append(descendants(os.Getpid(), g.foreign.pid), leftovers(g.dir, g.foreign.program)...)
}

// reap waits for whatever ended, the postmaster and its adopted orphans, and tells who waits for it.
func (g *guard) reap() {
	none := g.wait()
	if !g.state.Postmaster.Running && g.foreign != nil {
		none = len(leftovers(g.dir, g.foreign.program)) == 0
	}
	switch {
	case g.state.Postmaster.Running || unguarded:
		g.state.Orphans = 0
	case none && !(g.occupied && g.cgroup.populated()):
		g.state.Orphans = 0
	default:
		// What outlives its postmaster serves nobody any more and can still acknowledge a write (hazard A4).
		g.state.Orphans = max(len(g.others()), 1)
		if g.ladder.stage != stageKill {
			g.kill()
		}
	}
	if g.occupied && !g.busy() {
		g.occupied = false
		g.emptied()
	}
}

// wait collects the children that ended. It says whether there is none left of any kind.
func (g *guard) wait() (none bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return true // ECHILD
		case pid <= 0:
			return false
		case pid == g.state.Postmaster.PID && g.state.Postmaster.Running && g.foreign == nil:
			g.exited(pid, status)
		}
	}
}

func (g *guard) exited(pid int, status syscall.WaitStatus) {
	g.state.Postmaster.Running = false
	g.state.LastExit = Exit{PID: pid, Code: status.ExitStatus()}
	if status.Signaled() {
		g.state.LastExit.Signal = int(status.Signal())
	}
	g.push(Event{Kind: EventExit, PID: pid, Code: g.state.LastExit.Code, Signal: g.state.LastExit.Signal})
}

// emptied settles everything that waited until nothing is left (proof "empty").
func (g *guard) emptied() {
	g.forget()
	g.ladder = ladder{}
	g.kernel.clear()
	g.idle = g.clock.Now()
	if g.mark != nil {
		g.mark.now()
	}
	g.watchRole(false)
	if g.proof != nil {
		g.proof.cancel()
		g.proof = nil
	}
	g.state.Postmaster = Postmaster{PID: g.state.Postmaster.PID, AtRest: g.state.Postmaster.AtRest}
	g.note(&g.trouble.admission, g.admission.open())
	g.push(Event{Kind: EventEmpty})
	for _, w := range g.waiters {
		if w.close != 0 && w.close == g.state.Epoch {
			g.closeEpoch(ProofEmpty)
		}
		w.to.send(reply{ID: w.id, Proof: ProofEmpty})
	}
	g.waiters = nil
	if g.state.Open && !unguarded && g.clock.Now() >= g.state.Deadline {
		g.closeEpoch(ProofEmpty)
		g.push(Event{Kind: EventFenced, Epoch: g.state.Epoch})
	}
	g.describe()
}

// closeEpoch ends the epoch for ever. The caller knows that nothing of it can acknowledge any more.
func (g *guard) closeEpoch(by Proof) {
	g.state.Open, g.closedBy = false, by
	g.dog.disarm()
}

// note remembers why a rung does not work.
func (g *guard) note(trouble *string, err error) {
	if *trouble != reason(err) {
		*trouble = reason(err)
		g.describe()
	}
}
