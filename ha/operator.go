package ha

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
)

// The texts that Patroni's clients know (reference section 2.8); the policy has the others.
const (
	textInProgress    = " already in progress"
	textScheduled     = "Another restart is already scheduled"
	textStillStarting = "postgres is still starting"
	textRestartFailed = "restart failed"
	textNoLeader      = "Cluster has no leader, can not reinitialize"
	textLeader        = "I am the leader, can not reinitialize"
)

// answerLimit is how long the loop may take to take a request in that comes without a context. It waits for nothing but
// store calls, which are shorter.
const answerLimit = 15 * time.Second

// hand lets the loop judge a request, and waits for its answer.
func (n *Node) hand(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	select {
	case n.inbox <- func() { done <- f() }:
	case <-ctx.Done():
		return ctx.Err()
	case <-n.gone:
		return &rest.Refusal{Text: "this node is stopping"}
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-n.gone:
		return &rest.Refusal{Text: "this node is stopping"}
	}
}

// handShort is hand for the methods without a context.
func (n *Node) handShort(f func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit) //nolint:forbidigo // the method has none
	defer cancel()
	return n.hand(ctx, f)
}

// Restart restarts PostgreSQL and returns when it runs again, with ctx, or with a *rest.Refusal in Patroni's words. The
// restart goes on when the caller has gone. A primary keeps its epoch, its lease and its timeline: see policy.Restart.
func (n *Node) Restart(ctx context.Context, r rest.RestartRequest) error {
	w := &restartWish{RestartRequest: r, done: make(chan error, 1)}
	err := n.hand(ctx, func() error {
		if n.wishes.restart != nil {
			return &rest.Refusal{Text: string(policy.TaskRestart) + textInProgress}
		}
		w.since = n.clock.Now()
		n.wishes.restart = w
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-n.gone:
		return &rest.Refusal{Text: textRestartFailed + ": this node is stopping"}
	}
}

// ScheduleRestart keeps a request for r.At in memory and in the member's key, `scheduled_restart`: it is lost with the
// process (reference section 5.21). There is one at a time.
func (n *Node) ScheduleRestart(r rest.RestartRequest) error {
	return n.handShort(func() error {
		if n.wishes.scheduled != nil {
			return &rest.Refusal{Text: textScheduled, Conflict: true}
		}
		n.wishes.scheduled = &scheduledWish{RestartRequest: r, started: n.server.PostmasterStart}
		n.log.Info("a restart is scheduled", "at", r.At)
		return nil
	})
}

// CancelRestart forgets the scheduled restart, and says whether there was one.
func (n *Node) CancelRestart() bool {
	had := false
	_ = n.handShort(func() error {
		had, n.wishes.scheduled = n.wishes.scheduled != nil, nil
		return nil
	})
	return had
}

// Reinitialize makes this replica anew from another member, when its leader answers; the old data is set aside. It
// returns as soon as the request is taken, or with a *rest.Refusal (reference section 5.5).
func (n *Node) Reinitialize(r rest.ReinitializeRequest) error {
	return n.handShort(func() error {
		_, open := n.lease.Open()
		leader := n.cluster.Leader.Name
		switch {
		case leader == "" && !open:
			return &rest.Refusal{Text: textNoLeader}
		case open || leader == n.cfg.Name:
			return &rest.Refusal{Text: textLeader}
		case n.wishes.reinit != nil && !r.Force:
			return &rest.Refusal{Text: string(policy.RequestReinit) + textInProgress}
		case n.task != nil && !r.Force:
			return &rest.Refusal{Text: n.taskName() + textInProgress}
		}
		n.log.Info("an operator asked to make this replica anew", "force", r.Force, "from_leader", r.FromLeader)
		n.wishes.reinit = &reinitWish{ReinitializeRequest: r}
		return nil
	})
}

// CancelReinitialize ends a running or waiting reinitialization; the member then comes back in the ordinary way, with
// the data that it had, or a copy of its own accord where it has none. It says whether there was one.
func (n *Node) CancelReinitialize() bool {
	had := false
	_ = n.handShort(func() error {
		if n.wishes.reinit == nil {
			return nil
		}
		had, n.wishes.reinit = true, nil
		n.log.Info("the reinitialization is cancelled")
		if n.task != nil && n.task.kind == policy.TaskClone {
			n.task.cancel()
		}
		return nil
	})
	return had
}

// ChangeConfig changes the key `config` by compare-and-swap and wakes the loop; see rest.Operator. An outcome that is
// unknown (dcs.ErrUnknown) is read again once.
func (n *Node) ChangeConfig(ctx context.Context, once bool, change func(json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error) {
	for {
		snap, err := n.store.Read(ctx)
		if err != nil {
			return nil, err
		}
		var current json.RawMessage
		cond := dcs.Cond{Key: cluster.KeyConfig, Version: dcs.Absent}
		if it, ok := snap.Item(cluster.KeyConfig); ok {
			current, cond.Version = bytes.Clone(it.Value), it.Version
		}
		next, err := change(current)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(next, current) && current != nil {
			return next, nil
		}
		_, err = n.store.Commit(ctx, dcs.Txn{If: []dcs.Cond{cond}, Then: []dcs.Op{dcs.Put(cluster.KeyConfig, next)}})
		switch {
		case err == nil:
			n.poke()
			return next, nil
		case errors.Is(err, dcs.ErrConflict) && !once:
			continue
		case errors.Is(err, dcs.ErrUnknown):
			if snap, rerr := n.store.Read(ctx); rerr == nil {
				if it, ok := snap.Item(cluster.KeyConfig); ok && bytes.Equal(it.Value, next) {
					n.poke()
					return next, nil
				}
			}
		}
		return nil, err
	}
}
