package policytest

import (
	"errors"
	"slices"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres/wal"
)

// Mistake breaks one rule, between production code and the model: what the code asks for or is told is altered, the
// code itself has no switches. The simulation must find every one of them (hazards, section 3.5).
type Mistake string

// Mistakes. The comment names the rule of the lease protocol or the hazard.
const (
	NoMistake                Mistake = ""
	MistakeLateDeadline      Mistake = "deadline counted from the reply"                          // s, A6
	MistakeLongDeadline      Mistake = "deadline longer than D"                                   // D
	MistakeReleaseFirst      Mistake = "release before the fence"                                 // R8, A19
	MistakeNoWait            Mistake = "take without waiting"                                     // R4b, A8
	MistakeNoReset           Mistake = "wait without starting anew at a new version"              // R4b
	MistakeKeepaliveOnly     Mistake = "renew by keepalive only"                                  // R1, A7
	MistakeUnknownDone       Mistake = "unknown taken for done"                                   // R3
	MistakeUnknownLost       Mistake = "unknown taken for lost"                                   // R3, L4
	MistakeRefusedLost       Mistake = "refused renewal taken for lost without a read"            // R2, L4
	MistakeNoGuard           Mistake = "no guard: no deadline"                                    // R7, A1
	MistakeNameOnly          Mistake = "identity is the name only"                                // A15
	MistakeLowerTTL          Mistake = "ttl lowered in one phase"                                 // R10, A16
	MistakeLSNOnly           Mistake = "election by LSN only"                                     // B9
	MistakeTrustTLI          Mistake = "timeline numbers are trusted"                             // B10
	MistakeDeleteFirst       Mistake = "leader of the replaced holder deleted before the take"    // R5 order
	MistakeDeleteAny         Mistake = "leader deleted unconditionally on release"                // R8 version
	MistakeDeleteByName      Mistake = "leader of a dead holder known by its name"                // R5 session
	MistakeAdoptLeader       Mistake = "an own leader key found by reading is adopted"            // R6, R11
	MistakeShortSession      Mistake = "session shorter than the record's ttl"                    // R1
	MistakeSessionNotRenewed Mistake = "the lease is renewed but not the session"                 // R1
	MistakeOrphan            Mistake = "an orphaned leader key is never removed"                  // R9, L1
	MistakeAbsentAtOnce      Mistake = "an absent record is taken at once"                        // R4d
	MistakeForgetIntent      Mistake = "the intent of a promotion is not looked at after a crash" // B10, D4
	MistakeNotAnnounced      Mistake = "a promotion is not announced before it is made"           // B10
	MistakeReleaseReopened   Mistake = "after a release was sent the old deadline is used"        // R8
	MistakeStartUnguarded    Mistake = "start without guard"                                      // R7, A17
	MistakeOrphans           Mistake = "orphan backends ignored"                                  // R8, A4
	MistakeLeftovers         Mistake = "a new guard leaves what the last one left"                // A4, A5
	MistakeNoKernelTimer     Mistake = "no kernel timer"                                          // A2
	MistakeNoDeathSignal     Mistake = "no death signal"                                          // A2
	MistakeNoSignal          Mistake = "no standby.signal at rest"                                // A17
	MistakeNoVotes           Mistake = "take without votes"                                       // R13
	MistakePromiseForgotten  Mistake = "a promise is not persisted"                               // R14
	MistakeVoteForgotten     Mistake = "a vote does not bind"                                     // R13
	MistakeQuorumOff         Mistake = "one promise too few"                                      // R12
	MistakeListOnePhase      Mistake = "the list is changed in one phase"                         // R12
)

func (w *World) broken(m Mistake) bool { return w.opt.Mistake == m }

// arrived is when a reply is said to have arrived.
func (a *agent) arrived(now time.Duration) time.Duration {
	switch {
	case a.w.broken(MistakeNoWait):
		return now - time.Hour
	case a.w.broken(MistakeNoReset):
		return a.seen.holder
	default:
		return now
	}
}

// forLease is the snapshot as the lease protocol sees it.
func (a *agent) forLease(snap dcs.Snapshot) dcs.Snapshot {
	if !a.w.broken(MistakeDeleteByName) {
		return snap
	}
	lease, _ := snap.Item(dcs.KeyLease)
	rec, err := a.w.parse(lease)
	items := slices.Clone(snap.Items)
	for i := range items {
		if items[i].Key == dcs.KeyLeader && err == nil && string(items[i].Value) == rec.Holder {
			items[i].Session = rec.Session
		}
	}
	return dcs.Snapshot{Items: items}
}

// alter changes a lease step before it is sent.
func (a *agent) alter(step *dcs.Step) {
	a.trueSent = step.Sent
	switch {
	case a.w.broken(MistakeLongDeadline):
		step.Sent += dcs.Validity(a.ttl()) / 4
	case a.w.broken(MistakeAdoptLeader):
		a.adopt(step)
	case a.w.broken(MistakeDeleteAny) && stepRecord(*step).State == dcs.Released:
		a.deleteAny(step)
	}
}

// adopt leaves out the put of `leader` when the key that was read carries the own name.
func (a *agent) adopt(step *dcs.Step) {
	it, ok := a.snap.Item(dcs.KeyLeader)
	if !ok || string(it.Value) != a.n.name {
		return
	}
	for i, op := range step.Txn.Then {
		if op.Key == dcs.KeyLeader && !op.Delete {
			step.Txn.Then = append(step.Txn.Then[:i:i], step.Txn.Then[i+1:]...)
			return
		}
	}
}

