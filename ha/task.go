package ha

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// task is the long action that runs beside the loop.
type task struct {
	kind     policy.TaskKind
	member   string
	since    time.Duration
	cancel   context.CancelFunc
	over     bool // it has ended, at finished, with failed
	finished time.Duration
	failed   error
	done     func(error) // told how it ended, on the loop's goroutine; may be nil
	progress atomic.Pointer[postgres.Progress]
}

// outcome is how the last task ended.
type outcome struct {
	policy.Outcome
	at time.Duration
}

func (n *Node) lastView(now time.Duration) policy.Outcome {
	o := n.last.Outcome
	if o.Kind != policy.TaskNone {
		o.Ago = now - n.last.at
	}
	return o
}

// begin starts the task of a long action.
func (n *Node) begin(ctx context.Context, v policy.View, a policy.Action) error {
	switch a := a.(type) {
	case policy.Initdb:
		return n.start(ctx, policy.TaskInitdb, "", n.initdb)
	case policy.Clone:
		src, err := n.source(a.Member)
		if err != nil {
			return err
		}
		note, _ := n.note()
		if n.wishes.reinit != nil {
			n.wishes.reinit.copying = true
		}
		return n.start(ctx, policy.TaskClone, a.Member, func(ctx context.Context, t *task) error { return n.clone(ctx, t, src, note) })
	case policy.Measure:
		return n.start(ctx, policy.TaskMeasure, "", n.measure)
	case policy.Rewind:
		src, err := n.source(a.Member)
		if err != nil {
			return err
		}
		note, _ := n.note()
		end := v.Server.Branch.End
		return n.start(ctx, policy.TaskRewind, a.Member, func(ctx context.Context, _ *task) error { return n.rewind(ctx, src, a.Fork, end, note) })
	case policy.StartPrimary:
		epoch, limit := n.epoch(), n.startTimeout()
		n.expected = false
		return n.start(ctx, policy.TaskStartPrimary, "", func(ctx context.Context, _ *task) error { return n.startPrimary(ctx, epoch, limit) })
	case policy.StartReplica:
		up, settings := n.upstreamOf(a.Member), n.settings
		n.expected = false
		return n.start(ctx, policy.TaskStartReplica, a.Member, func(ctx context.Context, _ *task) error { return n.startReplica(ctx, settings, up) })
	case policy.Promote:
		return n.beginPromote(ctx, v, a)
	case policy.Demote:
		n.expected = true
		epoch, limit := n.epoch(), n.dynamic.PrimaryStopTimeout
		return n.start(ctx, policy.TaskDemote, a.Target, func(ctx context.Context, _ *task) error { return n.demote(ctx, epoch, a.Target, limit) })
	case policy.Fence:
		n.expected = true
		n.log.Warn("fencing PostgreSQL", "why", a.Why)
		epoch, head := n.epoch(), n.lease.Deadline()-n.clock.Now()
		return n.start(ctx, policy.TaskFence, "", func(ctx context.Context, _ *task) error { return n.fence(ctx, epoch, head) })
	case policy.Restart:
		return n.beginRestart(ctx, a)
	case policy.Stop:
		if n.wishes.reinit != nil {
			if err := n.setDue(); err != nil {
				return err
			}
		}
		n.expected = true
		return n.start(ctx, policy.TaskStop, "", n.stopReplica)
	}
	return fmt.Errorf("ha: the action %v is not known", a)
}

// start runs f beside the loop. A running task is cancelled first; its end no longer counts.
func (n *Node) start(ctx context.Context, kind policy.TaskKind, member string, f func(context.Context, *task) error) error {
	if n.task != nil {
		n.log.Info("replacing a task", "task", string(n.task.kind), "by", string(kind))
		n.task.cancel()
	}
	call, cancel := context.WithCancel(ctx)
	t := &task{kind: kind, member: member, since: n.clock.Now(), cancel: cancel}
	n.task = t
	n.trace.begin(string(kind))
	n.log.Info("task begins", "task", string(kind), "of", member)
	go func() {
		err := f(call, t)
		cancel()
		n.post(ctx, func() { n.ended(t, err) })
	}()
	return nil
}

