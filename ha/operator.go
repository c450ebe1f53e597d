package ha

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
)

// requestPatience is how long an operator's request waits until the policy can begin it. Later nobody expects it any more.
const requestPatience = 10 * time.Second

// request is what an operator wants of this node's PostgreSQL, from when it was accepted until its task has ended. It
// belongs to the loop. It is not stored: an agent that ends takes it along, and what its task had begun is seen to like
// any other server that is down, or copy that was interrupted.
type request struct {
	policy.Request
	restart rest.RestartRequest
	since   time.Duration
	done    func(error) // told once how it ended
}

// Restart implements rest.Operator. It may be called from any goroutine.
func (n *Node) Restart(ctx context.Context, r rest.RestartRequest) error {
	ended := make(chan error, 1)
	err := n.inLoop(ctx, func() error {
		if err := n.mayRestart(r); err != nil {
			return err
		}
		n.request = &request{Request: policy.Request{Kind: policy.RequestRestart}, restart: r, since: n.clock.Now(), done: func(err error) { ended <- err }}
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mayRestart checks what the reference does before a restart (section 2.8).
func (n *Node) mayRestart(r rest.RestartRequest) error {
	switch {
	case n.stopping || n.detaching.Load():
		return &rest.Refusal{Text: "restart failed: this node is stopping"}
	case n.request != nil:
		return &rest.Refusal{Text: string(n.request.Kind) + " already in progress"}
	case n.task != nil:
		return &rest.Refusal{Text: string(n.task.kind) + " already in progress"}
	case isStarting(n.server):
		return &rest.Refusal{Text: "postgres is still starting"}
	case !n.server.Answered:
		return &rest.Refusal{Text: "restart failed: PostgreSQL does not answer, and is being seen to"}
	case !n.restartDue(r):
		return &rest.Refusal{Text: "restart conditions are not satisfied"}
	}
	return nil
}

// restartDue says whether the conditions of a restart hold.
func (n *Node) restartDue(r rest.RestartRequest) bool {
	role := cluster.RoleReplica
	if n.server.Role == postgres.RolePrimary {
		role = cluster.RolePrimary
	}
	return (r.Role == "" || r.Role == role) && (r.Below == 0 || n.server.Version < r.Below) && (!r.Pending || len(n.server.PendingRestart) > 0)
}

// Reinitialize implements rest.Operator. It may be called from any goroutine.
func (n *Node) Reinitialize(r rest.ReinitializeRequest) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
	defer cancel()
	return n.inLoop(ctx, func() error {
		leader := n.cluster.Leader.Name
		switch {
		case n.stopping || n.detaching.Load():
			return &rest.Refusal{Text: "this node is stopping, can not reinitialize"}
		case leader == "":
			return &rest.Refusal{Text: "Cluster has no leader, can not reinitialize"}
		case leader == n.cfg.Name:
			return &rest.Refusal{Text: "I am the leader, can not reinitialize"}
		case !r.Force && n.request != nil:
			return &rest.Refusal{Text: string(n.request.Kind) + " already in progress"}
		case !r.Force && n.task != nil:
			return &rest.Refusal{Text: string(n.task.kind) + " already in progress"}
		}
		n.finish(&rest.Refusal{Text: "replaced by a reinitialization"})
		if n.task != nil {
			n.log.Warn("cancelling a task for a reinitialization", "task", string(n.task.kind))
			n.task.cancel()
		}
		n.request = &request{Request: policy.Request{Kind: policy.RequestReinitialize, FromLeader: r.FromLeader}, since: n.clock.Now(), done: func(error) {}}
		return nil
	})
}

// CancelReinitialize implements rest.Operator. It may be called from any goroutine.
func (n *Node) CancelReinitialize() (was bool) {
	ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
	defer cancel()
	_ = n.inLoop(ctx, func() error {
		if n.request == nil || n.request.Kind != policy.RequestReinitialize {
			return nil
		}
		was = true
		n.finish(&rest.Refusal{Text: "cancelled"})
		if n.task != nil && n.task.kind == policy.TaskClone {
			n.task.cancel()
		}
		return nil
	})
	return was
}

// finish ends the request, if there is one.
func (n *Node) finish(err error) {
	if n.request == nil {
		return
	}
	r := n.request
	n.request = nil
	if err != nil {
		n.log.Warn("a request ended", "request", string(r.Kind), "error", err)
	}
	r.done(err)
}

// requested is the request as the policy sees it. One that could not begin for long is given up.
func (n *Node) requested(now time.Duration) policy.Request {
	if n.request != nil && n.task == nil && now-n.request.since > requestPatience {
		n.finish(&rest.Refusal{Text: fmt.Sprintf("%s failed: it could not begin within %v", n.request.Kind, requestPatience)})
	}
	if n.request == nil {
		return policy.Request{}
	}
	return n.request.Request
}

// requestEnded is told how a task ended that may have been for a request.
func (n *Node) requestEnded(kind policy.TaskKind, err error) {
	r := n.request
	switch {
	case r == nil:
	case r.Kind == policy.RequestRestart && kind == policy.TaskRestart && err != nil:
		n.finish(&rest.Refusal{Text: "restart failed: " + err.Error()})
	case r.Kind == policy.RequestRestart && kind == policy.TaskRestart,
		r.Kind == policy.RequestReinitialize && kind == policy.TaskClone && err == nil:
		n.finish(nil)
	default:
		r.since = n.clock.Now() // something else had to be done first
	}
}

// beginRestart restarts PostgreSQL in the role it has. The loop goes on meanwhile: it renews the lease of a primary, whose
// guard ends it at the deadline all the same, also in the middle of this (rule R7, hazard A4).
func (n *Node) beginRestart(ctx context.Context, v policy.View, a policy.Restart) error {
	n.expected = true
	primary := v.Server.Role == policy.RolePrimary
	epoch, limit, start := n.epoch(), n.dynamic.PrimaryStopTimeout, n.dynamic.PrimaryStartTimeout
	if n.request != nil && n.request.restart.Timeout > 0 {
		start = n.request.restart.Timeout
	}
	up, settings := n.upstreamOf(a.Member), n.settings
	return n.start(ctx, policy.TaskRestart, a.Member, func(ctx context.Context, _ *task) error {
		n.ctl.Lock()
		defer n.ctl.Unlock()
		if err := n.stopForRestart(ctx, primary, limit); err != nil {
			return err
		}
		if start > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, start)
			defer cancel()
		}
		role, shown := postgres.RoleReplica, cluster.RoleReplica
		if primary {
			role, shown, up = postgres.RolePrimary, cluster.RolePrimary, postgres.Upstream{}
		}
		if err := n.run(ctx, role, settings, up, epoch); err != nil {
			return err
		}
		n.call(callbacks.OnRestart, shown, epoch)
		return nil
	})
}

