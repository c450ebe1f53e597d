package ha

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres"
)

// look gathers what the policy may know: it reads the store, and takes the last answers of everything else.
func (n *Node) look(ctx context.Context) policy.View {
	asked := n.clock.Now()
	n.observer.kick()
	n.readGuard(ctx) // first: a guard that is gone is replaced without waiting for the store
	n.readStore(ctx)
	var begun time.Duration
	n.server, begun = n.observer.latest(ctx, asked)
	n.settle(begun)
	n.tellVoter()
	n.findForeign(ctx)
	n.noteDown()
	n.learn()
	return n.view()
}

// callLimit is how long one store call may take: what is left until the fence begins, cut so that three endpoints can be
// tried (lease rule R1), and never more than retry_timeout.
func (n *Node) callLimit() time.Duration {
	limit := n.dynamic.RetryTimeout
	if _, open := n.lease.Open(); open && !n.dynamic.Pause {
		left := n.lease.Deadline() - dcs.FenceHeadStart(n.leaseTTL()) - n.clock.Now()
		if r, _, ok, _ := n.lease.Record(); ok && len(r.Members) > 0 && n.dynamic.FailsafeMode {
			// Time must be left to ask for promises when this call gets no answer (R12).
			left = max(left-askLimit, left/2)
			if n.readErr != nil {
				limit = min(limit, time.Second)
			}
		}
		return min(limit, left)
	}
	if n.readErr != nil {
		limit = min(limit, time.Second) // the store is silent: the loop has other things to do meanwhile
	}
	return limit
}

func (n *Node) leaseTTL() time.Duration {
	if r, _, ok, _ := n.lease.Record(); ok && r.TTL > 0 {
		return time.Duration(r.TTL)
	}
	return n.dynamic.TTL
}

// readStore reads everything below the prefix. A failed read leaves the last cluster in place and is remembered.
func (n *Node) readStore(ctx context.Context) {
	limit := n.callLimit()
	if limit <= 0 {
		n.readErr = context.DeadlineExceeded
		return
	}
	sent := n.clock.Now()
	call, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	snap, err := n.store.Read(call)
	if err != nil {
		if n.readErr == nil && ctx.Err() == nil {
			n.log.Warn("the store does not answer", "error", err)
		}
		n.readErr = err
		return
	}
	if n.readErr != nil {
		n.log.Info("the store answers again")
	}
	if n.readErr != nil || !n.known {
		n.fs.answers = sent
	}
	n.readErr, n.known, n.readSent, n.readWall = nil, true, sent, time.Now()
	n.snap = snap
	n.lease.Observe(snap, n.clock.Now())
	n.decode(snap)
	n.observeFailsafe()
}

// Decode reads the shared records out of what a store's Read returned.
func Decode(snap dcs.Snapshot) cluster.Cluster {
	items := make([]cluster.Item, len(snap.Items))
	for i, it := range snap.Items {
		items[i] = cluster.Item{Key: it.Key, Value: it.Value, Version: uint64(it.Version), Session: it.Session}
	}
	return cluster.Decode(items)
}

func (n *Node) decode(snap dcs.Snapshot) {
	before := n.cluster
	n.cluster = Decode(snap)
	if before.Failover.Version != n.cluster.Failover.Version {
		n.requestAt = n.clock.Now()
	}
	if before.Leader.Version != n.cluster.Leader.Version || before.Failover.Version != n.cluster.Failover.Version {
		n.asked = 0
		clear(n.answers) // what the members said before the leader went, or before the request, decides nothing
	}
	c := n.cluster.Config
	if !c.Present || c.Err != nil {
		return // the configuration in force stays (reference section 1.3)
	}
	if !sameDynamic(c.Dynamic, n.dynamic) {
		for _, w := range c.Dynamic.Warnings {
			n.log.Warn("dynamic configuration", "warning", w)
		}
		n.dynamic = c.Dynamic
		n.ttl.Store(int64(n.dynamic.TTL))
		n.lease.KnowTTL(n.dynamic.TTL)
		n.settings = mergeSettings(n.cfg.Local, n.dynamic.PostgreSQL)
	}
}

// readGuard asks the guard, over a socket on this host. A guard that is gone is replaced: it is a new identity, and its
// PostgreSQL went with it.
func (n *Node) readGuard(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if n.guardErr != nil && n.cfg.Guard == nil {
		g, err := fence.Open(call, n.fenceConfig())
		if err == nil {
			_ = n.guard().Close()
			n.held.Store(&guardRef{g})
			go n.guardEvents(ctx, g)
		}
	}
	st, err := n.guard().State(call)
	n.guardErr = err
	if err != nil {
		return
	}
	fresh := st.Nonce != n.guardState.Nonce
	if fresh || !slices.Equal(st.Rungs, n.guardState.Rungs) || st.Problem != n.guardState.Problem {
		n.sayFence(st)
	}
	n.guardState = st
	if fresh {
		n.newLease(st)
		n.lease.Observe(n.snap, n.clock.Now())
		n.lease.SetFailsafe(n.dynamic.FailsafeMode, n.clock.Now())
	}
	if epoch, open := n.lease.Open(); open && (!st.Open || st.Epoch != epoch) {
		// The guard closed the epoch by itself: its deadline passed.
		n.lease.Close()
		if n.task != nil && (n.task.kind == policy.TaskDemote || n.task.kind == policy.TaskFence) {
			return // as it was told to
		}
		n.log.Warn("the guard has fenced PostgreSQL: the lease was not renewed before its deadline", "epoch", epoch)
	}
}

