package rest

import (
	"net/http"
	"strings"
)

// Endpoint is one thing that the REST API answers: what the reference documentation is made of, and what requests are
// dispatched by.
type Endpoint struct {
	Method, Path string
	// Role is what a caller needs once access control is configured. Reading needs RoleNone unless Options.ProtectReads
	// is set; then it needs RoleRead.
	Role Role
	// What it does, in one sentence; Query and Body are the parameters that it takes, empty: none.
	What, Query, Body string
	// Codes are the status codes that it answers with, apart from those of access control (401, 403) and of the rules
	// for bodies (400, 411, 413).
	Codes string
	// Ours says that Patroni has no such endpoint.
	Ours bool

	member bool // members ask it each other
	open   bool // a health check, which stays open with ProtectReads, without the body
	serve  func(*API, *exchange)
}

// Endpoints are all of them, in the order of the documentation. Every path that is not among them is a health check for
// GET, HEAD and OPTIONS, and 501 for other methods.
func Endpoints() []Endpoint {
	list := append(healthEndpoints(), readEndpoints()...)
	list = append(list, changeEndpoints()...)
	return append(list, memberEndpoints()...)
}

// healthEndpoints are decided by the path, see health.
func healthEndpoints() []Endpoint {
	const lag, tags = "lag", "tag_<name>"
	e := func(path, what, query string) Endpoint {
		return Endpoint{Method: "GET, HEAD, OPTIONS", Path: path, What: what, Query: query, Codes: "200 503", open: true}
	}
	return []Endpoint{
		e("/", "The same as /primary.", ""),
		e("/primary", "200 on the leader once PostgreSQL accepts writes; also /master and /read-write.", ""),
		e("/leader", "200 on the holder of the leader lock, from the moment it has it.", ""),
		e("/standby-leader", "200 on the leader of a standby cluster.", ""),
		e("/replica", "200 on a running replica without the tag noloadbalance.", lag+", replication_state, "+tags),
		e("/read-only", "200 on the primary, and where /replica is.", lag+", "+tags),
		e("/sync", "200 on a synchronous standby; also /synchronous.", lag+", "+tags),
		e("/quorum", "200 on a standby that takes part in the quorum.", lag+", "+tags),
		e("/async", "200 on a replica that is neither; also /asynchronous.", lag+", "+tags),
		e("/read-only-sync", "200 on the primary, and where /sync is; also /read-only-synchronous.", lag+", "+tags),
		e("/read-only-quorum", "200 on the primary, and where /quorum is.", lag+", "+tags),
		e("/health", "200 where PostgreSQL runs and answers.", tags),
		{Method: "GET, HEAD, OPTIONS", Path: "/liveness", What: "200 while the loop turns: its last turn began less than ttl ago on a primary, 2 ttl elsewhere, or the cluster is paused.",
			Codes: "200 503", open: true, serve: func(a *API, x *exchange) { x.status(liveness(x.report, x.now)) }},
		{Method: "GET, HEAD, OPTIONS", Path: "/readiness", What: "200 on the leader, and on a replica that streams and has at most lag bytes still to come.",
			Query: "lag, mode=apply|write", Codes: "200 503", open: true,
			serve: func(a *API, x *exchange) { x.status(readiness(x.report, x.query(), x.now)) }},
	}
}

func readEndpoints() []Endpoint {
	e := func(path, what, codes string, serve func(*API, *exchange)) Endpoint {
		return Endpoint{Method: "GET", Path: path, What: what, Codes: codes, serve: serve}
	}
	decisions := e("/decisions", "The last decision records, oldest first.", "200", func(a *API, x *exchange) { x.json(http.StatusOK, a.node.Decisions()) })
	decisions.Ours = true
	return []Endpoint{
		e("/patroni", "The node's status; health checks have the same body.", "200", func(a *API, x *exchange) { a.answerStatus(x, http.StatusOK) }),
		e("/cluster", "All members, read from the store now.", "200 502", (*API).cluster),
		e("/history", "The changes of timeline: [timeline, LSN, reason, time, new leader].", "200", (*API).history),
		e("/config", "The dynamic configuration.", "200 502", (*API).getConfig),
		e("/failsafe", "The failsafe list: member and address.", "200 502", (*API).getFailsafe),
		e("/metrics", "Metrics for Prometheus.", "200", (*API).metrics),
		decisions,
	}
}

