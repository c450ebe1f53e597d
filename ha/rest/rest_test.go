package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// fakeNode is a node whose report and cluster a test sets. A failover written into it is carried out at once when then
// is set.
type fakeNode struct {
	promises []dcs.PromiseRequest
	votes    []dcs.VoteRequest
	accepted []string
	answer   dcs.VoterAnswer
	refuse   error
	mu       sync.Mutex
	report   Report
	cluster  cluster.Cluster
	answers  map[string]Answer
	then     func(n *fakeNode)
	written  []cluster.Failover
	reloaded int
	operated []string        // what Operator was asked for
	config   json.RawMessage // the key config; nil: absent
	failWith error           // the answer of every method of Operator
	had      bool            // what the methods that cancel say
}

func (n *fakeNode) did(format string, args ...any) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failWith == nil {
		n.operated = append(n.operated, fmt.Sprintf(format, args...))
	}
	return n.failWith
}

func (n *fakeNode) Restart(_ context.Context, r RestartRequest) error {
	return n.did("restart %+v", restartView(r))
}
func (n *fakeNode) ScheduleRestart(r RestartRequest) error {
	return n.did("schedule %+v", restartView(r))
}
func (n *fakeNode) Reinitialize(r ReinitializeRequest) error { return n.did("reinitialize %+v", r) }
func (n *fakeNode) CancelRestart() bool                      { return n.had && n.did("cancel restart") == nil }
func (n *fakeNode) CancelReinitialize() bool                 { return n.had && n.did("cancel reinitialize") == nil }

