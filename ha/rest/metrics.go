package rest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
)

// metrics is the body of GET /metrics: Patroni's names and types in the reference's order (section 2.9), then ours.
func metrics(r *Report, now time.Time) []byte {
	m := metricWriter{labels: fmt.Sprintf(`{scope="%s",name="%s"}`, escape(r.Scope), escape(r.Name))}
	s := r.Server
	primary := s.Answered && s.Role == postgres.RolePrimary
	replica := s.Answered && s.Role == postgres.RoleReplica
	sync, quorum := syncRole(r)
	sync, quorum = sync && replica, quorum && replica

	m.gauge("patroni_version", "Patroni protocol version without periods.", versionNumber(cluster.ProtocolVersion))
	m.flag("patroni_postgres_running", "Value is 1 if Postgres is running, 0 otherwise.", r.State == cluster.StateRunning && s.Answered)
	m.gauge("patroni_postmaster_start_time", "Epoch seconds since Postgres started.", epoch(s.PostmasterStart))
	m.flag("patroni_primary", "Value is 1 if this node is the leader, 0 otherwise.", primary)
	m.counter("patroni_xlog_location", "Current location of the Postgres transaction log, 0 if this node is not the leader.", pick(primary, float64(s.Current)))
	m.flag("patroni_standby_leader", "Value is 1 if this node is the standby_leader, 0 otherwise.", false)
	m.flag("patroni_replica", "Value is 1 if this node is a replica, 0 otherwise.", replica)
	m.flag("patroni_sync_standby", "Value is 1 if this node is a sync standby, 0 otherwise.", sync)
	m.flag("patroni_quorum_standby", "Value is 1 if this node is a quorum standby, 0 otherwise.", quorum)
	m.counter("patroni_xlog_received_location", "Current location of the received Postgres transaction log, 0 if this node is not a replica.", pick(replica, float64(max(s.Received, s.Written, s.Replayed))))
	m.counter("patroni_xlog_replayed_location", "Current location of the replayed Postgres transaction log, 0 if this node is not a replica.", pick(replica, float64(s.Replayed)))
	m.gauge("patroni_xlog_replayed_timestamp", "Current timestamp of the replayed Postgres transaction log, 0 if null.", pick(replica, epoch(s.ReplayedAt)))
	m.flag("patroni_xlog_paused", "Value is 1 if the Postgres xlog is paused, 0 otherwise.", replica && s.ReplayPaused)
	m.flag("patroni_postgres_streaming", "Value is 1 if Postgres is streaming, 0 otherwise.", replica && s.Streaming)
	m.flag("patroni_postgres_in_archive_recovery", "Value is 1 if Postgres is replicating from the archive, 0 otherwise.", replica && !s.Streaming && s.RestoreCommand)
	m.gauge("patroni_postgres_server_version", "Version of Postgres (if running), 0 otherwise.", float64(s.Version))
	m.flag("patroni_cluster_unlocked", "Value is 1 if the cluster is unlocked, 0 if locked.", r.Unlocked || !r.ClusterFresh)
	m.flag("patroni_failsafe_mode_is_active", "Value is 1 if failsafe mode is active, 0 if inactive.", r.FailsafeActive)
	m.flag("patroni_failsafe_mode_enabled", "Value is 1 if failsafe mode is enabled, 0 if disabled.", r.FailsafeEnabled)
	_, listed := r.Cluster.Failsafe.Members[r.Name]
	m.flag("patroni_failsafe_member", "Value is 1 if this node is in the failsafe key, 0 otherwise.", listed)
	m.counter("patroni_postgres_timeline", "Postgres timeline of this node (if running), 0 otherwise.", float64(s.Timeline))
	m.gauge("patroni_dcs_last_seen", "Epoch timestamp when the store was last contacted successfully.", float64(unixOr0(r.ClusterAt)))
	m.flag("patroni_pending_restart", "Value is 1 if the node needs a restart, 0 otherwise.", len(r.PendingRestart) > 0)
	m.flag("patroni_is_paused", "Value is 1 if auto failover is disabled, 0 otherwise.", r.Paused)
	m.gauge("patroni_postgres_state", stateHelp(), stateIndex(r.State))
	m.gauge("patroni_failover_priority", "Failover priority of the node.", float64(r.Tags.FailoverPriority()))

	m.flag("pgregent_writable", "Value is 1 if PostgreSQL accepts writes here under the lease.", r.Writable && now.Before(r.LeaderUntil))
	m.gauge("pgregent_lease_seconds_left", "Seconds until the fence if the lease is not renewed, 0 without the lease.", pick(r.IsLeader, max(r.LeaderUntil.Sub(now).Seconds(), 0)))
	m.gauge("pgregent_lease_epoch", "Epoch of the lease that this node last held.", float64(r.Epoch))
	m.flag("pgregent_unfit", "Value is 1 if this node must not lead because of a setting that is not supported.", r.Unfit != "")
	m.flag("pgregent_fence_bounded", "Value is 1 if a primary here ends by its deadline whatever happens to the agent.", r.Fence.Bounded)
	for _, rung := range r.Fence.Rungs {
		m.flag("pgregent_fence_rung_"+strings.ReplaceAll(rung, "-", "_"), "Value is 1 if this means of the fence is active.", true)
	}
	m.durations(r.Scope, r.Name, r.Durations)
	for _, name := range slices.Sorted(maps.Keys(r.Counters)) {
		m.counter("pgregent_"+name, "Counter of this node's loop.", r.Counters[name])
	}
	return m.b.Bytes()
}

type metricWriter struct {
	b      bytes.Buffer
	labels string
}

func (m *metricWriter) write(kind, name, help string, v float64) {
	fmt.Fprintf(&m.b, "# HELP %s %s\n# TYPE %s %s\n%s%s %s\n", name, help, name, kind, name, m.labels, number(v))
}

func (m *metricWriter) gauge(name, help string, v float64)   { m.write("gauge", name, help, v) }
func (m *metricWriter) counter(name, help string, v float64) { m.write("counter", name, help, v) }
func (m *metricWriter) flag(name, help string, on bool) {
	m.gauge(name, help, pick(on, 1))
}

func pick(on bool, v float64) float64 {
	if on {
		return v
	}
	return 0
}

func number(v float64) string {
	if v == float64(int64(v)) {
		return fmt.Sprint(int64(v))
	}
	return fmt.Sprintf("%.6f", v)
}

func epoch(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}

func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s)
}

// versionNumber is a dotted version with every part padded to two digits: 4.1.4 is 40104.
func versionNumber(v string) float64 {
	n := 0
	for part := range strings.SplitSeq(v, ".") {
		d := 0
		for _, r := range part {
			d = d*10 + int(r-'0')
		}
		n = n*100 + d
	}
	return float64(n)
}

// states are the member states in the order of their numbers (reference section 1.5).
func states() []string {
	return []string{"initializing new cluster", "initdb failed", "running custom bootstrap script", "custom bootstrap failed",
		"creating replica", "running", "starting", "starting after custom bootstrap", "start failed", "restarting",
		"restart failed", "stopping", "stopped", "stop failed", "crashed"}
}

func stateIndex(s string) float64 { return float64(slices.Index(states(), s)) }

func stateHelp() string {
	var b strings.Builder
	b.WriteString("Numeric representation of Postgres state.\n# Values:")
	for i, s := range states() {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %d=%s", i, strings.ReplaceAll(s, " ", "_"))
	}
	return b.String()
}
