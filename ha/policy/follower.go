package policy

import (
	"fmt"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres/wal"
)

// follower decides while another member leads. It never starts, streams or rewinds against a leader whose WAL was not
// compared with its own first (hazards B9, B13), and never before that leader is a primary.
func follower(v View, c Config) Decision {
	name := v.Cluster.Leader.Name
	switch v.Server.Data {
	case DataEmpty, DataInterrupted:
		return cloning(v, c, name, "the data directory is empty or a copy of it was interrupted", false)
	case DataInvalid, DataUnknown:
		return Decision{Reason: ReasonDataProblem, Detail: "the data directory cannot be used: " + v.Server.Problem, Wake: c.Dynamic.LoopWait}
	}
	switch v.Server.Process {
	case ProcessNone:
		return rejoining(v, c, name)
	case ProcessForeign:
		return Decision{Reason: ReasonForeignServer, Actions: []Action{Stop{}}, Wake: time.Second,
			Detail: "a postmaster that this node did not start runs in the data directory: it is stopped, and started again under the guard"}
	case ProcessUnknown:
		d := Decision{Reason: ReasonGuardSilent, Detail: "the guard does not answer", Wake: time.Second}
		if v.Server.Answers && v.Server.Role == RoleReplica { // which needs no guard
			d = detached(v, d, upstream(v, name))
		}
		return d
	}
	if !v.Server.Answers {
		return followerSilent(v, c, name)
	}
	return following(v, c, name)
}

// upstream is the member to stream from: replicatefrom if it exists, nobody with nostream, else the leader.
func upstream(v View, leader string) string {
	if v.Self.Tags.NoStream() {
		return ""
	}
	if from := v.Self.Tags.ReplicateFrom(); from != "" && from != v.Self.Name {
		if m, ok := v.Cluster.Member(from); ok && m.State == cluster.StateRunning {
			return from
		}
	}
	return leader
}

// following keeps a running replica on the leader.
func following(v View, c Config, name string) Decision {
	want := upstream(v, name)
	rest := c.Dynamic.LoopWait + 500*time.Millisecond // the leader's renewal wakes this node before that
	if v.Server.TooLow != "" && v.Server.ReplayPaused && !c.Dynamic.Pause {
		// PostgreSQL 14 and later pause the replay instead of ending; a restart takes the value from pg_control.
		d, _ := restart(v, c, Restart{}, "the replay waits for a restart: "+v.Server.TooLow)
		d.Reason = ReasonParameters
		if wait := retry(v, TaskRestart); wait > 0 {
			d.Actions, d.Wake = nil, wait
		}
		return d
	}
	if v.Server.Upstream == want && (v.Server.Streaming || want == "") {
		return scheduledRestart(v, c, Decision{Reason: ReasonFollower, Detail: fmt.Sprintf("following %s at %v", orNobody(want), v.Server.Branch.End), Wake: rest})
	}
	d := Decision{Reason: ReasonRepointing, Detail: fmt.Sprintf("%s leads: following it instead of %s", name, orNobody(v.Server.Upstream)), Wake: contestPause}
	if v.Server.Upstream == want {
		d.Reason, d.Detail = ReasonNotStreaming, fmt.Sprintf("%s leads, and nothing is received from it", name)
		d.Wake = time.Second
	}
	if ok, why := lineKnown(v, name); !ok {
		d.Probe, d.Detail = name, d.Detail+": "+why
		return detached(v, d, want)
	}
	switch rel, fork := compareLine(v); rel {
	case cluster.RelationBehind:
		if v.Server.Upstream == want && v.Line.Age > d.Wake/2 {
			d.Probe = name // it may have moved on; its answer wakes the loop, so it is not asked again at once
		}
		d.Actions = []Action{Follow{Member: want}} // also ends the receiver's pause between two tries
	case cluster.RelationDiverged, cluster.RelationOtherPromotion:
		d.Reason, d.Detail = ReasonDiverged, divergence(v, name, rel, fork)+": PostgreSQL is stopped first"
		d.Actions = []Action{Stop{}}
	default:
		return detached(v, uncompared(v, d, name), want)
	}
	return d
}

// detached ends the receiver of a replica that may not follow the leader yet. Left alone it would go on trying the old
// upstream, and stream from it without being asked when that comes back with other WAL under the same numbers.
func detached(v View, d Decision, want string) Decision {
	if v.Server.Upstream != "" && v.Server.Upstream != want && !v.Server.Streaming {
		d.Actions = append(d.Actions, Follow{})
	}
	return d
}

// uncompared waits until the leader has said more; its answer wakes the loop, so it is not asked again at once.
func uncompared(v View, d Decision, name string) Decision {
	d.Detail += ": the two histories cannot be compared yet"
	d.Wake = time.Second
	if v.Line.Age > d.Wake/2 {
		d.Probe = name
	}
	return d
}

// compareLine compares the own WAL with the leader's. A leader that does not hold the lease record is a Patroni member:
// it has no identities to tell, so that only switch points are left to compare, as it does itself.
func compareLine(v View) (cluster.Relation, wal.Position) {
	mine, theirs := v.Server.Branch, v.Line.Branch
	if v.Lease.Holder != v.Line.Member || !v.Lease.Held {
		mine.Promotions, theirs.Promotions = nil, nil
	}
	return cluster.Compare(mine, theirs)
}

func orNobody(name string) string {
	switch name {
	case "":
		return "nobody"
	case "?":
		return "a server that is no member"
	}
	return name
}

