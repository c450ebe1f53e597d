package operate

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

const (
	get      = http.MethodGet
	post     = http.MethodPost
	patch    = http.MethodPatch
	put      = http.MethodPut
	remove   = http.MethodDelete
	pg1, pg2 = "pg1", "pg2"
	later    = "2036-01-01T00:00:00+00:00"
)

// situations are all of them, in order: each begins where the one before ended. pg1 leads unless the name says otherwise.
func situations() []situation {
	return []situation{
		{name: "steady", exchanges: append(looks(), queries()...)},
		{name: "access", exchanges: access()},
		{name: "methods", exchanges: methods()},
		{name: "bodies", exchanges: bodies()},
		{name: "config", exchanges: config()},
		{name: "restart", exchanges: restarts()},
		{name: "after the restarts", arrange: healthy, exchanges: status()},
		{name: "scheduled", exchanges: scheduled()},
		{name: "is scheduled", arrange: schedule, exchanges: status()},
		{name: "is cancelled", arrange: cancel, exchanges: status()},
		{name: "pending", arrange: pending, exchanges: status()},
		{name: "restarted", arrange: restartPending, exchanges: status()},
		{name: "refused", exchanges: refusedMoves()},
		{name: "paused", arrange: pause, exchanges: append(looks(), refusedInPause()...)},
		{name: "server stopped", arrange: stopReplica, exchanges: append(queriesAt(pg2), status()...)},
		{name: "resumed", arrange: resume, exchanges: status()},
		{name: "failsafe", arrange: failsafe, exchanges: failsafeCalls()},
		{name: "move", exchanges: []exchange{{on: pg1, method: post, path: "/switchover", body: `{"leader":"pg1","candidate":"pg2"}`}}},
		{name: "pg2 leads", arrange: healthy, exchanges: append(looks(), status()...)},
		{name: "move back", exchanges: []exchange{{on: pg1, method: post, path: "/failover", body: `{"candidate":"pg1"}`}}},
		{name: "moved back", arrange: healthy, exchanges: status()},
		{name: "copied anew", arrange: remember, exchanges: []exchange{{on: pg2, method: post, path: "/reinitialize", body: `{"force":false}`}}},
		{name: "after the copy", arrange: copied, exchanges: status()},
	}
}

// each makes an exchange of every path on every node.
func each(method string, paths ...string) []exchange {
	var all []exchange
	for _, node := range []string{pg1, pg2} {
		for _, path := range paths {
			all = append(all, exchange{on: node, method: method, path: path})
		}
	}
	return all
}

// looks are all paths that are read, with all methods that read.
func looks() []exchange {
	paths := []string{
		"/", "/primary", "/master", "/read-write", "/leader", "/standby_leader", "/standby-leader", "/replica", "/read-only", "/health",
		"/sync", "/synchronous", "/quorum", "/async", "/asynchronous", "/read-only-sync", "/read-only-synchronous", "/read-only-quorum",
		"/patroni", "/patroni/anything", "/foo", "/cluster", "/history", "/config", "/failsafe", "/metrics", "/liveness", "/readiness",
	}
	return slices.Concat(each(http.MethodGet, paths...), each(http.MethodHead, paths...), each(http.MethodOptions, paths...))
}

// status are the answers that tell everything.
func status() []exchange {
	return each(get, "/patroni", "/cluster", "/metrics", "/replica", "/primary", "/health", "/readiness")
}

func queriesAt(node string) []exchange {
	var all []exchange
	for _, e := range queries() {
		if e.on == node {
			all = append(all, e)
		}
	}
	return all
}

// queries are the parameters of health checks.
func queries() []exchange {
	return each(get,
		"/replica?lag=0", "/replica?lag=1MB", "/replica?lag=10kB", "/replica?lag=1TB", "/replica?lag=1XB", "/replica?lag=-1", "/replica?lag=",
		"/replica?replication_state=streaming", "/replica?replication_state=in%20archive%20recovery", "/replica?replication_state=",
		"/replica?tag_color=blue", "/replica?tag_color=red", "/replica?tag_speed=5", "/replica?tag_clonefrom=true", "/replica?tag_clonefrom=True",
		"/replica?tag_missing=1", "/replica?tag_color=blue&lag=1MB", "/replica?tag_color=blue&tag_speed=6", "/replica?unknown=1",
		"/primary?tag_color=red", "/leader?tag_color=red", "/health?tag_color=red", "/health?tag_color=blue", "/read-only?tag_color=red",
		"/read-only?lag=0", "/async?lag=1MB", "/async?tag_color=red", "/read-only-sync?tag_color=red", "/master/replica", "/PRIMARY", "//primary",
		"/readiness?mode=apply", "/readiness?mode=write", "/readiness?lag=1MB", "/readiness?lag=0&mode=write", "/readiness?mode=x",
		"/replica/", "/patroni?x=y", "/history?x", "/cluster/x", "/config/x", "/read-write?lag=0")
}

