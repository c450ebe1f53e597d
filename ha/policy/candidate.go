package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres/wal"
)

// candidate is one member in an election, reduced to what orders it.
type candidate struct {
	name       string
	end        wal.Position
	priority   int
	wasPrimary bool
	connected  bool // it streams from the leader that chooses: a clean shutdown leaves it with everything
}

// compareCandidates is the order of an election: a total order, so that every node that knows the same comes to the
// same winner. More WAL first, a later timeline before an earlier one (all of them are on the cluster's line, which was
// checked before); then the configured priority; then the name, so that there is always one.
func compareCandidates(a, b candidate) int {
	return cmp.Or(boolFirst(a.connected, b.connected), b.end.Compare(a.end), cmp.Compare(b.priority, a.priority), boolFirst(a.wasPrimary, b.wasPrimary), cmp.Compare(a.name, b.name))
}

func boolFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// peersFresh says that every other member was asked a moment ago, whether it answered or not.
func peersFresh(v View) bool {
	return !slices.ContainsFunc(v.Peers, func(p Peer) bool { return !p.Asked || p.Age > peerFresh })
}

func peer(v View, name string) (Peer, bool) {
	i := slices.IndexFunc(v.Peers, func(p Peer) bool { return p.Name == name })
	if i < 0 {
		return Peer{}, false
	}
	return v.Peers[i], true
}

// cannotLead says why a running replica cannot take over; empty: it can. forced leaves the lag out (manual failover).
func cannotLead(v View, c Config, p Peer, forced bool) string {
	switch {
	case !p.Asked || !p.Answered:
		return "it does not answer"
	case p.Tags.NoFailover():
		return "it is tagged nofailover"
	case p.Unfit:
		return "it says that it must not lead"
	case !p.Running:
		return "its PostgreSQL does not answer"
	case !p.InRecovery:
		return "its PostgreSQL is not a replica"
	case !p.Patroni && p.StoreAge > c.Dynamic.TTL:
		return fmt.Sprintf("it has not heard from the store for %v", round(p.StoreAge))
	case p.End.LSN == 0:
		return "its position is not known"
	case p.End.Timeline != 0 && v.Server.Branch.End.Timeline != 0 && p.End.Timeline != v.Server.Branch.End.Timeline && v.Server.Role == RolePrimary:
		return fmt.Sprintf("it is on timeline %d, not on %d", p.End.Timeline, v.Server.Branch.End.Timeline)
	}
	if lag := lagBehind(v, p.End.LSN); !forced && lag > c.Dynamic.MaximumLagOnFailover {
		return fmt.Sprintf("it lags by %d bytes, more than maximum_lag_on_failover (%d)", lag, c.Dynamic.MaximumLagOnFailover)
	}
	return ""
}

// lagBehind is how far a position is behind the leader's last published one.
func lagBehind(v View, at wal.LSN) int64 {
	end := v.Cluster.Status.Optime
	if end <= at {
		return 0
	}
	return int64(end - at)
}

// bestPeer is the other member that should lead, of those that can; connected leaves those out that do not stream from
// this node.
func bestPeer(v View, c Config, connected bool) (name string, ok bool) {
	var can []candidate
	for _, p := range v.Peers {
		if (p.Connected || !connected) && cannotLead(v, c, p, false) == "" {
			can = append(can, candidate{p.Name, p.End, p.Tags.FailoverPriority(), false, p.Connected})
		}
	}
	if len(can) == 0 {
		return "", false
	}
	return slices.MinFunc(can, compareCandidates).name, true
}

// whyNobody lists why each other member cannot lead.
func whyNobody(v View, c Config) string {
	if len(v.Peers) == 0 {
		return "there is no other member"
	}
	var why []string
	for _, p := range v.Peers {
		why = append(why, p.Name+": "+cannotLead(v, c, p, false))
	}
	return strings.Join(why, "; ")
}

// offLine says why this node's WAL is not on the cluster's line, by the promotions that the lease record knows
// (hazard B9: a dead branch can have the larger LSN); empty: it is, as far as is known.
func offLine(v View) string {
	b := v.Server.Branch
	return offLineOf(v, b.History, b.End, b.Promotions, v.Server.Upstream)
}

