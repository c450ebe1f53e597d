package ha

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres/wal"
)

// fenceConfig is where the guard of this node lives, and what it is asked for.
func (n *Node) fenceConfig() fence.Config {
	o := n.cfg.Fence
	if d, ok := n.cfg.Postgres.(interface{ DataDir() string }); ok && o.DataDir == "" {
		o.DataDir = d.DataDir()
	}
	return fence.Config{Dir: n.cfg.StateDir, Program: n.cfg.GuardProgram, Options: o, Log: n.log}
}

func rungNames(st fence.State) []string {
	names := make([]string, len(st.Rungs))
	for i, r := range st.Rungs {
		names[i] = string(r)
	}
	return names
}

// sayFence tells which rungs are active and what they guarantee.
func (n *Node) sayFence(st fence.State) {
	log := n.log.Info
	if !st.Bounded {
		log = n.log.Warn
	}
	log("the fence", "rungs", strings.Join(rungNames(st), ","), "guarantee", st.Guarantee, "guard", st.PID)
	if st.Problem != "" {
		n.log.Info("a rung of the fence is not active", "problem", st.Problem)
	}
}

// guardRef lets an interface be replaced in one step.
type guardRef struct{ Guard }

func (n *Node) guard() Guard { return n.held.Load().Guard }

// guardEvents brings the end of the postmaster into the loop at once, for as long as g lives.
func (n *Node) guardEvents(ctx context.Context, g Guard) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-g.Events():
			if !ok {
				return
			}
			n.post(ctx, func() {
				if n.guard() == g { // not of one that was replaced since
					n.onGuard(e)
				}
			})
		}
	}
}

func (n *Node) onGuard(e fence.Event) {
	switch e.Kind {
	case fence.EventExit:
		n.walEnd = wal.Position{}
		if !n.expected && (e.PID == 0 || e.PID != n.ending) {
			n.exits = append(n.exits, n.clock.Now())
			n.log.Warn("postgresql ended", "code", e.Code, "signal", e.Signal)
		}
	case fence.EventJump:
		n.log.Warn("the wall clock jumped forward: if this machine was paused, the lease is that much older, so the guard took it off the deadline", "by", e.By)
	case fence.EventGuardLost:
		n.guardErr = errors.New("the connection to the guard is lost")
		if fence.Alive(n.guardState.PID) {
			n.log.Warn("the connection to the guard is lost; it goes on guarding")
			return
		}
		n.log.Error("the guard is gone, and PostgreSQL with it")
		if !n.guardState.Postmaster.Foreign {
			n.endAll() // the kernel told the postmaster, but not one that is stopped, and not its orphans
		}
	}
}

// endAll kills what runs in the data directory, past the guard.
func (n *Node) endAll() {
	dir := n.fenceConfig().Options.DataDir
	if dir == "" {
		return
	}
	if err := fence.EndAll(dir, n.cfg.Fence.Program); err != nil {
		n.log.Error("PostgreSQL could not be ended", "error", err)
	}
}

// readGuard asks the guard, over a socket on this host. A guard that is gone is replaced: it is a new identity, and its
// PostgreSQL went with it.
func (n *Node) readGuard(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if n.guardErr != nil && n.cfg.Guard == nil {
		g, err := fence.Open(call, n.fenceConfig())
		if err == nil {
			_ = n.guard().Close()
			n.held.Store(&guardRef{g})
			go n.guardEvents(ctx, g)
		}
	}
	st, err := n.guard().State(call)
	n.guardErr = err
	if err != nil {
		return
	}
	fresh := st.Nonce != n.guardState.Nonce
	if fresh || !slices.Equal(st.Rungs, n.guardState.Rungs) || st.Problem != n.guardState.Problem {
		n.sayFence(st)
	}
	n.guardState = st
	if fresh {
		n.newLease(st)
		n.lease.Observe(n.snap, n.clock.Now())
		n.lease.SetFailsafe(n.dynamic.FailsafeMode, n.clock.Now())
	}
	if epoch, open := n.lease.Open(); open && (!st.Open || st.Epoch != epoch) {
		// The guard closed the epoch by itself: its deadline passed.
		n.lease.Close()
		if n.task != nil && (n.task.kind == policy.TaskDemote || n.task.kind == policy.TaskFence) {
			return // as it was told to
		}
		n.log.Warn("the guard has fenced PostgreSQL: the lease was not renewed before its deadline", "epoch", epoch)
	}
}

// findForeign looks for a postmaster in the data directory that our guard did not start, and puts the guard in charge.
func (n *Node) findForeign(ctx context.Context) {
	if n.guardErr != nil || n.guardState.Postmaster.Running || n.guardState.Orphans > 0 {
		return
	}
	if n.server.Control.PostmasterPIDNow == 0 && !n.server.Answered {
		return
	}
	dir := n.fenceConfig().Options.DataDir
	pid, ok := fence.FindPostmaster(dir)
	if dir == "" || !ok {
		return
	}
	call, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := n.guard().Adopt(call, pid); err != nil {
		n.log.Warn("a postmaster that the guard did not start could not be put under it", "pid", pid, "error", err)
		return
	}
	n.log.Warn("a postmaster that the guard did not start is under it now, as far as that goes", "pid", pid)
	n.readGuard(ctx)
}

// unfit is why this node must not lead; empty: it may.
func (n *Node) unfit() string {
	why := slices.Clone(n.dynamic.Unsupported)
	for _, w := range []string{n.unfenced(), n.refusedPromotion(), n.scriptsMissing()} {
		if w != "" {
			why = append(why, w)
		}
	}
	if w := n.cfg.Fence.Watchdog; w.Mode == fence.WatchdogRequired {
		if err := w.Usable(n.dynamic.TTL, n.dynamic.LoopWait); err != nil {
			why = append(why, "watchdog.mode is required: "+err.Error())
		}
	}
	return strings.Join(why, "; ")
}

// unfenced is why a primary must not run here at all.
func (n *Node) unfenced() string {
	if !n.cfg.FenceRequired || n.guardErr != nil || n.guardState.Bounded {
		return ""
	}
	return "fence is required, and the guard cannot promise that a primary ends by its deadline: " + cmp.Or(n.guardState.Problem, n.guardState.Guarantee)
}

// guardAnswer is how long the guard, a process on this host, may take to answer the loop.
const guardAnswer = 500 * time.Millisecond

func (n *Node) guardExtend(ctx context.Context, t fence.Term) error {
	call, cancel := context.WithTimeout(ctx, guardAnswer)
	defer cancel()
	return n.guard().Extend(call, t)
}

// term is the open epoch up to a deadline that counts from sent, as the guard takes it.
func (n *Node) term(deadline, sent time.Duration) fence.Term {
	return fence.Term{Epoch: n.epoch(), Deadline: deadline, Sent: sent, HeadStart: dcs.FenceHeadStart(n.dynamic.TTL), TTL: n.dynamic.TTL, LoopWait: n.dynamic.LoopWait}
}

// extend hands the deadline to the guard; only then it is worth something. In pause the guard holds none (design
// section 7), once the record says so (dcs.Lease.Endless).
func (n *Node) extend(ctx context.Context, deadline, sent time.Duration) error {
	if r, _, ok, _ := n.lease.Record(); ok && r.Endless {
		deadline = n.clock.Now() + 100*365*24*time.Hour
	}
	if err := n.guardExtend(ctx, n.term(deadline, sent)); err != nil {
		return fmt.Errorf("the guard did not take the deadline: %w", err)
	}
	return nil
}
