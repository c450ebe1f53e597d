package policytest

import (
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
)

// agent is one life of the deciding loop: wake, look, decide, act (design section 6). Its memory ends with it.
type agent struct {
	process
	w       *World
	lease   *dcs.Lease
	session string
	sessTTL time.Duration
	kept    time.Duration // when the session was last renewed, own clock

	busy, again bool
	finished    int // looks that were carried out to the end
	timer       int // number of the pending timer; an older one is stale

	guard         *guard // the one it is connected to
	silent        bool   // it did not answer in this look
	known, failed bool
	readSent      time.Duration
	cluster       cluster.Cluster
	dynamic       cluster.Dynamic // the configuration in force: the last one that could be read
	snap          dcs.Snapshot

	task      policy.Task
	taskBegan time.Duration
	taskID    int
	last      policy.Outcome
	lastEnd   time.Duration

	answers    []answer
	line       policy.Line
	lineAt     time.Duration
	asking     bool
	probing    bool
	reason     policy.Reason
	detail     string
	publishAt  time.Duration
	downSince  time.Duration // 0: PostgreSQL is well or does not matter
	crashes    []time.Duration
	stop       bool
	stopAt     time.Duration
	confirming bool
	looks      int // in this second of real time, to see a hot loop
	second     time.Duration

	seen           seenRecord // what this process knows of the record, for the invariants
	trueSent       time.Duration
	publishedState memberState
	fs             failsafe

	// What operators asked for; lost with the agent (reference section 5.21).
	restart, scheduled *policy.RestartRequest
	scheduledAt        time.Duration // real time
	scheduledLife      int           // of the postmaster when it was asked for
	reinit             *policy.ReinitRequest
}

func (n *Node) startAgent() {
	n.instances++
	a := &agent{process: process{n: n}, w: n.w, dynamic: n.w.defaults()}
	n.agent = a
	a.attach(n.guard)
	a.startVoter()
	n.w.logf(n, "agent starts")
	a.held = n.w.wakesHeld
	a.wake()
}

func (a *agent) end() {
	a.dead = true
	if k := a.task.Kind; k == policy.TaskClone || k == policy.TaskRewind || k == policy.TaskInitdb {
		a.taskID++ // its child process dies with it; the data directory stays half done
	}
}

// wake makes the loop look, at once or right after the look that is under way.
func (a *agent) wake() {
	if a.busy {
		a.again = true
		return
	}
	a.busy = true
	a.post(0, a.look)
}

// setTimer makes the loop look after d at the latest.
func (a *agent) setTimer(d time.Duration) {
	a.timer++
	id := a.timer
	a.post(a.n.real(d), func() {
		if a.timer == id {
			a.wake()
		}
	})
}

// callLimit bounds one store call: a third of what is left until the fence begins, so that three can be tried, and
// never more than retry_timeout (lease rule R1).
func (a *agent) callLimit() time.Duration {
	limit := a.dynamic.RetryTimeout
	if g := a.guard; g.open && !g.endless {
		limit = min(limit, (g.deadline-dcs.FenceHeadStart(g.ttl)-a.n.clock())/3)
	}
	return limit
}

func (a *agent) look() {
	a.again = false
	a.checkHot()
	a.meetGuard(a.read)
}

// read looks at the store, and then decides.
func (a *agent) read() {
	sent := a.n.clock()
	a.n.request(&a.process, a.callLimit(), func() reply { return reply{snap: a.w.store.snapshot()} }, func(r reply) {
		if r.err != nil {
			a.failed = true
			a.decide()
			return
		}
		if a.failed || !a.known {
			a.fs.answers = sent
		}
		a.failed, a.known, a.readSent = false, true, sent
		a.observe(r.snap)
		if a.session != "" {
			a.decide()
			return
		}
		a.openSession(func(error) { a.decide() })
	})
}

// observe takes in what a read returned.
func (a *agent) observe(snap dcs.Snapshot) {
	now := a.n.clock()
	a.seen.observe(a, snap, now)
	a.lease.Observe(a.forLease(snap), a.arrived(now))
	if _, open := a.lease.Open(); a.w.broken(MistakeAbsentAtOnce) && !open {
		if _, there := snap.Item(dcs.KeyLease); !there { // forget that there was a record
			a.lease = dcs.NewLease(dcs.Identity{Name: a.n.name, Instance: a.n.host, Nonce: a.guard.nonce})
			a.lease.Observe(a.forLease(snap), a.arrived(now))
		}
	}
	a.cluster = a.w.decode(snap)
	if c := &a.cluster.Config; c.Present && c.Err == nil {
		a.dynamic = c.Dynamic
		a.lease.KnowTTL(a.dynamic.TTL)
	}
	a.cluster.Config.Dynamic = a.dynamic
	a.snap = snap
	a.observeFailsafe(now)
}

