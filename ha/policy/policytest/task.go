package policytest

import (
	"strconv"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
)

// begin starts a task.
func (a *agent) begin(action policy.Action, done func(error)) {
	n := a.n
	if k := a.task.Kind; k != policy.TaskNone {
		switch action.(type) {
		case policy.Fence, policy.Demote:
			a.cancel()
		default:
			done(errBusy)
			return
		}
	}
	switch act := action.(type) {
	case policy.Initdb:
		a.run(policy.TaskInitdb, "", a.initdb)
	case policy.Clone:
		if a.reinit != nil {
			a.reinit.Copying = true
		}
		a.run(policy.TaskClone, act.Member, func(end func(error, bool)) { a.clone(act.Member, end) })
	case policy.Measure:
		a.run(policy.TaskMeasure, "", a.measure)
	case policy.Rewind:
		a.run(policy.TaskRewind, act.Member, func(end func(error, bool)) { a.rewind(act.Member, end) })
	case policy.StartPrimary:
		if !a.mayServe() {
			done(errNoLease)
			return
		}
		a.run(policy.TaskStartPrimary, "", func(end func(error, bool)) {
			a.startPrimary(func(err error) { end(err, false) })
		})
	case policy.StartReplica:
		n.disk.settleIntent(a.w.broken(MistakeForgetIntent))
		a.run(policy.TaskStartReplica, act.Member, func(end func(error, bool)) {
			a.atGuard(end, func() {
				n.pgStart(start{parent: a.guard, upstream: act.Member}, func(err error) { end(err, false) })
			})
		})
	case policy.Promote:
		if !a.mayServe() {
			done(errNoLease)
			return
		}
		a.run(policy.TaskPromote, "", func(end func(error, bool)) {
			a.atGuard(end, func() { a.promote(act.Promotion, end) })
		})
	case policy.Demote:
		a.run(policy.TaskDemote, act.Target, a.demote)
	case policy.Fence:
		if a.w.broken(MistakeReleaseFirst) {
			a.releaseBeforeFence(act, done)
			return
		}
		a.run(policy.TaskFence, "", func(end func(error, bool)) {
			a.atGuard(end, func() { a.guard.fence(act.Why, a.guard.quitAt(), func() { end(nil, false) }) })
		})
	case policy.Restart:
		a.run(policy.TaskRestart, "", func(end func(error, bool)) { a.restartServer(act, end) })
	case policy.Stop:
		n.due = n.due || a.reinit != nil
		a.run(policy.TaskStop, "", func(end func(error, bool)) {
			a.atGuard(end, func() { n.pgStop(func() { end(nil, false) }) })
		})
	}
	done(nil)
}

// mayServe is the guard's own gate: epoch open and time left (lease rule R7).
func (a *agent) mayServe() bool {
	g := a.guard
	return g.open && !g.dead && !g.stopping && a.n.clock() < g.deadline || a.w.broken(MistakeNoGuard)
}

// startPrimary asks the guard, which judges when it takes the request in.
func (a *agent) startPrimary(done func(error)) {
	n, g := a.n, a.guard
	if n.w.broken(MistakeStartUnguarded) {
		n.pgStart(start{primary: true, epoch: g.epoch}, done)
		return
	}
	a.atGuard(func(err error, _ bool) { done(err) }, func() {
		if !a.mayServe() {
			done(errNoLease)
			return
		}
		n.pgStart(start{parent: g, primary: true, epoch: g.epoch}, done)
	})
}

// run runs a task beside the loop.
func (a *agent) run(kind policy.TaskKind, member string, body func(end func(err error, impossible bool))) {
	a.taskID++
	id := a.taskID
	a.task, a.taskBegan = policy.Task{Kind: kind, Member: member}, a.n.clock()
	body(func(err error, impossible bool) {
		a.run0(func() { a.ended(id, err, impossible) })
	})
}