// ended notes a task's end. For the policy it goes on running until PostgreSQL was looked at again: a decision on what
// was seen before the task did its work could do it once more.
func (n *Node) ended(t *task, err error) {
	now := n.clock.Now()
	took := now - t.since
	n.counters.task(t.kind, took, err)
	if err != nil {
		n.log.Warn("task failed", "task", string(t.kind), "of", t.member, "after", took.Round(time.Millisecond), "error", err)
	} else {
		n.log.Info("task done", "task", string(t.kind), "of", t.member, "after", took.Round(time.Millisecond))
	}
	t.over, t.finished, t.failed = true, now, err
	n.trace.begin(stepLook)
	if t.done != nil {
		t.done(err)
	}
	n.observer.kick()
}

// settle turns a task that has ended into the last outcome, once a look at PostgreSQL was begun after its end.
func (n *Node) settle(looked time.Duration) {
	t := n.task
	if t == nil || !t.over || looked < t.finished {
		return
	}
	n.task = nil
	if t.kind == policy.TaskClone && t.failed == nil {
		n.wishes.reinit = nil
	}
	times := 0
	if t.failed != nil {
		times = 1
		if n.last.Kind == t.kind && n.last.Failed != "" {
			times += n.last.Times
		}
	}
	n.last = outcome{at: t.finished, Outcome: policy.Outcome{Kind: t.kind, Member: t.member, Times: times}}
	if t.failed != nil {
		n.last.Failed = t.failed.Error()
		n.last.Impossible = errors.Is(t.failed, postgres.ErrRewindImpossible) || errors.Is(t.failed, postgres.ErrSystemID) || errors.Is(t.failed, errPrePromote)
	}
}

func (n *Node) source(member string) (postgres.Source, error) {
	m, ok := n.cluster.Member(member)
	host, port := m.HostPort()
	if !ok || host == "" {
		return postgres.Source{}, fmt.Errorf("member %q publishes no conn_url to copy from", member)
	}
	return postgres.Source{Name: member, Host: host, Port: port}, nil
}

func (n *Node) initdb(ctx context.Context, _ *task) error {
	n.ctl.Lock()
	defer n.ctl.Unlock()
	if err := n.cfg.Postgres.Initdb(ctx); err != nil {
		return err
	}
	return n.inLoop(ctx, func() error {
		n.state.Promotions, n.state.Intent, n.state.Unprepared = nil, nil, true
		return n.state.save()
	})
}

