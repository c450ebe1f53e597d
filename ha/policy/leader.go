package policy

import (
	"fmt"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres/wal"
)

// leader decides for the node that holds the lease.
func leader(v View, c Config) Decision {
	if v.Lease.Verdict != VerdictMine {
		return Decision{Reason: ReasonLeaseUnclear, Detail: "the lease record was not read since the epoch was opened", Wake: contestPause}
	}
	s := v.Server
	if s.Data == DataEmpty || s.Data == DataInterrupted || s.Data == DataInvalid {
		return lostData(v)
	}
	switch s.Process {
	case ProcessNone:
		return leaderDown(v, c)
	case ProcessOrphans:
		return renewing(v, c, Decision{Reason: ReasonOrphans, Detail: "the postmaster is gone, and the guard ends what is left of it", Wake: 20 * time.Millisecond})
	case ProcessForeign:
		return renewing(v, c, Decision{Reason: ReasonForeignServer, Wake: time.Second, Actions: []Action{Fence{Why: "the postmaster is not this node's guard's child"}},
			Detail: "a postmaster that this node did not start runs in the data directory: it is stopped, and started again under the guard"})
	case ProcessUnknown:
		// Not renewed: no deadline would come of it, and others would wait longer.
		return Decision{Reason: ReasonGuardSilent, Detail: "the guard does not answer", Wake: contestPause}
	}
	switch {
	case !s.Answers:
		return leaderSilent(v, c)
	case s.Role == RoleReplica:
		return promoting(v, c)
	}
	return leading(v, c)
}

// leading is the healthy case: requests, then the small duties.
func leading(v View, c Config) Decision {
	if d, ok := switchover(v, c); ok {
		if d.Reason == ReasonScheduled {
			d = scheduledRestart(v, c, d)
		}
		return renewing(v, c, d)
	}
	d := Decision{Reason: ReasonLeader, Detail: fmt.Sprintf("leader of epoch %d at %v", v.Lease.Epoch, v.Server.Branch.End)}
	if v.Self.Unfit != "" {
		return renewing(v, c, unfitLeader(v, c))
	}
	if !v.Cluster.Initialize.Valid() && v.Server.SystemID != "" {
		d.Actions = append(d.Actions, WriteInitialize{SystemID: v.Server.SystemID})
		return renewing(v, c, d)
	}
	return renewing(v, c, scheduledRestart(v, c, d))
}

// unfitLeader hands over when another member can lead; a primary that is unfit is better than none.
func unfitLeader(v View, c Config) Decision {
	d := Decision{Reason: ReasonUnfit, Detail: "this node must not lead: " + v.Self.Unfit, Ask: !peersFresh(v), Wake: c.Dynamic.LoopWait}
	if d.Ask {
		return d
	}
	if best, ok := bestPeer(v, c, true); ok {
		d.Detail += "; " + best + " takes over"
		d.Actions = []Action{Demote{Target: best}}
		return d
	}
	d.Ask = true
	d.Detail += "; no other member can"
	return d
}

// lostData gives the lease back: without data there is nothing to lead with (hazard D2).
func lostData(v View) Decision {
	d := Decision{Reason: ReasonDataLost, Detail: "the data directory is empty or cannot be used: " + v.Server.Problem, Wake: contestPause}
	if v.Server.Process == ProcessNone {
		d.Actions = []Action{Release{}}
	} else {
		d.Actions = []Action{Fence{Why: d.Detail}}
	}
	return d
}

// promoting makes the replica a primary, under a lease with room left (invariant I12).
func promoting(v View, c Config) Decision {
	d := Decision{Reason: ReasonPromoting, Detail: fmt.Sprintf("this node took the lease (epoch %d): promoting from %v", v.Lease.Epoch, v.Server.Branch.End)}
	// The identity is what tells this promotion from another one to the same timeline number (hazard B10). It stands in the lease record before the promotion is made: a primary that dies before
	// it told anybody would otherwise leave WAL that nobody can tell from the next one's.
	end := v.Server.Branch.End
	p := cluster.Promotion{Timeline: end.Timeline + 1, LSN: end.LSN, ID: cluster.PromotionID(v.Lease.Epoch, v.Self.Name, v.Self.Session)}
	announced := v.Lease.Note.Promotion.ID == p.ID
	if v.Last.Kind == TaskPromote && v.Last.Impossible && v.Last.Ago < c.Dynamic.TTL {
		d.Reason, d.Detail = ReasonNotEligible, "the lease goes back: "+v.Last.Failed
		d.Actions = []Action{Release{}}
		return d
	}
	if why := offLine(v); why != "" && !announced {
		if v.Lease.Note.Promotion.ID != "" && !peersFresh(v) {
			d.Ask, d.Wake = true, contestPause // see knownNote
			return renewing(v, c, d)
		}
		d.Reason, d.Detail = ReasonNotEligible, "this node took the lease but must not lead: "+why
		d.Actions = []Action{Release{}}
		return d
	}
	if v.Lease.Left <= 2*v.Self.FencePause {
		d.Detail = "promotion waits for a renewal: too little of the lease is left"
		d.Wake = contestPause
		return renewing(v, c, d)
	}
	if !announced {
		d.Detail = fmt.Sprintf("%s: announcing it first", d.Detail)
		d.Actions, d.Wake = []Action{Renew{Announce: p}}, contestPause
		return d
	}
	d = attempt(v, TaskPromote, d, Promote{Promotion: p})
	if v.Last.Kind == TaskPromote && v.Last.Failed != "" && v.Last.Times >= 3 {
		d.Detail = fmt.Sprintf("promotion failed %d times (%s): another member shall try", v.Last.Times, v.Last.Failed)
		d.Actions = []Action{Fence{Why: d.Detail}}
		return d
	}
	return renewing(v, c, d)
}