func (n *fakeNode) ChangeConfig(_ context.Context, _ bool, change func(json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error) {
	if n.failWith != nil {
		return nil, n.failWith
	}
	next, err := change(n.config)
	if err == nil {
		n.config = next
		err = n.did("config %s", next)
	}
	return next, err
}

// changes is everything that a request changed.
func (n *fakeNode) changes() int {
	return len(n.written) + len(n.operated) + n.reloaded + len(n.promises) + len(n.votes) + len(n.accepted)
}

func (n *fakeNode) Report() *Report { n.mu.Lock(); defer n.mu.Unlock(); r := n.report; return &r }
func (n *fakeNode) ReadCluster(context.Context) (cluster.Cluster, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cluster, nil
}

func (n *fakeNode) WriteFailover(_ context.Context, f cluster.Failover, version *uint64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if version != nil && *version != n.cluster.Failover.Version {
		return dcs.ErrConflict
	}
	n.written = append(n.written, f)
	f.Key = cluster.Key{Present: true, Version: n.cluster.Failover.Version + 1}
	n.cluster.Failover = f
	if n.then != nil {
		n.then(n)
	}
	return nil
}

func (n *fakeNode) Ask(_ context.Context, members []cluster.Member) []Answer {
	var out []Answer
	for _, m := range members {
		a := n.answers[m.Name]
		a.Member = m.Name
		out = append(out, a)
	}
	return out
}
func (n *fakeNode) Reload() { n.reloaded++ }

func (n *fakeNode) Promise(q dcs.PromiseRequest) dcs.VoterAnswer {
	n.promises = append(n.promises, q)
	return n.answer
}

func (n *fakeNode) Vote(q dcs.VoteRequest) dcs.VoterAnswer {
	n.votes = append(n.votes, q)
	return n.answer
}

func (n *fakeNode) Accept(leader string) (wal.LSN, error) {
	n.accepted = append(n.accepted, leader)
	return 4711, n.refuse
}
func (n *fakeNode) Decisions() []DecisionRecord { return []DecisionRecord{{Reason: "leader"}} }

func member(name, role string) cluster.Member {
	return cluster.Member{Name: name, Role: role, State: "running", APIURL: "http://" + name + "/patroni", ConnURL: "postgres://" + name + ":5432/postgres", Timeline: 1}
}

// primaryNode is a healthy leader called a, with the replicas b and c.
func primaryNode() *fakeNode {
	c := cluster.Cluster{Leader: cluster.Leader{Name: "a"}, Members: []cluster.Member{member("a", "primary"), member("b", "replica"), member("c", "replica")}}
	c.Status.Optime = 1000
	c.Members[1].ReceiveLSN, c.Members[1].ReplayLSN, c.Members[1].Location = 900, 800, 900
	c.Members[1].ReplicationState = "streaming"
	good := Answer{Status: Status{InRecovery: true, HasPosition: true}}
	return &fakeNode{cluster: c, answers: map[string]Answer{"b": good, "c": good}, report: Report{
		Name: "a", Scope: "demo", Version: "0.1", State: "running", Role: "primary", SystemID: "7711086890896456014",
		Server:  postgres.Status{Answered: true, Role: postgres.RolePrimary, Version: 150018, Current: 1000, Timeline: 1, PostmasterStart: time.Unix(1795377324, 909680000)},
		Cluster: c, ClusterAt: time.Now(), ClusterFresh: true, TTL: 8 * time.Second, LoopWait: 2 * time.Second, MaxLag: 1 << 20,
		IsLeader: true, LeaderUntil: time.Now().Add(5 * time.Second), Writable: true, LoopAt: time.Now(),
	}}
}

func replicaNode() *fakeNode {
	n := primaryNode()
	n.report.Name, n.report.Role, n.report.IsLeader, n.report.Writable = "b", "replica", false, false
	n.report.Server = postgres.Status{Answered: true, Role: postgres.RoleReplica, Version: 150018, Received: 900, Replayed: 800, Streaming: true, LatestEnd: 1000, Timeline: 1}
	return n
}

func call(n Node, o Options, method, path, body string, user ...string) (int, string, http.Header) {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if len(user) == 2 {
		req.SetBasicAuth(user[0], user[1])
	}
	w := httptest.NewRecorder()
	NewHandler(n, o).ServeHTTP(w, req)
	b, _ := io.ReadAll(w.Body)
	return w.Code, string(b), w.Header()
}

func get(t *testing.T, n Node, path string) int {
	t.Helper()
	code, _, _ := call(n, Options{}, "GET", path, "")
	return code
}

func TestHealthChecks(t *testing.T) {
	leader, replica := primaryNode(), replicaNode()
	promoting := primaryNode()
	promoting.report.Server.Role = postgres.RoleReplica
	stale := primaryNode()
	stale.report.LeaderUntil = time.Now().Add(-time.Millisecond)
	tagged := replicaNode()
	tagged.report.Tags = cluster.Tags{"noloadbalance": true, "zone": "x"}
	zoned := replicaNode()
	zoned.report.Tags = cluster.Tags{"zone": "x", "fast": true}
	down := replicaNode()
	down.report.Server, down.report.State = postgres.Status{}, "stopped"
	for _, c := range []struct {
		what string
		node *fakeNode
		path string
		want int
	}{
		{"leader", leader, "/", 200}, {"leader", leader, "/primary", 200}, {"leader", leader, "/master", 200}, {"leader", leader, "/read-write", 200},
		{"leader", leader, "/leader", 200}, {"leader", leader, "/replica", 503}, {"leader", leader, "/read-only", 200}, {"leader", leader, "/health", 200},
		{"leader", leader, "/standby-leader", 503}, {"leader", leader, "/foo", 503}, {"leader", leader, "/async", 503},
		{"promoting: the lock is held, writes are not accepted yet", promoting, "/primary", 503}, {"promoting", promoting, "/leader", 200},
		{"the lease ran out while the loop hangs", stale, "/primary", 503}, {"stale", stale, "/leader", 503},
		{"replica", replica, "/", 503}, {"replica", replica, "/primary", 503}, {"replica", replica, "/replica", 200}, {"replica", replica, "/read-only", 200},
		{"replica", replica, "/async", 200}, {"replica", replica, "/sync", 503}, {"replica", replica, "/quorum", 503},
		{"replica", replica, "/replica?lag=200", 200}, {"replica", replica, "/replica?lag=199", 503}, {"replica", replica, "/replica?lag=1kB", 200},
		{"replica", replica, "/replica?lag=nonsense", 200}, {"replica", replica, "/replica?replication_state=streaming", 200},
		{"replica", replica, "/replica?replication_state=x", 503},
		{"tagged", tagged, "/replica", 503}, {"zoned", zoned, "/replica?tag_zone=x", 200}, {"zoned", zoned, "/replica?tag_zone=y", 503},
		{"zoned", zoned, "/replica?tag_fast=true", 200}, {"zoned", zoned, "/replica?tag_none=1", 503},
		{"down", down, "/replica", 503}, {"down", down, "/health", 503}, {"down", down, "/patroni", 200}, {"down", down, "/liveness", 200},
		{"down", down, "/readiness", 503}, {"replica", replica, "/readiness", 200}, {"replica", replica, "/readiness?lag=199", 503},
		{"replica", replica, "/readiness?lag=100&mode=write", 200}, {"leader", leader, "/readiness", 200},
	} {
		require.Equal(t, c.want, get(t, c.node, c.path), "%s: %s", c.what, c.path)
		head, body, _ := call(c.node, Options{}, "HEAD", c.path, "")
		require.Equal(t, c.want, head, "HEAD %s: %s", c.what, c.path)
		require.Empty(t, body)
	}
	hung := primaryNode()
	hung.report.LoopAt = time.Now().Add(-time.Minute)
	require.Equal(t, 503, get(t, hung, "/liveness"))
}

func TestStatusIsWhatPeersRead(t *testing.T) {
	for _, n := range []*fakeNode{primaryNode(), replicaNode()} {
		n.report.Promotions = []cluster.Promotion{{Timeline: 2, LSN: 5, ID: "x"}}
		n.report.Server.History = wal.History{Tip: 2, Switches: []wal.Switch{{Timeline: 1, LSN: 0x16_00000005}}}
		srv := httptest.NewServer(Handler(n))
		defer srv.Close()
		s, err := NewClient(ClientOptions{}).Status(context.Background(), srv.URL+"/patroni")
		require.NoError(t, err)
		require.True(t, s.HasPosition)
		require.Equal(t, n.report.Server.Role == postgres.RoleReplica, s.InRecovery)
		require.Equal(t, n.report.Name, s.Name)
		require.EqualValues(t, 1, s.Timeline)
		require.Equal(t, n.report.Server.Received, s.Received)
		require.NotNil(t, s.Pgregent)
		require.Equal(t, n.report.Server.History, s.Pgregent.WALHistory())
		require.Equal(t, n.report.Promotions, s.Pgregent.Promotions)
	}
}

// The body has Patroni's fields and types (reference section 2.3).
func TestStatusBody(t *testing.T) {
	_, body, header := call(primaryNode(), Options{}, "GET", "/patroni", "")
	require.Equal(t, "application/json", header.Get("Content-Type"))
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &m))
	require.Equal(t, "2026-11-22 19:55:24.909680+00:00", m["postmaster_start_time"])
	require.Equal(t, map[string]any{"location": 1000.0}, m["xlog"])
	require.Equal(t, map[string]any{"version": "4.1.0", "scope": "demo", "name": "a"}, m["patroni"])
	require.Equal(t, "7711086890896456014", m["database_system_identifier"])
	require.NotContains(t, m, "pause")

	patroni, err := parseStatus([]byte(`{"state":"running","role":"master","xlog":{"location":7},"timeline":null,"tags":{"nofailover":true}}`))
	require.NoError(t, err)
	require.False(t, patroni.InRecovery)
	require.Nil(t, patroni.Pgregent)
	require.True(t, patroni.Tags.NoFailover())
	_, err = parseStatus([]byte("<html>"))
	require.Error(t, err)
}

