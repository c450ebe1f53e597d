package policy

import "fmt"

// Reason is why a Decision was taken: one of a closed set. Its text is stable; tools may match on it.
type Reason string

// Reasons. Explain has a paragraph for each: what evidence it rests on, and what happens.
const (
	ReasonLeader         Reason = "leader"
	ReasonFollower       Reason = "follower"
	ReasonBusy           Reason = "busy"
	ReasonPromoting      Reason = "promoting"
	ReasonRestarting     Reason = "restarting"
	ReasonStarting       Reason = "starting"
	ReasonStartTimeout   Reason = "start-timeout"
	ReasonNotAnswering   Reason = "not-answering"
	ReasonUnfit          Reason = "unfit"
	ReasonSwitchover     Reason = "switchover"
	ReasonScheduled      Reason = "scheduled"
	ReasonRequestRefused Reason = "request-refused"
	ReasonReleasing      Reason = "releasing"
	ReasonOrphanKey      Reason = "orphan-key"
	ReasonLeaseLost      Reason = "lease-lost"
	ReasonLeaseUnclear   Reason = "lease-unclear"
	ReasonDeadline       Reason = "deadline"
	ReasonNoLease        Reason = "no-lease"
	ReasonOrphans        Reason = "orphans"
	ReasonFencing        Reason = "fencing"
	ReasonDataLost       Reason = "data-lost"
	ReasonDataProblem    Reason = "data-problem"
	ReasonForeignData    Reason = "foreign-data"
	ReasonForeignServer  Reason = "foreign-server"
	ReasonGuardSilent    Reason = "guard-silent"
	ReasonRepointing     Reason = "repointing"
	ReasonNotStreaming   Reason = "not-streaming"
	ReasonDiverged       Reason = "diverged"
	ReasonRejoining      Reason = "rejoining"
	ReasonCloning        Reason = "cloning"
	ReasonRestartAsked   Reason = "restart-asked"
	ReasonReinit         Reason = "reinitialize"
	ReasonParameters     Reason = "parameters"
	ReasonNoLeader       Reason = "no-leader"
	ReasonWaitLease      Reason = "wait-lease"
	ReasonWaitTarget     Reason = "wait-target"
	ReasonNotEligible    Reason = "not-eligible"
	ReasonNotBest        Reason = "not-best"
	ReasonTaking         Reason = "taking"
	ReasonBootstrapRace  Reason = "bootstrap-race"
	ReasonBootstrapping  Reason = "bootstrapping"
	ReasonWaitBootstrap  Reason = "wait-bootstrap"
	ReasonPaused         Reason = "paused"
	ReasonPausedLeader   Reason = "paused-leader"
	ReasonStoreSilent    Reason = "store-silent"
	ReasonFailsafe       Reason = "failsafe-active"
	ReasonPromised       Reason = "failsafe-promised"
	ReasonWaitVotes      Reason = "wait-votes"
	ReasonStopping       Reason = "stopping"
	ReasonStopped        Reason = "stopped"
)

// Explanation is a Reason in words.
type Explanation struct {
	Reason Reason
	Text   string
}

