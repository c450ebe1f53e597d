package ha

import (
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// published is what this node wrote last, so that nothing is written that did not change.
type published struct {
	member  []byte
	session string
	status  []byte
	history []byte
	slots   map[string]wal.LSN
	slotsAt time.Duration
	applied *postgres.Settings
	dynamic []byte // of the copy of the key config in the data directory
}

// publish brings the member's own key, and what hangs on the observation, up to date at the end of a turn. Failures
// are reported and tried again: nothing here decides anything.
func (n *Node) publish(ctx context.Context) {
	if n.readErr != nil {
		return
	}
	if n.session != nil {
		if member := n.memberKey(); member != nil {
			ops := []dcs.Op{*member}
			if err := n.commit(ctx, dcs.Txn{Then: ops}); err == nil {
				n.publishedKeys(ops)
			} else if ctx.Err() == nil {
				n.log.Warn("the member key could not be written", "error", err)
			}
		}
	}
	n.joined()
	n.tendBootstrap(ctx)
	n.tendSlots(ctx)
	n.tendSettings(ctx)
	n.tendDynamicFile()
	n.tendCheckpoint(ctx)
}

// memberKey is the put of the own member key, or nil when it is as it should be (reference section 1.4).
func (n *Node) memberKey() *dcs.Op {
	value := cluster.EncodeMember(n.member())
	p := n.published
	have, ok := n.cluster.Member(n.cfg.Name)
	if p.member != nil && cluster.SameMember(p.member, value) && p.session == n.sessionID() && ok && have.Session == p.session {
		return nil
	}
	op := dcs.PutSession(cluster.MembersPrefix+n.cfg.Name, value, n.sessionID())
	return &op
}

// leaderKeys are the leader's own keys that have changed, to travel with a renewal.
func (n *Node) leaderKeys() []dcs.Op {
	var ops []dcs.Op
	if m := n.memberKey(); m != nil {
		ops = append(ops, *m)
	}
	s := n.server
	if !s.Answered || s.Role != postgres.RolePrimary {
		return ops
	}
	if b := cluster.EncodeStatus(n.leaderStatus()); string(b) != string(n.published.status) {
		ops = append(ops, dcs.Put(cluster.KeyStatus, b))
	}
	if h, ok := n.historyKey(); ok {
		ops = append(ops, dcs.Put(cluster.KeyHistory, h))
	}
	return ops
}

// publishedKeys remembers what was written.
func (n *Node) publishedKeys(ops []dcs.Op) {
	for _, op := range ops {
		switch op.Key {
		case cluster.MembersPrefix + n.cfg.Name:
			n.published.member, n.published.session = op.Value, op.Session
		case cluster.KeyStatus:
			n.published.status = op.Value
		case cluster.KeyHistory:
			n.published.history = op.Value
		}
	}
}

// member is this member as the others should see it.
func (n *Node) member() cluster.Member {
	s := n.server
	state, role := n.stateAndRole()
	_, leads := n.lease.Open()
	m := cluster.Member{
		Name: n.cfg.Name, ConnURL: n.cfg.ConnURL, APIURL: n.cfg.APIURL, ProxyURL: n.cfg.ProxyURL,
		State: state, Role: role, Version: cluster.ProtocolVersion, Pgregent: n.cfg.Version, NoVote: n.voteless(),
		CheckpointAfterPromo: n.checkpointed || !leads || role != cluster.RolePrimary, Tags: n.cfg.Tags.Published(), Pause: n.dynamic.Pause,
	}
	for k, c := range s.PendingRestart {
		if m.PendingRestartReason == nil {
			m.PendingRestartReason = map[string]cluster.PendingChange{}
		}
		m.PendingRestart = true
		m.PendingRestartReason[k] = cluster.PendingChange{Old: c.Old, New: c.New}
	}
	m.ScheduledRestart = n.scheduledKey()
	if !s.Answered {
		return m
	}
	m.Location, m.Timeline = s.Position().LSN, s.Timeline
	if s.Role == postgres.RoleReplica {
		m.ReplayLSN, m.ReceiveLSN = s.Replayed, max(s.Received, s.Replayed)
		switch {
		case s.Streaming:
			m.ReplicationState = cluster.ReplicationStreaming
		case s.RestoreCommand:
			m.ReplicationState = cluster.ReplicationFromArchve
		}
	}
	return m
}

// stateAndRole are the member's state and role (reference section 1.5).
func (n *Node) stateAndRole() (state, role string) {
	s := n.server
	role = cluster.RoleReplica
	switch {
	case s.Data == postgres.DataEmpty || s.Data == postgres.DataInterrupted:
		role = cluster.RoleUninitialized
	case s.Answered && s.Role == postgres.RolePrimary:
		role = cluster.RolePrimary
	case !s.Answered && (s.Control.State == postgres.ControlShutDown || s.Control.State == postgres.ControlInProduction):
		role = cluster.RoleDemoted
	}
	kind := policy.TaskNone
	if n.task != nil {
		kind = n.task.kind
	}
	switch kind {
	case policy.TaskInitdb:
		return cluster.StateInitializing, cluster.RoleUninitialized
	case policy.TaskClone:
		return cluster.StateCreatingReplica, cluster.RoleUninitialized
	case policy.TaskRestart:
		if _, leads := n.lease.Open(); leads {
			role = cluster.RolePrimary
		}
		return cluster.StateRestarting, role
	case policy.TaskDemote, policy.TaskFence, policy.TaskStop:
		return cluster.StateStopping, role
	}
	switch {
	case s.Answered:
		return cluster.StateRunning, role
	case isStarting(s) || kind == policy.TaskStartPrimary || kind == policy.TaskStartReplica:
		return cluster.StateStarting, role
	case n.guardState.Postmaster.Running:
		return cluster.StateStarting, role
	case len(n.exits) > 0 && !n.expected && s.Control.State != postgres.ControlShutDown && s.Control.State != postgres.ControlShutDownInRecovery:
		return cluster.StateCrashed, role
	}
	return cluster.StateStopped, role
}

// leaderStatus is the key `status`: our position, and how far every slot's owner has received.
func (n *Node) leaderStatus() cluster.LeaderStatus {
	s := n.server
	st := cluster.LeaderStatus{Optime: s.Current, Slots: map[string]wal.LSN{cluster.SlotName(n.cfg.Name): s.Current}}
	for _, slot := range s.Slots {
		if slot.RestartLSN != 0 {
			st.Slots[slot.Name] = slot.RestartLSN
		}
	}
	st.RetainSlots = n.retained()
	return st
}

// retained are the slots of members that were here within member_slots_ttl, so that a member that comes back finds its
// slot, and the WAL behind it (reference section 5.14.5). A new leader goes on with what the last one retained.
func (n *Node) retained() []string {
	now := n.clock.Now()
	if n.slotSeen == nil {
		n.slotSeen = map[string]time.Duration{}
	}
	for _, name := range n.cluster.Status.RetainSlots {
		if _, ok := n.slotSeen[name]; !ok {
			n.slotSeen[name] = now
		}
	}
	for _, m := range n.cluster.Members {
		if !m.Tags.NoStream() {
			n.slotSeen[cluster.SlotName(m.Name)] = now
		}
	}
	var names []string
	for name, seen := range n.slotSeen {
		if now-seen < n.dynamic.MemberSlotsTTL {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// historyKey is the key `history` as it should be, and whether it must be written (reference section 5.24).
func (n *Node) historyKey() ([]byte, bool) {
	s, key := n.server, n.cluster.History
	if s.Timeline <= 1 {
		if len(key.Lines) == 0 {
			return nil, false
		}
		return cluster.EncodeHistory(nil), true
	}
	if s.History.Tip != s.Timeline {
		return nil, false
	}
	if k := len(key.Lines); k > 0 && key.Lines[k-1].Timeline == s.Timeline-1 && key.Lines[k-1].NewLeader != "" {
		return nil, false
	}
	old := map[wal.Timeline]cluster.HistoryLine{}
	for _, l := range key.Lines {
		old[l.Timeline] = l
	}
	lines := make([]cluster.HistoryLine, 0, len(s.History.Switches))
	for _, sw := range s.History.Switches {
		l := cluster.HistoryLine{Timeline: sw.Timeline, LSN: sw.LSN, Reason: sw.Reason}
		if o, ok := old[sw.Timeline]; ok && o.LSN == sw.LSN {
			l.At, l.NewLeader = o.At, o.NewLeader
		}
		if sw.Timeline == s.Timeline-1 && l.NewLeader == "" {
			l.At, l.NewLeader = time.Now().Format("2006-01-02T15:04:05.000000-07:00"), n.cfg.Name
		}
		lines = append(lines, l)
	}
	if limit := n.dynamic.MaxTimelinesHistory; limit > 0 && len(lines) > limit {
		lines = lines[len(lines)-limit:]
	}
	b := cluster.EncodeHistory(lines)
	return b, string(b) != string(n.published.history)
}

// tendSlots keeps a slot for every member on every node, so that a receiver finds its slot right after a promotion
// (design section 8), and advances those that nobody reads here.
func (n *Node) tendSlots(ctx context.Context) {
	s := n.server
	if !s.Answered || n.task != nil || !n.settings.UseSlots {
		return
	}
	want := map[string]wal.LSN{}
	for _, name := range n.cluster.Status.RetainSlots {
		want[name] = n.cluster.Status.Slots[name]
	}
	for _, m := range n.cluster.Members {
		if !m.Tags.NoStream() {
			slot := cluster.SlotName(m.Name)
			want[slot] = n.cluster.Status.Slots[slot]
		}
	}
	delete(want, cluster.SlotName(n.cfg.Name))
	if n.dynamic.Pause { // nothing is dropped (reference section 5.18): what is there is wanted
		for _, slot := range s.Slots {
			if _, ok := want[slot.Name]; !ok && slot.Type == "physical" {
				want[slot.Name] = 0
			}
		}
	}
	now := n.clock.Now()
	if sameKeys(want, n.published.slots) && now-n.published.slotsAt < 10*time.Second {
		return
	}
	n.published.slots, n.published.slotsAt = want, now
	n.aside(ctx, "replication slots", func(ctx context.Context) error { return n.cfg.Postgres.SyncSlots(ctx, want) })
}

func sameKeys(a, b map[string]wal.LSN) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range a {
		if _, ok := b[k]; !ok {
			return false
		}
	}
	return true
}

// tendSettings applies a changed configuration to the running server.
func (n *Node) tendSettings(ctx context.Context) {
	s := n.server
	if !s.Answered || n.task != nil {
		return
	}
	if n.unapplied.Swap(false) {
		n.published.applied = nil
	}
	role, up := s.Role, n.upstreamOf(n.upstream())
	name := roleName(role)
	settings := n.settings.For(name)
	if n.published.applied != nil && sameSettings(*n.published.applied, settings) {
		return
	}
	n.published.applied = &settings
	if role == postgres.RoleReplica && n.upstream() == "?" {
		n.published.applied = nil // not before it is known whom it follows
		return
	}
	begun := n.aside(ctx, "configuration", func(ctx context.Context) error {
		err := n.applySettings(ctx, settings, role, up, name)
		if err != nil {
			n.unapplied.Store(true)
		}
		return err
	})
	if !begun {
		n.unapplied.Store(true) // another call has the server: the next turn does it
	}
}

// applySettings writes the configuration and has the server read it. What was written and not read stays due.
func (n *Node) applySettings(ctx context.Context, s postgres.Settings, role postgres.Role, up postgres.Upstream, name string) error {
	reload, err := n.cfg.Postgres.Configure(ctx, s, role, up)
	if err != nil || !reload && !n.unread.Load() {
		return err
	}
	n.unread.Store(true)
	if err := n.cfg.Postgres.Reload(ctx); err != nil {
		return err
	}
	n.unread.Store(false)
	n.call(callbacks.OnReload, name, 0)
	return nil
}

// tendCheckpoint runs the checkpoint after a promotion, without which nobody can rewind from this primary
// (hazard B11b; reference section 5.8.4).
func (n *Node) tendCheckpoint(ctx context.Context) {
	_, open := n.lease.Open()
	s := n.server
	if n.checkpointed || n.checkpointing || !open || n.task != nil || !s.Answered || s.Role != postgres.RolePrimary {
		return
	}
	if s.Control.Checkpoint.Timeline == s.Timeline {
		n.checkpointed = true
		return
	}
	n.checkpointing = true
	go func() {
		err := n.cfg.Postgres.Checkpoint(ctx)
		n.post(ctx, func() {
			n.checkpointing = false
			n.checkpointed = err == nil
			if err != nil {
				n.log.Warn("the checkpoint after the promotion failed", "error", err)
			}
			n.observer.kick()
		})
	}()
}

// aside runs a short call on the Controller beside the loop, when nothing else has it; it says whether it does.
func (n *Node) aside(ctx context.Context, what string, f func(context.Context) error) bool {
	if !n.ctl.TryLock() {
		return false
	}
	go func() {
		defer n.ctl.Unlock()
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := f(call); err != nil && ctx.Err() == nil {
			n.log.Warn("could not be brought up to date", "what", what, "error", err)
		}
	}()
	return true
}

func sameSettings(a, b postgres.Settings) bool { return reflect.DeepEqual(a, b) }
