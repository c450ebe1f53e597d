package policy

import (
	"fmt"
)

// paused decides while the cluster is in pause (reference section 5.18; design section 7): the leader renews, nobody
// takes the lease unless an unscheduled request names it, and PostgreSQL is neither started nor stopped, except to
// finish what a requested switchover began. The guard holds no deadline meanwhile.
func paused(v View, c Config) Decision {
	r := v.Cluster.Failover
	named := r.Err == nil && r.Candidate == v.Self.Name && r.ScheduledAt.IsZero()
	switch {
	case v.Lease.Open && v.Lease.Verdict == VerdictMine:
		return pausedLeader(v, c)
	case v.Server.Due && v.Server.Process == ProcessNone && v.Cluster.Leader.Name != "" && v.Cluster.Leader.Name != v.Self.Name:
		d := follower(v, c)
		d.Detail = "in pause, as an operator asked for it: " + d.Detail
		return d
	case v.Last.Kind == TaskDemote && v.Server.Process == ProcessNone && v.Cluster.Leader.Name != "" && v.Cluster.Leader.Name != v.Self.Name,
		v.Last.Kind == TaskMeasure || v.Last.Kind == TaskRewind:
		d := follower(v, c)
		d.Detail = "in pause, after a switchover: " + d.Detail
		return d
	case named && v.Cluster.Leader.Name == "" && v.Lease.mayTake():
		if why := ineligible(v, c, true); why != "" {
			return Decision{Reason: ReasonNotEligible, Detail: "in pause: a request names this node, but it cannot lead: " + why}
		}
		return take(v, true, "in pause: a request names this node")
	}
	if v.Server.Role == RoleReplica && v.Server.Process == ProcessRunning && v.Cluster.Leader.Name != "" && v.Cluster.Leader.Name != v.Self.Name {
		d := following(v, c, v.Cluster.Leader.Name)
		d.Detail = "in pause: " + d.Detail
		if d.Reason == ReasonDiverged {
			d.Actions = nil
		}
		return d
	}
	what := "replica"
	if v.Server.Role == RolePrimary {
		what = "primary without the lease"
	} else if v.Server.Process == ProcessNone {
		what = "stopped"
	}
	return Decision{Reason: ReasonPaused, Detail: fmt.Sprintf("in pause: PostgreSQL is left as it is (%s)", what)}
}

// pausedLeader renews, and gives the lease back when PostgreSQL is not the primary any more.
func pausedLeader(v View, c Config) Decision {
	d := Decision{Reason: ReasonPausedLeader, Detail: fmt.Sprintf("in pause: leader of epoch %d", v.Lease.Epoch)}
	switch {
	case v.Server.Role == RolePrimary:
		if s, ok := switchover(v, c); ok {
			return renewing(v, c, s)
		}
	case v.Server.Process == ProcessRunning && v.Server.Role == RoleReplica && v.Last.Kind != TaskPromote:
		return promoting(v, c)
	case v.Server.Process == ProcessForeign && v.Server.Role == RoleReplica:
		d.Reason, d.Detail = ReasonReleasing, "in pause: a replica that this node did not start runs, so the lease is given back"
		d.Actions = []Action{Release{}}
		return d
	case v.Server.Process == ProcessNone && v.Server.Due:
		return leaderDown(v, c)
	case v.Server.Process == ProcessNone:
		d.Reason, d.Detail = ReasonReleasing, "in pause: PostgreSQL does not run, so the lease is given back"
		d.Actions = []Action{Release{}}
		return d
	}
	return renewing(v, c, d)
}

// noStore decides while the store is silent: a leader serves until the fence, or goes on with promises; a replica goes on, and nothing is promoted
// or taken (hazard C1: unknown is not lost). What was fenced comes back read-only.
func noStore(v View, c Config) Decision {
	d := Decision{Reason: ReasonStoreSilent, Wake: storePause}
	switch {
	case !v.Store.Known:
		d.Detail = "the store has not answered since this process started: waiting for it"
		return d
	case v.Lease.Open:
		return silentLeader(v, c)
	}
	d.Detail = fmt.Sprintf("the store has been silent for %v", round(v.Store.Silent))
	if v.Server.Process == ProcessNone && v.Server.Data == DataReady && v.Last.Kind == TaskFence && !c.Dynamic.Pause {
		d.Detail += ": starting read-only, without an upstream"
		return attempt(v, TaskStartReplica, d, StartReplica{})
	}
	return d
}

// stop decides after the process was asked to end: the leadership goes to the best member, PostgreSQL stops. In pause
// everything is left as it is.
func stop(v View, c Config) Decision {
	done := Decision{Reason: ReasonStopped, Detail: "nothing runs any more"}
	if c.Dynamic.Pause {
		done.Detail = "in pause: PostgreSQL and the lease are left as they are"
		return done
	}
	running := v.Server.Process == ProcessRunning
	switch {
	case v.Lease.Open && running && (v.Server.Role == RolePrimary || v.Server.StartedAs == RolePrimary):
		return stopLeader(v, c)
	case running:
		return Decision{Reason: ReasonStopping, Detail: "stopping the replica", Actions: []Action{Stop{}}, Wake: contestPause}
	case (v.Lease.Open || v.Lease.Unreleased) && !v.Store.Failed && v.Store.Known:
		r := Release{End: v.Server.Branch.End}
		if v.Last.Kind == TaskDemote && v.Last.Failed == "" {
			r.Target = v.Last.Member
		}
		return Decision{Reason: ReasonReleasing, Detail: "stopping: the lease goes to " + orAnyone(r.Target), Actions: []Action{r}, Wake: contestPause}
	}
	return done
}

func stopLeader(v View, c Config) Decision {
	d := Decision{Reason: ReasonStopping, Detail: "stopping: handing the leadership over"}
	if !peersFresh(v) && !v.Store.Failed {
		d.Ask, d.Wake = true, contestPause
		return renewing(v, c, d)
	}
	target, ok := bestPeer(v, c, true)
	if _, later := bestPeer(v, c, false); !ok && later && v.StopFor < connectPatience {
		d.Detail, d.Wake = "stopping: no member that can lead streams from this node yet", contestPause
		return renewing(v, c, d)
	}
	d.Detail = "stopping: handing the leadership over to " + orAnyone(target)
	d.Actions = []Action{Demote{Target: target}}
	return renewing(v, c, d)
}
