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
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// act carries the decision out: actions in order, the first failure ends it. It returns what failed, and whether the
// next turn should begin at once because something has changed.
func (n *Node) act(ctx context.Context, v policy.View, d policy.Decision) (failed string, again bool) {
	n.decision = d
	if d.Ask {
		n.askPeers(ctx)
	}
	if d.Probe != "" {
		n.probe(ctx, d.Probe)
	}
	if d.Promises {
		n.askPromises(ctx)
	}
	if d.Votes {
		n.askVotes(ctx)
	}
	failed, again = n.actions(ctx, v, d.Actions)
	if _, leads := n.lease.Open(); n.dueSession() && (failed == "" || !leads) {
		// A member that does not lead still shows that it lives, whatever it is busy with, and whether that works: "follow",
		// say, at each turn.
		if err := n.keepSession(ctx); err != nil && ctx.Err() == nil && failed == "" {
			failed = err.Error()
		}
	}
	return failed, again
}

// actions does them in order, up to the first that fails.
func (n *Node) actions(ctx context.Context, v policy.View, all []policy.Action) (failed string, again bool) {
	for _, a := range all {
		changed, err := n.do(ctx, v, a)
		again = again || changed
		if err != nil {
			n.log.Warn("action failed", "action", a.String(), "error", err)
			n.counters.add("action_failures", 1)
			// A refused or unknown outcome asks for a new look, not for a pause.
			return fmt.Sprintf("%v: %v", a, err), errors.Is(err, dcs.ErrConflict) || errors.Is(err, dcs.ErrUnknown) || again
		}
	}
	return "", again
}

// do does one action. changed says that the next look will see another world.
func (n *Node) do(ctx context.Context, v policy.View, a policy.Action) (changed bool, err error) {
	switch a := a.(type) {
	case policy.Renew:
		return a.Announce.ID != "", n.renew(ctx, a)
	case policy.Take:
		return true, n.take(ctx, a)
	case policy.Release:
		return true, n.release(ctx, a, fence.ProofEmpty)
	case policy.DropOrphan:
		return true, n.dropOrphan(ctx)
	case policy.RaceInitialize:
		return true, n.raceInitialize(ctx)
	case policy.DropInitialize:
		return true, n.commit(ctx, dcs.Txn{
			If:   []dcs.Cond{{Key: cluster.KeyInitialize, Version: dcs.Version(n.cluster.Initialize.Version)}},
			Then: []dcs.Op{dcs.Delete(cluster.KeyInitialize)},
		})
	case policy.WriteInitialize:
		return true, n.commit(ctx, dcs.Txn{
			If:   []dcs.Cond{{Key: cluster.KeyInitialize, Version: dcs.Version(n.cluster.Initialize.Version)}},
			Then: []dcs.Op{dcs.Put(cluster.KeyInitialize, []byte(a.SystemID))},
		})
	case policy.ClearFailover:
		n.log.Info("the failover request is cleared", "why", a.Why)
		return true, n.commit(ctx, n.clearFailover())
	case policy.Follow:
		return false, n.follow(ctx, a.Member)
	case policy.Revive:
		return true, n.revive()
	case policy.Refuse:
		n.refuse(a)
		return true, nil
	case policy.Cancel:
		if n.task != nil {
			n.log.Info("cancelling", "task", string(n.task.kind), "why", a.Why)
			n.task.cancel()
		}
		return false, nil
	default:
		return false, n.begin(ctx, v, a)
	}
}

// commit sends one transaction within the limit of a store call.
func (n *Node) commit(ctx context.Context, txn dcs.Txn) error {
	_, err := n.send(ctx, txn)
	return err
}

func (n *Node) send(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
	limit := n.callLimit()
	if limit <= 0 {
		return dcs.Result{}, errors.New("no time is left before the fence")
	}
	call, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return n.store.Commit(call, txn)
}

func (n *Node) clearFailover() dcs.Txn {
	return dcs.Txn{
		If:   []dcs.Cond{{Key: cluster.KeyFailover, Version: dcs.Version(n.cluster.Failover.Version)}},
		Then: []dcs.Op{dcs.Put(cluster.KeyFailover, []byte("{}"))},
	}
}

// keepSession opens or renews the session that our keys hang on. Its ttl is never shorter than the lease record's
// (rule R1): raising comes before the record, lowering after it.
func (n *Node) keepSession(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, max(n.callLimit(), time.Millisecond))
	defer cancel()
	ttl := max(n.dynamic.TTL, n.openTTL())
	sent := n.clock.Now()
	if n.session != nil && n.session.TTL() >= ttl && n.session.TTL() < 2*max(ttl, n.store.Limits().MinTTL) {
		err := n.session.Renew(call)
		if err == nil {
			n.kept = sent
			return nil
		}
		if !errors.Is(err, dcs.ErrSessionLost) {
			return err
		}
		n.log.Warn("the store ended our session; opening another", "session", n.session.ID())
	}
	s, err := n.store.OpenSession(call, ttl)
	if err != nil {
		return fmt.Errorf("open a session: %w", err)
	}
	n.session, n.kept = s, sent // the old one ends by itself, with what still hangs on it
	return nil
}

