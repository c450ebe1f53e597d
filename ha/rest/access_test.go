package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/ha/cluster"
)

func roles() Options {
	return Options{Username: "root", Password: "root-secret", Credentials: []Credential{
		{"monitor", "monitor-secret", RoleRead}, {"ops", "ops-secret", RoleOperator}, {"dba", "dba-secret", RoleAdmin}}}
}

// Every endpoint by every role, from the table itself: what needs a role is refused without it and changes nothing.
func TestRolesOverAllEndpoints(t *testing.T) {
	bodies := map[string]string{"/config": `{"ttl":9}`, "/switchover": `{"leader":"a","candidate":"b"}`, "/failover": `{"candidate":"b"}`,
		"/pgregent/promise": goodPromise, "/pgregent/vote": goodVote, "/failsafe": `{"name":"p","conn_url":"c","api_url":"u"}`}
	for _, protect := range []bool{false, true} {
		o := roles()
		o.ProtectReads = protect
		for _, e := range Endpoints() {
			for user, role := range map[string]Role{"": RoleNone, "monitor": RoleRead, "ops": RoleOperator, "dba": RoleAdmin, "root": RoleAdmin} {
				for m := range strings.SplitSeq(e.Method, ", ") {
					n := primaryNode()
					n.had, n.config = true, json.RawMessage(`{"ttl":8}`)
					n.then = func(n *fakeNode) { n.cluster.Leader.Name = "b" }
					var auth []string
					if user != "" {
						auth = []string{user, user + "-secret"}
					}
					code, text, _ := call(n, o, m, e.Path, bodies[e.Path], auth...)
					need := e.Role
					if protect && need == RoleNone && !e.open {
						need = RoleRead
					}
					what := m + " " + e.Path + " by " + user + ": " + text
					switch {
					case role >= need:
						require.NotContains(t, []int{401, 403}, code, what)
					case role == RoleNone:
						require.Equal(t, 401, code, what)
						require.Zero(t, n.changes(), what)
					default:
						require.Equal(t, 403, code, what)
						require.Contains(t, text, "the role operator is needed, read is not enough", what)
						require.Zero(t, n.changes(), what)
					}
				}
			}
		}
	}
}

// With protected reading a health check goes on to say yes or no, without the status.
func TestProtectedReads(t *testing.T) {
	o := roles()
	o.ProtectReads = true
	code, body, header := call(primaryNode(), o, "GET", "/patroni", "")
	require.Equal(t, 401, code)
	require.Equal(t, "no auth header received", body)
	require.NotEmpty(t, header.Get("WWW-Authenticate"))
	code, body, _ = call(primaryNode(), o, "GET", "/primary", "")
	require.Equal(t, 200, code)
	require.Empty(t, body)
	code, body, _ = call(primaryNode(), o, "GET", "/primary", "", "monitor", "monitor-secret")
	require.Equal(t, 200, code)
	require.Contains(t, body, `"role":"primary"`)
	code, _, _ = call(primaryNode(), o, "GET", "/metrics", "", "monitor", "wrong")
	require.Equal(t, 401, code)
	for _, path := range []string{"/patroni", "/config", "/metrics"} {
		code, _, _ = call(primaryNode(), o, "OPTIONS", path, "")
		require.Equal(t, 401, code, path)
	}
}

func TestAuthorizationHeaders(t *testing.T) {
	for header, want := range map[string]string{
		"": "no auth header received", "Bearer x": "not authenticated", "Basic": "not authenticated", "Basic !!!": "not authenticated",
		"Basic cm9vdA==": "not authenticated", "Basic Og==": "not authenticated",
	} {
		n := primaryNode()
		req := httptest.NewRequest("POST", "/reload", nil)
		if header != "" {
			req.Header.Set("Authorization", header)
		}
		w := httptest.NewRecorder()
		NewHandler(n, roles()).ServeHTTP(w, req)
		require.Equal(t, 401, w.Code, header)
		require.Equal(t, want, w.Body.String(), header)
		require.Zero(t, n.changes())
	}
}