// run0 is process.run, which a task's end must go through: it is seen by the agent, if that still lives.
func (a *agent) run0(do func()) { a.process.run(do) }

func (a *agent) ended(id int, err error, impossible bool) {
	if a.taskID != id || a.task.Kind == policy.TaskNone {
		return
	}
	o := policy.Outcome{Kind: a.task.Kind, Member: a.task.Member, Impossible: impossible}
	if err != nil {
		o.Failed = err.Error()
		o.Times = 1
		if a.last.Kind == o.Kind && a.last.Failed != "" {
			o.Times = a.last.Times + 1
		}
		a.w.logf(a.n, "  %s failed: %v", o.Kind, err)
	}
	if o.Kind == policy.TaskClone && err == nil {
		a.reinit = nil
	}
	a.task, a.last, a.lastEnd = policy.Task{}, o, a.n.clock()
	a.wake()
}

// cancel ends the running task; a copy that was under way leaves a half-done directory behind.
func (a *agent) cancel() {
	if a.task.Kind == policy.TaskNone {
		return
	}
	a.taskID++
	a.last = policy.Outcome{Kind: a.task.Kind, Member: a.task.Member, Failed: "cancelled"}
	a.lastEnd = a.n.clock()
	if k := a.task.Kind; (k == policy.TaskStartReplica || k == policy.TaskRestart) && a.n.pg.state == pgStarting {
		a.n.pgStop(func() {})
	}
	a.task = policy.Task{}
}

func (a *agent) initdb(end func(error, bool)) {
	n, w := a.n, a.w
	if n.take("initdb") {
		end(errInjected, false)
		return
	}
	n.disk = disk{data: policy.DataInterrupted}
	id := a.taskID
	a.post(w.span(500*time.Millisecond, 500*time.Millisecond, 2*time.Second), func() {
		if a.taskID != id {
			return
		}
		w.sysids++
		n.disk = disk{
			data: policy.DataReady, tip: newCluster(strconv.FormatUint(7_000_000_000_000_000_000+w.sysids, 10)),
			wasPrimary: true, clean: true, newest: 1, control: 1, atRest: true,
		}
		end(nil, false)
	})
}

func (a *agent) measure(end func(error, bool)) {
	n := a.n
	a.post(a.w.span(20*time.Millisecond, 50*time.Millisecond, 300*time.Millisecond), func() {
		if n.pg.state != pgStopped || n.disk.data != policy.DataReady {
			end(errNoData, false)
			return
		}
		n.disk.measured = true
		end(nil, false)
	})
}

// promote records the intent durably before anything is promoted (hazard D4).
func (a *agent) promote(p cluster.Promotion, end func(error, bool)) {
	n, g := a.n, a.guard
	if !a.mayServe() {
		end(errNoLease, false)
		return
	}
	if n.pg.parent != g {
		end(errGone, false) // no postmaster of the guard runs
		return
	}
	if n.take("pre_promote") {
		end(errInjected, true)
		return
	}
	a.w.checkPromote(n)
	id := p.ID
	if id == "" {
		id = cluster.PromotionID(g.epoch, n.name, a.session)
	}
	n.disk.intent = &intent{id: id, from: n.disk.tip.position()}
	n.pgPromote(g.epoch, id, false, func(err error) { end(err, false) })
}

// demote is the planned way down: a checkpoint while writes still flow, then a fast stop; then the epoch is closed.
func (a *agent) demote(end func(error, bool)) {
	n, g := a.n, a.guard
	ended := func() {
		g.close()
		if n.disk.data == policy.DataReady && !n.disk.clean {
			end(errUnclean, false)
			return
		}
		end(nil, false)
	}
	closed := func() {
		a.atGuard(end, func() {
			if g.busy() {
				g.waiting = append(g.waiting, ended)
				return
			}
			ended()
		})
	}
	if n.pg.state == pgStopped {
		closed()
		return
	}
	life := n.pg.life
	a.post(a.w.span(20*time.Millisecond, 50*time.Millisecond, 500*time.Millisecond), func() {
		if n.pg.life != life || n.pg.state == pgStopped {
			closed()
			return
		}
		a.atGuard(end, func() {
			g.stopping = true
			if !n.take("stop") {
				n.pgStop(closed)
				return
			}
			n.pg.onExit = append(n.pg.onExit, closed)
			a.post(stopLimit, func() { n.pgKill("stopped the hard way") })
		})
	})
}