// openTTL is the ttl of the record while it is ours.
func (n *Node) openTTL() time.Duration {
	if r, _, ok, _ := n.lease.Record(); ok && r.State == dcs.Held && r.Holder == n.cfg.Name {
		return time.Duration(r.TTL)
	}
	return 0
}

// dueSession says that the session was not renewed for a loop_wait.
func (n *Node) dueSession() bool {
	return n.readErr == nil && (n.session == nil || n.clock.Now()-n.kept >= n.dynamic.LoopWait*9/10)
}

// renew is rule R1. The leader's status and member key travel in the same transaction when they have changed.
func (n *Node) renew(ctx context.Context, a policy.Renew) error {
	sent := n.clock.Now()
	if err := n.keepSession(ctx); err != nil {
		return err
	}
	n.lease.Endless(n.dynamic.Pause)
	step, err := n.lease.Renew(sent, n.session.ID(), n.dynamic.TTL, n.leaderNote(a.Announce))
	if err != nil {
		return err
	}
	if step.Shorten != 0 {
		// R10: the guard shortens before the write is sent.
		if err := n.guardExtend(ctx, n.term(step.Shorten, sent)); err != nil {
			return fmt.Errorf("the guard did not shorten its deadline: %w", err)
		}
	}
	ops := append(n.leaderKeys(), n.failsafeKey(step.Members())...)
	step.Txn.Then = append(step.Txn.Then, ops...)
	res, err := n.send(ctx, step.Txn)
	deadline := n.lease.Settle(step, res, err)
	n.counters.renewal(n.clock.Now()-sent, err)
	if err != nil {
		return err
	}
	n.publishedKeys(ops)
	return n.extend(ctx, deadline, sent)
}

func (n *Node) epoch() uint64 { e, _ := n.lease.Open(); return e }

// take is rules R4 to R6.
func (n *Node) take(ctx context.Context, a policy.Take) error {
	v := n.voter.Load()
	if err := v.beginTake(); err != nil {
		return err
	}
	defer v.endTake()
	sent := n.clock.Now()
	if err := n.keepSession(ctx); err != nil {
		return err
	}
	fresh := n.fresh()
	step, err := n.lease.Take(n.clock.Now(), sent, n.session.ID(), n.dynamic.TTL, fresh)
	if err != nil {
		return err
	}
	if fresh || a.Bootstrap {
		step.Txn.If = append(step.Txn.If, dcs.Cond{Key: cluster.KeyInitialize, Version: dcs.Version(n.cluster.Initialize.Version)})
	}
	if a.Bootstrap {
		step.Txn.Then = append(step.Txn.Then, dcs.Put(cluster.KeyInitialize, []byte(n.server.Control.SystemID)))
		if c := n.cluster.Config; !c.Present {
			b, err := json.Marshal(bootstrapConfig(n.cfg.Bootstrap))
			if err != nil {
				return fmt.Errorf("the bootstrap configuration: %w", err)
			}
			step.Txn.If = append(step.Txn.If, dcs.Cond{Key: cluster.KeyConfig, Version: dcs.Absent})
			step.Txn.Then = append(step.Txn.Then, dcs.Put(cluster.KeyConfig, b))
			n.seeded = true
		}
	}
	if a.ClearFailover {
		c := n.clearFailover()
		step.Txn.If, step.Txn.Then = append(step.Txn.If, c.If...), append(step.Txn.Then, c.Then...)
	}
	res, err := n.send(ctx, step.Txn)
	deadline := n.lease.Settle(step, res, err)
	if err != nil {
		return err
	}
	n.counters.add("takes", 1)
	n.slotSeen = nil
	n.checkpointed = false
	v.closed.Store(false) // before it is so: in doubt no vote and no promise
	call, cancel := context.WithTimeout(ctx, guardAnswer)
	defer cancel()
	if err := n.guard().OpenEpoch(call, n.term(deadline, sent)); err != nil {
		n.lease.Close() // the guard has no such epoch, so nothing can run under it: give it back (R8)
		return fmt.Errorf("the guard did not open epoch %d: %w", n.epoch(), err)
	}
	n.log.Info("took the lease", "epoch", n.epoch())
	return nil
}