func changeEndpoints() []Endpoint {
	e := func(method, path, what, body, codes string, serve func(*API, *exchange)) Endpoint {
		return Endpoint{Method: method, Path: path, Role: RoleOperator, What: what, Body: body, Codes: codes, serve: serve}
	}
	const commands = " Settings that run commands need the role admin."
	cancel := e("DELETE", "/reinitialize", "Ends a reinitialization that runs or waits.", "", "200 404", (*API).cancelReinitialize)
	cancel.Ours = true
	return []Endpoint{
		e("PATCH", "/config", "Changes the dynamic configuration: null deletes a setting, mappings merge, other values replace."+commands,
			"the settings", "200 409 422 503", (*API).patchConfig),
		e("PUT", "/config", "Replaces the dynamic configuration as a whole."+commands, "the configuration", "200 409 422 502", (*API).putConfig),
		e("POST", "/switchover", "Moves the leadership from leader to candidate, now or at a time, and waits for the result.",
			"leader, candidate, member, scheduled_at", "200 202 412 422 503", func(a *API, x *exchange) { a.failover(x, "switchover") }),
		e("DELETE", "/switchover", "Forgets a scheduled switchover.", "", "200 404 409 503", (*API).deleteSwitchover),
		e("POST", "/failover", "Makes candidate the leader, with or without a leader, and waits for the result.",
			"candidate, member, leader", "200 412 503", func(a *API, x *exchange) { a.failover(x, "failover") }),
		e("POST", "/restart", "Restarts PostgreSQL when the conditions hold, now or at a time; without a schedule it waits for the end.",
			"schedule, role, postgres_version, timeout, restart_pending; optional", "200 202 409 422 500 503", (*API).restart),
		e("DELETE", "/restart", "Forgets the scheduled restart.", "", "200 404", (*API).deleteRestart),
		e("POST", "/reinitialize", "Sets the replica's data aside and copies another member's.", "force, from_leader; optional", "200 503", (*API).reinitialize),
		cancel,
		e("POST", "/reload", "Reads the local configuration again, as SIGHUP does.", "", "202", (*API).reload),
		e("POST", "/sigterm", "Answers as Patroni does, and does nothing.", "", "202", func(_ *API, x *exchange) { x.text(http.StatusAccepted, "shutdown scheduled") }),
		e("POST", "/citus", "Citus is not supported.", "", "501", noCitus),
		e("POST", "/mpp", "Citus is not supported. Unlike Patroni's it is behind the access control.", "", "501", noCitus),
	}
}

func noCitus(_ *API, x *exchange) {
	x.text(http.StatusNotImplemented, "this node runs no Citus clusters")
}

func memberEndpoints() []Endpoint {
	e := func(path, what, body, codes string, ours bool, serve func(*API, *exchange)) Endpoint {
		return Endpoint{Method: "POST", Path: path, Role: RoleOperator, What: what, Body: body, Codes: codes, Ours: ours, member: true, serve: serve}
	}
	return []Endpoint{
		e("/failsafe", "A Patroni leader without the store asks for consent.", "name, conn_url, api_url, slots", "200 500 502", false, (*API).failsafe),
		e("/pgregent/promise", "A leader without the store asks for a promise.", "version, scope, from, to, epoch, counter, nonce, ttl", "200 409", true, (*API).question),
		e("/pgregent/vote", "A member that wants to lead asks for a vote.", "version, scope, from, to, epoch, counter", "200 409", true, (*API).question),
	}
}

// routes are the endpoints by method and first segment of the path (reference section 2.1).
func routes() map[string]map[string]*Endpoint {
	table := map[string]map[string]*Endpoint{}
	list := Endpoints()
	for i := range list {
		e := &list[i]
		if e.serve == nil {
			continue
		}
		for m := range strings.SplitSeq(e.Method, ", ") {
			if table[m] == nil {
				table[m] = map[string]*Endpoint{}
			}
			table[m][firstSegment(e.Path)] = e
		}
	}
	return table
}

func firstSegment(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first
}

// methodsOf are the methods that change something at a path, for the header Allow.
func (a *API) methodsOf(first string) string {
	allowed := []string{"GET", "HEAD", "OPTIONS"}
	for _, m := range []string{"DELETE", "PATCH", "POST", "PUT"} {
		if a.table[m][first] != nil {
			allowed = append(allowed, m)
		}
	}
	return strings.Join(allowed, ", ")
}
