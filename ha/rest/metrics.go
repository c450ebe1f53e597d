package rest

import (
	"bytes"
	"fmt"
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
	standbyLeader := replica && r.Cluster.Config.StandbyCluster && r.Role == cluster.RoleStandbyLeader
	sync, quorum := syncRole(r)
	sync, quorum = sync && replica, quorum && replica

	m.text("patroni_version", "Patroni semver without periods.", "gauge", versionNumber(cluster.ProtocolVersion))
	m.flag("patroni_postgres_running", "Value is 1 if Postgres is running, 0 otherwise.", r.State == cluster.StateRunning && s.Answered)
	m.gauge("patroni_postmaster_start_time", "Epoch seconds since Postgres started.", epoch(s.PostmasterStart))
	m.flag("patroni_primary", "Value is 1 if this node is the leader, 0 otherwise.", primary)
	m.counter("patroni_xlog_location", "Current location of the Postgres transaction log, 0 if this node is not the leader.", pick(primary, float64(s.Current)))
	m.flag("patroni_standby_leader", "Value is 1 if this node is the standby_leader, 0 otherwise.", standbyLeader)
	m.flag("patroni_replica", "Value is 1 if this node is a replica, 0 otherwise.", replica && !standbyLeader)
	m.flag("patroni_sync_standby", "Value is 1 if this node is a sync standby, 0 otherwise.", sync)
	m.flag("patroni_quorum_standby", "Value is 1 if this node is a quorum standby, 0 otherwise.", quorum)
	m.counter("patroni_xlog_received_location", "Current location of the received Postgres transaction log, 0 if this node is not a replica.", pick(replica, float64(max(s.Received, s.Written, s.Replayed))))
	m.counter("patroni_xlog_replayed_location", "Current location of the replayed Postgres transaction log, 0 if this node is not a replica.", pick(replica, float64(s.Replayed)))
	m.gauge("patroni_xlog_replayed_timestamp", "Current timestamp of the replayed Postgres transaction log, 0 if null.", pick(replica, epoch(s.ReplayedAt)))
	m.flag("patroni_xlog_paused", "Value is 1 if the Postgres xlog is paused, 0 otherwise.", replica && s.ReplayPaused)
	if s.Answered { // Patroni asks for 9.6 or later
		m.flag("patroni_postgres_streaming", "Value is 1 if Postgres is streaming, 0 otherwise.", replica && s.Streaming)
		m.flag("patroni_postgres_in_archive_recovery", "Value is 1 if Postgres is replicating from archive, 0 otherwise.", replica && !s.Streaming && s.RestoreCommand)
	}
	m.gauge("patroni_postgres_server_version", "Version of Postgres (if running), 0 otherwise.", float64(s.Version))
	m.flag("patroni_cluster_unlocked", "Value is 1 if the cluster is unlocked, 0 if locked.", r.Unlocked || !r.ClusterFresh)
	m.flag("patroni_failsafe_mode_is_active", "Value is 1 if failsafe mode is active, 0 if inactive.", r.FailsafeActive)
	m.flag("patroni_failsafe_mode_enabled", "Value is 1 if failsafe mode is enabled, 0 if disabled.", r.FailsafeEnabled)
	_, listed := r.Cluster.Failsafe.Members[r.Name]
	m.flag("patroni_failsafe_member", "Value is 1 if this node is in the failsafe key, 0 otherwise.", listed)
	m.gauge("patroni_postgres_timeline", "Postgres timeline of this node (if running), 0 otherwise.", float64(s.Timeline))
	m.gauge("patroni_dcs_last_seen", "Epoch timestamp when DCS was last contacted successfully by Patroni.", float64(unixOr0(r.ClusterAt)))
	m.flag("patroni_pending_restart", "Value is 1 if the node needs a restart, 0 otherwise.", len(r.PendingRestart) > 0)
	m.flag("patroni_is_paused", "Value is 1 if auto failover is disabled, 0 otherwise.", r.Paused)
	state := r.State
	if !s.Answered && state == cluster.StateRunning {
		state = cluster.StateUnknown
	}
	m.gauge("patroni_postgres_state", stateHelp(), stateIndex(state))
	m.gauge("patroni_failover_priority", "Failover priority of the node.", float64(r.Tags.FailoverPriority()))

	ownMetrics(&m, r, now)
	return m.b.Bytes()
}

type metricWriter struct {
	b      bytes.Buffer
	labels string
}

// text writes a value that is no plain number: Patroni's version has a leading zero.
func (m *metricWriter) text(name, help, kind, v string) {
	fmt.Fprintf(&m.b, "# HELP %s %s\n# TYPE %s %s\n%s%s %s\n", name, help, name, kind, name, m.labels, v)
}

func (m *metricWriter) write(kind, name, help string, v float64) {
	m.text(name, help, kind, number(v))
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

// versionNumber is a dotted version with every part padded to two digits: 4.1.4 is 040104.
func versionNumber(v string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(v, ".") {
		fmt.Fprintf(&b, "%02s", part)
	}
	return b.String()
}

// states are the member states in the order of their numbers (reference section 1.5).
func states() []string {
	return []string{"initializing new cluster", "initdb failed", "running custom bootstrap script", "custom bootstrap failed",
		"creating replica", "running", "starting", "starting after custom bootstrap", "start failed", "restarting",
		"restart failed", "stopping", "stopped", "stop failed", "crashed"}
}

func stateIndex(s string) float64 { return float64(slices.Index(states(), s)) }

// stateHelp is Patroni's help with its line of values: the names of its enumeration.
func stateHelp() string {
	short := map[string]string{"initializing new cluster": "initdb", "running custom bootstrap script": "custom_bootstrap", "starting after custom bootstrap": "bootstrap_starting"}
	var b strings.Builder
	b.WriteString("Numeric representation of Postgres state.\n# Values:")
	for i, s := range states() {
		if i > 0 {
			b.WriteByte(',')
		}
		name := short[s]
		if name == "" {
			name = strings.ReplaceAll(s, " ", "_")
		}
		fmt.Fprintf(&b, " %d=%s", i, name)
	}
	return b.String()
}
