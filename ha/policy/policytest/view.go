package policytest

import (
	"slices"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres/wal"
)

// view is what the agent sees at this instant.
func (a *agent) view() policy.View {
	n := a.n
	now := n.clock()
	v := policy.View{
		Now: now, Cluster: a.cluster, Stop: a.stop, StopFor: now - a.stopAt,
		Self: policy.Self{
			Name: n.name, Session: a.session, Tags: n.tags, Bootstrap: n.bootstrap, CanRewind: n.canRewind,
			FencePause: dcs.FenceHeadStart(a.ttl()),
		},
		Store: policy.Store{Known: a.known, Failed: a.failed},
		Task:  a.task,
		Last:  a.last,
	}
	v.Self.Unfit = a.refused()
	if a.known {
		v.Store.Silent = now - a.readSent
	}
	if a.task.Kind != policy.TaskNone {
		v.Task.For = now - a.taskBegan
	}
	if v.Last.Kind != policy.TaskNone {
		v.Last.Ago = now - a.lastEnd
	}
	v.Server = a.server(now)
	v.Restart, v.Reinit, v.Scheduled = a.restart, a.reinit, a.scheduledView()
	v.Lease = a.leaseView(now)
	v.Line = a.lineView(now)
	v.Failsafe = a.failsafeView(now)
	v.Peers = a.peerView(now)
	if at := a.cluster.Failover.ScheduledAt; !at.IsZero() {
		v.ScheduledIn = at.Sub(wallClock(a.w.now))
	}
	return v
}

// lineView adds the identities of the line's promotions, which stand in the lease record when the member is the holder.
func (a *agent) lineView(now time.Duration) policy.Line {
	v := a.line
	if v.Member == "" {
		return v
	}
	v.Age = now - a.lineAt
	if r, _, ok, _ := a.lease.Record(); ok && r.Holder == v.Member {
		v.Branch.Promotions = a.w.decodeNote(r.Note).Line()
	}
	return v
}

// wallClock is the model's date, the same for everybody.
func wallClock(t time.Duration) time.Time { return time.Unix(1_800_000_000, 0).UTC().Add(t) }

func (a *agent) ttl() time.Duration { return a.dynamic.TTL }

// sessionTTL is never shorter than the record's ttl: raising comes before the record, lowering after it (lease rule R1).
func (a *agent) sessionTTL() time.Duration {
	ttl := a.ttl()
	if r, _, ok, _ := a.lease.Record(); ok && r.State == dcs.Held && r.Holder == a.n.name {
		ttl = max(ttl, time.Duration(r.TTL))
	}
	if a.w.broken(MistakeShortSession) {
		ttl /= 2
	}
	return ttl
}

func (a *agent) leaseView(now time.Duration) policy.Lease {
	l := a.lease
	r, since, ok, _ := l.Record()
	out := policy.Lease{
		Open: a.guard.open, Epoch: a.guard.epoch, Unreleased: l.Unreleased(), Orphan: l.Orphan(a.session),
		Present: ok, Holder: r.Holder, Held: ok && r.State == dcs.Held,
		SeenFor: now - since, TTL: time.Duration(r.TTL),
	}
	if ok {
		out.Note = a.w.decodeNote(r.Note)
	}
	switch l.Standing(a.session) {
	case dcs.StandingMine:
		out.Verdict = policy.VerdictMine
	case dcs.StandingLost:
		out.Verdict = policy.VerdictLost
	case dcs.StandingForeign:
		out.Verdict = policy.VerdictLeaderForeign
	}
	if out.Open {
		out.Left = a.guard.deadline - now
		if a.guard.endless {
			out.Left = l.Deadline() - now
		}
		out.Renewed = now - l.Renewed()
		out.RenewEvery = dcs.RenewEvery(a.ttl(), a.loopWait())
	}
	f := a.cluster.Failover
	l.TakeEndless(f.Err == nil && f.Candidate == a.n.name && f.ScheduledAt.IsZero())
	t := l.Takeable(now, a.fresh())
	out.Takeable, out.TakeIn, out.TakeWhy, out.NeedVotes, out.TakeAlone = t.Allowed, t.In, t.Why, t.NeedVotes, t.Alone
	return out
}

