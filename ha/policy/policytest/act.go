package policytest

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres/wal"
)

var (
	errBusy     = errors.New("a task is running")
	errNoLease  = errors.New("the guard has no open epoch with time left")
	errRuns     = errors.New("PostgreSQL still runs under the epoch")
	errTooShort = errors.New("the ttl leaves no time to serve")
)

// do carries out one action and calls done; a task counts as done when it has begun.
func (a *agent) do(action policy.Action, done func(error)) {
	switch act := action.(type) {
	case policy.Take:
		a.take(act, done)
	case policy.Renew:
		a.renew(act, done)
	case policy.Release:
		a.release(act, done)
	case policy.DropOrphan:
		if a.w.broken(MistakeOrphan) {
			done(nil)
			return
		}
		step, err := a.lease.DropOrphan(a.session)
		a.send(step, err, done)
	case policy.RaceInitialize, policy.DropInitialize, policy.WriteInitialize, policy.ClearFailover:
		a.change(action, done)
	case policy.Follow:
		a.n.disk.settleIntent(a.w.broken(MistakeForgetIntent))
		a.n.follow(act.Member)
		done(nil)
	case policy.Cancel:
		a.cancel()
		done(nil)
	case policy.Revive:
		a.n.due, a.restart, a.again = true, nil, true
		done(nil)
	case policy.Refuse:
		a.refuse(act)
		done(nil)
	default:
		a.begin(action, done)
	}
}

// send commits a step of the lease protocol and settles it. A refusal or an unknown outcome makes the loop read again.
func (a *agent) send(step dcs.Step, err error, done func(error)) {
	if err != nil {
		done(err)
		return
	}
	a.alter(&step)
	if step.Shorten == 0 || a.w.broken(MistakeLowerTTL) {
		a.commitStep(step, done)
		return
	}
	g := a.guard
	a.ask(func() error {
		g.extend(g.epoch, min(g.deadline, step.Shorten), a.ttl(), false)
		return nil
	}, func(err error) {
		if err != nil {
			done(err)
			return
		}
		a.commitStep(step, done)
	})
}

func (a *agent) commitStep(step dcs.Step, done func(error)) {
	on := a.w.sending(a, step)
	a.n.request(&a.process, a.callLimit(), func() reply {
		var r reply
		a.w.truth.performing = on
		r.result, r.err = a.w.store.commit(a.n, step.Txn)
		a.w.truth.performing = nil
		return r
	}, func(r reply) {
		a.settle(step, on, r, done)
	})
}

func (a *agent) settle(step dcs.Step, on *sentStep, r reply, done func(error)) {
	r = a.distort(&step, on, r)
	deadline := a.lease.Settle(step, r.result, r.err)
	if r.err != nil {
		a.again = a.again || !errors.Is(r.err, errNoTime)
		done(r.err)
		return
	}
	if deadline == 0 {
		done(nil)
		return
	}
	g := a.guard
	epoch, _ := a.lease.Open()
	rec, _, _, _ := a.lease.Record()
	if epoch == g.epoch && (g.open || g.proof != "") {
		a.ask(func() error {
			g.extend(epoch, deadline, time.Duration(rec.TTL), rec.Endless)
			return nil
		}, done)
		return
	}
	a.ask(func() error {
		if !g.begin(epoch, deadline, time.Duration(rec.TTL)) {
			return errTooShort
		}
		a.w.logf(a.n, "guard: epoch %d is open", epoch)
		return nil
	}, func(err error) {
		if err != nil {
			a.lease.Close()
		}
		done(err)
	})
}

func (a *agent) take(act policy.Take, then func(error)) {
	sent := a.n.clock()
	a.fs.taking = true
	done := func(err error) {
		a.fs.taking = false
		then(err)
	}
	a.keepSession(func(err error) {
		if err != nil {
			done(err)
			return
		}
		step, err := a.lease.Take(a.n.clock(), sent, a.session, a.ttl(), a.fresh())
		if err != nil {
			done(err)
			return
		}
		if act.Bootstrap {
			a.addBootstrap(&step)
		}
		if act.ClearFailover && a.cluster.Failover.Present {
			step.Txn.If = append(step.Txn.If, dcs.Cond{Key: cluster.KeyFailover, Version: dcs.Version(a.cluster.Failover.Version)})
			step.Txn.Then = append(step.Txn.Then, dcs.Put(cluster.KeyFailover, []byte("{}")))
		}
		a.send(step, nil, done)
	})
}

// addBootstrap makes the first take also write the configuration and the system identifier.
func (a *agent) addBootstrap(step *dcs.Step) {
	if !a.cluster.Config.Present {
		step.Txn.If = append(step.Txn.If, dcs.Cond{Key: cluster.KeyConfig})
		step.Txn.Then = append(step.Txn.Then, dcs.Put(cluster.KeyConfig, []byte(a.w.config())))
	}
	if a.n.disk.tip != nil {
		step.Txn.If = append(step.Txn.If, dcs.Cond{Key: cluster.KeyInitialize, Version: dcs.Version(a.cluster.Initialize.Version)})
		step.Txn.Then = append(step.Txn.Then, dcs.Put(cluster.KeyInitialize, []byte(a.n.disk.tip.branch.sysid)))
	}
}

func (a *agent) keepSession(done func(error)) {
	if a.w.broken(MistakeSessionNotRenewed) && a.session != "" {
		done(nil)
		return
	}
	a.renewSession(done)
}

