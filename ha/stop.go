package ha

import (
	"context"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres"
)

// Limits of the hard ways to stop: none of them waits for what may never come (hazard A5).
const (
	quitLimit    = 200 * time.Millisecond // from SIGQUIT to SIGKILL, as the guard's own ladder has it
	replicaLimit = 30 * time.Second       // for a fast shutdown that nobody waits for
)

// demote is the planned way down. The checkpoint runs while writes still flow, so that the one at shutdown is short. The
// lease goes on as soon as the guard has a proof: an archiver or a replica that is slow to receive does not hold it
// (hazard A19).
func (n *Node) demote(ctx context.Context, epoch uint64, target string, limit time.Duration) error {
	if limit <= 0 {
		limit = 30 * time.Second
	}
	n.trace.begin(stepCheckpoint)
	check, cancel := context.WithTimeout(ctx, limit)
	err := n.cfg.Postgres.Checkpoint(check)
	cancel()
	if err != nil {
		n.log.Warn("the checkpoint before the demotion failed", "error", err)
	}
	n.trace.begin(stepBeforeStop)
	n.beforeStop(ctx, limit)
	if ctx.Err() != nil {
		return ctx.Err() // replaced by a fence: the script was ended, and waits for nobody
	}
	n.trace.begin(stepStop)
	stop, cancel := context.WithTimeout(ctx, limit)
	proof, err := n.guard().Retire(stop, epoch)
	cancel()
	if err != nil {
		n.log.Warn("PostgreSQL did not stop in time; stopping it at once", "limit", limit, "error", err)
		if err := n.stopHard(ctx); err != nil {
			return err
		}
		if err := n.guard().CloseEpoch(ctx, epoch); err != nil {
			return err
		}
	}
	n.trace.begin(stepRelease)
	n.call(callbacks.OnStop, cluster.RoleDemoted, epoch)
	status := n.observer.now(ctx)
	clean := err == nil && status.Control.State == postgres.ControlShutDown
	err = n.inLoop(ctx, func() error {
		n.lease.Close()
		n.server = status
		if proof != fence.ProofShutdown || !clean {
			return nil
		}
		if err := n.release(ctx, policy.Release{Target: target}, proof); err != nil {
			n.log.Warn("the lease was not released yet", "error", err) // the next turns do it
		}
		return nil
	})
	if err != nil {
		return err
	}
	if proof == fence.ProofShutdown {
		n.trace.begin(stepRest)
		if err := n.stopServer(ctx); err != nil { // what is left of it: archiver, walsenders
			return err
		}
	}
	if !clean {
		return fmt.Errorf("PostgreSQL was not shut down cleanly (%s)", status.Control.State)
	}
	return nil
}

// stopHard is an immediate shutdown, and SIGKILL to everything when that takes longer than it may.
func (n *Node) stopHard(ctx context.Context) error {
	quick, cancel := context.WithTimeout(ctx, quitLimit)
	err := n.guard().Stop(quick, fence.ModeImmediate)
	cancel()
	if err == nil || ctx.Err() != nil {
		return err
	}
	answer, cancel := context.WithTimeout(ctx, quitLimit)
	_, silent := n.guard().State(answer)
	cancel()
	if silent != nil {
		n.log.Error("the guard does not answer; ending PostgreSQL without it", "error", silent)
		n.endAll()
	}
	return n.guard().Stop(ctx, fence.ModeKill)
}

// fence is the forced way down. It waits for no store, SQL or disk (invariant I21): a fast shutdown while there is time,
// then an immediate one, then SIGKILL.
func (n *Node) fence(ctx context.Context, epoch uint64, left time.Duration) error {
	fast, cancel := context.WithTimeout(ctx, min(max(left, 0), time.Second))
	err := n.guard().Stop(fast, fence.ModeFast)
	cancel()
	if err != nil {
		if err := n.stopHard(ctx); err != nil {
			return err
		}
	}
	if epoch != 0 {
		if err := n.guard().CloseEpoch(ctx, epoch); err != nil {
			return err
		}
	}
	n.call(callbacks.OnStop, cluster.RoleDemoted, epoch)
	return n.inLoop(ctx, func() error { n.lease.Close(); return nil })
}

func (n *Node) stopReplica(ctx context.Context, _ *task) error {
	n.beforeStop(ctx, replicaLimit)
	err := n.stopServer(ctx)
	if err == nil {
		n.call(callbacks.OnStop, cluster.RoleReplica, 0)
	}
	return err
}

// stopServer stops what runs, in order while that takes no longer than it may.
func (n *Node) stopServer(ctx context.Context) error {
	fast, cancel := context.WithTimeout(ctx, replicaLimit)
	err := n.guard().Stop(fast, fence.ModeFast)
	cancel()
	if err != nil && ctx.Err() == nil {
		err = n.stopHard(ctx)
	}
	return err
}
