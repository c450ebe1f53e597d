package policy

import (
	"fmt"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
)

// The texts that Patroni's clients know (reference section 2.8).
const (
	textUnmet       = "restart conditions are not satisfied"
	textInProgress  = " already in progress"
	textNoLeader    = "Cluster has no leader, can not reinitialize"
	textLeader      = "I am the leader, can not reinitialize"
	textNotRestart  = "restart failed"
	staleAfterLoops = 1.5 // a scheduled restart that is later than this many loop_wait is not made up for
)

// operator decides what an operator asked this node for. The loop hands over the request, and each is carried out or
// refused; one that needs a renewal or an answer first waits for it.
func operator(v View, c Config) (Decision, bool) {
	if v.Restart != nil {
		if d, ok := restartAsked(v, c); ok {
			return d, true
		}
	}
	if v.Reinit != nil {
		return reinitAsked(v, c)
	}
	return Decision{}, false
}

func refuse(r Request, why, detail string) Decision {
	return Decision{Reason: ReasonRequestRefused, Detail: detail, Actions: []Action{Refuse{Request: r, Why: why}}, Wake: contestPause}
}

// refuseBusy refuses what is asked for while a task runs, in the name of the task. A forced reinitialization ends the
// task instead, unless that is one that must not be left half-way.
func refuseBusy(v View, d Decision) Decision {
	if v.Restart != nil {
		d.Actions = append(d.Actions, Refuse{Request: RequestRestart, Why: string(v.Task.Kind) + textInProgress})
	}
	if r := v.Reinit; r != nil && r.Force && !r.Copying && !v.Lease.Open {
		switch v.Task.Kind {
		case TaskClone, TaskRewind, TaskMeasure, TaskStartReplica, TaskRestart:
			d.Actions = append(d.Actions, Cancel{Why: "an operator asked to make this replica anew"})
		}
	}
	return d
}

// restartAsked is a restart for now (reference section 5.21).
func restartAsked(v View, c Config) (Decision, bool) {
	switch {
	case v.Reinit != nil:
		return refuse(RequestRestart, string(RequestReinit)+textInProgress, "a restart was asked for while this replica is made anew"), true
	case unmet(v, *v.Restart) != "":
		return refuse(RequestRestart, textUnmet, "a restart was asked for: "+unmet(v, *v.Restart)), true
	}
	return restart(v, c, Restart{}, "an operator asked for a restart")
}

// restart begins one, or says why not.
//
// Safety: a primary is restarted under its epoch and its lease, which stay open and renewed meanwhile: the record keeps
// every other member away exactly as while the primary runs, so there is no second primary, and the task is not on the
// fence's path. When the lease is lost or runs out in between, fenceFirst replaces the task; and the guard, which judges
// by itself, starts nothing as primary once the epoch is closed or its deadline has passed (rule R7), whatever the task
// goes on to ask for. The timeline is the one that it wrote until then under the same epoch, so it needs no comparison.
// A replica comes back on the upstream that it had, with which its WAL was compared when it was pointed at it.
func restart(v View, c Config, a Restart, why string) (Decision, bool) {
	request := RequestRestart
	if a.Scheduled {
		request = RequestScheduled
	}
	no := func(format string, args ...any) (Decision, bool) {
		detail := why + ", but " + fmt.Sprintf(format, args...)
		return refuse(request, textNotRestart+": "+fmt.Sprintf(format, args...), detail), true
	}
	d := Decision{Reason: ReasonRestartAsked, Detail: why}
	s := v.Server
	primary := s.Role == RolePrimary || s.StartedAs == RolePrimary
	switch {
	case request == RequestRestart && s.Process == ProcessNone && c.Dynamic.Pause:
		return revive(v, why)
	case s.Process == ProcessForeign:
		return no("the postmaster is not this node's guard's child")
	case s.Process != ProcessRunning:
		return no("PostgreSQL does not run")
	case !primary && v.Lease.Open:
		return refuse(request, string(TaskPromote)+textInProgress, why+", but this node is about to be promoted"), true
	case !primary:
		a.Member = s.Upstream
		if a.Member == "?" {
			a.Member = ""
		}
		d.Actions = []Action{a}
		return d, true
	case !v.Lease.Open || v.Lease.Verdict != VerdictMine || s.Role == RoleReplica:
		return no("PostgreSQL runs as primary without the lease, and a primary starts only under one")
	case v.Lease.Left <= 2*v.Self.FencePause && !c.Dynamic.Pause:
		d.Detail, d.Wake = why+": waiting for a renewal, too little of the lease is left", contestPause
		return renewing(v, c, d), true
	}
	a.Primary = true
	d.Actions = []Action{a}
	return renewing(v, c, d), true
}

