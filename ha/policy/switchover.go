package policy

import (
	"fmt"
	"time"
)

// switchover carries out the request in the key `failover`, as the leader (reference section 5.11). Every request that
// is not carried out is cleared, with the reason.
func switchover(v View, c Config) (Decision, bool) {
	r := v.Cluster.Failover
	if r.Err != nil || !r.Requested() {
		return Decision{}, false
	}
	clear := func(format string, args ...any) (Decision, bool) {
		why := fmt.Sprintf(format, args...)
		return Decision{Reason: ReasonRequestRefused, Detail: why, Actions: []Action{ClearFailover{Why: why}}, Wake: contestPause}, true
	}
	scheduled := !r.ScheduledAt.IsZero()
	switch {
	case r.Leader != "" && r.Leader != v.Self.Name:
		return clear("the request is for the leader %q, but %q leads", r.Leader, v.Self.Name)
	case r.Candidate == v.Self.Name:
		return clear("the request names %q, who leads already", r.Candidate)
	case scheduled && c.Dynamic.Pause:
		return Decision{}, false
	case scheduled && v.ScheduledIn > 0:
		return Decision{Reason: ReasonScheduled, Detail: fmt.Sprintf("leader; a switchover is due in %v", v.ScheduledIn.Round(time.Second)),
			Wake: min(v.ScheduledIn, c.Dynamic.LoopWait)}, true
	case scheduled && v.ScheduledIn < -c.Dynamic.LoopWait*3/2:
		return clear("the switchover was due %v ago and is stale", (-v.ScheduledIn).Round(time.Second))
	case r.Candidate == "" && c.Dynamic.Pause:
		return clear("in pause a switchover needs a candidate")
	case v.Last.Kind == TaskDemote && v.Last.Failed != "" && v.Last.Ago < time.Minute:
		return clear("the demotion failed: %s", v.Last.Failed)
	}
	if !peersFresh(v) {
		return Decision{Reason: ReasonSwitchover, Detail: "a switchover is requested: asking the members", Ask: true, Wake: time.Second}, true
	}
	if r.Candidate != "" {
		p, ok := peer(v, r.Candidate)
		if !ok {
			return clear("the candidate %q is not a member", r.Candidate)
		}
		why := cannotLead(v, c, p, r.Leader == "")
		switch {
		case why == "" && p.Connected:
			return demoteTo(r.Candidate), true
		case why == "":
			why = "it does not stream from this node"
		}
		// Right after another change of the leader a healthy member is still on its way.
		onItsWay := p.Answered && p.InRecovery && p.Running && !p.Tags.NoFailover() && !p.Unfit
		if !onItsWay || v.RequestedFor > connectPatience {
			return clear("the candidate %q cannot lead: %s", r.Candidate, why)
		}
		return awaitConnection(r.Candidate), true
	}
	if best, ok := bestPeer(v, c, true); ok {
		return demoteTo(best), true
	}
	best, ok := bestPeer(v, c, false)
	if !ok {
		return clear("no other member can lead: %s", whyNobody(v, c))
	}
	if v.RequestedFor > connectPatience {
		return clear("no member that can lead streams from this node")
	}
	return awaitConnection(best), true
}

// connectPatience is how long a planned change of the leader waits for its target to stream from it.
const connectPatience = 5 * time.Second

// awaitConnection holds a planned change back. A clean shutdown sends everything to whom it is connected, and to nobody
// else: handing over to a member that does not stream would lose acknowledged writes (design promise 2).
func awaitConnection(target string) Decision {
	return Decision{Reason: ReasonSwitchover, Detail: fmt.Sprintf("a switchover is requested: %s does not stream from this node yet", target),
		Ask: true, Wake: contestPause}
}

func demoteTo(target string) Decision {
	return Decision{Reason: ReasonSwitchover, Detail: fmt.Sprintf("a switchover is requested: handing over to %s", target),
		Actions: []Action{Demote{Target: target}}}
}
