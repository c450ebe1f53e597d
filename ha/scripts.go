package ha

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres"
)

// Scripts are the programs that an operator's configuration puts on the way of planned changes (reference section 5.23).
// A fence waits for none of them: it replaces the task that does, which ends their context (hazard E4).
type Scripts interface {
	// Configure is called by the loop with the `postgresql` section of the dynamic configuration, at the start and
	// whenever the dynamic configuration changed. It returns at once, and does not keep the map's inner parts changed.
	Configure(dynamic map[string]any)
	// PrePromote runs before this node's replica is promoted, while the node holds the lease. An error refuses the
	// promotion. It returns soon after ctx ended.
	PrePromote(ctx context.Context) error
	// BeforeStop runs before PostgreSQL is stopped in order. An error is logged and changes nothing. It returns soon
	// after ctx ended.
	BeforeStop(ctx context.Context) error
}

// callbackGrace is how long a callback may go on when Run ends.
const callbackGrace = 5 * time.Second

// prePromoteLimit is how long pre_promote may run when primary_start_timeout sets no other limit: so long the cluster
// has no primary.
const prePromoteLimit = time.Minute

// errPrePromote is the cause of a promotion that the operator's script refused.
var errPrePromote = errors.New("pre_promote refused the promotion")

// configureScripts tells the scripts what the dynamic configuration says of them.
func (n *Node) configureScripts() {
	if n.cfg.Scripts != nil {
		n.cfg.Scripts.Configure(n.dynamic.PostgreSQL)
	}
}

// prePromote asks the operator's script, within limit.
func (n *Node) prePromote(ctx context.Context, limit time.Duration) error {
	if n.cfg.Scripts == nil {
		return nil
	}
	if limit <= 0 {
		limit = prePromoteLimit
	}
	call, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := n.cfg.Scripts.PrePromote(call)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", errPrePromote, err)
}

// beforeStop runs the operator's script before an orderly stop, within limit. No fence comes here.
func (n *Node) beforeStop(ctx context.Context, limit time.Duration) {
	if n.cfg.Scripts == nil || ctx.Err() != nil {
		return
	}
	call, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := n.cfg.Scripts.BeforeStop(call); err != nil {
		n.log.Warn("before_stop failed; PostgreSQL is stopped all the same", "error", err)
	}
}

// refusedPromotion says that pre_promote refused less than a ttl ago: so long this node leaves the lease to others
// (reference section 5.7.1, row 1); empty: it did not.
func (n *Node) refusedPromotion() string {
	l := n.last
	if l.Kind != policy.TaskPromote || !l.Impossible || n.clock.Now()-l.at >= n.dynamic.TTL {
		return ""
	}
	return l.Failed
}

// scriptsMissing says that the dynamic configuration names a script that this program cannot run; empty: it does not.
func (n *Node) scriptsMissing() string {
	for _, key := range [...]string{"pre_promote", "before_stop"} {
		if line, _ := n.dynamic.PostgreSQL[key].(string); line != "" && n.cfg.Scripts == nil {
			return fmt.Sprintf("postgresql.%s = %s: this program runs no scripts, and a promotion or stop without it could be unsafe", key, line)
		}
	}
	return ""
}

// joined tells the callbacks of a PostgreSQL that ran already when this agent started (reference section 5.23).
func (n *Node) joined() {
	if n.told.Load() || n.task != nil || !n.server.Answered {
		return
	}
	epoch, open := n.lease.Open()
	switch {
	case n.server.Role == postgres.RoleReplica:
		n.call(callbacks.OnStart, cluster.RoleReplica, 0)
	case n.server.Role == postgres.RolePrimary && open:
		n.call(callbacks.OnStart, cluster.RolePrimary, epoch)
	}
}

