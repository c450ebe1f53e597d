package policytest

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
)

// voterDisk is the voter's memory on the node's disk (rule R14); it survives everything but the disk.
type voterDisk struct {
	saved bool
	state dcs.VoterState
}

// failsafe is an agent's part in failsafe mode (rules R12 to R14).
type failsafe struct {
	voter   *dcs.Voter
	answers time.Duration // since when the store answers
	taking  bool          // a take is under way: POST /failsafe is refused (R13)

	round   *dcs.Round
	asking  bool
	enough  bool
	asked   time.Duration
	voting  bool
	voted   time.Duration
	polled  dcs.Version // the version that refused is about, plus one
	refused []policy.Refusal
}

func (n *Node) bootID() string { return n.host + "#" + strconv.Itoa(n.boots) }

// startVoter loads what the disk remembers. The model counts a promise of an earlier boot from now, which is later than
// from the boot.
func (a *agent) startVoter() {
	n := a.n
	if !n.voter.saved {
		a.fs.voter = dcs.NewVoter(n.bootID())
		return
	}
	now := n.clock()
	a.fs.voter = dcs.LoadVoter(n.voter.state, n.bootID(), now, now)
	a.saveVoter()
}

// saveVoter makes the voter's memory durable, before anything is answered.
func (a *agent) saveVoter() { a.n.voter = voterDisk{true, a.fs.voter.State()} }

// observeFailsafe takes in what the store says about failsafe mode.
func (a *agent) observeFailsafe(now time.Duration) {
	on := a.dynamic.FailsafeMode
	a.lease.SetFailsafe(on && !a.w.broken(MistakeNoVotes), now)
	if len(a.cluster.Failsafe.Members) > 0 {
		a.lease.KnowMembers(slices.Sorted(maps.Keys(a.cluster.Failsafe.Members)))
	}
	r, _, ok, _ := a.lease.Record()
	if ok && !r.List().Has(a.n.name) && a.fs.voter.Join(r.Stamp()) {
		a.saveVoter()
	}
	if a.n.guard.open && (on || len(r.Members) > 0) {
		members, unanimous := policy.FailsafeList(a.cluster, a.dynamic, policy.ListHolder{
			Self: a.n.name, Voteless: !a.fs.voter.Joined(), List: r.Members, All: r.Unanimous, Answering: now - a.fs.answers,
		})
		a.lease.WantMembers(dcs.List{Members: members, Unanimous: unanimous})
	}
}

// failsafeKey is the copy of the list for Patroni members, to go with the renewal that changes it.
func (a *agent) failsafeKey(step dcs.Step) []dcs.Op {
	if !a.dynamic.FailsafeMode {
		return nil
	}
	urls := policy.FailsafeURLs(a.cluster, step.Members(), a.n.name, "http://"+a.n.host+":8008/patroni")
	value := cluster.EncodeFailsafe(urls)
	if it, ok := a.snap.Item(cluster.KeyFailsafe); ok && string(it.Value) == string(value) {
		return nil
	}
	return []dcs.Op{dcs.Put(cluster.KeyFailsafe, value)}
}

// failsafeView is what the policy sees.
func (a *agent) failsafeView(now time.Duration) policy.Failsafe {
	r, _, _, _ := a.lease.Record()
	fs := &a.fs
	v := policy.Failsafe{
		List: r.Members, Asking: fs.asking, Asked: now - fs.asked, Voting: fs.voting, Voted: now - fs.voted,
		Refused: fs.refused, Voteless: !fs.voter.Joined() && a.dynamic.FailsafeMode,
		Unsettled: a.n.guard.open && !a.lease.ListSettled(),
	}
	if b, needed := a.lease.Ballot(a.fresh()); needed {
		v.Ballot = b.Members
		v.Polled = fs.polled == b.Version+1
	}
	if !v.Polled {
		v.Refused = nil
	}
	if fs.round != nil && fs.round.Sent > a.lease.Renewed() {
		v.Yes, v.No, v.Need = fs.round.Yes(), fs.round.No(), r.List().Promises()
		v.Enough = fs.enough
	}
	v.PromisedTo, v.PromisedFor = fs.voter.Promised(now)
	v.Accepted = fs.voter.Accepted(now)
	return v
}

// call sends a question that another node's process answers, late when that one is frozen; done runs once, at the latest
// after limit on the caller's clock.
func (n *Node) call(p *process, to *Node, limit time.Duration, answer func(), done func(ok bool)) {
	w := n.w
	over := false
	end := func(ok bool) {
		if !over {
			over = true
			done(ok)
		}
	}
	p.post(n.real(limit), func() { end(false) })
	if to == nil || !w.link(n, to) {
		return
	}
	w.after(w.trip(), func() {
		if !w.link(n, to) || !to.agentAlive() {
			return
		}
		to.proc().run(func() {
			answer()
			if w.link(n, to) && !w.chance(w.opt.Net.LoseReply) {
				p.post(w.trip(), func() { end(true) })
			}
		})
	})
}