// fresh says that the cluster is new: nobody but this process claims to have initialised it (lease rule R4d).
func (a *agent) fresh() bool {
	if a.w.broken(MistakeAbsentAtOnce) {
		return true
	}
	it, ok := a.snap.Item(cluster.KeyInitialize)
	return a.known && (!ok || it.Session != "" && it.Session == a.session)
}

// server is the node's own PostgreSQL as its observers see it.
func (a *agent) server(now time.Duration) policy.Server {
	n := a.n
	s := policy.Server{
		Data: n.disk.data, WasPrimary: n.disk.wasPrimary, CleanStop: n.disk.clean, Upstream: n.pg.upstream,
		Streaming: n.pg.streaming,
	}
	if n.disk.tip != nil && n.disk.data == policy.DataReady {
		s.SystemID = n.disk.tip.branch.sysid
		s.Branch = n.branch()
	}
	n.due = n.due && n.pg.state != pgRunning
	s.Due, s.PendingRestart, s.Version = n.due, n.pendingRestart, 150000
	if n.tooLow {
		s.TooLow, s.ReplayPaused = "max_connections is lower than the primary's", true
	}
	s.Process = a.postmaster()
	if s.Process == policy.ProcessRunning || s.Process == policy.ProcessUnknown && n.pg.state != pgStopped {
		s.StartedAs = policy.RoleReplica
		if n.pg.asPrimary {
			s.StartedAs = policy.RolePrimary
		}
	}
	switch n.pg.state {
	case pgStarting:
		s.Starting = true
	case pgRunning:
		if n.pg.frozen > a.w.now {
			break
		}
		s.Answers, s.Role = true, policy.RoleReplica
		if n.pg.primary {
			s.Role = policy.RolePrimary
		}
	}
	if a.guard.open && !s.Answers {
		if a.downSince == 0 {
			a.downSince = now
		}
		s.DownFor = now - a.downSince
	} else {
		a.downSince = 0
	}
	a.crashes = slices.DeleteFunc(a.crashes, func(at time.Duration) bool { return now-at > 5*time.Minute })
	s.Crashes = len(a.crashes)
	return s
}

// postmaster is what the guard says of the postmaster, and what the data directory's lock file shows.
func (a *agent) postmaster() policy.Process {
	n := a.n
	switch {
	case a.silent:
		return policy.ProcessUnknown
	case n.pg.state != pgStopped && (n.pg.parent == a.guard || n.pg.primary || n.w.broken(MistakeStartUnguarded) && n.pg.asPrimary):
		return policy.ProcessRunning // a primary that the guard did not start is adopted
	case n.pg.state != pgStopped:
		return policy.ProcessForeign
	case a.guard.busy():
		return policy.ProcessOrphans
	}
	return policy.ProcessNone
}

// branch is the node's WAL as it can tell others about it.
func (n *Node) branch() cluster.Branch {
	b := cluster.Branch{History: n.disk.tip.branch.history, End: n.disk.tip.position()}
	if n.pg.state == pgStopped && !n.disk.clean && !n.disk.measured {
		b.End.LSN = 0 // not read yet
	}
	b.Promotions = n.disk.promotions
	if p, ok := n.disk.intended(); ok && !n.w.broken(MistakeForgetIntent) {
		b.Promotions = append(b.Promotions[:len(b.Promotions):len(b.Promotions)], p)
	}
	return b
}

// intended is the promotion that was ordered, when the WAL shows that it came about before anybody recorded it: a crash
// right after a promotion must not leave a timeline without an identity (hazards B10, D4).
func (d *disk) intended() (cluster.Promotion, bool) {
	in := d.intent
	if in == nil || d.tip.branch.tli == in.from.Timeline {
		return cluster.Promotion{}, false
	}
	return cluster.Promotion{Timeline: d.tip.branch.tli, LSN: d.tip.branch.start, ID: in.id}, true
}

// settleIntent resolves an intent before the server streams from another: whatever comes then is not its doing.
func (d *disk) settleIntent(forget bool) {
	if p, ok := d.intended(); ok && !forget {
		d.learn(p)
	}
	d.intent = nil
}

