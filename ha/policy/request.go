package policy

import (
	"fmt"
	"time"
)

// RequestKind is what an operator wants of one node's PostgreSQL.
type RequestKind string

// Requests.
const (
	RequestNone         RequestKind = ""
	RequestRestart      RequestKind = "restart"
	RequestReinitialize RequestKind = "reinitialize"
)

// Request is what was asked of this node and is due: its conditions hold. It stays in the View until its task has ended.
type Request struct {
	Kind       RequestKind
	FromLeader bool // reinitialize: no other source
}

// restart carries out a request for a restart (reference section 5.21), where d is what would be done otherwise. Only a
// server that answers is restarted: one that does not is being seen to already.
//
// Safety: a primary is restarted under its open epoch, as after a crash (rule R7). The loop goes on renewing, and the
// guard ends what runs at the deadline all the same.
func restart(v View, c Config, d Decision, upstream string) Decision {
	if v.Request.Kind != RequestRestart {
		return d
	}
	if v.Lease.Open && v.Lease.Left <= 2*v.Self.FencePause && !c.Dynamic.Pause {
		d.Wake = contestPause // renewed first
		return d
	}
	return Decision{Reason: ReasonRestartRequested, Detail: "a restart was requested", Wake: contestPause, Actions: []Action{Restart{Member: upstream}}}
}

// reinitializing makes this replica anew, as was requested (reference section 5.5): stop, then copy. The directory is set
// aside by the copy, not before (invariant I16).
func reinitializing(v View, c Config, leader string) Decision {
	const why = "a reinitialization was requested"
	switch v.Server.Process {
	case ProcessRunning, ProcessForeign:
		d := Decision{Reason: ReasonCloning, Detail: why + ": PostgreSQL is stopped first", Wake: contestPause}
		if ok, problem := lineKnown(v, leader); !ok { // it goes on serving until a copy can begin
			d.Probe, d.Detail = leader, fmt.Sprintf("%s; %s: %s", why, leader, problem)
			return d
		}
		d.Actions = []Action{Stop{}}
		return d
	case ProcessNone:
		return cloning(v, c, leader, why)
	}
	return Decision{Reason: ReasonCloning, Detail: why + ": what runs is unclear", Wake: time.Second}
}