func TestSwitchover(t *testing.T) {
	moves := func(to string) func(*fakeNode) { return func(n *fakeNode) { n.cluster.Leader.Name = to } }
	refused := func(n *fakeNode) { n.cluster.Failover = cluster.Failover{} }
	later := time.Now().Add(time.Hour).Format(time.RFC3339)
	for _, c := range []struct {
		path, body string
		then       func(*fakeNode)
		change     func(*fakeNode)
		code       int
		text       string
		written    int
	}{
		{"/switchover", `{"leader":"a","candidate":"b"}`, moves("b"), nil, 200, `Successfully switched over to "b"`, 1},
		{"/switchover", `{"leader":"a","member":"b"}`, moves("c"), nil, 200, `Switched over to "c" instead of "b"`, 1},
		{"/failover", `{"candidate":"b"}`, moves("b"), nil, 200, `Successfully failed over to "b"`, 1},
		{"/switchover", `{"leader":"a"}`, refused, nil, 503, "Switchover failed", 1},
		{"/switchover", `{"leader":"a","scheduled_at":"` + later + `"}`, nil, nil, 202, "Switchover scheduled", 1},
		{"/switchover", `{}`, nil, nil, 400, "an empty JSON object", 0},
		{"/switchover", ``, nil, nil, 411, "Length Required", 0},
		{"/switchover", `{"leader":"a"} x`, nil, nil, 400, "something stands behind it", 0},
		{"/switchover", `{"leader":"a","canidate":"b"}`, nil, nil, 400, "canidate: is no field", 0},
		{"/switchover", `[1]`, nil, nil, 400, "no JSON object", 0},
		{"/switchover", `{"leader":7}`, nil, nil, 400, "leader: must be a text", 0},
		{"/switchover", `{"candidate":"b"}`, nil, nil, 400, "only from a specific leader", 0},
		{"/failover", `{"leader":""}`, nil, nil, 400, "only to a specific candidate", 0},
		{"/failover", `{"candidate":"b","scheduled_at":"` + later + `"}`, nil, nil, 400, "can't be scheduled", 0},
		{"/switchover", `{"leader":"a","candidate":"a"}`, nil, nil, 400, "source are the same", 0},
		{"/switchover", `{"leader":"x"}`, nil, nil, 412, "leader name does not match", 0},
		{"/switchover", `{"leader":"a","candidate":"x"}`, nil, nil, 412, "candidate does not exists", 0},
		{"/switchover", `{"leader":"a","scheduled_at":"2020-01-01T00:00:00Z"}`, nil, nil, 422, "in the past", 0},
		{"/switchover", `{"leader":"a","scheduled_at":"2040-01-01T00:00:00"}`, nil, nil, 400, "Timezone information is mandatory", 0},
		{"/switchover", `{"leader":"a","scheduled_at":"soon"}`, nil, nil, 422, "Unable to parse", 0},
		{"/switchover", `{"leader":"a"}`, nil, func(n *fakeNode) {
			n.answers = nil
			n.cluster.Members[1].Tags = cluster.Tags{"nofailover": true}
			n.cluster.Members[2].APIURL = ""
		}, 412, "no good candidates", 0},
		{"/switchover", `{"leader":"a"}`, nil, func(n *fakeNode) { n.report.Paused = true }, 400, "only to a specific candidate in a paused state", 0},
	} {
		n := primaryNode()
		n.then = c.then
		if c.change != nil {
			c.change(n)
		}
		code, text, _ := call(n, Options{}, "POST", c.path, c.body)
		require.Equal(t, c.code, code, "%s %s: %s", c.path, c.body, text)
		require.Contains(t, text, c.text)
		require.Len(t, n.written, c.written, "a refused request changes nothing")
	}
}