// release is rule R8. The epoch is closed with a proof, the guard's; without one nothing is sent. What pg_control says adds
// where the WAL ends.
func (n *Node) release(ctx context.Context, a policy.Release, proof fence.Proof) error {
	call, cancel := context.WithTimeout(ctx, guardAnswer)
	defer cancel()
	st, err := n.guard().State(call)
	if err != nil {
		return err
	}
	if st.Open && st.Epoch == n.epoch() {
		if (st.Postmaster.Running && st.Postmaster.Primary) || st.Orphans > 0 {
			return errors.New("PostgreSQL still runs under the epoch: it is fenced before the lease is given back")
		}
		if err := n.guard().CloseEpoch(call, st.Epoch); err != nil {
			return fmt.Errorf("the guard did not close epoch %d: %w", st.Epoch, err)
		}
	}
	n.lease.Close()
	note, _ := n.note()
	note.Target, note.End = a.Target, a.End
	if n.server.Control.State == postgres.ControlShutDown && note.End.LSN == 0 {
		note.End = n.server.Control.Checkpoint
	}
	b, err := json.Marshal(note)
	if err != nil {
		return err
	}
	step, err := n.lease.Release(string(proof), b)
	if err != nil {
		return err
	}
	if note.End.LSN != 0 {
		// Followers judge their lag by it (reference section 9.1, item 4).
		s := n.cluster.Status
		s.Optime = note.End.LSN
		step.Txn.Then = append(step.Txn.Then, dcs.Put(cluster.KeyStatus, cluster.EncodeStatus(s)))
	}
	res, err := n.send(ctx, step.Txn)
	n.lease.Settle(step, res, err)
	if err == nil {
		n.log.Info("released the lease", "epoch", n.epoch(), "proof", proof, "target", a.Target)
		n.released()
	}
	return err
}

func (n *Node) dropOrphan(ctx context.Context) error {
	step, err := n.lease.DropOrphan(n.sessionID())
	if err != nil {
		return err
	}
	res, err := n.send(ctx, step.Txn)
	n.lease.Settle(step, res, err)
	return err
}

// raceInitialize claims the bootstrap: the key is empty and hangs on our session, so that a claimant that dies does
// not block the others (hazard C8).
func (n *Node) raceInitialize(ctx context.Context) error {
	if err := n.keepSession(ctx); err != nil {
		return err
	}
	return n.commit(ctx, dcs.Txn{
		If:   []dcs.Cond{{Key: cluster.KeyInitialize, Version: dcs.Absent}, {Key: cluster.KeyLeader, Version: dcs.Absent}},
		Then: []dcs.Op{dcs.PutSession(cluster.KeyInitialize, nil, n.session.ID())},
	})
}

// follow re-points the running replica.
func (n *Node) follow(ctx context.Context, member string) error {
	n.ctl.Lock()
	defer n.ctl.Unlock()
	call, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	reload, err := n.cfg.Postgres.Configure(call, n.settings.For(cluster.RoleReplica), postgres.RoleReplica, n.upstreamOf(member))
	if err != nil {
		return err
	}
	// A reload also ends the pause that a receiver makes after a failed connection (wal_retrieve_retry_interval).
	if reload {
		n.log.Info("following", "leader", member)
	}
	n.observer.kick()
	if err := n.cfg.Postgres.Reload(call); err != nil {
		return err
	}
	if reload {
		n.call(callbacks.OnReload, cluster.RoleReplica, 0)
	}
	return nil
}

// upstreamOf is where a replica streams from.
func (n *Node) upstreamOf(member string) postgres.Upstream {
	if member == "" {
		return postgres.Upstream{}
	}
	m, _ := n.cluster.Member(member)
	host, port := m.HostPort()
	up := postgres.Upstream{Name: member, Host: host, Port: port}
	if n.settings.UseSlots {
		up.Slot = cluster.SlotName(n.cfg.Name)
	}
	return up
}

// leaderNote is the record's note as it should be, or nil when it need not change: it names the promotion that this node
// is about to make, and the one that it made, once it is primary on that timeline (hazard B10).
func (n *Node) leaderNote(announce cluster.Promotion) json.RawMessage {
	note, ok := n.note()
	if !ok {
		note = cluster.Note{}
	}
	changed := note.Target != "" || note.End.LSN != 0
	note.Target, note.End = "", wal.Position{}
	if announce.ID != "" {
		note, changed = note.With(announce, n.branch()), true
	}
	if n.server.Answered && n.server.Role == postgres.RolePrimary {
		for _, p := range n.state.Promotions {
			if p.Timeline == n.server.Timeline && p != note.Promotion {
				note, changed = note.With(p, n.branch()), true
			}
		}
	}
	if !changed {
		return nil
	}
	b, err := json.Marshal(note)
	if err != nil {
		n.log.Error("the lease note cannot be written", "error", err)
		return nil
	}
	return b
}