// stopLimit is the model's primary_stop_timeout.
const stopLimit = 2 * time.Second

// clone replaces the data directory by a base backup; what was there is set aside.
func (a *agent) clone(member string, end func(error, bool)) {
	n, w := a.n, a.w
	src := w.nodeOf(member)
	switch {
	case n.pg.state != pgStopped:
		end(errPortInUse, false)
		return
	case n.take("clone"):
		end(errInjected, false)
		return
	case src == nil || src == n || !src.accepts() || !w.link(n, src):
		end(errUnreachable, false)
		return
	}
	w.checkDestroy(n, src)
	known := a.knownPromotions()
	n.disk = disk{data: policy.DataInterrupted}
	a.copy(src, w.span(500*time.Millisecond, time.Second, 4*time.Second), end, func() {
		n.disk = disk{
			data: policy.DataReady, tip: src.disk.tip, newest: src.disk.newest, control: src.disk.control,
			promotions: known, mixed: src.disk.mixed, tainted: src.disk.tainted, measured: true, atRest: true,
		}
	})
}

// knownPromotions is what the record's note says of the line that is copied from, when the copy begins.
func (a *agent) knownPromotions() []cluster.Promotion {
	r, _, _, _ := a.lease.Record()
	return a.w.decodeNote(r.Note).Line()
}

// copy reads from src for d; when src goes away meanwhile it fails and leaves the directory as it is.
func (a *agent) copy(src *Node, d time.Duration, end func(error, bool), done func()) {
	id, life := a.taskID, src.pg.life
	a.post(d, func() {
		switch {
		case a.taskID != id:
		case src.pg.life != life || src.pg.state != pgRunning || src.pg.frozen > a.w.now || !a.w.link(a.n, src):
			end(errUnreachable, false)
		default:
			done()
			a.w.copied(a.n, src)
			end(nil, false)
		}
	})
}

// rewind saves the WAL after the fork and runs pg_rewind, which believes timeline numbers.
func (a *agent) rewind(member string, end func(error, bool)) {
	n, w := a.n, a.w
	src := w.nodeOf(member)
	switch {
	case n.pg.state != pgStopped:
		end(errPortInUse, false)
		return
	case n.disk.data != policy.DataReady:
		end(errNoData, true)
		return
	case n.take("rewind"):
		end(errInjected, true)
		return
	case src == nil || src == n || !src.accepts() || !src.pg.primary || !w.link(n, src):
		end(errUnreachable, false)
		return
	}
	if !n.disk.clean {
		n.disk.control = n.disk.tip.branch.tli // crash recovery in single-user mode comes first
	}
	needed, safe := rewindTarget(n.disk.tip, src.disk.tip, n.disk.control, src.disk.control)
	if !needed {
		w.logf(n, "pg_rewind: no rewind required")
		a.post(100*time.Millisecond, func() { end(nil, false) })
		return
	}
	w.checkDestroy(n, src)
	w.checkRewind(n, src, safe)
	old, known := n.disk, a.knownPromotions()
	n.disk.data = policy.DataInterrupted
	a.copy(src, w.span(200*time.Millisecond, 500*time.Millisecond, 3*time.Second), end, func() {
		n.disk = disk{
			data: policy.DataReady, tip: src.disk.tip, newest: src.disk.newest, control: src.disk.control,
			promotions: known, measured: true, atRest: true, mixed: src.disk.mixed || old.mixed,
			tainted: src.disk.tainted || old.tainted || !safe,
		}
	})
}