func TestDeleteSwitchover(t *testing.T) {
	n := primaryNode()
	code, text, _ := call(n, Options{}, "DELETE", "/switchover", "")
	require.Equal(t, 404, code, text)
	n.cluster.Failover = cluster.Failover{Leader: "a", ScheduledAt: time.Now().Add(time.Hour)}
	code, text, _ = call(n, Options{}, "DELETE", "/switchover", "")
	require.Equal(t, 200, code, text)
	require.False(t, n.cluster.Failover.Requested())
}

func TestAccess(t *testing.T) {
	o := Options{Username: "admin", Password: "secret"}
	n := primaryNode()
	for _, c := range []struct {
		user []string
		code int
		text string
	}{{nil, 401, "no auth header received"}, {[]string{"admin", "wrong"}, 401, "not authenticated"}, {[]string{"x", "secret"}, 401, "not authenticated"}} {
		for _, path := range []string{"/switchover", "/failover", "/reload", "/failsafe", "/sigterm", "/pgregent/promise", "/pgregent/vote"} {
			code, text, header := call(n, o, "POST", path, `{"leader":"a"}`, c.user...)
			require.Equal(t, c.code, code, path)
			require.Equal(t, c.text, text)
			require.NotEmpty(t, header.Get("WWW-Authenticate"))
		}
	}
	require.Empty(t, n.written)
	require.Zero(t, n.reloaded)
	code, _, _ := call(n, o, "POST", "/reload", "", "admin", "secret")
	require.Equal(t, 202, code)
	require.Equal(t, 1, n.reloaded)
	code, _, _ = call(n, o, "GET", "/patroni", "")
	require.Equal(t, 200, code, "reading is open, as with Patroni")
	code, text, _ := call(n, Options{ClientCert: true}, "POST", "/reload", "")
	require.Equal(t, 403, code)
	require.Equal(t, "client certificate required", text)
}