// followerSilent leaves a server that is starting up alone, unless it waits for WAL from a server that leads no more.
func followerSilent(v View, c Config, name string) Decision {
	d := Decision{Reason: ReasonStarting, Detail: "PostgreSQL is starting up", Wake: time.Second}
	if !v.Server.Starting {
		d.Reason, d.Detail = ReasonNotAnswering, "PostgreSQL runs and does not answer"
		return d
	}
	want := upstream(v, name)
	if v.Last.Kind == TaskStartReplica && v.Last.Member != want && v.Last.Ago > 5*time.Second {
		d.Detail = fmt.Sprintf("PostgreSQL is starting up and waits for %s, but %s leads: it is started anew", orNobody(v.Last.Member), name)
		d.Actions = []Action{Stop{}}
	}
	return d
}

// lineKnown says whether the leader's own account of its WAL is there, fresh, and a primary's.
func lineKnown(v View, name string) (ok bool, why string) {
	l := v.Line
	switch {
	case l.Member != name || l.Age > lineFresh:
		return false, "asking it for its timeline"
	case !l.Known:
		return false, "it does not answer: " + l.Problem
	case l.Replica:
		return false, "it is not promoted yet"
	case v.Cluster.Initialize.Valid() && l.SystemID != v.Cluster.Initialize.SystemID:
		return false, fmt.Sprintf("it has the system identifier %s, the cluster has %s", l.SystemID, v.Cluster.Initialize.SystemID)
	}
	return true, ""
}

// rejoining brings a stopped server back behind the leader: measure its WAL, compare, then start, rewind or clone.
func rejoining(v View, c Config, name string) Decision {
	d := Decision{Reason: ReasonRejoining, Detail: fmt.Sprintf("PostgreSQL is stopped and %s leads", name), Wake: contestPause}
	if v.Server.Branch.End.LSN == 0 {
		d.Detail += ": finding out where the local WAL ends"
		if v.Last.Kind == TaskMeasure && v.Last.Failed != "" && v.Last.Times >= 3 {
			return cloning(v, c, name, "where the local WAL ends cannot be found out: "+v.Last.Failed, false)
		}
		d.Probe = name
		return attempt(v, TaskMeasure, d, Measure{})
	}
	if ok, why := lineKnown(v, name); !ok {
		d.Probe, d.Detail = name, d.Detail+": "+why
		return d
	}
	rel, fork := compareLine(v)
	switch rel {
	case cluster.RelationBehind:
		if v.Last.Kind == TaskStartReplica && v.Last.Failed != "" && v.Last.Times >= 5 {
			return cloning(v, c, name, "PostgreSQL could not be started as a replica: "+v.Last.Failed, false)
		}
		d.Detail = fmt.Sprintf("starting as a replica of %s at %v", orNobody(upstream(v, name)), v.Server.Branch.End)
		return attempt(v, TaskStartReplica, d, StartReplica{Member: upstream(v, name)})
	case cluster.RelationDiverged:
		d.Reason, d.Detail = ReasonDiverged, divergence(v, name, rel, fork)
		return rewinding(v, c, d, name, Rewind{Member: name, Fork: fork})
	case cluster.RelationOtherPromotion:
		return cloning(v, c, name, divergence(v, name, rel, fork)+", which pg_rewind cannot tell apart", false)
	}
	return uncompared(v, d, name)
}

func divergence(v View, name string, rel cluster.Relation, fork any) string {
	if rel == cluster.RelationOtherPromotion {
		return fmt.Sprintf("this node and %s were promoted apart to the same timeline number", name)
	}
	return fmt.Sprintf("the local WAL ends at %v and leaves the history of %s at %v", v.Server.Branch.End, name, fork)
}

// rewinding rewinds where that can help, and clones otherwise.
func rewinding(v View, c Config, d Decision, name string, a Rewind) Decision {
	m, _ := v.Cluster.Member(name)
	switch {
	case !v.Self.CanRewind:
		return cloning(v, c, name, d.Detail+"; pg_rewind is not possible (use_pg_rewind, and checksums or wal_log_hints)", false)
	case v.Last.Kind == TaskRewind && v.Last.Failed != "" && (v.Last.Impossible || v.Last.Times >= 2):
		return cloning(v, c, name, "pg_rewind failed: "+v.Last.Failed, false)
	case v.Last.Kind == TaskRewind && v.Last.Member == name && v.Last.Failed == "" && v.Last.Ago < time.Minute:
		return cloning(v, c, name, "pg_rewind saw nothing to do, and "+d.Detail, false)
	case !m.CheckpointAfterPromo:
		// Its control file still shows the timeline before the promotion (hazard B11b).
		d.Detail += "; waiting for its checkpoint before the rewind"
		return d
	}
	return attempt(v, TaskRewind, d, a)
}

// cloning makes a new copy of the leader. What is in the directory is renamed aside, and nothing begins before the
// leader has answered, because this may be the last copy (hazard C10, invariant I16).
func cloning(v View, c Config, name, why string, fromLeader bool) Decision {
	d := Decision{Reason: ReasonCloning, Detail: why + "; waiting for " + name, Wake: contestPause}
	if ok, reason := lineKnown(v, name); !ok {
		d.Probe, d.Detail = name, why+"; "+name+": "+reason
		if v.Line.Member == name && !v.Line.Known {
			d.Wake = time.Second
		}
		return d
	}
	source := name
	for _, m := range v.Cluster.Members {
		if !fromLeader && m.Tags.CloneFrom() && m.Name != v.Self.Name && m.Name != name && m.State == cluster.StateRunning && m.ReplicationState == cluster.ReplicationStreaming {
			source = m.Name
			break
		}
	}
	if v.Last.Kind == TaskClone && v.Last.Failed != "" && v.Last.Member != name {
		source = name // the other source failed
	}
	d.Detail = fmt.Sprintf("%s; copying %s", why, source)
	return attempt(v, TaskClone, d, Clone{Member: source})
}
