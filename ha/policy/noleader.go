package policy

import (
	"fmt"
	"time"
)

// noLeader decides while nobody leads an initialised cluster: whether this node is the one to take the lease, and until
// then what keeps it ready.
func noLeader(v View, c Config) Decision {
	if d, ok := prepare(v, c); ok {
		return d
	}
	named := v.Cluster.Failover.Err == nil && v.Cluster.Failover.Candidate == v.Self.Name && v.Cluster.Failover.ScheduledAt.IsZero()
	named = named || v.Lease.TakeAlone && !v.Cluster.Failover.Requested()
	targeted := !v.Lease.Held && v.Lease.Note.Target == v.Self.Name
	if why := ineligible(v, c, named || targeted); why != "" {
		// The answers may show that what stands against it never came about: see knownNote.
		return Decision{Reason: ReasonNotEligible, Detail: "nobody leads, and this node cannot: " + why, Ask: !peersFresh(v), Wake: time.Second}
	}
	if !v.Lease.mayTake() {
		return waitForLease(v)
	}
	if targeted && v.Lease.Note.End.LSN <= v.Server.Branch.End.LSN {
		return take(v, named, "the lease was released for this node")
	}
	if d, ok := leaveToOthers(v, c); ok && !named {
		return d
	}
	return contest(v, c, named)
}

// prepare does what an election needs: a server that is under the guard and whose end of WAL is known.
func prepare(v View, c Config) (Decision, bool) {
	d := Decision{Reason: ReasonNoLeader, Wake: contestPause}
	switch {
	case v.Server.Data == DataReady && v.Server.Process == ProcessForeign:
		d.Detail = "nobody leads, and a postmaster that this node did not start runs in the data directory: it is stopped first"
		d.Actions = []Action{Stop{}}
		return d, true
	case v.Server.Data == DataReady && v.Server.Process == ProcessNone && v.Server.Branch.End.LSN == 0:
		d.Detail = "nobody leads: finding out where the local WAL ends"
		return attempt(v, TaskMeasure, d, Measure{}), true
	}
	return d, false
}

// waitForLease waits until rule R4 allows a take, and asks the peers just before, so that nothing waits for them then.
func waitForLease(v View) Decision {
	d := Decision{Reason: ReasonWaitLease, Detail: "nobody leads, and the lease may not be taken yet: " + v.Lease.TakeWhy, Wake: contestPause}
	if in := v.Lease.TakeIn; in > 0 {
		d.Wake = in
		if ahead := in - time.Second; ahead > 0 {
			d.Wake = ahead
		} else if !peersFresh(v) {
			d.Ask = true
		}
	}
	return d
}

// leaveToOthers honours a release that names another member, and one that says where the WAL ends: nobody who has less
// takes while somebody may have it all, the old leader itself included.
func leaveToOthers(v View, c Config) (Decision, bool) {
	if v.Lease.Held {
		return Decision{}, false
	}
	left := waitTarget(c) - v.Lease.SeenFor
	if left <= 0 {
		return Decision{}, false
	}
	n := v.Lease.Note
	d := Decision{Reason: ReasonWaitTarget, Wake: min(left, time.Second)}
	switch {
	case n.Target != "" && n.Target != v.Self.Name:
		// A target that has not got it all, while this node has, is not waited for to the end: it is asked again once it
		// had the time to see what it has.
		if p, ok := peer(v, n.Target); ok && v.Lease.SeenFor > peerFresh && n.End.LSN != 0 && n.End.LSN <= v.Server.Branch.End.LSN {
			if !p.Asked || p.Age > peerFresh/2 {
				d.Ask, d.Wake = true, contestPause
			} else if !p.Answered || p.End.LSN < n.End.LSN {
				return Decision{}, false
			}
		} else {
			d.Wake = min(d.Wake, max(peerFresh-v.Lease.SeenFor, contestPause))
		}
		d.Detail = fmt.Sprintf("the lease was released for %s, which has %v to take it", n.Target, round(left))
		return d, true
	case n.End.LSN > v.Server.Branch.End.LSN:
		d.Detail = fmt.Sprintf("the last leader's WAL ends at %v, this node's at %v: a member that has it all has %v to take the lease", n.End, v.Server.Branch.End, round(left))
		d.Wake = min(d.Wake, contestPause)
		return d, true
	}
	return Decision{}, false
}

// contest is the election itself, on answers that are fresh.
func contest(v View, c Config, named bool) Decision {
	if !peersFresh(v) {
		d := Decision{Reason: ReasonNoLeader, Detail: "nobody leads: asking the members", Ask: true, Wake: time.Second}
		if v.Lease.NeedVotes && v.Failsafe.Polled {
			d = askVotes(v, "nobody leads") // still missing
			d.Ask = true
		}
		return d
	}
	r := v.Cluster.Failover
	if r.Err == nil && r.Candidate != "" && !named && r.ScheduledAt.IsZero() {
		if p, ok := peer(v, r.Candidate); ok && cannotLead(v, c, p, true) == "" {
			return Decision{Reason: ReasonNotBest, Detail: fmt.Sprintf("a request names %s, which is healthy", r.Candidate), Ask: true, Wake: contestPause}
		}
	}
	for _, p := range v.Peers {
		why := rival(v, c, p)
		if why == "" || (named && !(p.Patroni && p.Answered && p.Running && !p.InRecovery)) {
			continue
		}
		// Soon again: the positions were read at two moments, and the other may not act (design section 9).
		return Decision{Reason: ReasonNotBest, Detail: "another member is to lead: " + why, Ask: v.askAgain(p), Wake: contestPause}
	}
	return take(v, named, fmt.Sprintf("this node is the best of %d candidates that answer, at %v", 1+answered(v), v.Server.Branch.End))
}

// askAgain says whether a peer's answer is worth asking for again.
func (v View) askAgain(p Peer) bool { return p.Age > contestPause }

func answered(v View) int {
	n := 0
	for _, p := range v.Peers {
		if p.Answered {
			n++
		}
	}
	return n
}

func take(v View, named bool, why string) Decision {
	if v.Lease.NeedVotes {
		return askVotes(v, why)
	}
	r := v.Cluster.Failover
	return Decision{Reason: ReasonTaking, Detail: why + "; " + v.Lease.TakeWhy, Wake: contestPause,
		Actions: []Action{Take{ClearFailover: r.Present && r.Err == nil && r.Requested() && (named || r.ScheduledAt.IsZero())}}}
}