// offLineOf judges any branch, of a server that streams from the member from: by the record, or, when an operator deleted
// that, by the key `history`.
func offLineOf(v View, h wal.History, end wal.Position, mine []cluster.Promotion, from string) string {
	if v.Lease.Note.Promotion.ID == "" {
		return offHistory(v.Cluster.History.Lines, h, end)
	}
	return offNote(knownNote(v), h, end, mine, from)
}

// offHistory says why a branch is not the one that the key `history` describes.
func offHistory(lines []cluster.HistoryLine, h wal.History, end wal.Position) string {
	for _, l := range lines {
		if end.Timeline == l.Timeline && end.LSN > l.LSN {
			return fmt.Sprintf("its WAL on timeline %d ends at %v, beyond %v, where the key history says that the timeline ended", end.Timeline, end.LSN, l.LSN)
		}
		if end.Timeline > l.Timeline && h.Known() {
			i := slices.IndexFunc(h.Switches, func(s wal.Switch) bool { return s.Timeline == l.Timeline })
			if i < 0 || h.Switches[i].LSN != l.LSN {
				return fmt.Sprintf("its timeline %d did not come along timeline %d as the key history says", end.Timeline, l.Timeline)
			}
		}
	}
	return ""
}

// knownNote is the note without a promotion that was announced and certainly never made: its maker answers, and is on an
// earlier timeline, or has no data any more. It cannot be made any more either, once another member may take the lease.
func knownNote(v View) cluster.Note {
	n := v.Lease.Note
	maker := n.Promotion.Maker()
	if maker == "" || !v.Lease.mayTake() && !v.Lease.Open || made(v, n.Promotion) {
		return n
	}
	end, primary, none := v.Server.Branch.End, v.Server.Role == RolePrimary, v.Server.Data == DataEmpty
	if maker != v.Self.Name {
		p, ok := peer(v, maker)
		if !ok || !p.Answered || p.Age > peerFresh {
			return n
		}
		end, primary = p.End, p.Running && !p.InRecovery
		none = !p.Patroni && !p.Running && p.End == wal.Position{} && !p.History.Known()
	}
	if none || end.LSN != 0 && end.Timeline != 0 && end.Timeline < n.Promotion.Timeline && !primary {
		n.Promotion = cluster.Promotion{}
	}
	return n
}

// made says that a member other than its maker has come along a promotion: the maker may have lost its data since, or
// another machine may answer under its name. What the maker knows is its announcement.
func made(v View, made cluster.Promotion) bool {
	is := func(p cluster.Promotion) bool { return p.ID == made.ID }
	return v.Self.Name != made.Maker() && slices.ContainsFunc(v.Server.Branch.Promotions, is) ||
		slices.ContainsFunc(v.Peers, func(p Peer) bool {
			return p.Answered && p.Name != made.Maker() && slices.ContainsFunc(p.Promotions, is)
		})
}

func offNote(note cluster.Note, h wal.History, end wal.Position, mine []cluster.Promotion, from string) string {
	line := note.Line()
	for _, p := range slices.Backward(line) {
		if slices.ContainsFunc(mine, func(m cluster.Promotion) bool { return m.ID == p.ID }) {
			break // under whatever number it came about; it vouches for what was before
		}
		if end.Timeline < p.Timeline {
			if end.LSN > p.LSN {
				return fmt.Sprintf("its WAL on timeline %d ends at %v, beyond %v, where timeline %d begins", end.Timeline, end.LSN, p.LSN, p.Timeline)
			}
			continue
		}
		if begin, on := h.Begin(p.Timeline); h.Known() && (!on || begin != p.LSN) {
			return fmt.Sprintf("its timeline %d did not come along the cluster's timeline %d", end.Timeline, p.Timeline)
		}
		switch id := promotionID(mine, p.Timeline); {
		case id != "":
			return fmt.Sprintf("its timeline %d is another promotion than the cluster's", p.Timeline)
		case p.Maker() != "" && p.Maker() != from:
			return fmt.Sprintf("which promotion its timeline %d is is not known, and it does not follow %s, who made the cluster's", p.Timeline, p.Maker())
		}
	}
	// Every promotion of a pgregent member is announced in the record: one that the record does not name any more was
	// replaced by another line.
	for _, m := range mine {
		if _, on := h.Begin(m.Timeline); len(line) > 0 && on && m.Timeline > line[0].Timeline && m.Timeline <= end.Timeline &&
			!slices.ContainsFunc(line, func(p cluster.Promotion) bool { return p.ID == m.ID }) {
			return fmt.Sprintf("the cluster's line does not know its timeline %d", m.Timeline)
		}
	}
	return ""
}

