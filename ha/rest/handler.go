package rest

import (
	"context"
	"log/slog"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"sync/atomic"
	"time"
)

// limits of a request.
const (
	maxRequest   = 64 << 10
	storeTimeout = 5 * time.Second
)

// Handler serves a node without access control: see NewHandler.
func Handler(n Node) http.Handler { return NewHandler(n, Options{}) }

// API serves a node's REST API; it is an http.Handler. Answers to questions about the node are made from its last Report,
// once for all who ask until there is another.
type API struct {
	node     Node
	table    map[string]map[string]*Endpoint // by method, then by first segment of the path
	health   Endpoint                        // what no other endpoint is
	settings atomic.Pointer[settings]
	cache    atomic.Pointer[encoded]
	members  memberHosts
	json     []string // the header Content-Type
}

// settings are what the Options come to; Configure replaces them as a whole.
type settings struct {
	access
	log     *slog.Logger
	audit   *auditLog
	server  []string // the header Server; nil: from the report
	headers map[string][]string
}

// NewHandler serves a node's REST API with access control, audit log and headers.
func NewHandler(n Node, o Options) *API {
	a := &API{node: n, table: routes(), json: []string{"application/json"}}
	a.health = Endpoint{Path: "/primary", open: true, serve: (*API).healthCheck}
	a.Configure(context.Background(), o)
	return a
}