// Explain lists every Reason, in the order of the constants.
func Explain() []Explanation {
	return []Explanation{
		{ReasonLeader, "This node holds the lease, its key leader, and its PostgreSQL answers as primary. It renews, and has nothing else to do."},
		{ReasonFollower, "Another member leads, and this node's PostgreSQL streams from where it should. Nothing is done."},
		{ReasonBusy, "A long action is running. It is left to run; a leader goes on renewing meanwhile."},
		{ReasonPromoting, "This node has just taken the lease and its PostgreSQL is a replica. It is promoted once enough of the lease is left; after three failures the lease goes back."},
		{ReasonRestarting, "This node leads and its PostgreSQL is down. It is started again in place: as primary when the directory is certainly the cluster's last primary, else as a replica to be promoted."},
		{ReasonStarting, "PostgreSQL runs and is starting up or recovering. It is waited for; on the leader up to primary_start_timeout."},
		{ReasonStartTimeout, "The leader's PostgreSQL has been down or silent for longer than primary_start_timeout, or crashes again and again. If another member can lead, the lease is given up; if none can, it goes on."},
		{ReasonNotAnswering, "A replica's PostgreSQL runs, does not start up, and answers nothing. It is left alone and reported."},
		{ReasonUnfit, "A setting that changes safety is not supported by this node, so it must not lead. A leader hands over as soon as another member can."},
		{ReasonSwitchover, "The key failover holds a request and this node leads. The members are asked, the target is chosen, and PostgreSQL is checkpointed and stopped for it."},
		{ReasonScheduled, "A switchover is scheduled and not due yet."},
		{ReasonRequestRefused, "A request, in the key failover or to this node, cannot be carried out. It is cleared; the detail says why."},
		{ReasonReleasing, "The epoch is closed and nothing of it runs. The lease is given back with the proof, and to the target if there is one."},
		{ReasonOrphanKey, "The key leader hangs on this node's session while the lease is not this node's: a late write landed. It is deleted at its version."},
		{ReasonLeaseLost, "The lease record, or the key leader, is another's although this node's epoch is open. PostgreSQL is fenced and the epoch closed."},
		{ReasonLeaseUnclear, "An epoch is open, but the store was not read since. Nothing is done before it is."},
		{ReasonDeadline, "The lease could not be renewed, and what is left of it is what the fence needs. PostgreSQL is fenced before a taker may act."},
		{ReasonNoLease, "PostgreSQL runs as primary and this node has no open epoch. It is fenced."},
		{ReasonOrphans, "The postmaster is gone and some of its processes are not. They can still acknowledge a write, so they are killed before anything else happens; a leader then starts PostgreSQL again in place."},
		{ReasonFencing, "The fence is under way: fast shutdown, then immediate, then SIGKILL, until nothing is left."},
		{ReasonDataLost, "The leader's data directory is empty or unusable. The lease goes back; nothing is created in its place."},
		{ReasonDataProblem, "The data directory, or the key initialize, cannot be used as it is. Nothing is changed; the detail says what to do."},
		{ReasonForeignData, "The data directory belongs to another cluster. It is not started, joined or deleted."},
		{ReasonForeignServer, "A postmaster that the guard did not start runs in the data directory. It is stopped, and PostgreSQL is started again under the guard."},
		{ReasonGuardSilent, "The guard does not answer, so what runs is not known. Nothing is started."},
		{ReasonRepointing, "Another member leads now. This replica follows it as soon as it is a primary and the two histories were compared."},
		{ReasonNotStreaming, "This replica is configured for the leader and receives nothing. The leader's history is compared, in case the WAL has diverged."},
		{ReasonDiverged, "The local WAL has left the leader's history. PostgreSQL is stopped, what would be lost is set aside, and pg_rewind runs; where that cannot help a new copy is made."},
		{ReasonRejoining, "PostgreSQL is stopped and another member leads. The end of the local WAL is measured and compared before it starts."},
		{ReasonCloning, "The data directory must be made anew from the leader, which has to answer first. What is there is renamed aside."},
		{ReasonRestartAsked, "An operator asked for a restart of PostgreSQL, now or at a time that has come, and its conditions are satisfied. It is stopped in order and started again as what it was; a primary keeps its epoch, its lease and its timeline."},
		{ReasonReinit, "An operator asked to make this replica anew. Once the leader has answered, PostgreSQL is stopped and a new copy is made; the old data is kept aside."},
		{ReasonParameters, "The replay of this standby is paused because a parameter is lower than on the primary. PostgreSQL is restarted with the value that pg_control demands."},
		{ReasonNoLeader, "Nobody leads. Positions are measured and the members asked."},
		{ReasonWaitLease, "Nobody leads, but the last holder's lease has not run out on this node's clock. It may still be serving."},
		{ReasonWaitTarget, "The lease was released for another member, or ends where this node's WAL does not reach. Who fits has a few seconds."},
		{ReasonNotEligible, "This node must not lead; the detail says why."},
		{ReasonNotBest, "Another member that can act has more WAL, a higher priority, or is named by a request. It is to take the lease; if it does not, the next look decides anew."},
		{ReasonTaking, "This node is the best candidate and rule R4 allows it: it takes the lease."},
		{ReasonBootstrapRace, "The cluster does not exist. This node claims to create it; one claim wins."},
		{ReasonBootstrapping, "The claim is this node's: initdb, then the lease, then the start as primary."},
		{ReasonWaitBootstrap, "Another member creates the cluster, or must."},
		{ReasonPaused, "The cluster is in pause. PostgreSQL is left as it is."},
		{ReasonPausedLeader, "The cluster is in pause and this node leads: it renews, and carries out requests that name a candidate."},
		{ReasonStoreSilent, "The store does not answer. A leader serves until the fence, unless failsafe mode keeps it; a replica goes on; nothing is promoted."},
		{ReasonFailsafe, "The store does not answer, and enough members of the failsafe list have promised to let nobody else take the lease: this node goes on leading. It asks again all the time."},
		{ReasonPromised, "The leader goes on without the store, and this node has promised to let it. It follows, and neither takes the lease nor votes before the promise has run out."},
		{ReasonWaitVotes, "This node is the best candidate and has waited long enough, but the last holder may be going on without the store: votes of the failsafe list are needed. The detail says whose are missing, and what an operator can do."},
		{ReasonStopping, "The process was asked to end. The leadership is handed over, then PostgreSQL stops."},
		{ReasonStopped, "Everything is down, or left as it is in pause. The process ends."},
	}
}

func (a Take) String() string {
	s := "take the lease"
	if a.Bootstrap {
		s += " (bootstrap)"
	}
	if a.ClearFailover {
		s += " (clear the request)"
	}
	return s
}

func (a Renew) String() string {
	if a.Announce.ID != "" {
		return "renew, announcing the promotion " + a.Announce.ID
	}
	return "renew"
}

func (a Release) String() string {
	if a.Target != "" {
		return "release the lease to " + a.Target
	}
	return "release the lease"
}

func (DropOrphan) String() string        { return "delete our orphaned key leader" }
func (RaceInitialize) String() string    { return "claim initialize" }
func (DropInitialize) String() string    { return "give the claim on initialize back" }
func (a WriteInitialize) String() string { return "write initialize " + a.SystemID }
func (a ClearFailover) String() string   { return "clear the request" }
func (a Follow) String() string          { return "follow " + orNobody(a.Member) }
func (a Cancel) String() string          { return "cancel the task" }
func (Initdb) String() string            { return "initdb" }
func (a Clone) String() string           { return "clone " + a.Member }
func (Measure) String() string           { return "measure the WAL" }
func (a Rewind) String() string          { return fmt.Sprintf("rewind to %s, fork %v", a.Member, a.Fork) }
func (StartPrimary) String() string      { return "start as primary" }
func (a StartReplica) String() string    { return "start as a replica of " + orNobody(a.Member) }
func (Promote) String() string           { return "promote" }
func (a Demote) String() string          { return "demote for " + orAnyone(a.Target) }
func (Fence) String() string             { return "fence" }
func (Stop) String() string              { return "stop" }
func (Revive) String() string            { return "bring PostgreSQL back" }
func (a Refuse) String() string          { return fmt.Sprintf("refuse the %s: %s", a.Request, a.Why) }

func (a Restart) String() string {
	if a.Primary {
		return "restart as primary"
	}
	return "restart as a replica of " + orNobody(a.Member)
}