// askPromises asks the failsafe list (R12). The deadline moves as soon as there are enough.
func (a *agent) askPromises() {
	n, fs := a.n, &a.fs
	sent := n.clock()
	r, err := a.lease.Round(sent, a.ttl())
	if fs.asking || err != nil {
		return
	}
	epoch := n.guard.epoch
	fs.round, fs.asked, fs.asking = r, sent, true
	a.fakePromise(r)
	settle := func() {
		a.fakeLists(r)
		if deadline := a.lease.SettleRound(r); deadline != 0 {
			fs.enough = true
			rec, _, _, _ := a.lease.Record()
			n.guard.extend(epoch, deadline, time.Duration(rec.TTL), rec.Endless)
			a.w.lengthened(n, epoch, deadline)
			a.wake()
		}
	}
	left := len(r.Members)
	end := func() {
		if left--; left <= 0 {
			fs.asking = false
			fs.enough = fs.enough && r.Enough()
			a.wake()
		}
	}
	if settle(); left == 0 {
		end()
		return
	}
	limit := min(peerTimeout, max(n.guard.deadline-dcs.FenceHeadStart(n.guard.ttl)-sent, time.Millisecond))
	for _, m := range r.Members {
		to := a.w.nodeOf(m)
		var yes bool
		n.call(&a.process, to, limit, func() { yes = to.promise(n, r.Request) }, func(ok bool) {
			switch {
			case ok && yes && to.isPatroni:
				r.Accepted(m)
			case ok && yes:
				r.Promised(m)
			}
			settle()
			end()
		})
	}
}

// promise is POST /pgregent/promise, or POST /failsafe of a Patroni member.
func (n *Node) promise(from *Node, q dcs.PromiseRequest) bool {
	if n.patroni != nil {
		return n.patroni.accept(from.name)
	}
	a := n.agent
	if !a.dynamic.FailsafeMode {
		return false
	}
	got := a.fs.voter.Promise(n.clock(), !n.guard.open && !n.pg.asPrimary, q)
	if got.Yes {
		if !a.w.broken(MistakePromiseForgotten) {
			a.saveVoter()
		}
	}
	return got.Yes
}

// accept is POST /failsafe: a Patroni leader asks.
func (a *agent) accept(leader string) bool {
	if !a.dynamic.FailsafeMode || a.fs.taking || a.n.pg.primary && a.n.pg.state == pgRunning {
		return false
	}
	got := a.fs.voter.Accept(a.n.clock(), !a.n.guard.open, leader, a.ttl())
	if got.Yes {
		a.saveVoter()
	}
	return got.Yes
}

// askVotes asks the failsafe list for votes, this node first (R13).
func (a *agent) askVotes() {
	n, fs := a.n, &a.fs
	b, needed := a.lease.Ballot(a.fresh())
	if fs.voting || !needed {
		return
	}
	fs.voting, fs.voted = true, n.clock()
	var refused []policy.Refusal
	left := len(b.Members)
	end := func() {
		if left--; left > 0 {
			return
		}
		slices.SortFunc(refused, func(x, y policy.Refusal) int {
			if x.Member < y.Member {
				return -1
			}
			return 1
		})
		fs.voting, fs.refused, fs.polled = false, refused, b.Version+1
		a.wake()
	}
	got := func(m string, ans dcs.VoterAnswer) {
		a.lease.KnowEpoch(ans.Known.Epoch)
		if !ans.Yes {
			refused = append(refused, policy.Refusal{Member: m, Why: ans.Why})
		} else if a.lease.Voted(b.Version, m); a.lease.Takeable(n.clock(), a.fresh()).Allowed {
			a.wake()
		}
	}
	for _, m := range b.Members {
		if m == n.name {
			got(m, a.vote(b.Request))
			a.post(0, end)
			continue
		}
		to := a.w.nodeOf(m)
		var ans dcs.VoterAnswer
		n.call(&a.process, to, peerTimeout, func() {
			if to.agent == nil {
				ans.Why = "it is a Patroni member"
				return
			}
			ans = to.agent.vote(b.Request)
		}, func(ok bool) {
			if !ok {
				ans = dcs.VoterAnswer{Why: "it does not answer"}
			}
			got(m, ans)
			end()
		})
	}
	if len(b.Members) == 0 {
		a.post(0, end)
	}
}

// vote is POST /pgregent/vote.
func (a *agent) vote(q dcs.VoteRequest) dcs.VoterAnswer {
	before := a.fs.voter.State()
	now := a.n.clock()
	got := a.fs.voter.Vote(now, !a.n.guard.open, q)
	switch {
	case got.Yes && a.w.broken(MistakeVoteForgotten):
		a.fs.voter = dcs.LoadVoter(before, before.Boot, 0, now)
	case got.Yes:
		a.saveVoter()
	}
	return got
}

// fakePromise is the quorum off by one: one promise that nobody gave.
func (a *agent) fakePromise(r *dcs.Round) {
	if a.w.broken(MistakeQuorumOff) && len(r.Members) > 0 {
		r.Promised(r.Members[0])
	}
}

// fakeLists is a list changed in one phase: as long as no answer came, the old one alone counts.
func (a *agent) fakeLists(r *dcs.Round) {
	if !a.w.broken(MistakeListOnePhase) || a.lease.ListSettled() {
		return
	}
	rec, _, _, _ := a.lease.Record()
	yes := 0
	for _, m := range rec.Members {
		if slices.Contains(r.Yes(), m) {
			yes++
		}
	}
	if yes >= rec.List().Promises() {
		for _, m := range r.Members {
			r.Promised(m)
		}
	}
}

// lengthened notes that promises allow a node to go on.
func (w *World) lengthened(n *Node, epoch uint64, until time.Duration) {
	if n.believed.epoch == epoch {
		n.believed.until = max(n.believed.until, until)
		n.believed.promised = true
	}
}

// beyondRules: a Patroni member forgets with its process that it accepted a leader without the store, and a holder cannot
// learn that a listed member runs Patroni now. One that started since shortly before the holder last wrote may take
// `leader` while promises keep the holder, and so may one whose request for the key was under way for long; no rule on our
// side can prevent that.
func (n *Node) beyondRules(other *Node) bool {
	return n.believed.promised && (n.w.opt.Net.Late > 0 || other.patroniAt > n.believed.renewed-20*time.Second)
}