// inLoop runs f on the loop's goroutine and waits for it: a task changes nothing of the loop's by itself.
func (n *Node) inLoop(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	n.post(ctx, func() { done <- f() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *Node) clone(ctx context.Context, t *task, src postgres.Source, note cluster.Note) error {
	n.ctl.Lock()
	defer n.ctl.Unlock()
	// A directory with data is renamed aside as a whole, which keeps all of its WAL.
	err := n.cfg.Postgres.Clone(ctx, src, func(p postgres.Progress) { t.progress.Store(&p) })
	if err != nil {
		return err
	}
	return n.inLoop(ctx, func() error {
		n.walEnd = wal.Position{}
		n.state.replace(noteAll(note), wal.Timeline(1<<31))
		return n.state.save()
	})
}

func (n *Node) measure(ctx context.Context, _ *task) error {
	n.ctl.Lock()
	defer n.ctl.Unlock()
	end, err := n.cfg.Postgres.WALEnd(ctx)
	if err != nil {
		return err
	}
	return n.inLoop(ctx, func() error { n.walEnd = end; return nil })
}

// rewind saves what would be lost, and then rewinds (design promise 4).
func (n *Node) rewind(ctx context.Context, src postgres.Source, fork, end wal.Position, note cluster.Note) error {
	n.ctl.Lock()
	defer n.ctl.Unlock()
	n.trace.begin(stepSetAside)
	loss, err := n.cfg.Postgres.SetAside(ctx, fork, end)
	if err != nil {
		return fmt.Errorf("the WAL that the leader lacks could not be set aside, so nothing was rewound: %w", err)
	}
	n.log.Warn("WAL that the leader lacks is set aside before the rewind",
		"fork", loss.Fork.String(), "end", loss.End.String(), "bytes", loss.Bytes, "saved_to", loss.SavedTo)
	n.trace.begin(stepRewind)
	if err := n.cfg.Postgres.Rewind(ctx, src); err != nil {
		return err
	}
	return n.inLoop(ctx, func() error {
		n.counters.add("rewound_bytes", float64(loss.Bytes))
		n.walEnd = wal.Position{}
		n.state.replace(noteAll(note), wal.Timeline(1<<31))
		return n.state.save()
	})
}

// startPrimary starts PostgreSQL as primary on its own timeline, under the open epoch: the guard refuses without
// (rule R7, hazard A17).
func (n *Node) startPrimary(ctx context.Context, epoch uint64, limit time.Duration) error {
	n.ctl.Lock()
	defer n.ctl.Unlock()
	if err := n.startWithin(ctx, limit, postgres.RolePrimary, n.loopSettings(ctx), postgres.Upstream{}, epoch); err != nil {
		return err
	}
	if err := n.prepareCluster(ctx, epoch); err != nil {
		return err
	}
	n.call(callbacks.OnStart, cluster.RolePrimary, epoch)
	return nil
}

// loopSettings fetches the settings from the loop.
func (n *Node) loopSettings(ctx context.Context) postgres.Settings {
	var s postgres.Settings
	_ = n.inLoop(ctx, func() error { s = n.settings; return nil })
	return s
}

func (n *Node) startReplica(ctx context.Context, s postgres.Settings, up postgres.Upstream) error {
	n.ctl.Lock()
	defer n.ctl.Unlock()
	if err := n.run(ctx, postgres.RoleReplica, s, up, 0); err != nil {
		return err
	}
	// A server that was the primary tells its change of role, and nothing else (reference section 5.13.2).
	action := callbacks.OnStart
	if n.wasPrimary.Load() {
		action = callbacks.OnRoleChange
	}
	n.call(action, cluster.RoleReplica, 0)
	return nil
}

// run configures, starts through the guard, and waits until SQL is answered.
func (n *Node) run(ctx context.Context, role postgres.Role, s postgres.Settings, up postgres.Upstream, epoch uint64) error {
	n.trace.begin(stepConfigure)
	if _, err := n.cfg.Postgres.Configure(ctx, s.For(roleName(role)), role, up); err != nil {
		return err
	}
	cmd, err := n.cfg.Postgres.Command(ctx, role)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		if role == postgres.RolePrimary { // the directory stays at rest: standby.signal comes back (hazard A17)
			_, err = n.cfg.Postgres.Command(context.WithoutCancel(ctx), postgres.RoleReplica)
		}
		return errors.Join(ctx.Err(), err)
	}
	n.trace.begin(stepStart)
	_, err = n.guard().Start(ctx, fence.StartRequest{
		Path: cmd.Path, Args: cmd.Args, Env: cmd.Env, Dir: cmd.Dir, Log: cmd.Log,
		Primary: role == postgres.RolePrimary, Epoch: epoch,
	})
	if err != nil {
		return err
	}
	n.post(ctx, func() { n.walEnd = wal.Position{}; n.observer.kick() })
	n.trace.begin(stepAccept)
	return n.cfg.Postgres.WaitAccepting(ctx)
}

// beginPromote records the intent durably before anything is promoted (hazard D4): the identity of the promotion, so
// that a crash right after it is recognised.
func (n *Node) beginPromote(ctx context.Context, v policy.View, a policy.Promote) error {
	n.state.Intent = &intent{Epoch: n.epoch(), ID: a.Promotion.ID, From: v.Server.Branch.End}
	if err := n.state.save(); err != nil {
		return fmt.Errorf("the promotion's intent cannot be saved, so nothing is promoted: %w", err)
	}
	epoch, limit := n.epoch(), n.dynamic.PrimaryStartTimeout
	return n.start(ctx, policy.TaskPromote, "", func(ctx context.Context, _ *task) error {
		if err := n.prePromote(ctx, limit); err != nil {
			return err
		}
		n.ctl.Lock()
		defer n.ctl.Unlock()
		if err := n.guard().AllowPromote(ctx, epoch); err != nil {
			return err
		}
		n.trace.begin(stepPromote)
		if err := n.cfg.Postgres.Promote(ctx); err != nil {
			return err
		}
		n.call(callbacks.OnRoleChange, cluster.RolePrimary, epoch)
		return nil
	})
}

// call hands an event to the callbacks, which run by themselves and never on the way of a fence (hazard E4).
func (n *Node) call(action callbacks.Action, role string, epoch uint64) {
	if action != callbacks.OnReload {
		n.told.Store(true)
		n.primaryTold.Store(role == cluster.RolePrimary)
		n.wasPrimary.Store(role == cluster.RolePrimary || role == cluster.RoleDemoted)
	}
	n.calls.Call(callbacks.Event{Action: action, Role: role, Scope: n.cfg.Scope, Member: n.cfg.Name, Epoch: epoch})
}
