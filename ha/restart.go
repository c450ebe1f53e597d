package ha

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
)

// errStillStarting ends a restart whose server did not answer in time; it goes on starting, and the rules for a primary
// that takes too long to start apply (reference section 5.6.3).
var errStillStarting = errors.New("PostgreSQL was started and does not answer within its limit")

// setDue records durably, before PostgreSQL is stopped for an operator's request, that it is to come back: also in pause
// and after a restart of the agent.
func (n *Node) setDue() error {
	n.state.Due = true
	if err := n.state.save(); err != nil {
		n.state.Due = false
		return fmt.Errorf("PostgreSQL is not stopped, because that it must come back cannot be noted: %w", err)
	}
	return nil
}

// revive notes that a server that is down in pause is to come back, which is the restart that was asked for.
func (n *Node) revive() error {
	if err := n.setDue(); err != nil {
		n.answerRestart(&rest.Refusal{Text: textRestartFailed})
		return err
	}
	if w := n.wishes.restart; w != nil {
		w.begun, w.back, w.since = true, true, n.clock.Now()
	}
	return nil
}

// startTimeout is how long PostgreSQL may take to start before the rules for a primary that does not come up apply.
func (n *Node) startTimeout() time.Duration {
	return max(n.dynamic.PrimaryStartTimeout, 10*time.Second) // 0 means at once; the policy has the same floor
}

// beginRestart starts the task of a restart, for an operator or because a parameter demands it.
func (n *Node) beginRestart(ctx context.Context, a policy.Restart) error {
	limit := time.Duration(0)
	w := n.wishes.restart
	switch s := n.wishes.scheduled; {
	case a.Scheduled && s != nil:
		limit, w, n.wishes.scheduled = s.Timeout, nil, nil
	case w != nil && !w.begun:
		limit, w.begun = w.Timeout, true
	default:
		w = nil
	}
	if err := n.setDue(); err != nil {
		n.answerRestart(&rest.Refusal{Text: textRestartFailed})
		return err
	}
	if n.startLimit = limit; limit == 0 {
		limit = n.startTimeout()
	}
	n.expected, n.ending = false, n.guardState.Postmaster.PID
	stopLimit := n.dynamic.PrimaryStopTimeout
	r := restart{role: postgres.RoleReplica, up: n.upstreamOf(a.Member), start: limit, stop: stopLimit}
	if a.Primary {
		r.role, r.up, r.epoch = postgres.RolePrimary, postgres.Upstream{}, n.epoch()
	}
	err := n.start(ctx, policy.TaskRestart, a.Member, func(ctx context.Context, _ *task) error { return n.restartServer(ctx, r) })
	if err == nil && w != nil {
		n.task.done = func(err error) {
			switch {
			case errors.Is(err, errStillStarting):
				err = &rest.Refusal{Text: textStillStarting}
			case err != nil:
				err = &rest.Refusal{Text: textRestartFailed}
			}
			n.answerRestart(err)
		}
	}
	return err
}

// restart is how PostgreSQL is restarted.
type restart struct {
	role        postgres.Role
	up          postgres.Upstream
	epoch       uint64
	start, stop time.Duration // limits; stop 0: half a minute
}

// restartServer stops PostgreSQL in order and starts it as what it was.
//
// Safety: nothing here knows whether the lease still holds. The guard does: it starts a primary only under the epoch that
// is open, before its deadline (lease rule R7), and it ends what runs at the deadline whatever this task does. The
// loop goes on renewing meanwhile, and replaces this task by a fence when the lease is lost: then ctx has ended, and
// nothing is started. So the primary that comes back is the only one there can be, on the timeline that it wrote before.
func (n *Node) restartServer(ctx context.Context, r restart) error {
	n.ctl.Lock()
	defer n.ctl.Unlock()
	if r.stop <= 0 {
		r.stop = replicaLimit
	}
	n.trace.begin(stepCheckpoint)
	if r.role == postgres.RolePrimary { // while writes still flow, so that the one at shutdown is short
		check, cancel := context.WithTimeout(ctx, r.stop)
		if err := n.cfg.Postgres.Checkpoint(check); err != nil {
			n.log.Warn("the checkpoint before the restart failed", "error", err)
		}
		cancel()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	n.trace.begin(stepBeforeStop)
	n.beforeStop(ctx, r.stop)
	n.trace.begin(stepStop)
	if err := n.stopServer(ctx); err != nil {
		return err
	}
	settings := n.loopSettings(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := n.startWithin(ctx, r.start, r.role, settings, r.up, r.epoch); err != nil {
		return err
	}
	n.call(callbacks.OnRestart, roleName(r.role), r.epoch)
	return nil
}

// startWithin is run with a limit. A server that has not answered by then goes on starting.
func (n *Node) startWithin(ctx context.Context, limit time.Duration, role postgres.Role, s postgres.Settings, up postgres.Upstream, epoch uint64) error {
	call, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := n.run(call, role, s, up, epoch)
	if err != nil && call.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w (%v): %w", errStillStarting, limit, err)
	}
	return err
}