// peerView is one Peer for every other member, with the last answer, if any.
func (a *agent) peerView(now time.Duration) []policy.Peer {
	var out []policy.Peer
	members := a.cluster.Known(a.dynamic.FailsafeMode)
	for i := range members {
		m := &members[i]
		if m.Name == a.n.name {
			continue
		}
		p := policy.Peer{Name: m.Name, Tags: m.Tags, Patroni: m.Pgregent == "", Voteless: m.NoVote}
		for _, got := range a.answers {
			if got.peer.Name == m.Name {
				p = got.peer
				p.Age = now - got.sent
			}
		}
		out = append(out, p)
	}
	return out
}

// refused says that pre_promote refused less than a ttl ago.
func (a *agent) refused() string {
	if a.last.Kind != policy.TaskPromote || !a.last.Impossible || a.n.clock()-a.lastEnd >= a.ttl() {
		return ""
	}
	return a.last.Failed
}

// answer is what a peer said last.
type answer struct {
	peer policy.Peer
	sent time.Duration
}

// remember keeps a peer's last answer.
func (a *agent) remember(got answer) {
	for i := range a.answers {
		if a.answers[i].peer.Name == got.peer.Name {
			a.answers[i] = got
			return
		}
	}
	a.answers = append(a.answers, got)
}

// askPeers asks every other member over HTTP, and looks again when all have answered or the deadline has passed.
func (a *agent) askPeers() {
	if a.asking {
		return
	}
	a.asking = true
	sent := a.n.clock()
	left := 0
	var got []answer
	members := a.cluster.Known(a.dynamic.FailsafeMode)
	for i := range members {
		if members[i].Name != a.n.name {
			left++
		}
	}
	end := func() {
		a.asking = false
		for _, g := range got {
			a.remember(g)
		}
		a.wake()
	}
	if left == 0 {
		a.post(0, end)
		return
	}
	for i := range members {
		m := &members[i]
		if m.Name == a.n.name {
			continue
		}
		p := policy.Peer{Tags: m.Tags, Patroni: m.Pgregent == "", Voteless: m.NoVote}
		to := a.w.nodeOf(m.Name)
		name := m.Name
		a.n.ask(&a.process, to, func() bool {
			ok := to.answer(&p)
			p.Patroni = to.isPatroni
			p.Connected = ok && p.InRecovery && p.Running && to.pg.upstream == a.n.name
			return ok
		}, func(ok bool) {
			p.Name, p.Asked, p.Answered = name, true, ok
			got = append(got, answer{p, sent})
			if left--; left == 0 {
				end()
			}
		})
	}
}

// answer is GET of a member's api_url.
func (n *Node) answer(p *policy.Peer) bool {
	if !n.agentAlive() || n.w.now < n.proc().frozen {
		return false
	}
	p.Running = n.pg.state == pgRunning && n.pg.frozen <= n.w.now
	p.InRecovery = !n.pg.primary
	p.Tags = n.tags
	p.Unfit = n.agent != nil && n.agent.refused() != ""
	if n.disk.tip != nil && n.disk.data == policy.DataReady {
		b := n.branch()
		p.End, p.History, p.Promotions = b.End, b.History, b.Promotions
	}
	if n.agent == nil {
		p.History, p.Promotions = wal.History{}, nil
	} else if n.agent.known {
		p.StoreAge = n.clock() - n.agent.readSent
	}
	return true
}

// probe asks the leader over the replication protocol for its own account of its WAL.
func (a *agent) probe(member string) {
	if a.probing {
		return
	}
	a.probing = true
	sent := a.n.clock()
	line := policy.Line{Member: member}
	to := a.w.nodeOf(member)
	a.n.ask(&a.process, to, func() bool {
		if !to.accepts() {
			return false
		}
		line.SystemID, line.Replica, line.Branch = to.disk.tip.branch.sysid, !to.pg.primary, to.branch()
		line.Branch.Promotions = nil
		return true
	}, func(ok bool) {
		a.probing = false
		line.Known = ok
		if !ok {
			line.Problem = "no connection to " + member
		}
		a.line, a.lineAt = line, sent
		a.wake()
	})
}