// stopForRestart stops in order, with a checkpoint before so that the one at shutdown is short, and the hard way when that
// takes longer than a demotion may.
func (n *Node) stopForRestart(ctx context.Context, primary bool, limit time.Duration) error {
	if limit <= 0 {
		limit = replicaLimit
	}
	n.trace.begin(stepCheckpoint)
	check, cancel := context.WithTimeout(ctx, limit)
	err := n.cfg.Postgres.Checkpoint(check) // of a replica a restartpoint
	cancel()
	if err != nil {
		n.log.Warn("the checkpoint before the restart failed", "error", err)
	}
	n.trace.begin(stepBeforeStop)
	n.beforeStop(ctx, limit)
	n.trace.begin(stepStop)
	stop, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = n.guard().Stop(stop, fence.ModeFast)
	if err != nil && ctx.Err() == nil {
		n.log.Warn("PostgreSQL did not stop in time; stopping it at once", "limit", limit, "primary", primary, "error", err)
		err = n.stopHard(ctx)
	}
	return err
}

// ChangeConfig implements rest.Operator. It may be called from any goroutine.
func (n *Node) ChangeConfig(ctx context.Context, once bool, change func(current json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error) {
	for {
		snap, err := n.store.Read(ctx)
		if err != nil {
			return nil, err
		}
		var current json.RawMessage
		cond := dcs.Cond{Key: cluster.KeyConfig, Version: dcs.Absent}
		if it, ok := snap.Item(cluster.KeyConfig); ok {
			current, cond.Version = json.RawMessage(it.Value), it.Version
		}
		next, err := change(current)
		if err != nil {
			return nil, err
		}
		_, err = n.store.Commit(ctx, dcs.Txn{If: []dcs.Cond{cond}, Then: []dcs.Op{dcs.Put(cluster.KeyConfig, next)}})
		if err == nil {
			n.poke()
			return next, nil
		}
		if once || !errors.Is(err, dcs.ErrConflict) || ctx.Err() != nil {
			return nil, err
		}
	}
}