// unsafe are the requests that need a credential.
func unsafe() []exchange {
	return []exchange{
		{on: pg1, method: patch, path: "/config", body: `{"a":1}`}, {on: pg1, method: put, path: "/config", body: `{"a":1}`},
		{on: pg1, method: post, path: "/reload"}, {on: pg1, method: post, path: "/failsafe", body: `{"a":1}`},
		{on: pg1, method: post, path: "/sigterm"}, {on: pg1, method: post, path: "/restart"}, {on: pg1, method: remove, path: "/restart"},
		{on: pg1, method: post, path: "/reinitialize"}, {on: pg1, method: post, path: "/failover", body: `{"a":1}`},
		{on: pg1, method: post, path: "/switchover", body: `{"a":1}`}, {on: pg1, method: remove, path: "/switchover"},
		{on: pg1, method: post, path: "/citus", body: `{"type":"after_promote","group":1,"leader":"x","timeout":1,"cooldown":1}`},
		{on: pg1, method: post, path: "/mpp", body: `{"type":"after_promote","group":1,"leader":"x","timeout":1,"cooldown":1}`},
	}
}

func access() []exchange {
	var all []exchange
	for _, as := range []credential{nobody, stranger} {
		for _, e := range unsafe() {
			e.as = as
			all = append(all, e)
		}
	}
	return append(all, exchange{on: pg2, method: post, path: "/reload", as: nobody, header: map[string]string{"Authorization": "Bearer x"}})
}

// methods are wrong ones.
func methods() []exchange {
	var all []exchange
	for _, e := range []exchange{
		{method: post, path: "/"}, {method: post, path: "/patroni"}, {method: post, path: "/primary"}, {method: post, path: "/foo"},
		{method: post, path: "/config"}, {method: remove, path: "/config"}, {method: put, path: "/patroni"}, {method: put, path: "/restart"},
		{method: patch, path: "/restart"}, {method: patch, path: "/foo"}, {method: remove, path: "/failover"}, {method: remove, path: "/reload"},
		{method: put, path: "/switchover"}, {method: "TRACE", path: "/"}, {method: "BREW", path: "/patroni"}, {method: remove, path: "/reinitialize"},
	} {
		for _, node := range []string{pg1, pg2} {
			e.on = node
			all = append(all, e)
		}
	}
	return all
}

// bodies are wrong ones. A bad body for /reinitialize goes to the leader: Patroni would copy a replica anew.
func bodies() []exchange {
	var all []exchange
	for _, target := range []exchange{
		{on: pg1, method: patch, path: "/config"}, {on: pg1, method: put, path: "/config"}, {on: pg1, method: post, path: "/switchover"},
		{on: pg1, method: post, path: "/failover"}, {on: pg2, method: post, path: "/failsafe"},
	} {
		for _, body := range []string{"", "{}", "[]", "null", `"x"`, "1", "{", `{"a":}`, "not json", `{"a":1} x`} {
			target.body = body
			all = append(all, target)
		}
		target.body, target.raw = "", true
		all = append(all, target)
	}
	for _, body := range []string{"{", "not json", "[]", `"x"`, "[1]"} {
		all = append(all, exchange{on: pg1, method: post, path: "/restart", body: body}, exchange{on: pg1, method: post, path: "/reinitialize", body: body})
	}
	return all
}

func config() []exchange {
	on := func(node string, ee ...exchange) []exchange {
		for i := range ee {
			ee[i].on = node
		}
		return ee
	}
	return slices.Concat(
		on(pg1, exchange{method: patch, path: "/config", body: `{"foo":{"bar":null,"n":1}}`},
			exchange{method: get, path: "/config"},
			exchange{method: patch, path: "/config", body: `{"foo":{"bar":{"x":[1,null]},"n":null}}`},
			exchange{method: patch, path: "/config", body: `{"foo":{"bar":{"x":"1"}},"nothing":null}`},
			exchange{method: patch, path: "/config", body: `{"nothing":null}`},
			exchange{method: patch, path: "/config", body: `{"foo":null}`},
			exchange{method: patch, path: "/config", body: `{"ttl":"21"}`},
			exchange{method: patch, path: "/config", body: `{"ttl":20}`}),
		on(pg2, exchange{method: patch, path: "/config", body: `{"postgresql":{"parameters":{"work_mem":"5MB"}}}`},
			exchange{method: put, path: "/config", body: `{"ttl":20,"loop_wait":1,"retry_timeout":5,"failsafe_mode":false,"postgresql":{"use_pg_rewind":true,"parameters":{"max_connections":50}}}`},
			exchange{method: get, path: "/config"},
			exchange{method: post, path: "/reload"}, exchange{method: post, path: "/reload", raw: true}, exchange{method: post, path: "/reload", body: "x"},
			exchange{method: post, path: "/sigterm"}))
}

