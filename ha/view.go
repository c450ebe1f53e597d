package ha

import (
	"slices"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres"
)

// view puts it all into the policy's words.
func (n *Node) view() policy.View {
	now := n.clock.Now()
	v := policy.View{
		Now: now,
		Self: policy.Self{
			Name: n.cfg.Name, Session: n.sessionID(), Tags: n.cfg.Tags, Bootstrap: !n.cfg.NoBootstrap, BootstrapFailed: n.noBootstrap,
			CanRewind: n.settings.UseRewind && (n.server.Control.DataChecksums || n.server.Control.WALLogHints),
			Unfit:     n.unfit(), Unfenced: n.unfenced(),
			FencePause: dcs.FenceHeadStart(n.leaseTTL()),
		},
		Store:    policy.Store{Known: n.known, Failed: n.readErr != nil, Silent: now - n.readSent},
		Cluster:  n.cluster,
		Lease:    n.leaseView(now),
		Server:   n.serverView(now),
		Line:     n.lineView(now),
		Failsafe: n.failsafeView(now),
		Peers:    n.peersView(now),
		Last:     n.lastView(now),
		Stop:     n.stopping,
	}
	n.wishesView(&v)
	if n.stopping {
		v.StopFor = now - n.stopAt
	}
	if n.cluster.Failover.Requested() {
		v.RequestedFor = now - n.requestAt
	}
	v.Cluster.Config.Dynamic = n.dynamic
	if n.task != nil {
		v.Task = policy.Task{Kind: n.task.kind, Member: n.task.member, For: now - n.task.since}
	}
	if at := n.cluster.Failover.ScheduledAt; !at.IsZero() {
		v.ScheduledIn = time.Until(at)
	}
	return v
}

func (n *Node) leaseView(now time.Duration) policy.Lease {
	l := n.lease
	epoch, open := l.Open()
	session := n.sessionID()
	v := policy.Lease{Open: open, Epoch: epoch, Unreleased: l.Unreleased(), Orphan: l.Orphan(session)}
	if open {
		// The guard may have shortened the deadline by itself, when the wall clock jumped.
		v.Left, v.Renewed = min(l.Deadline(), n.guardState.Deadline)-now, now-l.Renewed()
		v.RenewEvery = dcs.RenewEvery(n.dynamic.TTL, n.dynamic.LoopWait)
	}
	switch l.Standing(session) {
	case dcs.StandingMine:
		v.Verdict = policy.VerdictMine
	case dcs.StandingLost:
		v.Verdict = policy.VerdictLost
	case dcs.StandingForeign:
		v.Verdict = policy.VerdictLeaderForeign
	}
	if r, since, ok, _ := l.Record(); ok {
		v.Present, v.Holder, v.Held = true, r.Holder, r.State == dcs.Held
		v.TTL, v.SeenFor = time.Duration(r.TTL), now-since
		v.Note, _ = n.note()
	}
	f := n.cluster.Failover
	l.TakeEndless(f.Err == nil && f.Candidate == n.cfg.Name && f.ScheduledAt.IsZero())
	t := l.Takeable(now, n.fresh())
	v.Takeable, v.TakeIn, v.TakeWhy, v.NeedVotes, v.TakeAlone = t.Allowed, t.In, t.Why, t.NeedVotes, t.Alone
	return v
}

// fresh says that the cluster is new in the sense of rule R4d: nobody initialised it, or we are about to.
func (n *Node) fresh() bool {
	i := n.cluster.Initialize
	return n.known && (!i.Present || (i.SystemID == "" && i.Session != "" && i.Session == n.sessionID()))
}

func (n *Node) sessionID() string {
	if n.session == nil {
		return ""
	}
	return n.session.ID()
}

func (n *Node) serverView(now time.Duration) policy.Server {
	s := n.server
	if n.guardErr == nil && !n.guardState.Postmaster.Running {
		s.Answered = false // an answer of a server that is gone
	}
	v := policy.Server{
		Process: n.process(), Answers: s.Answered, Starting: isStarting(s),
		Data: dataView(s.Data), Problem: s.DataErr, SystemID: s.Control.SystemID,
		Branch:       n.branch(),
		CleanStop:    s.Control.State == postgres.ControlShutDown || s.Control.State == postgres.ControlShutDownInRecovery,
		Upstream:     n.upstream(),
		Streaming:    s.Streaming,
		ReplayPaused: s.ReplayPaused,
		Crashes:      len(n.exits),
		Version:      s.Version, PendingRestart: len(s.PendingRestart) > 0, TooLow: s.TooLow,
		Due: n.state.Due, StartLimit: n.startLimit,
	}
	if n.guardState.Postmaster.Running {
		v.StartedAs = policy.RoleReplica
		if n.guardState.Postmaster.Primary {
			v.StartedAs = policy.RolePrimary
		}
	}
	switch s.Control.State {
	case postgres.ControlInProduction, postgres.ControlShutDown, postgres.ControlShuttingDown, postgres.ControlInCrashRecovery:
		v.WasPrimary = true
	}
	if s.Answered {
		v.Role = roleView(s.Role)
	}
	if n.down > 0 {
		v.DownFor = max(now-n.down, time.Millisecond)
	}
	return v
}

func (n *Node) process() policy.Process {
	switch {
	case n.guardErr != nil:
		return policy.ProcessUnknown
	case n.guardState.Postmaster.Running && n.guardState.Postmaster.Foreign && !n.guardState.Postmaster.Primary:
		return policy.ProcessForeign
	case n.guardState.Postmaster.Running:
		return policy.ProcessRunning
	case n.guardState.Orphans > 0:
		return policy.ProcessOrphans
	default:
		return policy.ProcessNone
	}
}

// branch is the local WAL as others compare it.
func (n *Node) branch() cluster.Branch {
	s := n.server
	b := cluster.Branch{Promotions: n.state.Promotions}
	if s.Answered {
		b.History, b.End = s.History, s.Position()
		return b
	}
	b.History = s.Control.TimelineHistory
	if in := n.state.Intent; in != nil && b.History.Tip > in.From.Timeline {
		// It was promoted and ended before this program saw it: the promotion is known all the same (hazard D4).
		begin, _ := b.History.Begin(b.History.Tip)
		b.Promotions = append(slices.Clone(b.Promotions), cluster.Promotion{Timeline: b.History.Tip, LSN: begin, ID: in.ID})
	}
	if n.guardState.Postmaster.Running {
		return b
	}
	b.End = n.walEnd
	if s.Control.BackupLabel && b.End.LSN == 0 {
		b.End = s.Control.Checkpoint // a fresh base backup: all of it is its source's
	}
	return b
}

func isStarting(s postgres.Status) bool { return !s.Answered && errorsIs(s.Err, postgres.ErrStarting) }

func dataView(d postgres.DataState) policy.Data {
	switch d {
	case postgres.DataEmpty:
		return policy.DataEmpty
	case postgres.DataReady:
		return policy.DataReady
	case postgres.DataInterrupted:
		return policy.DataInterrupted
	case postgres.DataInvalid:
		return policy.DataInvalid
	}
	return policy.DataUnknown
}

func roleView(r postgres.Role) policy.Role {
	switch r {
	case postgres.RolePrimary:
		return policy.RolePrimary
	case postgres.RoleReplica:
		return policy.RoleReplica
	}
	return policy.RoleUnknown
}