// Configure replaces the options, for a reload of the configuration; requests that run go on with the old ones. Host
// names of Options.Allow are resolved now, for 5 s at most: do not call it where that may not wait. A name that cannot be
// resolved is logged and lets nobody in.
func (a *API) Configure(ctx context.Context, o Options) {
	s := &settings{log: o.Log, headers: map[string][]string{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.access = newAccess(ctx, o, s.log)
	s.audit = &auditLog{to: o.Audit, log: s.log}
	if o.Token != "" {
		s.server = []string{o.Token}
	}
	for k, v := range o.Headers {
		switch k = textproto.CanonicalMIMEHeaderKey(k); k {
		case "Content-Length", "Transfer-Encoding", "Connection", "Trailer": // they belong to the connection
		default:
			s.headers[k] = []string{v}
		}
	}
	a.settings.Store(s)
}

// exchange is one request and its answer.
type exchange struct {
	api    *API
	set    *settings
	report *Report
	now    time.Time
	w      http.ResponseWriter
	req    *http.Request
	end    *Endpoint
	who    caller
	id     string // request id; empty for reading requests without one
	with   any    // what the audit log says of the request's body
	code   int    // of the answer
	answer string // its text, for the audit log
}

func (x *exchange) query() url.Values {
	if x.req.URL.RawQuery == "" {
		return nil
	}
	return x.req.URL.Query()
}

// ServeHTTP dispatches as the reference does (section 2.1): by the first segment of the path; what no endpoint knows is
// a health check for GET, HEAD and OPTIONS, and 501 otherwise.
func (a *API) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	x := &exchange{api: a, set: a.settings.Load(), report: a.node.Report(), now: time.Now(), w: w, req: req}
	h := w.Header()
	if h["Server"] = x.set.server; x.set.server == nil {
		h["Server"] = []string{"pgregent/" + x.report.Version}
	}
	for k, v := range x.set.headers {
		h[k] = v
	}
	if x.id = saneID(req.Header.Get("X-Request-Id")); x.id != "" {
		h["X-Request-Id"] = []string{x.id}
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		a.read(x)
	default:
		a.change(x)
	}
}

// read answers GET, HEAD and OPTIONS.
func (a *API) read(x *exchange) {
	first := firstSegment(x.req.URL.Path)
	x.end = a.table[http.MethodGet][first]
	if x.end == nil {
		x.end = &a.health
	}
	if x.set.protect && !a.mayRead(x) {
		return
	}
	if x.req.Method != http.MethodGet && !x.end.open {
		a.head(x, first)
		return
	}
	x.end.serve(a, x)
}

// mayRead asks for any role where reading is protected. Health checks go on without one, but say only yes or no.
func (a *API) mayRead(x *exchange) bool {
	if x.who, _ = x.set.identify(x.req); x.who.role >= RoleRead {
		return true
	}
	if x.end == &a.health {
		x.status(health(x.report, x.req.URL.Path, x.query(), x.now))
		return false
	}
	if x.end.open {
		return true
	}
	no := x.set.authenticate(x, RoleRead)
	if no == nil {
		no = &refusal{http.StatusForbidden, "the role read is needed"}
	}
	x.text(no.code, no.text)
	return false
}

// head answers HEAD and OPTIONS of a document with the status of its GET, where the reference's original says 503
// (section 9.2).
func (a *API) head(x *exchange, first string) {
	known := true
	switch first {
	case "config":
		known = x.report.Cluster.Config.Present && x.report.Cluster.Config.Err == nil
	case "failsafe":
		known = x.report.Cluster.Failsafe.Present
	}
	if !known {
		x.status(http.StatusBadGateway)
		return
	}
	x.status(http.StatusOK)
}

// change dispatches what changes something, behind the access control, and leaves a line in the audit log.
func (a *API) change(x *exchange) {
	first := firstSegment(x.req.URL.Path)
	x.end = a.table[x.req.Method][first]
	if x.end == nil {
		x.w.Header().Set("Allow", a.methodsOf(first))
		// patronictl looks for this sentence (reference section 2.1).
		x.text(http.StatusNotImplemented, "Error code: 501\nMessage: Unsupported method.\nError code explanation: 501 - Server does not support this operation.")
		return
	}
	if x.id == "" {
		x.id = newID()
		x.w.Header()["X-Request-Id"] = []string{x.id}
	}
	defer x.record()
	if no := x.set.admit(a, x); no != nil {
		x.text(no.code, no.text)
		return
	}
	x.end.serve(a, x)
}

func (a *API) reload(x *exchange) {
	a.node.Reload()
	x.text(http.StatusAccepted, "reload scheduled")
}

// healthCheck answers every path that is no document: with the status, or with a status line only.
func (a *API) healthCheck(x *exchange) {
	code := health(x.report, x.req.URL.Path, x.query(), x.now)
	if x.req.Method != http.MethodGet {
		x.status(code)
		return
	}
	a.answerStatus(x, code)
}

// cluster is GET /cluster: it always reads the store.
func (a *API) cluster(x *exchange) {
	ctx, cancel := context.WithTimeout(x.req.Context(), storeTimeout)
	defer cancel()
	c, err := a.node.ReadCluster(ctx)
	if err != nil {
		x.text(http.StatusBadGateway, "the store does not answer: "+err.Error())
		return
	}
	x.json(http.StatusOK, clusterView(c, x.report.Scope))
}

func (a *API) history(x *exchange) {
	lines := [][]any{}
	for _, l := range x.report.Cluster.History.Lines {
		row := []any{l.Timeline, uint64(l.LSN), l.Reason}
		if l.At != "" || l.NewLeader != "" {
			row = append(row, l.At)
		}
		if l.NewLeader != "" {
			row = append(row, l.NewLeader)
		}
		lines = append(lines, row)
	}
	x.json(http.StatusOK, lines)
}

func (a *API) getFailsafe(x *exchange) {
	if !x.report.Cluster.Failsafe.Present {
		x.text(http.StatusBadGateway, "failsafe mode is off")
		return
	}
	x.json(http.StatusOK, x.report.Cluster.Failsafe.Members)
}

func (a *API) metrics(x *exchange) {
	x.body200("text/plain", metrics(x.report, x.now))
}

// saneID is a request id that may go into headers and logs; otherwise empty.
func saneID(s string) string {
	if s == "" || len(s) > 128 {
		return ""
	}
	bad := func(c byte) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.' && c != ':'
	}
	if slices.ContainsFunc([]byte(s), bad) {
		return ""
	}
	return s
}