func restarts() []exchange {
	var all []exchange
	for _, body := range []string{
		`{"role":"replica"}`, `{"role":"x"}`, `{"role":1}`, `{"postgres_version":"x"}`, `{"postgres_version":"9.6"}`, `{"postgres_version":"10.1"}`,
		`{"postgres_version":"15"}`, `{"timeout":0}`, `{"timeout":-1}`, `{"timeout":"x"}`, `{"timeout":1.5}`, `{"timeout":null}`, `{"restart_pending":true}`,
		`{"restart_pending":false}`, `{"unknown":1}`, `{"schedule":"tomorrow"}`, `{"schedule":"2036-01-01T00:00:00"}`,
		`{"schedule":"2016-01-01T00:00:00+00:00"}`, `{"schedule":1}`, `{"schedule":"2036-01-01T00:00:00+00:00","role":"x"}`,
	} {
		all = append(all, exchange{on: pg1, method: post, path: "/restart", body: body})
	}
	return append(all,
		exchange{on: pg2, method: post, path: "/restart", body: `{"role":"primary"}`},
		exchange{on: pg2, method: post, path: "/restart"},
		exchange{on: pg2, method: post, path: "/restart", body: `{"role":"replica","timeout":"1min","postgres_version":"99.1"}`},
		exchange{on: pg1, method: post, path: "/restart", body: `{"timeout":30}`},
		exchange{on: pg1, method: post, path: "/reinitialize"}, exchange{on: pg1, method: post, path: "/reinitialize", body: `{"force":true}`},
		exchange{on: pg1, method: remove, path: "/restart"})
}

func scheduled() []exchange {
	return []exchange{
		{on: pg2, method: post, path: "/restart", body: `{"schedule":"` + later + `","role":"replica","postgres_version":"15.99","restart_pending":true}`},
		{on: pg2, method: post, path: "/restart", body: `{"schedule":"` + later + `"}`},
		{on: pg2, method: remove, path: "/restart"}, {on: pg2, method: remove, path: "/restart"},
		{on: pg1, method: post, path: "/switchover", body: `{"leader":"pg1","scheduled_at":"tomorrow"}`},
		{on: pg1, method: post, path: "/switchover", body: `{"leader":"pg1","scheduled_at":"2036-01-01T00:00:00"}`},
		{on: pg1, method: post, path: "/switchover", body: `{"leader":"pg1","scheduled_at":"2016-01-01T00:00:00+00:00"}`},
		{on: pg1, method: post, path: "/switchover", body: `{"leader":"pg1","candidate":"pg2","scheduled_at":"` + later + `"}`},
		{on: pg2, method: post, path: "/switchover", body: `{"leader":"pg1","scheduled_at":"` + later + `"}`},
		{on: pg2, method: remove, path: "/switchover"}, {on: pg2, method: remove, path: "/switchover"},
	}
}

func schedule(s *side) {
	s.must(pg2, post, "/restart", `{"schedule":"`+later+`","postgres_version":"15.99"}`)
	s.must(pg1, post, "/restart", `{"schedule":"`+later+`"}`)
	s.must(pg1, post, "/switchover", `{"leader":"pg1","candidate":"pg2","scheduled_at":"`+later+`"}`)
}

func cancel(s *side) {
	s.must(pg1, remove, "/restart", "")
	s.must(pg2, remove, "/restart", "")
	s.must(pg1, remove, "/switchover", "")
}

func pending(s *side) {
	s.must(pg1, patch, "/config", `{"postgresql":{"parameters":{"max_connections":60,"archive_mode":"on","archive_command":"/bin/true"}}}`)
	for _, d := range s.Nodes {
		s.await(d.Name, "waits for a restart", func(b map[string]any) bool { return b["pending_restart"] == true })
	}
}