// leaderSilent waits for a server that runs and does not answer, as long as primary_start_timeout allows.
func leaderSilent(v View, c Config) Decision {
	limit := startLimit(v, c)
	d := Decision{Reason: ReasonStarting, Detail: fmt.Sprintf("PostgreSQL has not answered for %v (limit %v)", round(v.Server.DownFor), limit), Wake: time.Second}
	if v.Server.DownFor > limit && limit > 0 || limit == 0 && v.Server.DownFor > 10*time.Second {
		d.Reason = ReasonStartTimeout
		if !peersFresh(v) {
			d.Ask = true
			return renewing(v, c, d)
		}
		if best, ok := bestPeer(v, c, false); ok {
			d.Detail += "; " + best + " can take over"
			d.Actions = []Action{Fence{Why: d.Detail}}
			return d
		}
		d.Ask, d.Detail = true, d.Detail+"; no other member can take over, so it goes on"
	}
	return renewing(v, c, d)
}

// startLimit is how long a primary may take to start (reference section 5.6.3).
func startLimit(v View, c Config) time.Duration {
	if v.Server.StartLimit > 0 {
		return v.Server.StartLimit
	}
	return c.Dynamic.PrimaryStartTimeout
}

// leaderDown starts PostgreSQL again in place, or gives the lease back.
func leaderDown(v View, c Config) Decision {
	limit := startLimit(v, c)
	d := Decision{Reason: ReasonRestarting, Detail: fmt.Sprintf("PostgreSQL is down (for %v): starting it again", round(v.Server.DownFor))}
	if (v.Server.DownFor > limit || v.Server.Crashes > restartLimit) && v.Server.WasPrimary {
		d.Reason = ReasonStartTimeout
		if !peersFresh(v) {
			d.Ask, d.Wake = true, time.Second
			return renewing(v, c, d)
		}
		if best, ok := bestPeer(v, c, false); ok {
			d.Detail = fmt.Sprintf("PostgreSQL is down for %v (limit %v, %d crashes in five minutes), and %s can lead: the lease is given back",
				round(v.Server.DownFor), limit, v.Server.Crashes, best)
			d.Actions = []Action{Release{}}
			return d
		}
	}
	if sameLine(v) {
		d.Detail = fmt.Sprintf("PostgreSQL is down: starting it as primary on timeline %d", tip(v))
		return renewing(v, c, attempt(v, TaskStartPrimary, d, StartPrimary{}))
	}
	d.Detail = "this node leads, and its PostgreSQL is down: starting it as a replica to promote it"
	return renewing(v, c, attempt(v, TaskStartReplica, d, StartReplica{}))
}

func tip(v View) wal.Timeline { return v.Server.Branch.History.Tip }

// sameLine says that the stopped directory is certainly the cluster's last primary, so that it may go on writing on its
// own timeline: it was a primary, and its timeline is the last one that the cluster knows, by the same promotion
// (hazards B9, B10). In doubt the answer is no: then it starts as a replica and gets a timeline of its own.
func sameLine(v View) bool {
	if !v.Server.WasPrimary {
		return false
	}
	last := v.Lease.Note.Promotion
	known := last.Timeline
	if lines := v.Cluster.History.Lines; len(lines) > 0 {
		known = max(known, lines[len(lines)-1].Timeline+1)
	}
	if known != 0 && tip(v) != known {
		return false
	}
	if last.ID != "" && last.Timeline == tip(v) {
		return promotionID(v.Server.Branch.Promotions, tip(v)) == last.ID
	}
	return true
}