func (a *agent) renew(act policy.Renew, done func(error)) {
	sent := a.n.clock()
	a.keepSession(func(err error) {
		if err == nil && a.w.broken(MistakeKeepaliveOnly) {
			a.guard.extend(a.guard.epoch, sent+dcs.Validity(a.ttl()), a.ttl(), false)
			done(nil)
			return
		}
		if err != nil {
			done(err)
			return
		}
		a.lease.Endless(a.dynamic.Pause)
		step, err := a.lease.Renew(sent, a.session, a.ttl(), a.note(act.Announce))
		a.again = a.again || act.Announce.ID != ""
		if err == nil {
			step.Txn.Then = append(step.Txn.Then, a.leaderKeys()...)
			step.Txn.Then = append(step.Txn.Then, a.failsafeKey(step)...)
		}
		a.send(step, err, done)
	})
}

// note is what the holder writes into the record, or nil when it need not change: the promotion that it announces, its
// own promotion once it is primary, and nothing of the release that it took over.
func (a *agent) note(announce cluster.Promotion) []byte {
	r, _, _, _ := a.lease.Record()
	note := a.w.decodeNote(r.Note)
	changed := note.Target != "" || note.End.LSN != 0
	note.Target, note.End = "", wal.Position{}
	if announce.ID != "" && !a.w.broken(MistakeNotAnnounced) {
		note, changed = note.With(announce, a.n.branch()), true
	}
	if a.n.pg.primary && a.n.pg.state == pgRunning {
		for _, p := range a.n.disk.promotions {
			if p.Timeline == a.n.disk.tip.branch.tli && p != note.Promotion {
				note, changed = note.With(p, a.n.branch()), true
			}
		}
	}
	if !changed {
		return nil
	}
	return mustJSON(note)
}

// release is rule R8. The proof is what the guard and pg_control say.
func (a *agent) release(act policy.Release, done func(error)) {
	g := a.guard
	a.ask(func() error {
		if g.open {
			if a.n.pg.state != pgStopped && a.n.pg.asPrimary || g.busy() {
				return errRuns
			}
			g.close()
		}
		return nil
	}, func(err error) {
		if err != nil {
			done(err)
			return
		}
		a.sendRelease(act, done)
	})
}

func (a *agent) sendRelease(act policy.Release, done func(error)) {
	a.lease.Close()
	r, _, _, _ := a.lease.Record()
	note := a.w.decodeNote(r.Note)
	note.Target, note.End = act.Target, act.End
	proof := dcs.ProofEmpty
	if a.n.disk.clean && a.n.pg.state == pgStopped {
		proof = dcs.ProofShutdown
		if note.End.LSN == 0 {
			note.End = a.n.disk.tip.position()
		}
	}
	step, err := a.lease.Release(proof, mustJSON(note))
	if err == nil {
		a.w.afterReleaseSent(a)
	}
	a.send(step, err, done)
}

// change is a store action outside the lease protocol.
func (a *agent) change(action policy.Action, done func(error)) {
	var txn dcs.Txn
	init := dcs.Version(a.cluster.Initialize.Version)
	switch act := action.(type) {
	case policy.RaceInitialize:
		txn.If = []dcs.Cond{{Key: cluster.KeyInitialize}}
		txn.Then = []dcs.Op{dcs.PutSession(cluster.KeyInitialize, nil, a.session)}
	case policy.DropInitialize:
		txn.If = []dcs.Cond{{Key: cluster.KeyInitialize, Version: init}}
		txn.Then = []dcs.Op{dcs.Delete(cluster.KeyInitialize)}
	case policy.WriteInitialize:
		txn.If = []dcs.Cond{{Key: cluster.KeyInitialize, Version: init}}
		txn.Then = []dcs.Op{dcs.Put(cluster.KeyInitialize, []byte(act.SystemID))}
	case policy.ClearFailover:
		txn.If = []dcs.Cond{{Key: cluster.KeyFailover, Version: dcs.Version(a.cluster.Failover.Version)}}
		txn.Then = []dcs.Op{dcs.Put(cluster.KeyFailover, []byte("{}"))}
	default:
		done(fmt.Errorf("the model does not know %T", action))
		return
	}
	a.commit(txn, done)
}

func (a *agent) commit(txn dcs.Txn, done func(error)) {
	a.n.request(&a.process, a.callLimit(), func() reply {
		var r reply
		r.result, r.err = a.w.store.commit(a.n, txn)
		return r
	}, func(r reply) {
		if txn.If != nil && !errors.Is(r.err, errNoTime) {
			a.again = true // what was read is not what is there any more
		}
		done(r.err)
	})
}

// publish writes the member record when it changed, at most once per loop_wait for positions alone, and keeps the
// session alive for the members that do not renew a lease.
func (a *agent) publish(done func()) {
	if a.session == "" || a.failed {
		done()
		return
	}
	now, wait := a.n.clock(), a.loopWait()
	put := func(error) {
		key := cluster.MembersPrefix + a.n.name
		have, ok := a.snap.Item(key)
		state := a.n.memberState(a.task.Kind)
		due := !ok || have.Session != a.session || state != a.publishedState || now-a.publishAt >= wait
		if a.session == "" || !due {
			done()
			return
		}
		value := a.n.memberValue(false, a.task.Kind)
		if ok && have.Session == a.session && string(have.Value) == string(value) {
			a.publishedState, a.publishAt = state, now
			done()
			return
		}
		txn := dcs.Txn{Then: []dcs.Op{dcs.PutSession(key, value, a.session)}}
		a.commit(txn, func(err error) {
			if err == nil {
				a.publishedState, a.publishAt = state, now
			}
			if errors.Is(err, dcs.ErrSessionLost) {
				a.session = ""
			}
			done()
		})
	}
	if !a.guard.open && now-a.kept >= wait*3/4 {
		a.renewSession(put)
		return
	}
	put(nil)
}

func mustJSON(n cluster.Note) []byte {
	b, err := json.Marshal(n)
	if err != nil {
		return nil
	}
	return b
}