// prepareCluster makes the new cluster's users and runs post_bootstrap, once.
func (n *Node) prepareCluster(ctx context.Context, epoch uint64) error {
	var unprepared bool
	if err := n.inLoop(ctx, func() error { unprepared = n.state.Unprepared; return nil }); err != nil || !unprepared {
		return err
	}
	if err := n.cfg.Postgres.PrepareCluster(ctx); err != nil {
		if ctx.Err() != nil {
			return err // this node is stopping, or fenced: the next start goes on with it
		}
		return n.abandonBootstrap(ctx, epoch, err)
	}
	return n.inLoop(ctx, func() error { n.state.Unprepared = false; return n.state.save() })
}

// tendBootstrap goes on with a bootstrap whose agent was restarted while it made the users.
func (n *Node) tendBootstrap(ctx context.Context) {
	epoch, open := n.lease.Open()
	if !n.state.Unprepared || !open || n.task != nil || !n.server.Answered || n.server.Role != postgres.RolePrimary {
		return
	}
	_ = n.start(ctx, policy.TaskStartPrimary, "", func(ctx context.Context, _ *task) error { // start fails never
		n.ctl.Lock()
		defer n.ctl.Unlock()
		return n.prepareCluster(ctx, epoch)
	})
}

// abandonBootstrap undoes the creation of a cluster whose users or post_bootstrap script failed (reference section 5.3):
// PostgreSQL is ended, its data set aside, and the store left as if nothing had been claimed, so that another member
// can create the cluster. This node does not try again before it is restarted.
func (n *Node) abandonBootstrap(ctx context.Context, epoch uint64, why error) error {
	why = fmt.Errorf("the bootstrap failed: %w", why)
	if err := n.inLoop(ctx, func() error { n.expected = true; return nil }); err != nil {
		return errors.Join(why, err)
	}
	if err := n.stopHard(ctx); err != nil {
		return errors.Join(why, err)
	}
	if err := n.guard().CloseEpoch(ctx, epoch); err != nil {
		return errors.Join(why, err)
	}
	aside := false
	if a, ok := n.cfg.Postgres.(interface {
		AbandonCluster(ctx context.Context) (string, error)
	}); ok {
		kept, err := a.AbandonCluster(ctx)
		aside = err == nil
		if err != nil {
			why = fmt.Errorf("%w; its data could not be set aside: %w", why, err)
		} else {
			why = fmt.Errorf("%w; its data is kept in %s", why, kept)
		}
	}
	err := n.inLoop(ctx, func() error {
		n.lease.Close()
		n.noBootstrap = why.Error()
		n.state.Unprepared, n.state.Promotions = !aside, nil // what is still there has no users yet
		return n.state.save()
	})
	n.log.Error("this node creates no cluster before it is restarted", "why", why)
	for ctx.Err() == nil {
		forgot := n.inLoop(ctx, func() error { return n.forgetCluster(ctx) })
		if forgot == nil {
			break
		}
		n.log.Warn("the store does not forget the cluster yet", "error", forgot)
		sleep(ctx, n.clock, time.Second)
	}
	return errors.Join(why, err)
}

// forgetCluster takes back what Take wrote for a bootstrap. The lease goes with it: a record that stays would say that
// the cluster exists.
func (n *Node) forgetCluster(ctx context.Context) error {
	step, err := n.lease.Release(string(fence.ProofEmpty), nil)
	if err != nil {
		return err
	}
	for i, op := range step.Txn.Then {
		if op.Key == dcs.KeyLease {
			step.Txn.Then[i] = dcs.Delete(dcs.KeyLease)
		}
	}
	step.Txn.If = append(step.Txn.If, dcs.Cond{Key: cluster.KeyInitialize, Version: dcs.Version(n.cluster.Initialize.Version)})
	step.Txn.Then = append(step.Txn.Then, dcs.Delete(cluster.KeyInitialize))
	if n.seeded {
		step.Txn.Then = append(step.Txn.Then, dcs.Delete(cluster.KeyConfig))
	}
	_, err = n.send(ctx, step.Txn)
	return err
}

// released tells the callbacks of a former leader whose PostgreSQL could not be started again, and which they still know as
// the primary.
func (n *Node) released() {
	if n.primaryTold.Load() {
		n.call(callbacks.OnRoleChange, cluster.RoleDemoted, n.epoch())
	}
}
