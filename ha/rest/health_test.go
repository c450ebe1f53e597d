package rest

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
)

// The health checks of the reference (section 2.4) where synchronous replication, a standby cluster, pause or a silent
// store matter.
func TestHealthChecksOfModes(t *testing.T) {
	sync := func(mode string) func(*Report) {
		return func(r *Report) {
			r.Cluster.Config.SynchronousMode = mode
			r.Cluster.Sync = cluster.Sync{Leader: "a", Standbys: []string{"B"}} // names compare without case
		}
	}
	standby := func(role string, leads bool) func(*Report) {
		return func(r *Report) {
			r.Cluster.Config.StandbyCluster, r.Role, r.IsLeader = true, role, leads
		}
	}
	silent := func(r *Report) { r.ClusterFresh = false }
	for _, c := range []struct {
		what   string
		node   *fakeNode
		change func(*Report)
		yes    string // the paths that answer 200
	}{
		{"sync standby", replicaNode(), sync("on"), "/replica /read-only /sync /synchronous /read-only-sync /read-only-synchronous /health"},
		{"quorum standby", replicaNode(), sync("quorum"), "/replica /read-only /quorum /read-only-quorum /health"},
		{"asynchronous standby", replicaNode(), func(r *Report) {}, "/replica /read-only /async /asynchronous /health"},
		{"primary of a synchronous cluster", primaryNode(), sync("on"), "/ /primary /master /read-write /leader /read-only /read-only-sync /read-only-synchronous /read-only-quorum /health"},
		{"leader of a standby cluster", replicaNode(), standby("standby_leader", true), "/leader /standby-leader /standby_leader /read-only /read-only-sync /read-only-synchronous /read-only-quorum /health"},
		{"replica of a standby cluster", replicaNode(), standby("replica", false), "/replica /read-only /async /asynchronous /health"},
		{"replica without the store", replicaNode(), silent, "/replica /read-only /health"},
		{"primary without the store, its lease goes on", primaryNode(), silent, "/ /primary /master /read-write /leader /read-only /health"},
		{"primary without the store nor lease", primaryNode(), func(r *Report) { silent(r); r.IsLeader = false }, "/health"},
		{"the same in pause", primaryNode(), func(r *Report) { silent(r); r.IsLeader, r.Paused = false, true }, "/ /primary /master /read-write /leader /read-only /health"},
		{"replica in pause without the store", replicaNode(), func(r *Report) { silent(r); r.Paused = true }, "/replica /read-only /health"},
		{"starting", replicaNode(), func(r *Report) { r.State = "starting" }, ""},
	} {
		c.change(&c.node.report)
		yes := strings.Fields(c.yes)
		for _, path := range []string{"/", "/primary", "/master", "/read-write", "/leader", "/standby-leader", "/standby_leader", "/replica", "/read-only", "/sync",
			"/synchronous", "/quorum", "/async", "/asynchronous", "/read-only-sync", "/read-only-synchronous", "/read-only-quorum", "/health", "/syncx", "/other"} {
			want := 503
			for _, y := range yes {
				if y == path {
					want = 200
				}
			}
			require.Equal(t, want, get(t, c.node, path), "%s: %s", c.what, path)
		}
	}
}

func TestReadiness(t *testing.T) {
	n := replicaNode()
	n.report.Cluster.Status.Optime, n.report.Server.LatestEnd = 0, 0
	require.Equal(t, 200, get(t, n, "/readiness"), "the store says that nothing was written")
	n.report.ClusterFresh = false
	require.Equal(t, 503, get(t, n, "/readiness"), "nobody knows how far the leader is")
	n.report.FailsafeActive = true
	require.Equal(t, 200, get(t, n, "/readiness"))
	n = replicaNode()
	n.report.Server.Streaming = false
	require.Equal(t, 503, get(t, n, "/readiness"))
}

func TestTags(t *testing.T) {
	n := replicaNode()
	n.report.Tags = cluster.Tags{"n": 3, "f": 1.0, "b": true, "off": false, "clonefrom": false, "s": "X", "list": []any{"A"}}
	for query, want := range map[string]int{"tag_n=3": 200, "tag_f=1.0": 200, "tag_b=true": 200, "tag_b=True": 503, "tag_off=false": 200, "tag_clonefrom=false": 503,
		"tag_s=X": 200, "tag_s=x": 503, "tag_s=X&tag_n=4": 503, "tag_s=": 200, "tag_x=1": 503, "tag_s=X&tag_s=Y": 200} {
		require.Equal(t, want, get(t, n, "/replica?"+query), query)
		require.Equal(t, 503, get(t, n, "/primary?"+query), "tags do not open what is closed")
	}
	leader := primaryNode()
	require.Equal(t, 200, get(t, leader, "/primary?tag_x=1"), "tags do not count for the primary")
	require.Equal(t, 503, get(t, leader, "/read-only?tag_x=1"))
}