// deleteAny deletes `leader` without a condition, in a request of its own that may be late.
func (a *agent) deleteAny(step *dcs.Step) {
	step.Txn.If, step.Txn.Then = step.Txn.If[:1], step.Txn.Then[:1]
	a.n.request(&a.process, a.callLimit(), func() reply {
		_, err := a.w.store.commit(a.n, dcs.Txn{Then: []dcs.Op{dcs.Delete(dcs.KeyLeader)}})
		return reply{err: err}
	}, func(reply) {})
}

// removeEarly deletes the holder's `leader` while the node still waits for the record's ttl to pass.
func (a *agent) removeEarly() {
	it, ok := a.snap.Item(dcs.KeyLeader)
	rec, since, held, _ := a.lease.Record()
	if !ok || !held || string(it.Value) != rec.Holder || rec.Holder == a.n.name ||
		a.n.clock()-since < time.Duration(rec.TTL)/2 {
		return
	}
	a.n.request(&a.process, a.callLimit(), func() reply {
		_, err := a.w.store.commit(nil, dcs.Txn{
			If:   []dcs.Cond{{Key: dcs.KeyLeader, Version: it.Version}},
			Then: []dcs.Op{dcs.Delete(dcs.KeyLeader)},
		})
		return reply{err: err}
	}, func(reply) {})
}

// distort changes how a lease step is said to have ended.
func (a *agent) distort(step *dcs.Step, on *sentStep, r reply) reply {
	if r.err == nil {
		a.w.confirmed(on)
	}
	held := on.record.State == dcs.Held
	switch {
	case a.w.broken(MistakeLateDeadline) && r.err == nil:
		step.Sent = a.n.clock()
	case a.w.broken(MistakeAdoptLeader) && r.err == nil && held && r.result.Versions[dcs.KeyLeader] == 0:
		it, _ := a.snap.Item(dcs.KeyLeader)
		r.result.Versions[dcs.KeyLeader] = it.Version
	case a.w.broken(MistakeUnknownDone) && errors.Is(r.err, dcs.ErrUnknown) && held:
		a.w.logf(a.n, "mistake: unknown is taken for done")
		return reply{result: dcs.Result{Versions: map[string]dcs.Version{
			dcs.KeyLease: a.w.store.item(dcs.KeyLease).Version, dcs.KeyLeader: a.w.store.item(dcs.KeyLeader).Version,
		}}}
	case a.w.broken(MistakeUnknownLost) && errors.Is(r.err, dcs.ErrUnknown) && held && a.guard.open,
		a.w.broken(MistakeRefusedLost) && errors.Is(r.err, dcs.ErrConflict) && held && a.guard.open:
		a.w.checkFence(a, "mistake")
		a.guard.fence("mistake", a.guard.quitAt(), nil)
	}
	return r
}

// releaseBeforeFence sends the release while PostgreSQL is still on its way down.
func (a *agent) releaseBeforeFence(act policy.Fence, done func(error)) {
	g := a.guard
	a.lease.Close()
	step, err := a.lease.Release(dcs.ProofEmpty, nil)
	g.stopping = true
	a.run(policy.TaskFence, "", func(end func(error, bool)) {
		a.atGuard(end, func() { g.fence(act.Why, g.quitAt(), func() { end(nil, false) }) })
	})
	if err != nil {
		done(nil)
		return
	}
	a.send(step, nil, func(error) { done(nil) })
}

// afterReleaseSent starts PostgreSQL again under the old deadline although a release was sent.
func (w *World) afterReleaseSent(a *agent) {
	g := a.guard
	if !w.broken(MistakeReleaseReopened) || g.dead || g.open || g.epoch == 0 || a.n.clock() >= g.deadline {
		return
	}
	g.open = true
	g.arm()
	a.n.pgStart(start{parent: g, primary: true, epoch: g.epoch}, func(error) {})
}

// judge asks the policy, or a policy with a mistake in it.
func (a *agent) judge(v policy.View) policy.Decision {
	switch {
	case a.w.broken(MistakeDeleteFirst):
		a.removeEarly()
	case a.w.broken(MistakeTrustTLI):
		v = trustNumbers(v)
	case a.w.broken(MistakeLSNOnly):
		v = lsnOnly(v)
	}
	d := a.w.opt.Decide(v, policy.Config{Dynamic: v.Cluster.Config.Dynamic})
	if a.w.broken(MistakeNotAnnounced) && len(d.Actions) == 1 {
		if r, ok := d.Actions[0].(policy.Renew); ok && r.Announce.ID != "" {
			d.Actions = []policy.Action{policy.Promote{Promotion: r.Announce}}
		}
	}
	return d
}

// trustNumbers takes the identities of the promotions that WAL came along out of a view; the record keeps its own.
func trustNumbers(v policy.View) policy.View {
	v.Server.Branch.Promotions, v.Line.Branch.Promotions = nil, nil
	v.Peers = slices.Clone(v.Peers)
	for i := range v.Peers {
		v.Peers[i].Promotions = nil
	}
	return v
}

// lsnOnly makes every branch look like one timeline, so that only positions are left to compare.
func lsnOnly(v policy.View) policy.View {
	v = trustNumbers(v)
	flat := func(p *wal.Position, h *wal.History) {
		if p.Timeline != 0 {
			p.Timeline, *h = 1, wal.History{Tip: 1}
		}
	}
	var none wal.History
	flat(&v.Server.Branch.End, &v.Server.Branch.History)
	flat(&v.Line.Branch.End, &v.Line.Branch.History)
	flat(&v.Lease.Note.End, &none)
	for i := range v.Peers {
		flat(&v.Peers[i].End, &v.Peers[i].History)
	}
	v.Cluster.History.Lines = nil
	// The announcement stays, without the number and the place that a candidate would be judged by.
	v.Lease.Note.Promotions = nil
	v.Lease.Note.Promotion.Timeline, v.Lease.Note.Promotion.LSN = 0, 0
	return v
}
