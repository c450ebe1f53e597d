package policytest

import (
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
)

// Node is one machine: a clock, a data directory, and the programs that run now. host is the machine, name the member
// name in its configuration; they differ only where a story gives two machines one name (hazard A15).
type Node struct {
	w     *World
	host  string
	name  string
	index int

	// The clock: clock(t) = base + (t-anchor)*rate.
	base, anchor time.Duration
	rate         float64

	nonces    []string // of this machine's guards, the last one included
	boots     int
	instances int
	disk      disk
	voter     voterDisk
	pg        postgres
	orphans   []*statement // busy backends of a postmaster that was killed
	guard     *guard       // the one that lives, or the last one
	agent     *agent
	patroni   *patroni
	isPatroni bool          // which program is installed
	patroniAt time.Duration // when Patroni was last started

	tags      cluster.Tags
	canRewind bool
	bootstrap bool

	alone     bool   // cut from everything
	cutStore  bool   // cut from the store
	cut       uint64 // bit i: cut from the node with index i
	slowStore time.Duration
	loseReply int
	walDelay  time.Duration
	missed    bool // a watch event fell into a cut
	fail      []string

	due            bool // on the disk of the agent: an operator's request stopped PostgreSQL, and it has not come back
	pendingRestart bool // a parameter waits for a restart
	tooLow         bool // a parameter is lower than the primary's: the replay is paused

	// For the invariants.
	believed      belief
	wasHelpless   bool
	helplessUntil time.Duration // when somebody was able to act again, or now
}

// AddNode adds a machine with an empty data directory and starts its programs.
func (w *World) AddNode(host, member string, patroni bool) *Node {
	n := &Node{
		w: w, host: host, name: member, index: len(w.nodes), rate: 1,
		base: time.Duration(len(w.nodes)+1) * 1000 * time.Second, anchor: w.now,
		canRewind: true, bootstrap: true, isPatroni: patroni,
	}
	n.disk.data = policy.DataEmpty
	w.nodes = append(w.nodes, n)
	return n
}

// clock is CLOCK_BOOTTIME of this node.
func (n *Node) clock() time.Duration { return n.clockAt(n.w.now) }

func (n *Node) clockAt(t time.Duration) time.Duration {
	if n.rate == 1 {
		return n.base + t - n.anchor
	}
	return n.base + time.Duration(float64(t-n.anchor)*n.rate)
}

// real is how much real time passes while d passes on the node's clock, rounded up: a timer never fires early.
func (n *Node) real(d time.Duration) time.Duration {
	if n.rate == 1 {
		return d
	}
	return time.Duration(float64(d)/n.rate) + 1
}

// realAt is when the node's clock shows at.
func (n *Node) realAt(at time.Duration) time.Duration { return n.w.now + n.real(at-n.clock()) }

// drift changes the clock's rate from now on.
func (n *Node) drift(rate float64) {
	n.base, n.anchor, n.rate = n.clock(), n.w.now, rate
	if n.guard != nil && n.guard.open && !n.guard.dead {
		n.guard.arm()
	}
}

// take says whether the story wants the next operation of this kind to fail.
func (n *Node) take(kind string) bool {
	for i, k := range n.fail {
		if k == kind {
			n.fail = append(n.fail[:i], n.fail[i+1:]...)
			return true
		}
	}
	return false
}

// nodeOf is the machine that the member's record points to, as far as the store knows it.
func (w *World) nodeOf(member string) *Node {
	var found *Node
	for _, n := range w.nodes {
		if n.name == member && (found == nil || n.agentAlive() && !found.agentAlive()) {
			found = n
		}
	}
	return found
}

func (n *Node) agentAlive() bool {
	return n.agent != nil && !n.agent.dead || n.patroni != nil && !n.patroni.dead
}

// Start starts the node's programs: all of them after Kill, the agent alone after KillAgent.
func (n *Node) Start() {
	if n.isPatroni {
		if n.patroni == nil {
			n.startPatroni()
		}
		return
	}
	n.reopenGuard()
	if n.agent == nil {
		n.startAgent()
	}
}

// watched wakes the agent when a key changed that the loop watches.
func (n *Node) watched(before []dcs.Item) {
	if n.agent == nil && n.patroni == nil {
		return
	}
	if !n.changedKey(before) {
		return
	}
	if !n.storeLink() {
		n.missed = true
		return
	}
	p := n.proc()
	p.post(n.w.trip(), n.wake)
}

func (n *Node) proc() *process {
	if n.agent != nil {
		return &n.agent.process
	}
	return &n.patroni.process
}

func (n *Node) wake() {
	if n.agent != nil {
		n.agent.wake()
	}
	if n.patroni != nil {
		n.patroni.wake()
	}
}

// changedKey compares the watched keys (design section 6); Patroni members watch `leader` and `failover`.
func (n *Node) changedKey(before []dcs.Item) bool {
	old := dcs.Snapshot{Items: before}
	for _, key := range [...]string{
		dcs.KeyLease, dcs.KeyLeader, cluster.KeyFailover, cluster.KeyConfig, cluster.KeySync, cluster.KeyInitialize,
	} {
		if n.isPatroni && key == dcs.KeyLease {
			continue
		}
		it, _ := old.Item(key)
		if it.Version != n.w.store.item(key).Version {
			return true
		}
	}
	return false
}

// Host is the machine's name.
func (n *Node) Host() string { return n.host }

// Up says that the node's agent runs, or its Patroni.
func (n *Node) Up() bool { return n.agentAlive() }

// Powered says that something of the node runs: a guard, a server, an agent.
func (n *Node) Powered() bool {
	return n.agentAlive() || n.guard != nil && !n.guard.dead || n.pg.state != pgStopped
}

// Writable says that the node's server acknowledges writes.
func (n *Node) Writable() bool { return n.writable() }

// Stopped says that no postmaster runs on the node.
func (n *Node) Stopped() bool { return n.pg.state == pgStopped }

// RunsPatroni says which program is installed.
func (n *Node) RunsPatroni() bool { return n.isPatroni }

// HasData says that the data directory can be started.
func (n *Node) HasData() bool { return n.disk.data == policy.DataReady }