func TestAllowList(t *testing.T) {
	node := func() *fakeNode {
		n := primaryNode()
		n.report.Cluster.Members = []cluster.Member{{Name: "b", APIURL: "http://10.0.0.7:8008/patroni"}, {Name: "c", APIURL: "http://localhost:8008/patroni"}}
		return n
	}
	for _, c := range []struct {
		allow   []string
		members bool
		from    string
		path    string
		ok      bool
	}{
		{nil, false, "192.0.2.1:1", "/reload", true},
		{[]string{"192.0.2.0/24"}, false, "192.0.2.1:1", "/reload", true},
		{[]string{"192.0.2.0/24"}, false, "[::ffff:192.0.2.1]:1", "/reload", true},
		{[]string{"192.0.2.0/24"}, false, "192.0.3.1:1", "/reload", false},
		{[]string{"192.0.2.9/24"}, false, "192.0.2.1:1", "/reload", true},
		{[]string{"2001:db8::/32"}, false, "[2001:db8::1%eth0]:1", "/reload", true},
		{[]string{"localhost"}, false, "127.0.0.1:1", "/reload", true},
		{[]string{"nobody.invalid"}, false, "127.0.0.1:1", "/reload", false},
		{[]string{"192.0.2.1"}, false, "nonsense", "/reload", false},
		{[]string{"192.0.2.1"}, true, "10.0.0.7:1", "/reload", true},
		{nil, true, "10.0.0.7:1", "/reload", true},
		{nil, true, "127.0.0.1:1", "/reload", true},
		{nil, true, "10.0.0.8:1", "/reload", false},
		{nil, true, "10.0.0.8:1", "/failsafe", true}, // as with Patroni: the list of members may be stale just then
		{[]string{"192.0.2.1"}, true, "10.0.0.7:1", "/failsafe", true},
		{[]string{"192.0.2.1"}, false, "10.0.0.7:1", "/failsafe", false},
	} {
		n := node()
		req := httptest.NewRequest("POST", c.path, strings.NewReader(`{"name":"p","conn_url":"c","api_url":"u"}`))
		req.RemoteAddr = c.from
		w := httptest.NewRecorder()
		NewHandler(n, Options{Allow: c.allow, AllowMembers: c.members}).ServeHTTP(w, req)
		require.Equal(t, c.ok, w.Code < 400, "%+v: %d %s", c, w.Code, w.Body)
		if !c.ok {
			require.Equal(t, "Access is denied", w.Body.String())
			require.Zero(t, n.changes())
		}
		req.Method, req.URL.Path = "GET", "/patroni"
		w = httptest.NewRecorder()
		NewHandler(n, Options{Allow: c.allow, AllowMembers: c.members}).ServeHTTP(w, req)
		require.Equal(t, 200, w.Code, "reading is open to all")
	}
}

func TestCertificateRoles(t *testing.T) {
	o := Options{ClientCert: true, Certificates: map[string]Role{"ops.example": RoleOperator, "watch.example": RoleRead}}
	for cn, want := range map[string]int{"": 403, "ops.example": 202, "watch.example": 403, "other.example": 403} {
		n := primaryNode()
		req := httptest.NewRequest("POST", "/reload", nil)
		req.TLS = &tls.ConnectionState{}
		if cn != "" {
			req.TLS.VerifiedChains = [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: cn}}}}
		}
		w := httptest.NewRecorder()
		NewHandler(n, o).ServeHTTP(w, req)
		require.Equal(t, want, w.Code, cn)
		require.Equal(t, want == 202, n.changes() == 1, cn)
	}
	// A certificate that is not mapped opens nothing by itself beside users, and is enough where nobody is mapped.
	req := httptest.NewRequest("POST", "/reload", nil)
	req.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "x"}}}}}
	w := httptest.NewRecorder()
	NewHandler(primaryNode(), Options{ClientCert: true}).ServeHTTP(w, req)
	require.Equal(t, 202, w.Code)
	w = httptest.NewRecorder()
	NewHandler(primaryNode(), Options{ClientCert: true, Username: "u", Password: "p"}).ServeHTTP(w, req)
	require.Equal(t, 401, w.Code)
}

// Configure takes effect for the next request.
func TestConfigure(t *testing.T) {
	n := primaryNode()
	a := NewHandler(n, Options{})
	post := func() int {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest("POST", "/reload", nil))
		return w.Code
	}
	require.Equal(t, 202, post())
	a.Configure(context.Background(), roles())
	require.Equal(t, 401, post())
	a.Configure(context.Background(), Options{})
	require.Equal(t, 202, post())
}