// revive starts a server that is down in pause because an operator asks for it: as a replica of the leader, as the
// ordinary rules bring it back. Without a leader there is nothing to compare its WAL with, and nobody is promoted in pause.
func revive(v View, why string) (Decision, bool) {
	leader := v.Cluster.Leader.Name
	if v.Server.Data != DataReady || leader == "" || leader == v.Self.Name || v.Lease.Open {
		detail := "PostgreSQL does not run, and no other member leads that it could follow"
		return refuse(RequestRestart, textNotRestart+": "+detail, why+", but "+detail), true
	}
	return Decision{Reason: ReasonRestartAsked, Detail: "in pause: " + why + ", and PostgreSQL does not run: it is started", Actions: []Action{Revive{}}, Wake: contestPause}, true
}

// unmet is why the conditions of a restart are not satisfied; empty: they are.
func unmet(v View, r RestartRequest) string {
	s, role := v.Server, cluster.RoleReplica
	if s.Role == RolePrimary || s.Role == RoleUnknown && s.StartedAs == RolePrimary {
		role = cluster.RolePrimary
	}
	switch {
	case r.Role != "" && r.Role != role:
		return fmt.Sprintf("only as %s, and this is a %s", r.Role, role)
	case r.Below != 0 && s.Version == 0:
		return "only of an older version, and the server does not tell its version"
	case r.Below != 0 && s.Version >= r.Below:
		return fmt.Sprintf("only below version %d, and this is %d", r.Below, s.Version)
	case r.Pending && !s.PendingRestart:
		return "only when a parameter waits for it, and none does"
	}
	return ""
}

// scheduledRestart carries out a scheduled restart in a healthy cluster that is not in pause; d is what would be done
// without one (reference section 5.21).
func scheduledRestart(v View, c Config, d Decision) Decision {
	r := v.Scheduled
	if r == nil || c.Dynamic.Pause {
		return d
	}
	forget := func(why string) Decision {
		d.Actions = append(d.Actions, Refuse{Request: RequestScheduled, Why: why})
		return d
	}
	late := -r.In
	switch {
	case r.Happened:
		return forget("PostgreSQL was started anew since it was scheduled")
	case r.In > 0:
		d.Wake = shorter(d.Wake, r.In)
		return d
	case late > time.Duration(staleAfterLoops*float64(c.Dynamic.LoopWait)):
		return forget(fmt.Sprintf("it was due %v ago and is stale", late.Round(time.Second)))
	case unmet(v, *r) != "":
		return forget(textUnmet + ": " + unmet(v, *r))
	}
	now, _ := restart(v, c, Restart{Scheduled: true}, "a scheduled restart is due")
	return now
}

// reinitAsked makes a replica anew (reference section 5.5): PostgreSQL is stopped once the leader has answered, and the
// copy is made beside the old data, which is kept (hazard C10). Without a leader, or as the leader, the request is
// dropped: then this copy may be the one that is needed.
func reinitAsked(v View, c Config) (Decision, bool) {
	name := v.Cluster.Leader.Name
	why := "an operator asked to make this replica anew"
	primary := v.Server.Role == RolePrimary || v.Server.StartedAs == RolePrimary && v.Server.Process == ProcessRunning
	switch {
	case v.Lease.Open || name == v.Self.Name:
		return refuse(RequestReinit, textLeader, why+", but this node leads"), true
	case name == "" || v.Lease.mayTake():
		return refuse(RequestReinit, textNoLeader, why+", but nobody leads"), true
	case primary:
		return refuse(RequestReinit, "PostgreSQL runs as primary, can not reinitialize", why+", but PostgreSQL runs as primary"), true
	case v.Server.Process == ProcessUnknown:
		return Decision{Reason: ReasonGuardSilent, Detail: why + ": the guard does not answer", Wake: contestPause}, true
	case v.Server.Process == ProcessNone:
		return cloning(v, c, name, why, v.Reinit.FromLeader), true
	}
	d := Decision{Reason: ReasonReinit, Detail: why, Wake: contestPause}
	if ok, reason := lineKnown(v, name); !ok {
		d.Probe, d.Detail = name, why+"; "+name+": "+reason
		return d, true
	}
	d.Detail += ": PostgreSQL is stopped first"
	return attempt(v, TaskStop, d, Stop{}), true
}
