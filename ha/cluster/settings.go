package cluster

// Setting is one key of the dynamic configuration, for the reference documentation.
type Setting struct {
	Name, Type, Default string
	Refused             bool // a node that sees it set does not lead, see Dynamic.Unsupported
	Text                string
}

// Settings are the keys of the dynamic configuration that ParseDynamic reads, in the order of the documentation. All of
// them count at once, on every member, when the key config is written.
func Settings() []Setting {
	return []Setting{
		{"ttl", "seconds", "30", false, "How long the lease of a leader that is silent lasts. From 3 on; below 7 the store's own elections must be over in 300 ms. A cluster that pgregent creates begins with 8."},
		{"loop_wait", "seconds", "10", false, "How often a member looks when nothing happens. A cluster that pgregent creates begins with 2."},
		{"retry_timeout", "seconds", "10", false, "How long the store may be silent before it counts as lost. loop_wait + 2 * retry_timeout fits into ttl, or is made to fit. A cluster that pgregent creates begins with 3."},
		{"maximum_lag_on_failover", "bytes", "1048576", false, "A replica that is further behind is not promoted, unless a request names it."},
		{"maximum_lag_on_syncnode", "bytes", "-1", false, "Read when synchronous replication is supported."},
		{"max_timelines_history", "number", "0", false, "How many changes of timeline the key history keeps; 0: all."},
		{"primary_start_timeout", "seconds", "300", false, "How long a leader's PostgreSQL may be down, or take to start, before another member is preferred; 0: at once. Also master_start_timeout. pre_promote has to end within it."},
		{"primary_stop_timeout", "seconds", "0", false, "How long a planned stop of the primary may take before it is forced; 0: 30. Also master_stop_timeout."},
		{"failsafe_mode", "bool", "off", false, "A leader that loses the store goes on while enough members promise that they follow. A cluster that pgregent creates begins with on."},
		{"check_timeline", "bool", "off", false, "Accepted: timelines are always compared, by the identity of each promotion."},
		{"pause", "bool", "off", false, "Nothing is promoted, fenced or started without a request that names the member."},
		{"member_slots_ttl", "duration", "30min", false, "How long the slot of a member that is away is kept; 0: not at all."},
		{"postgresql", "mapping", "", false, "use_slots, use_pg_rewind, parameters, pg_hba, pg_ident, recovery_conf, callbacks, pre_promote, before_stop: as in the local file, where the file wins."},
		{"synchronous_mode", "bool or quorum", "off", true, "Synchronous replication."},
		{"synchronous_mode_strict", "bool", "off", true, "Synchronous replication without an exception."},
		{"synchronous_node_count", "number", "1", false, "Read when synchronous replication is supported."},
		{"standby_cluster", "mapping", "", true, "A cluster that follows another one."},
		{"slots", "mapping", "", true, "Permanent replication slots. Also permanent_slots, permanent_replication_slots."},
		{"ignore_slots", "list", "", true, "Slots that are left alone."},
		{"citus", "mapping", "", true, "Citus."},
	}
}