func TestAudit(t *testing.T) {
	var audit bytes.Buffer
	o := roles()
	o.Audit = &audit
	n := primaryNode()
	n.config = json.RawMessage(`{"ttl":8}`)
	n.then = func(n *fakeNode) { n.cluster.Leader.Name = "b" }
	a := NewHandler(n, o)
	lines := func(method, path, body, user, id string) []auditLine {
		audit.Reset()
		req := httptest.NewRequest(method, path, strings.NewReader(body))
		if user != "" {
			req.SetBasicAuth(user, user+"-secret")
		}
		req.Header.Set("X-Request-Id", id)
		w := httptest.NewRecorder()
		a.ServeHTTP(w, req)
		var out []auditLine
		for text := range strings.Lines(audit.String()) {
			var l auditLine
			require.NoError(t, json.Unmarshal([]byte(text), &l))
			require.Equal(t, w.Header().Get("X-Request-Id"), l.Request)
			require.NotEmpty(t, l.Request)
			require.Equal(t, w.Code, l.Code)
			out = append(out, l)
		}
		return out
	}
	got := lines("POST", "/switchover?x=y", `{"leader":"a","candidate":"b"}`, "ops", "abc-1")
	require.Len(t, got, 1)
	require.Equal(t, "abc-1", got[0].Request)
	got[0].Time, got[0].Seconds = "", 0
	require.Equal(t, auditLine{Request: "abc-1", Who: "ops", Role: "operator", From: "192.0.2.1:1234", What: "POST /switchover",
		With: map[string]any{"leader": "a", "candidate": "b"}, Outcome: "accepted", Code: 200, Answer: `Successfully switched over to "b"`}, got[0])

	got = lines("PATCH", "/config", `{"ttl":30,"postgresql":{"parameters":{"x.password":"canary"}}}`, "ops", "not sane\"")
	require.Len(t, got, 1)
	require.Len(t, got[0].Request, 16)
	require.Equal(t, map[string]any{"ttl": 30.0, "postgresql": "changed", "postgresql.parameters": "changed", "postgresql.parameters.x.password": "changed"}, got[0].With)

	got = lines("POST", "/restart", `{}`, "monitor", "")
	require.Equal(t, "refused", got[0].Outcome)
	require.Equal(t, "monitor", got[0].Who)
	got = lines("POST", "/restart", `{}`, "", "")
	require.Equal(t, []any{"refused", "", 401}, []any{got[0].Outcome, got[0].Who, got[0].Code})
	got = lines("POST", "/restart", `{"x":1}`, "ops", "")
	require.Equal(t, "refused", got[0].Outcome)
	n.failWith = &Refusal{Text: "restart conditions are not satisfied"}
	got = lines("POST", "/restart", `{}`, "ops", "")
	require.Equal(t, []any{"failed", "restart conditions are not satisfied"}, []any{got[0].Outcome, got[0].Answer})

	require.Empty(t, lines("GET", "/patroni", "", "", ""), "reading leaves no line")
	require.Empty(t, lines("POST", "/pgregent/vote", goodVote, "ops", ""), "members' questions leave none")
	require.Len(t, lines("POST", "/pgregent/vote", goodVote, "", ""), 1, "but when they are refused")
}

// Passwords are in no log, no audit line and no answer, whatever is sent where (hazard E2).
func TestCanary(t *testing.T) {
	const canary = "c4nary"
	var audit, log bytes.Buffer
	o := Options{Username: "root", Password: canary + "1", Credentials: []Credential{{"ops", canary + "2", RoleOperator}}, Audit: &audit,
		Log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	n := primaryNode()
	n.then = func(n *fakeNode) { n.cluster.Leader.Name = "b" }
	a := NewHandler(n, o)
	bodies := []string{"", `{"` + canary, `{"password":"` + canary + `"}`, `["` + canary + `"]`, `"` + canary + `"`, `{"leader":"a","candidate":"b","scheduled_at":"` + canary + `"}`,
		`{"leader":"a","candidate":["` + canary + `"]}`, `{"role":"` + canary + `"}`, `{"timeout":"` + canary + `"}`, `{"schedule":"` + canary + `"}`,
		`{"ttl":"` + canary + `"}`, `{"postgresql":{"pg_hba":"` + canary + `"}}`, `{"postgresql":{"parameters":{"archive_command":"` + canary + `"}}}`,
		`{"postgresql":{"parameters":{"restore_command":["` + canary + `"]}}}`, `{"standby_cluster":{"host":"` + canary + `"}}`, `{"force":"` + canary + `"}`, goodPromise + canary}
	for _, e := range Endpoints() {
		for m := range strings.SplitSeq(e.Method, ", ") {
			for _, body := range bodies {
				for _, user := range [][2]string{{}, {"root", canary + "1"}, {"ops", canary + "2"}, {"root", canary + "3"}, {canary + "4", "x"}} {
					n.config = json.RawMessage(`{"ttl":8}`)
					req := httptest.NewRequest(m, e.Path+"?password="+canary, strings.NewReader(body))
					if user[0] != "" {
						req.SetBasicAuth(user[0], user[1])
					}
					w := httptest.NewRecorder()
					a.ServeHTTP(w, req)
					if e.Path == "/config" && w.Code == 200 {
						continue // what was stored is what is answered: the configuration is no place for passwords
					}
					require.NotContains(t, w.Body.String(), canary, "%s %s %s", m, e.Path, body)
					for k, v := range w.Header() {
						require.NotContains(t, strings.Join(v, " "), canary, k)
					}
				}
			}
		}
	}
	require.NotEmpty(t, audit.String())
	for text := range strings.Lines(audit.String() + log.String()) {
		require.NotContains(t, text, canary)
	}
}

func TestHeaders(t *testing.T) {
	o := Options{Token: "pgregent", Headers: map[string]string{"X-Extra": "1", "content-length": "7"}}
	_, body, h := call(primaryNode(), o, "GET", "/patroni", "")
	require.Equal(t, "pgregent", h.Get("Server"))
	require.Equal(t, "1", h.Get("X-Extra"))
	require.Equal(t, fmt.Sprint(len(body)), h.Get("Content-Length"))
	_, _, h = call(primaryNode(), Options{}, "GET", "/patroni", "")
	require.Equal(t, "pgregent/0.1", h.Get("Server"))
}