// What a candidate must be where the standbys are synchronous.
func TestSwitchoverToASynchronousStandby(t *testing.T) {
	for _, c := range []struct {
		mode, path, body string
		standbys         []string
		code             int
		text             string
	}{
		{"on", "/switchover", `{"leader":"a","candidate":"c"}`, []string{"b"}, 412, "candidate name does not match with sync_standby"},
		{"on", "/switchover", `{"leader":"a","candidate":"b"}`, []string{"b"}, 200, "Successfully switched over"},
		{"on", "/switchover", `{"leader":"a"}`, nil, 412, "switchover is not possible: can not find sync_standby"},
		{"on", "/failover", `{"candidate":"b"}`, nil, 200, "Successfully failed over"},
		{"quorum", "/switchover", `{"leader":"a","candidate":"b"}`, []string{"c"}, 200, "Successfully switched over"},
	} {
		n := primaryNode()
		n.cluster.Config.SynchronousMode = c.mode
		n.cluster.Sync = cluster.Sync{Leader: "a", Standbys: c.standbys}
		n.then = func(n *fakeNode) { n.cluster.Leader.Name = "b" }
		code, text, _ := call(n, Options{}, "POST", c.path, c.body)
		require.Equal(t, c.code, code, text)
		require.Contains(t, text, c.text)
	}
	alone := primaryNode()
	alone.cluster.Members = alone.cluster.Members[:1]
	code, text, _ := call(alone, Options{}, "POST", "/switchover", `{"leader":"a"}`)
	require.Equal(t, []any{412, "switchover is not possible: cluster does not have members except leader"}, []any{code, text})
}

// Patroni's metrics stand first, in its order.
func TestMetricNames(t *testing.T) {
	want := strings.Fields(`version postgres_running postmaster_start_time primary xlog_location standby_leader replica sync_standby quorum_standby
		xlog_received_location xlog_replayed_location xlog_replayed_timestamp xlog_paused postgres_streaming postgres_in_archive_recovery
		postgres_server_version cluster_unlocked failsafe_mode_is_active failsafe_mode_enabled failsafe_member postgres_timeline dcs_last_seen
		pending_restart is_paused postgres_state failover_priority`)
	n := primaryNode()
	n.report.Counters = map[string]float64{`switchovers_total{reason="request",result="done"}`: 2, `switchovers_total{reason="request",result="failed"}`: 1, "a_total": 1}
	n.report.Histograms = map[string]Histogram{`phase_seconds{phase="promote"}`: {Bounds: []float64{0.1, 1}, Counts: []uint64{2, 1, 1}, Sum: 3.5}, "broken": {}}
	n.report.Store = &dcs.Stats{Calls: map[dcs.Call]dcs.CallStats{dcs.CallRead: {Outcomes: map[dcs.Outcome]uint64{dcs.OutcomeDone: 7},
		Latency: dcs.Latency{Bounds: []time.Duration{time.Millisecond}, Counts: []uint64{6, 1}, Sum: time.Second}}}}
	_, body, _ := call(n, Options{}, "GET", "/metrics", "")
	var got []string
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "# TYPE patroni_"); ok {
			got = append(got, strings.Fields(name)[0])
		}
	}
	require.Equal(t, want, got)
	for _, line := range []string{
		"# TYPE pgregent_switchovers_total counter\npgregent_switchovers_total{scope=\"demo\",name=\"a\",reason=\"request\",result=\"done\"} 2\npgregent_switchovers_total{scope=\"demo\",name=\"a\",reason=\"request\",result=\"failed\"} 1\n",
		"# TYPE pgregent_phase_seconds histogram\npgregent_phase_seconds_bucket{scope=\"demo\",name=\"a\",phase=\"promote\",le=\"0.1\"} 2\n",
		`pgregent_phase_seconds_bucket{scope="demo",name="a",phase="promote",le="+Inf"} 4` + "\n",
		`pgregent_phase_seconds_count{scope="demo",name="a",phase="promote"} 4` + "\n",
		`pgregent_store_calls_total{scope="demo",name="a",call="read",outcome="done"} 7` + "\n",
		`pgregent_store_seconds_bucket{scope="demo",name="a",call="read",le="0.001"} 6` + "\n",
		`pgregent_store_seconds_sum{scope="demo",name="a",call="read"} 1` + "\n",
		"# Values: 0=initdb, 1=initdb_failed, 2=custom_bootstrap,",
	} {
		require.Contains(t, body, line)
	}
	n.report.Server = postgres.Status{}
	_, body, _ = call(n, Options{}, "GET", "/metrics", "")
	require.Contains(t, body, `patroni_postgres_state{scope="demo",name="a"} -1`)
	require.NotContains(t, body, "patroni_postgres_streaming", "as with Patroni")
}

// The status of a replica has Patroni's fields, null where Patroni has null.
func TestReplicaStatusBody(t *testing.T) {
	n := replicaNode()
	n.report.Server.Walsenders = []postgres.Walsender{{User: "u", ApplicationName: "c", State: "streaming", SyncState: "async"}}
	_, body, _ := call(n, Options{}, "GET", "/patroni", "")
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &m))
	require.Equal(t, map[string]any{"received_location": 900.0, "replayed_location": 800.0, "replayed_timestamp": nil, "paused": false}, m["xlog"])
	require.Equal(t, []any{map[string]any{"usename": "u", "application_name": "c", "client_addr": nil, "state": "streaming", "sync_state": "async", "sync_priority": 0.0}}, m["replication"])
	require.Equal(t, "streaming", m["replication_state"])
}

// The status is made once for each report, and again before what it says is over.
func TestStatusIsKept(t *testing.T) {
	a := NewHandler(primaryNode(), Options{})
	r, now := primaryNode().Report(), time.Now()
	r.LeaderUntil = now.Add(10 * time.Millisecond)
	first, err := a.statusOf(r, now)
	require.NoError(t, err)
	again, _ := a.statusOf(r, now.Add(9*time.Millisecond))
	require.Same(t, first, again)
	require.Contains(t, string(first.body), `"writable":true`)
	late, _ := a.statusOf(r, now.Add(10*time.Millisecond))
	require.Contains(t, string(late.body), `"writable":false`, "the lease is over")
	other, _ := a.statusOf(primaryNode().Report(), now)
	require.NotSame(t, late, other)
	aged, _ := a.statusOf(other.report, now.Add(statusAge))
	require.NotSame(t, other, aged)
}
