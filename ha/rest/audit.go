package rest

import (
	"crypto/rand"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// auditLine is one line of the audit log. It holds no value that could be a password: of credentials only the name of a
// user who proved to be one, of settings only numbers and switches.
type auditLine struct {
	Time    string  `json:"time"` // UTC, when the request came
	Request string  `json:"request_id"`
	Who     string  `json:"who"`  // user or common name; empty: nobody in particular
	Role    string  `json:"role"` // what they may do
	Cert    string  `json:"certificate,omitempty"`
	From    string  `json:"from"` // address and port
	What    string  `json:"what"` // method and endpoint
	With    any     `json:"with,omitempty"`
	Outcome string  `json:"outcome"` // accepted, refused, or failed
	Code    int     `json:"code"`
	Answer  string  `json:"answer,omitempty"`
	Seconds float64 `json:"seconds"`
}

// auditLog writes lines whole, one at a time.
type auditLog struct {
	mu  sync.Mutex
	to  io.Writer
	log *slog.Logger
}

func (l *auditLog) write(line auditLine) {
	b, err := marshal(line)
	if err == nil {
		l.mu.Lock()
		_, err = l.to.Write(append(b, '\n'))
		l.mu.Unlock()
	}
	if err != nil {
		l.log.Error("the audit log cannot be written", "request_id", line.Request, "error", err)
	}
}

// record leaves the traces of a request: one line in the audit log, one in the log. What members ask each other is no
// operator's doing and is recorded only when it was refused: the answer to a silent store must not wait for a disk.
func (x *exchange) record() {
	outcome := outcomeOf(x.code)
	what := x.req.Method + " " + x.end.Path
	if x.end.member && outcome == "accepted" {
		return
	}
	level := slog.LevelInfo
	if outcome != "accepted" {
		level = slog.LevelWarn
	}
	x.set.log.Log(x.req.Context(), level, "request", "request", what, "who", x.who.name, "from", x.req.RemoteAddr, "outcome", outcome,
		"code", x.code, "answer", short(x.answer), "request_id", x.id)
	if x.set.audit.to == nil {
		return
	}
	x.set.audit.write(auditLine{
		Time: x.now.UTC().Format(time.RFC3339Nano), Request: x.id, Who: x.who.name, Role: x.who.role.String(), Cert: x.who.cert,
		From: x.req.RemoteAddr, What: what, With: x.with, Outcome: outcome, Code: x.code, Answer: short(x.answer),
		Seconds: time.Since(x.now).Round(time.Microsecond).Seconds(),
	})
}

// outcomeOf: 0 is a handler that panicked. What was taken and then came to nothing has failed.
func outcomeOf(code int) string {
	switch {
	case code == 0 || code == http.StatusBadGateway || code == http.StatusServiceUnavailable:
		return "failed"
	case code < http.StatusBadRequest:
		return "accepted"
	}
	return "refused"
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}
