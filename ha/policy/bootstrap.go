package policy

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
)

// bootstrap decides while the cluster has no system identifier: one node creates it, the others wait for that one
// (reference section 5.3, hazard C8).
func bootstrap(v View, c Config) Decision {
	key := v.Cluster.Initialize
	switch {
	case !key.Present:
		return uninitialized(v, c)
	case v.Self.Session != "" && key.Session == v.Self.Session && key.SystemID == "":
		return bootstrapping(v)
	case key.SystemID == "":
		return Decision{Reason: ReasonWaitBootstrap, Detail: "another member creates the cluster", Wake: time.Second}
	}
	return Decision{Reason: ReasonDataProblem, Wake: c.Dynamic.LoopWait,
		Detail: fmt.Sprintf("the key initialize holds %q, which is no system identifier: write the cluster's there, or delete the key", key.SystemID)}
}

// uninitialized: the first to claim the bootstrap wins; an existing primary's directory is adopted.
func uninitialized(v View, c Config) Decision {
	switch {
	case v.Lease.Present && v.Lease.Held && !v.Lease.Takeable:
		return Decision{Reason: ReasonWaitLease, Detail: "the key initialize is gone, but a lease is held: waiting for its holder", Wake: time.Second}
	case v.Self.BootstrapFailed != "":
		return Decision{Reason: ReasonWaitBootstrap, Detail: "this node does not create the cluster again before it is restarted: " + v.Self.BootstrapFailed, Wake: time.Second}
	case v.Server.Data == DataReady:
		return adopting(v, c)
	case v.Server.Data != DataEmpty && v.Server.Data != DataInterrupted:
		return Decision{Reason: ReasonDataProblem, Detail: "the data directory cannot be used: " + v.Server.Problem, Wake: c.Dynamic.LoopWait}
	case withData(v) != "":
		return Decision{Reason: ReasonWaitBootstrap, Wake: time.Second, Detail: fmt.Sprintf(
			"the key initialize is missing, but %s has data: it is to lead, and no other cluster is created beside it", withData(v))}
	case !v.Self.Bootstrap || v.Self.Tags.NoFailover() || v.Self.Unfit != "":
		return Decision{Reason: ReasonWaitBootstrap, Detail: "this node may not create the cluster: waiting for another member to do it", Wake: time.Second}
	}
	if wait := retry(v, TaskInitdb); wait > 0 { // whoever else can, may: the claim is free
		return Decision{Reason: ReasonWaitBootstrap, Wake: max(wait, 5*time.Millisecond),
			Detail: fmt.Sprintf("the cluster could not be created here (%s): the next try begins in %v", v.Last.Failed, round(wait))}
	}
	return Decision{Reason: ReasonBootstrapRace, Detail: "the cluster does not exist yet: claiming to create it", Actions: []Action{RaceInitialize{}}, Wake: contestPause}
}

// withData names another member that says that it has data; empty: nobody does.
func withData(v View) string {
	for _, m := range v.Cluster.Members {
		if m.Name != v.Self.Name && m.Role != "" && m.Role != cluster.RoleUninitialized {
			return m.Name
		}
	}
	return ""
}

// bootstrapping: the claim is ours.
func bootstrapping(v View) Decision {
	d := Decision{Reason: ReasonBootstrapping, Detail: "creating the cluster", Wake: contestPause}
	switch v.Server.Data {
	case DataReady:
		if v.Lease.NeedVotes {
			return askVotes(v, "the cluster is created")
		}
		if !v.Lease.Takeable {
			return waitForLease(v) // an earlier cluster's leader may still run
		}
		d.Detail = "the cluster is created: taking the lease"
		d.Actions = []Action{Take{Bootstrap: true}}
		return d
	case DataEmpty, DataInterrupted:
		if retry(v, TaskInitdb) > 0 {
			d.Detail = fmt.Sprintf("the cluster could not be created (%s): the claim goes back", v.Last.Failed)
			d.Actions, d.Wake = []Action{DropInitialize{}}, 5*time.Second
			return d
		}
		d.Actions = []Action{Initdb{}}
		return d
	}
	d.Reason, d.Detail = ReasonDataProblem, "the data directory cannot be used: "+v.Server.Problem
	d.Actions = []Action{DropInitialize{}}
	return d
}

// adopting takes over a directory that exists while the store is empty: only what was written by a primary last, and
// only the most advanced of those that answer (hazard D7).
func adopting(v View, c Config) Decision {
	if d, ok := prepare(v, c); ok {
		return d
	}
	if !v.Server.WasPrimary {
		return Decision{Reason: ReasonNotEligible, Wake: time.Second,
			Detail: "the key initialize is missing and this directory is a replica's: start the member whose directory is the primary's first"}
	}
	if why := ineligible(v, c, false); why != "" {
		return Decision{Reason: ReasonNotEligible, Detail: "the key initialize is missing, and this node cannot adopt its data: " + why, Wake: time.Second}
	}
	if !v.Lease.mayTake() {
		return waitForLease(v)
	}
	// A replica that is as far cannot adopt its data, so it is no rival here; one that is further is.
	v.Peers = slices.DeleteFunc(slices.Clone(v.Peers), func(p Peer) bool {
		return p.Answered && p.Running && p.InRecovery && p.End == v.Server.Branch.End
	})
	d := contest(v, c, false)
	if d.Reason == ReasonTaking {
		d.Detail = "the store is empty and this directory was a primary's: adopting it"
		d.Actions = []Action{Take{Bootstrap: true}}
	}
	return d
}