// learn records durably which promotions the own WAL has come through (hazard B10): the own one when it is complete, and
// the leader's while this node streams from it on its timeline.
func (a *agent) learn() {
	n := a.n
	if n.pg.state != pgRunning || n.pg.frozen > a.w.now || n.pg.parent != a.guard {
		return // nobody compared the WAL of a server that was started by hand with that of whom it is pointed at
	}
	tli := n.disk.tip.branch.tli
	if n.pg.primary {
		if p, ok := n.disk.intended(); ok {
			n.disk.learn(p)
			n.disk.intent = nil
		}
		return
	}
	r, _, ok, _ := a.lease.Record()
	if !ok || n.pg.upstream == "" || len(r.Note) == 0 {
		return
	}
	if p := a.w.decodeNote(r.Note).Promotion; p.Maker() == n.pg.upstream && p.Timeline == tli {
		n.disk.learn(p)
	}
}

// learn records that the WAL is on p, and forgets promotions of later timelines.
func (d *disk) learn(p cluster.Promotion) {
	i := 0
	for i < len(d.promotions) && d.promotions[i].Timeline < p.Timeline {
		i++
	}
	if i < len(d.promotions) && d.promotions[i].ID == p.ID && i == len(d.promotions)-1 {
		return
	}
	d.promotions = append(d.promotions[:i:i], p)
}

// openSession opens a session that outlives the lease by nothing and never less than it.
func (a *agent) openSession(done func(error)) {
	ttl := a.sessionTTL()
	a.n.request(&a.process, a.callLimit(), func() reply { return reply{session: a.w.store.open(a.n, ttl, false)} }, func(r reply) {
		if r.err == nil {
			a.session, a.sessTTL, a.kept = r.session.id, ttl, a.n.clock()
		}
		done(r.err)
	})
}

// renewSession keeps the session alive; when it is lost, or too short for the record, a new one is opened.
func (a *agent) renewSession(done func(error)) {
	if a.session == "" || a.sessTTL < a.sessionTTL() {
		a.openSession(done)
		return
	}
	id := a.session
	a.n.request(&a.process, a.callLimit(), func() reply { return reply{err: a.w.store.renew(id)} }, func(r reply) {
		switch r.err {
		case nil:
			a.kept = a.n.clock()
			done(nil)
		case dcs.ErrSessionLost:
			a.w.logf(a.n, "the session was lost")
			a.session = ""
			a.openSession(done)
		default:
			done(r.err)
		}
	})
}

// decide looks at everything, decides, and acts.
func (a *agent) decide() {
	if !a.guard.open {
		a.lease.Close()
	}
	if a.known {
		a.learn()
	}
	v := a.view()
	d := a.judge(v)
	if a.confirming && !undoable(d) {
		a.confirming = false
	}
	a.announce(d)
	if !a.confirming && undoable(d) && !a.failed {
		a.confirming = true // an action that cannot be undone: read and decide again first
		a.look()
		return
	}
	a.confirming = false
	if d.Ask {
		a.askPeers()
	}
	if d.Probe != "" {
		a.probe(d.Probe)
	}
	if d.Promises {
		a.askPromises()
	}
	if d.Votes {
		a.askVotes()
	}
	a.act(d, 0)
}

// undoable says that the decision destroys data.
func undoable(d policy.Decision) bool {
	for _, act := range d.Actions {
		switch act.(type) {
		case policy.Clone, policy.Rewind:
			return true
		}
	}
	return false
}

func (a *agent) announce(d policy.Decision) {
	if d.Reason == a.reason {
		return
	}
	a.reason, a.detail = d.Reason, d.Detail
	a.w.logf(a.n, "%s: %s", d.Reason, d.Detail)
}

// act does the actions in order; the first failure ends the decision.
func (a *agent) act(d policy.Decision, i int) {
	if i == len(d.Actions) {
		a.finish(d)
		return
	}
	action := d.Actions[i]
	a.do(action, func(err error) {
		a.report(action, err)
		if err != nil {
			a.finish(d)
			return
		}
		a.act(d, i+1)
	})
}

// report prints what an action came to; renewals that succeed are the pulse, not news.
func (a *agent) report(action policy.Action, err error) {
	renew := action == policy.Action(policy.Renew{})
	switch {
	case err != nil:
		a.w.logf(a.n, "  %s -> %v", action, err)
	case !renew:
		a.w.logf(a.n, "  %s -> done", action)
	}
}

// finish publishes the member record, and waits.
func (a *agent) finish(d policy.Decision) {
	a.publish(func() {
		a.busy = false
		a.finished++
		if a.stop && a.stopped() {
			a.w.logf(a.n, "agent ends")
			a.n.KillAgent()
			if !a.dynamic.Pause { // in pause the guard stays, and PostgreSQL with it
				a.n.endGuard()
			}
			return
		}
		wake := a.loopWait()
		if d.Wake > 0 {
			wake = min(wake, d.Wake)
		}
		a.setTimer(wake)
		if a.again {
			a.wake()
		}
	})
}

func (a *agent) loopWait() time.Duration {
	return a.dynamic.LoopWait
}

// stopped says that nothing is left to hand over.
func (a *agent) stopped() bool {
	return a.dynamic.Pause && a.reason == policy.ReasonStopped || (a.n.pg.state == pgStopped || a.n.pg.parent == nil) && !a.guard.open && a.task.Kind == policy.TaskNone &&
		(!a.lease.Unreleased() || a.failed)
}
