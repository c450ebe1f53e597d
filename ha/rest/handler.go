package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Options are how a node is served.
type Options struct {
	// Username and Password protect everything that changes something (reference section 2.2). Empty: open.
	Username, Password string
	// ClientCert asks for a verified client certificate on the same endpoints (restapi.verify_client optional).
	ClientCert bool
	// Headers are added to every answer (restapi.http_extra_headers).
	Headers map[string]string
	Log     *slog.Logger // nil: discard
	// Token is the Server header; empty: pgregent and its version.
	Token string
}

// Handler serves a node without access control: see NewHandler.
func Handler(n Node) http.Handler { return NewHandler(n, Options{}) }

// NewHandler serves a node's REST API.
func NewHandler(n Node, o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &handler{node: n, o: o}
}

type handler struct {
	node Node
	o    Options
}

// limits of a request.
const (
	maxRequest   = 64 << 10
	storeTimeout = 5 * time.Second
)

// ServeHTTP dispatches as the reference does (section 2.1): by the first segment of the path; what no endpoint knows is
// a health check for GET, HEAD and OPTIONS, and 501 otherwise.
func (h *handler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r := h.node.Report()
	w.Header().Set("Server", h.token(r))
	for k, v := range h.o.Headers {
		w.Header().Set(k, v)
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	switch req.Method {
	case http.MethodGet:
		h.get(w, req, r, first)
	case http.MethodHead, http.MethodOptions:
		h.head(w, req, r, first)
	default:
		h.change(w, req, r, req.Method+" "+first)
	}
}

func (h *handler) token(r *Report) string {
	if h.o.Token != "" {
		return h.o.Token
	}
	return "pgregent/" + r.Version
}

func (h *handler) get(w http.ResponseWriter, req *http.Request, r *Report, first string) {
	now := time.Now()
	switch first {
	case "patroni":
		writeJSON(w, http.StatusOK, status(r, now))
	case "cluster":
		h.cluster(w, req, r)
	case "history":
		h.history(w, r)
	case "config":
		if !r.Cluster.Config.Present || r.Cluster.Config.Err != nil {
			writeText(w, http.StatusBadGateway, "the dynamic configuration is not known")
			return
		}
		writeJSON(w, http.StatusOK, r.Cluster.Config.Raw)
	case "failsafe":
		if !r.Cluster.Failsafe.Present {
			writeText(w, http.StatusBadGateway, "failsafe mode is off")
			return
		}
		writeJSON(w, http.StatusOK, r.Cluster.Failsafe.Members)
	case "metrics":
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(metrics(r, now))
	case "liveness":
		w.WriteHeader(liveness(r, now))
	case "readiness":
		w.WriteHeader(readiness(r, req.URL.Query(), now))
	case "operations":
		writeJSON(w, http.StatusOK, append([]Operation{}, r.Operations...))
	case "decisions":
		writeJSON(w, http.StatusOK, h.node.Decisions())
	default:
		writeJSON(w, health(r, req.URL.Path, req.URL.Query(), now), status(r, now))
	}
}

// head answers with a status line only. Liveness, readiness and the documents answer as their GET does, where the
// reference's original says 503 (section 9.2).
func (h *handler) head(w http.ResponseWriter, req *http.Request, r *Report, first string) {
	now := time.Now()
	switch first {
	case "patroni", "cluster", "history", "config", "metrics":
		w.WriteHeader(http.StatusOK)
	case "liveness":
		w.WriteHeader(liveness(r, now))
	case "readiness":
		w.WriteHeader(readiness(r, req.URL.Query(), now))
	default:
		w.WriteHeader(health(r, req.URL.Path, req.URL.Query(), now))
	}
}

// change dispatches what changes something, behind the access control.
func (h *handler) change(w http.ResponseWriter, req *http.Request, r *Report, what string) {
	f := map[string]func(http.ResponseWriter, *http.Request, *Report){
		"POST switchover":   func(w http.ResponseWriter, q *http.Request, r *Report) { h.failover(w, q, r, "switchover") },
		"POST failover":     func(w http.ResponseWriter, q *http.Request, r *Report) { h.failover(w, q, r, "failover") },
		"DELETE switchover": h.deleteSwitchover,
		"POST reload":       h.reload,
		"POST failsafe":     h.failsafe,
		"POST pgregent":     h.question,
		"POST sigterm": func(w http.ResponseWriter, _ *http.Request, _ *Report) {
			writeText(w, http.StatusAccepted, "shutdown scheduled")
		},
	}[what]
	if f == nil {
		// patronictl looks for this sentence (reference section 2.1).
		writeText(w, http.StatusNotImplemented, "Error code: 501\nMessage: Unsupported method. Server does not support this operation: "+what)
		return
	}
	if !h.allowed(w, req) {
		h.o.Log.Warn("a request was refused", "request", what, "from", req.RemoteAddr)
		return
	}
	if what != "POST pgregent" {
		h.o.Log.Info("request", "request", what, "from", req.RemoteAddr)
	}
	f(w, req, r)
}

func (h *handler) reload(w http.ResponseWriter, _ *http.Request, _ *Report) {
	h.node.Reload()
	writeText(w, http.StatusAccepted, "reload scheduled")
}

// cluster is GET /cluster: it always reads the store.
func (h *handler) cluster(w http.ResponseWriter, req *http.Request, r *Report) {
	ctx, cancel := context.WithTimeout(req.Context(), storeTimeout)
	defer cancel()
	c, err := h.node.ReadCluster(ctx)
	if err != nil {
		writeText(w, http.StatusBadGateway, "the store does not answer: "+err.Error())
		return
	}
	writeJSON(w, http.StatusOK, clusterView(c, r.Scope))
}

func (h *handler) history(w http.ResponseWriter, r *Report) {
	lines := [][]any{}
	for _, l := range r.Cluster.History.Lines {
		row := []any{l.Timeline, uint64(l.LSN), l.Reason}
		if l.At != "" {
			row = append(row, l.At)
		}
		if l.NewLeader != "" {
			row = append(row, l.NewLeader)
		}
		lines = append(lines, row)
	}
	writeJSON(w, http.StatusOK, lines)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		writeText(w, http.StatusInternalServerError, fmt.Sprintf("the answer cannot be written: %v", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(code)
	_, _ = w.Write(b)
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text))
}