// findForeign looks for a postmaster in the data directory that our guard did not start, and puts the guard in charge.
func (n *Node) findForeign(ctx context.Context) {
	if n.guardErr != nil || n.guardState.Postmaster.Running || n.guardState.Orphans > 0 {
		return
	}
	if n.server.Control.PostmasterPIDNow == 0 && !n.server.Answered {
		return
	}
	dir := n.fenceConfig().Options.DataDir
	pid, ok := fence.FindPostmaster(dir)
	if dir == "" || !ok {
		return
	}
	call, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := n.guard().Adopt(call, pid); err != nil {
		n.log.Warn("a postmaster that the guard did not start could not be put under it", "pid", pid, "error", err)
		return
	}
	n.log.Warn("a postmaster that the guard did not start is under it now, as far as that goes", "pid", pid)
	n.readGuard(ctx)
}

// noteDown keeps since when PostgreSQL is not well while this node leads.
func (n *Node) noteDown() {
	_, open := n.lease.Open()
	well := n.guardState.Postmaster.Running && n.server.Answered
	switch {
	case !open || well:
		n.down = 0
	case n.down == 0:
		n.down = n.clock.Now()
	}
	old := n.clock.Now() - 5*time.Minute
	n.exits = slices.DeleteFunc(n.exits, func(at time.Duration) bool { return at < old })
}

// learn records what is newly known about the promotions that the local WAL has come along (hazard B10).
func (n *Node) learn() {
	s := n.server
	if s.Data == postgres.DataReady && s.Control.SystemID != "" && n.state.SystemID != s.Control.SystemID {
		n.state.SystemID, n.state.Promotions, n.state.Intent = s.Control.SystemID, nil, nil
		n.saveState()
	}
	if p := n.guardState.Postmaster; !s.Answered || s.Timeline == 0 || !p.Running || p.Foreign {
		return // nobody compared the WAL of a server that was started by hand with that of whom it is pointed at
	}
	switch s.Role {
	case postgres.RolePrimary:
		n.learnOwn()
	case postgres.RoleReplica:
		// A replica is pointed at a member only after their WAL was compared: on that member's timeline, it is on its
		// promotion, whether it is connected right now or not.
		note, ok := n.note()
		if ok && note.Promotion.Timeline == s.Timeline && n.streamsFrom(note.Promotion.Maker()) {
			if n.state.learn(note.Promotion) {
				n.saveState()
			}
		}
	}
}

// learnOwn completes a promotion that was begun: its timeline is known now.
func (n *Node) learnOwn() {
	in := n.state.Intent
	if in == nil || n.server.Timeline == in.From.Timeline {
		return
	}
	lsn := in.From.LSN
	for _, sw := range n.server.History.Switches {
		if sw.Timeline == in.From.Timeline {
			lsn = sw.LSN
		}
	}
	n.state.learn(cluster.Promotion{Timeline: n.server.Timeline, LSN: lsn, ID: in.ID})
	n.state.Intent = nil
	n.saveState()
}

func (n *Node) saveState() {
	if err := n.state.save(); err != nil {
		n.log.Error("the node's state cannot be saved", "error", err)
	}
}

// note is the note in the lease record.
func (n *Node) note() (cluster.Note, bool) {
	r, _, ok, _ := n.lease.Record()
	if !ok {
		return cluster.Note{}, false
	}
	note, err := cluster.ParseNote(r.Note)
	return note, err == nil
}

// streamsFrom says whether the server is pointed at the member.
func (n *Node) streamsFrom(member string) bool { return member != "" && n.upstream() == member }

// upstream is the member that the server is configured to stream from: "" none, "?" a host that is no member.
func (n *Node) upstream() string {
	host, port := connTarget(n.server)
	if host == "" {
		return ""
	}
	for _, m := range n.cluster.Members {
		h, p := m.HostPort()
		if h == host && p == port {
			return m.Name
		}
	}
	return "?"
}

// connTarget is host and port of primary_conninfo.
func connTarget(s postgres.Status) (host string, port int) {
	for _, f := range strings.Fields(s.ConnInfo) {
		k, v, _ := strings.Cut(f, "=")
		switch k {
		case "host":
			host = strings.Trim(v, "'")
		case "port":
			port = atoi(strings.Trim(v, "'"))
		}
	}
	if host != "" && port == 0 {
		port = 5432
	}
	return host, port
}

func atoi(s string) int {
	v := 0
	for _, r := range s {
		if r < '0' || r > '9' {
			return 0
		}
		v = v*10 + int(r-'0')
	}
	return v
}

// view puts it all into the policy's words.
func (n *Node) view() policy.View {
	now := n.clock.Now()
	v := policy.View{
		Now: now,
		Self: policy.Self{
			Name: n.cfg.Name, Session: n.sessionID(), Tags: n.cfg.Tags, Bootstrap: !n.cfg.NoBootstrap,
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

// unfit is why this node must not lead; empty: it may.
func (n *Node) unfit() string {
	why := slices.Clone(n.dynamic.Unsupported)
	if u := n.unfenced(); u != "" {
		why = append(why, u)
	}
	if w := n.cfg.Fence.Watchdog; w.Mode == fence.WatchdogRequired {
		if err := w.Usable(n.dynamic.TTL, n.dynamic.LoopWait); err != nil {
			why = append(why, "watchdog.mode is required: "+err.Error())
		}
	}
	return strings.Join(why, "; ")
}

// unfenced is why a primary must not run here at all.
func (n *Node) unfenced() string {
	if !n.cfg.FenceRequired || n.guardErr != nil || n.guardState.Bounded {
		return ""
	}
	return "fence is required, and the guard cannot promise that a primary ends by its deadline: " + cmp.Or(n.guardState.Problem, n.guardState.Guarantee)
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