func restartPending(s *side) {
	s.must(pg1, post, "/restart", `{"restart_pending":true}`) // the primary first: the setting grows, on the replica it would be too soon
	s.await(pg1, "waits for nothing", func(b map[string]any) bool { return b["pending_restart"] == nil })
	s.must(pg2, post, "/restart", `{"restart_pending":true}`)
	s.await(pg2, "waits for nothing", func(b map[string]any) bool { return b["pending_restart"] == nil })
	healthy(s)
}

// refusedMoves are switchovers and failovers that cannot be.
func refusedMoves() []exchange {
	var all []exchange
	for _, e := range []exchange{
		{path: "/switchover", body: `{"candidate":"pg2"}`}, {path: "/switchover", body: `{"leader":"pg2"}`}, {path: "/switchover", body: `{"leader":"pg2","candidate":"pg1"}`},
		{path: "/switchover", body: `{"leader":"pg1","candidate":"pg1"}`}, {path: "/switchover", body: `{"leader":"pg1","candidate":"pg9"}`},
		{path: "/switchover", body: `{"leader":"","candidate":""}`}, {path: "/failover", body: `{"leader":"pg9"}`}, {path: "/failover", body: `{"candidate":"pg9"}`},
		{path: "/failover", body: `{"candidate":"pg1"}`}, {path: "/failover", body: `{"member":"pg9"}`}, {path: "/failover", body: `{"candidate":"pg2","scheduled_at":"` + later + `"}`},
	} {
		e.method = post
		for _, node := range []string{pg1, pg2} {
			e.on = node
			all = append(all, e)
		}
	}
	return all
}

func pause(s *side) {
	s.must(pg1, patch, "/config", `{"pause":true}`)
	for _, d := range s.Nodes {
		s.await(d.Name, "is paused", func(b map[string]any) bool { return b["pause"] == true })
	}
}

func refusedInPause() []exchange {
	return []exchange{
		{on: pg1, method: post, path: "/switchover", body: `{"leader":"pg1"}`},
		{on: pg1, method: post, path: "/switchover", body: `{"leader":"pg1","candidate":"pg2","scheduled_at":"` + later + `"}`},
		{on: pg1, method: post, path: "/restart", body: `{"schedule":"` + later + `"}`},
		{on: pg2, method: post, path: "/restart", body: `{"schedule":"x"}`},
	}
}

// stopReplica stops a server behind the back of its daemon, which must not start it in pause.
func stopReplica(s *side) {
	d := s.node(pg2)
	out, err := exec.Command(filepath.Join(s.Bin, "pg_ctl"), "stop", "-w", "-m", "fast", "-D", d.Data).CombinedOutput()
	require.NoError(s.T, err, string(out))
	s.await(pg2, "its server is stopped", func(b map[string]any) bool { return b["state"] == "stopped" })
}

func resume(s *side) {
	s.must(pg2, patch, "/config", `{"pause":null}`)
	for _, d := range s.Nodes {
		s.await(d.Name, "is not paused", func(b map[string]any) bool { return b["pause"] == nil })
	}
	healthy(s)
}

func failsafe(s *side) {
	s.must(pg1, patch, "/config", `{"failsafe_mode":true}`)
	for _, d := range s.Nodes {
		s.awaitCode(d.Name, "/failsafe", http.StatusOK)
	}
}

func failsafeCalls() []exchange {
	member := `"conn_url":"postgres://127.0.0.1:1/postgres","api_url":"http://127.0.0.1:1/patroni"`
	return append(each(get, "/failsafe", "/patroni", "/metrics"),
		exchange{on: pg1, method: post, path: "/failsafe", body: `{"name":"pg1",` + member + `}`},
		exchange{on: pg2, method: post, path: "/failsafe", body: `{"name":"pg1"}`},
		exchange{on: pg2, method: post, path: "/failsafe", body: `{` + member + `}`},
		exchange{on: pg2, method: patch, path: "/config", body: `{"failsafe_mode":false}`})
}

func healthy(s *side) {
	s.AwaitHealthy(steady)
	s.write()
}

// remember remembers pg2's data directory.
func remember(s *side) { s.born = versionFile(s.T, s.node(pg2)) }

// copied waits until pg2 has another data directory, and streams.
func copied(s *side) {
	file := filepath.Join(s.node(pg2).Data, "PG_VERSION")
	rig.Eventually(s.T, steady, s.name+": pg2 has a new data directory", func() bool {
		info, err := os.Stat(file)
		return err == nil && !os.SameFile(s.born, info)
	})
	healthy(s)
}
