package rest

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// fuzzNode carries out at once what it is asked for, and remembers it.
func fuzzNode() *fakeNode {
	n := primaryNode()
	n.had = true
	n.config = json.RawMessage(`{"ttl":30,"postgresql":{"parameters":{"archive_command":"cp","work_mem":"4MB"},"pg_hba":["local all all peer"]},"slots":null}`)
	n.then = func(n *fakeNode) { n.cluster.Leader.Name = "b" }
	return n
}

// refusedChangesNothing is what every request is held to: an answer, in time, and no change by a request that was
// refused.
func refusedChangesNothing(t *testing.T, o Options, req *http.Request) {
	n := fuzzNode()
	before := string(n.config)
	w := httptest.NewRecorder()
	began := time.Now()
	NewHandler(n, o).ServeHTTP(w, req)
	if took := time.Since(began); took > 2*time.Second {
		t.Fatalf("%s %q took %v", req.Method, req.URL, took)
	}
	if w.Code < 200 || w.Code > 599 {
		t.Fatalf("%s %q: %d", req.Method, req.URL, w.Code)
	}
	changed := n.changes() > 0 || string(n.config) != before
	reading := req.Method == "GET" || req.Method == "HEAD" || req.Method == "OPTIONS"
	if changed && (w.Code >= 400 || reading) {
		t.Fatalf("%s %q was answered with %d and changed something: %v %v", req.Method, req.URL, w.Code, n.operated, n.written)
	}
	if w.Header().Get("Content-Type") == "application/json" && req.Method == "GET" && !json.Valid(w.Body.Bytes()) {
		t.Fatalf("%s %q: no JSON: %q", req.Method, req.URL, w.Body)
	}
}

func changing() []Endpoint { return append(changeEndpoints(), memberEndpoints()...) }

// FuzzBody sends bodies to every endpoint that changes something, as an operator.
func FuzzBody(f *testing.F) {
	for _, body := range []string{`{"leader":"a","candidate":"b","scheduled_at":"2040-01-01T00:00:00Z"}`, `{"schedule":"2040-01-01T00:00:00+00:00","role":"replica","postgres_version":"15.3","timeout":"2min","restart_pending":true}`,
		`{"force":true,"from_leader":true}`, `{"ttl":20,"postgresql":{"parameters":{"archive_command":"x"},"pg_hba":[]},"slots":{"x":null}}`, `{"postgresql":null}`,
		goodPromise, goodVote, `{"name":"p","conn_url":"c","api_url":"a","slots":{}}`, `{"pause":true}`, `[[[[`, `{"a":{"b":{"c":1e999}}}`} {
		for i := range changing() {
			f.Add(uint8(i), body)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		all := changing()
		e := all[int(which)%len(all)]
		o := roles()
		req := httptest.NewRequest(e.Method, e.Path, strings.NewReader(body))
		req.SetBasicAuth("ops", "ops-secret")
		refusedChangesNothing(t, o, req)
		// An operator changes no setting that runs commands, whatever the body looks like.
		n := fuzzNode()
		w := httptest.NewRecorder()
		req = httptest.NewRequest(e.Method, e.Path, strings.NewReader(body))
		req.SetBasicAuth("ops", "ops-secret")
		NewHandler(n, o).ServeHTTP(w, req)
		var c struct {
			PostgreSQL struct {
				Parameters map[string]any `json:"parameters"`
				HBA        any            `json:"pg_hba"`
			} `json:"postgresql"`
		}
		if err := json.Unmarshal(n.config, &c); err != nil || c.PostgreSQL.Parameters["archive_command"] != "cp" || c.PostgreSQL.HBA == nil {
			t.Fatalf("%s %q by an operator made it %s", e.Method, body, n.config)
		}
	})
}

// FuzzQuery sends paths and queries to everything that reads.
func FuzzQuery(f *testing.F) {
	for _, q := range []string{"lag=10MB&replication_state=streaming&tag_zone=x", "lag=1e308TB", "lag=-5", "mode=write&lag=0x10", "tag_=&tag_a=%zz", ";;&&=="} {
		for _, e := range Endpoints() {
			f.Add(e.Path, q, true)
		}
	}
	f.Fuzz(func(t *testing.T, path, query string, replica bool) {
		for _, m := range []string{"GET", "HEAD", "OPTIONS"} {
			req := httptest.NewRequest(m, "/", nil)
			req.URL.Path, req.URL.RawQuery = path, query
			refusedChangesNothing(t, Options{}, req)
			if replica {
				NewHandler(replicaNode(), Options{}).ServeHTTP(httptest.NewRecorder(), req)
			}
		}
	})
}

// FuzzHeader sends headers that decide something: without the right credentials nothing changes.
func FuzzHeader(f *testing.F) {
	f.Add("Basic cm9vdDp4", "id-1", "127.0.0.1:1", "10", "Host")
	f.Add("bearer x", "\x00\"", "[::1%eth0]:1", "-1", "Transfer-Encoding")
	f.Add("", strings.Repeat("a", 200), "nonsense", "99999999999999999999", "Content-Length")
	f.Fuzz(func(t *testing.T, auth, id, remote, length, name string) {
		for _, e := range changing() {
			n := fuzzNode()
			req := httptest.NewRequest(e.Method, e.Path, strings.NewReader(`{"leader":"a"}`))
			req.Header[name] = []string{length}
			req.Header["Content-Length"] = []string{length}
			req.Header["Authorization"] = []string{auth}
			req.Header["X-Request-Id"] = []string{id}
			req.RemoteAddr = remote
			o := roles()
			o.Allow = []string{"127.0.0.0/8"}
			w := httptest.NewRecorder()
			NewHandler(n, o).ServeHTTP(w, req)
			user, password, _ := req.BasicAuth()
			known := user == "root" && password == "root-secret" || (user == "ops" || user == "dba") && password == user+"-secret"
			if !known && (w.Code != 401 && w.Code != 403 || n.changes() > 0) {
				t.Fatalf("%s %s was answered with %d to %q", e.Method, e.Path, w.Code, auth)
			}
			if got := w.Header().Get("X-Request-Id"); got == "" || got != saneID(got) {
				t.Fatalf("the request id came back as %q", got)
			}
		}
	})
}

// FuzzRequest sends whole requests as bytes.
func FuzzRequest(f *testing.F) {
	f.Add("GET /primary HTTP/1.1\r\nHost: x\r\n\r\n")
	f.Add("OPTIONS * HTTP/1.0\r\n\r\n")
	f.Add("POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
	f.Add("POST /switchover HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n0\r\n\r\n")
	f.Add("PATCH http://x/config?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{\"ttl\":9}")
	f.Add("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n")
	f.Fuzz(func(t *testing.T, raw string) {
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		req.RemoteAddr = "127.0.0.1:1"
		refusedChangesNothing(t, Options{}, req)
	})
}
