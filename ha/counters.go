package ha

import "github.com/pgregent/pgregent/ha/policy"

// Histograms says what each histogram of a Report is, by its name without labels.
func Histograms() map[string]string {
	return map[string]string{
		"operation_seconds": "Time from one settled state of this node to the next, by what it was: `operation`.",
		"phase_seconds":     "Time of one phase of such a change: `operation` and `phase`, as `GET /operations` names them.",
	}
}

// Counters are the counters that a node may report, and what each counts. In the metrics they have the prefix pgregent_.
func Counters() map[string]string {
	all := map[string]string{
		"loop_turns_total":             "Turns of the loop.",
		"loop_seconds_total":           "Time spent in turns of the loop.",
		"renewals_total":               "Renewals of the lease that were tried.",
		"renewal_seconds_total":        "Time spent in them.",
		"renewals_failed_total":        "Renewals that were refused, or whose outcome is not known.",
		"takes":                        "Leases taken.",
		"operations_total":             "Changes of this node's state (failover, switchover, handover, ...), by what they ended as.",
		"action_failures":              "Actions of a decision that failed.",
		"failsafe_rounds_total":        "Rounds in which promises were asked for without the store.",
		"failsafe_rounds_failed_total": "Rounds without enough promises.",
		"rewound_bytes":                "WAL that rewinds removed, after it was set aside.",
	}
	for kind, what := range map[policy.TaskKind]string{
		policy.TaskInitdb: "Creations of a cluster", policy.TaskClone: "Base backups", policy.TaskRewind: "Rewinds",
		policy.TaskStartPrimary: "Starts as primary", policy.TaskStartReplica: "Starts as replica", policy.TaskPromote: "Promotions",
		policy.TaskDemote: "Planned stops of the primary", policy.TaskFence: "Fences", policy.TaskStop: "Stops of a replica",
		"restart":          "Restarts that an operator asked for",
		policy.TaskMeasure: "Searches for the end of the WAL of a stopped server",
	} {
		name := "task_" + metricName(string(kind))
		all[name+"_total"] = what + "."
		all[name+"_seconds_total"] = what + ": time spent."
		all[name+"_failed_total"] = what + " that failed."
	}
	return all
}
