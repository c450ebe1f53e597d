package ha

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
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
	n.noteBack()
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
	if why := unusable(c.Raw); why != "" {
		if before.Config.Version != c.Version {
			n.log.Error("the dynamic configuration is not taken over, the old one stays in force", "why", why)
		}
		return
	}
	// The first one of the store counts even when it says what the file said: until then PostgreSQL had the local settings alone.
	if !n.merged || !sameDynamic(c.Dynamic, n.dynamic) {
		n.merged = true
		for _, w := range c.Dynamic.Warnings {
			n.log.Warn("dynamic configuration", "warning", w)
		}
		n.dynamic = c.Dynamic
		n.ttl.Store(int64(n.dynamic.TTL))
		n.lease.KnowTTL(n.dynamic.TTL)
		n.settings = mergeSettings(n.cfg.Local, n.dynamic.PostgreSQL)
		n.configureScripts()
	}
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

// noteBack forgets that PostgreSQL is to come back from an operator's request, once it has.
func (n *Node) noteBack() {
	if !n.guardState.Postmaster.Running || !n.server.Answered || n.task != nil || n.wishes.reinit != nil {
		return
	}
	n.startLimit = 0
	if w := n.wishes.restart; w != nil && w.back {
		n.answerRestart(nil)
	}
	if n.state.Due {
		n.state.Due = false
		n.saveState()
	}
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
