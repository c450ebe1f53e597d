package policytest

import (
	"strconv"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/policy"
)

// The agent's side of its guard: a connection that can be silent or end. The agent knows the guard as it was when it last
// answered; a.guard stays the same from one look to the next, so that nothing is asked of a new guard under the identity of
// the last one.

// guardTimeout is how long the agent waits for an answer.
const guardTimeout = 500 * time.Millisecond

// openTime is how long it takes to start a guard.
func (w *World) openTime() time.Duration {
	return w.span(5*time.Millisecond, 20*time.Millisecond, 80*time.Millisecond)
}

// attach makes g the agent's guard: a new guard is a new identity (lease rule R11).
func (a *agent) attach(g *guard) {
	n, last := a.n, a.lease
	a.guard = g
	a.lease = dcs.NewLease(dcs.Identity{Name: n.name, Instance: n.host + "#" + strconv.Itoa(n.instances), Nonce: g.nonce, Earlier: n.nonces[:len(n.nonces)-1]})
	a.lease.KnowTTL(a.dynamic.TTL)
	if last != nil {
		a.lease.Remember(last)
	}
	if g.epoch > 0 {
		a.lease.Resume(g.epoch, g.open, g.deadline)
	}
	if a.known {
		a.lease.Observe(a.snap, a.arrived(n.clock()))
	}
}

// meetGuard asks the guard how things stand before a look; when it is gone the look waits for the new one.
func (a *agent) meetGuard(then func()) {
	n := a.n
	switch {
	case n.guard.dead:
		a.post(n.w.openTime(), func() {
			n.reopenGuard()
			a.meetGuard(then)
		})
		return
	case n.guard != a.guard:
		a.attach(n.guard)
	}
	a.silent = false
	if !a.guard.still() {
		then()
		return
	}
	a.post(n.real(guardTimeout), func() {
		a.silent = a.guard.dead || a.guard.still()
		then()
	})
}

// ask sends a request to the guard. One that stands still takes it in when it goes on, if it ever does, and the agent has
// given up by then.
func (a *agent) ask(do func() error, done func(error)) {
	g := a.guard
	switch {
	case g.dead:
		done(errGuardLost)
	case g.still():
		g.run(func() { _ = do() })
		a.post(a.n.real(guardTimeout), func() { done(errGuardSilent) })
	default:
		done(do())
	}
}

// atGuard is the part of a task that the guard does: the task waits for it, and ends with the guard.
func (a *agent) atGuard(end func(error, bool), do func()) {
	if a.guard.dead {
		end(errGuardLost, false)
		return
	}
	a.guard.run(do)
}

// lostGuard is told that the connection to the guard ended. A new guard is started at once, beside the loop, which may be
// waiting for the store: until there is one, nobody counts and kills what the last one left.
func (a *agent) lostGuard() {
	n := a.n
	switch a.task.Kind {
	case policy.TaskStartPrimary, policy.TaskStartReplica, policy.TaskPromote, policy.TaskDemote, policy.TaskFence, policy.TaskStop, policy.TaskRestart:
		a.ended(a.taskID, errGuardLost, false)
	}
	a.post(n.w.openTime(), func() {
		n.reopenGuard()
		a.wake()
	})
}

// tell wakes the agent: its guard tells at once what it noticed.
func (n *Node) tell() {
	if n.agent != nil {
		n.agent.post(0, n.agent.wake)
	}
}