func promotionID(all []cluster.Promotion, tl wal.Timeline) string {
	for _, p := range all {
		if p.Timeline == tl {
			return p.ID
		}
	}
	return ""
}

// ineligible says why this node must not take the lease; empty: it may. named is a request that names this node.
func ineligible(v View, c Config, named bool) string {
	s := v.Server
	switch {
	case v.Self.Unfit != "":
		return v.Self.Unfit
	case v.Self.Tags.NoFailover() && !named:
		return "it is tagged nofailover"
	case s.Data != DataReady:
		return "its data directory is empty or cannot be used"
	case s.Process == ProcessRunning && !s.Answers:
		return "its PostgreSQL does not answer"
	case s.Process != ProcessRunning && s.Process != ProcessNone:
		return "its PostgreSQL does not run under the guard"
	case s.Branch.End.LSN == 0:
		return "where its WAL ends is not known"
	}
	if why := v.Failsafe.voteless(v.Self.Name, v.Failsafe.Voteless); why != "" {
		return why
	}
	if why := offLine(v); why != "" {
		return why
	}
	if lag := lagBehind(v, s.Branch.End.LSN); lag > c.Dynamic.MaximumLagOnFailover && !named {
		return fmt.Sprintf("it lags by %d bytes, more than maximum_lag_on_failover (%d)", lag, c.Dynamic.MaximumLagOnFailover)
	}
	return ""
}

// rival says why a peer is to lead rather than this node; empty: it is not. It must be able to act: a peer that is
// ahead and cannot reach the store would otherwise keep everybody waiting for ever (hazard C7).
func rival(v View, c Config, p Peer) string {
	if !p.Answered || p.Tags.NoFailover() || p.Unfit || (!p.Patroni && p.StoreAge > c.Dynamic.TTL) || p.End.LSN == 0 {
		return ""
	}
	if p.Patroni && !p.Running || v.Failsafe.voteless(p.Name, p.Voteless) != "" {
		return ""
	}
	if p.Patroni && !p.InRecovery {
		// Beside a Patroni primary that does not know yet that it lost its key nobody promotes (reference section 5.7.2).
		return p.Name + " (a Patroni member) still runs as primary"
	}
	if !p.Patroni && offLineOf(v, p.History, p.End, p.Promotions, "") != "" {
		return ""
	}
	if p.Patroni && (p.End == v.Server.Branch.End || v.Lease.SeenFor > 2*v.Lease.TTL+10*time.Second) {
		// A Patroni member gives way to anybody with more WAL, on whatever branch: nobody waits for it for ever.
		return ""
	}
	me := candidate{v.Self.Name, v.Server.Branch.End, v.Self.Tags.FailoverPriority(), v.Server.Process == ProcessNone && v.Server.WasPrimary, false}
	it := candidate{p.Name, p.End, p.Tags.FailoverPriority(), !p.InRecovery, false}
	if p.Running && v.Server.Process == ProcessNone && p.End == me.end {
		return fmt.Sprintf("%s is as far (%v) and its PostgreSQL runs", p.Name, p.End)
	}
	if !p.Running && v.Server.Process == ProcessRunning && p.End == me.end {
		return ""
	}
	if compareCandidates(it, me) < 0 {
		return fmt.Sprintf("%s is at %v with priority %d, this node at %v with priority %d", it.name, it.end, it.priority, me.end, me.priority)
	}
	return ""
}

// waitTarget is how long a release that names a member is left to it.
func waitTarget(c Config) time.Duration { return c.Dynamic.RetryTimeout + c.Dynamic.LoopWait }
