package policytest

import (
	"time"

	"github.com/pgregent/pgregent/ha/policy"
)

// What befalls the processes of a node one by one: agent, guard, postmaster and backends die and stand still on their own.

// Kill ends everything on the node at once: power loss.
func (n *Node) Kill() {
	n.KillAgent()
	why := "killed"
	if n.endGuard() {
		why = "the machine is lost"
	}
	n.pgKill(why)
}

// KillAgent ends the agent; guard and PostgreSQL stay.
func (n *Node) KillAgent() {
	if n.agent != nil {
		n.agent.end()
		n.agent = nil
	}
	if n.patroni != nil {
		n.patroni.dead = true
		n.patroni = nil
	}
}

// KillGuard ends the guard process alone.
func (n *Node) KillGuard() {
	if n.guard != nil && !n.guard.dead {
		n.guard.die("killed")
	}
}

// endGuard ends the guard where there is nothing left to guard, or no machine to do it on.
func (n *Node) endGuard() bool {
	was := n.guard != nil && !n.guard.dead
	if n.guard != nil {
		n.guard.dead, n.guard.open = true, false
		n.guard = nil
	}
	return was
}

// KillPostgres ends the postmaster and its children; the guard sees it at once.
func (n *Node) KillPostgres() {
	n.crashed()
	n.pgKill("killed")
}

// KillPostmaster ends the postmaster alone: idle sessions end with it, busy ones go on and acknowledge.
func (n *Node) KillPostmaster() {
	if n.pg.state == pgStopped {
		return
	}
	n.crashed()
	if n.isPatroni { // what becomes of its orphans is not this model's business
		n.pgKill("killed")
		return
	}
	n.orphans = append(n.orphans, n.pg.busy...)
	n.disk.clean = false
	n.exit("the postmaster is killed")
}

// crashed counts an exit that nobody ordered.
func (n *Node) crashed() {
	if n.agent != nil && n.pg.state != pgStopped {
		n.agent.crashes = append(n.agent.crashes, n.clock())
	}
}

// StartByHand starts PostgreSQL in the node's data directory past the guard, as an administrator or a unit of the system
// does (hazard A17). It says whether it could be started.
func (n *Node) StartByHand() bool {
	if n.isPatroni || n.pg.state != pgStopped || len(n.orphans) > 0 || n.disk.data != policy.DataReady {
		return false
	}
	s := start{primary: !n.disk.atRest}
	if !s.primary {
		s.upstream = n.disk.upstream
	}
	n.w.logf(n, "postgres: started by hand")
	n.pgStart(s, func(error) {})
	return true
}

// Freeze stops the agent for d; FreezeGuard and FreezePostmaster the other two.
func (n *Node) Freeze(d time.Duration) {
	if n.agent != nil {
		n.agent.freeze(d)
	}
	if n.patroni != nil {
		n.patroni.freeze(d)
	}
}

// FreezeGuard stops the guard for d. The kernel's timer works.
func (n *Node) FreezeGuard(d time.Duration) {
	if n.guard != nil {
		n.guard.freeze(d)
	}
}

// FreezePostmaster stops the postmaster for d: it takes no signal in, and its sessions go on.
func (n *Node) FreezePostmaster(d time.Duration) {
	if n.pg.state != pgStopped {
		n.pg.master.freeze(d)
	}
}

// Pause stops everything on the node for d, with the clocks running on: the kernel's timer works.
func (n *Node) Pause(d time.Duration) {
	n.Freeze(d)
	n.FreezeGuard(d)
	n.FreezePostmaster(d)
	until := n.w.now + d
	for _, s := range append(n.pg.busy[:len(n.pg.busy):len(n.pg.busy)], n.orphans...) {
		s.stand(until)
	}
	n.pg.frozen = max(n.pg.frozen, until)
	n.w.serverDown(n)
	n.w.at(until, func() {
		if n.pg.state == pgRunning {
			n.connect()
		}
	})
}

// helpless says that nobody is able to end what serves here: agent and guard are dead or stand still, and the postmaster
// is dead or stands still too, so that it does not take the death signal in.
func (n *Node) helpless() bool {
	return !n.isPatroni && (n.agent == nil || n.agent.still()) && (n.guard == nil || n.guard.dead || n.guard.still()) &&
		(n.pg.state == pgStopped || n.pg.master.still())
}