func TestUnknownRequests(t *testing.T) {
	for _, r := range [][2]string{{"POST", "/nothing"}, {"PATCH", "/switchover"}, {"PUT", "/"}, {"DELETE", "/patroni"}, {"TRACE", "/"}} {
		code, text, _ := call(primaryNode(), Options{}, r[0], r[1], "{}")
		require.Equal(t, 501, code)
		require.Contains(t, text, "Server does not support this operation", "patronictl looks for it")
	}
}

func TestCluster(t *testing.T) {
	_, body, _ := call(primaryNode(), Options{}, "GET", "/cluster", "")
	var v ClusterView
	require.NoError(t, json.Unmarshal([]byte(body), &v))
	require.Len(t, v.Members, 3)
	require.Equal(t, "leader", v.Members[0].Role)
	require.Equal(t, "streaming", v.Members[1].State)
	require.EqualValues(t, 100, v.Members[1].ReceiveLag)
	require.EqualValues(t, 200, v.Members[1].ReplayLag)
	require.Equal(t, "unknown", v.Members[2].Lag)
	require.Equal(t, "demo", v.Scope)
}

func TestMetrics(t *testing.T) {
	n := primaryNode()
	n.report.Counters = map[string]float64{"renewals_total": 3}
	code, body, header := call(n, Options{}, "GET", "/metrics", "")
	require.Equal(t, 200, code)
	require.Equal(t, "text/plain", header.Get("Content-Type"))
	for _, line := range []string{
		`patroni_version{scope="demo",name="a"} 040100`, `patroni_primary{scope="demo",name="a"} 1`, `patroni_xlog_location{scope="demo",name="a"} 1000`,
		`patroni_postgres_state{scope="demo",name="a"} 5`, `pgregent_renewals_total{scope="demo",name="a"} 3`, `# TYPE patroni_xlog_location counter`,
		`pgregent_writable{scope="demo",name="a"} 1`, `patroni_postgres_server_version{scope="demo",name="a"} 150018`,
	} {
		require.Contains(t, body, line+"\n")
	}
}
