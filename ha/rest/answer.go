package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// encoded is the status of one Report as bytes, for every health check until there is another Report.
type encoded struct {
	report *Report
	until  time.Time // the ages in it are wrong afterwards
	body   []byte
	length []string // the header Content-Length
}

// statusAge bounds how old the ages in a status may be.
const statusAge = 100 * time.Millisecond

// statusOf is the encoded status of a report, made anew when the report is another one or the last is too old.
func (a *API) statusOf(r *Report, now time.Time) (*encoded, error) {
	if e := a.cache.Load(); e != nil && e.report == r && now.Before(e.until) {
		return e, nil
	}
	b, err := marshal(status(r, now))
	if err != nil {
		return nil, err
	}
	e := &encoded{report: r, until: now.Add(statusAge), body: b, length: []string{strconv.Itoa(len(b))}}
	if r.Writable && now.Before(r.LeaderUntil) && r.LeaderUntil.Before(e.until) {
		e.until = r.LeaderUntil // from then on it is not writable
	}
	a.cache.Store(e)
	return e, nil
}

func (a *API) answerStatus(x *exchange, code int) {
	e, err := a.statusOf(x.report, x.now)
	if err != nil {
		x.text(http.StatusInternalServerError, fmt.Sprintf("the answer cannot be written: %v", err))
		return
	}
	h := x.w.Header()
	h["Content-Type"], h["Content-Length"] = a.json, e.length
	x.code = code
	x.w.WriteHeader(code)
	_, _ = x.w.Write(e.body)
}

// marshal is JSON without the escapes that only a page in a browser needs.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func (x *exchange) json(code int, v any) {
	b, err := marshal(v)
	if err != nil {
		x.text(http.StatusInternalServerError, fmt.Sprintf("the answer cannot be written: %v", err))
		return
	}
	x.write(code, "application/json", b)
}

// text is a short answer in words. Patroni sends them as text/html; what repeats a client's own words is plain text
// here, so that no browser takes it for a page.
func (x *exchange) text(code int, text string) {
	kind := "text/html"
	if code >= http.StatusBadRequest && code < http.StatusInternalServerError {
		kind = "text/plain; charset=utf-8"
	}
	x.answer = text
	x.write(code, kind, []byte(text))
}

func (x *exchange) body200(kind string, b []byte) { x.write(http.StatusOK, kind, b) }

// status answers with a status line only.
func (x *exchange) status(code int) { x.write(code, "", nil) }

func (x *exchange) write(code int, kind string, b []byte) {
	h := x.w.Header()
	if kind != "" {
		h.Set("Content-Type", kind)
		h.Set("X-Content-Type-Options", "nosniff")
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	x.code = code
	x.w.WriteHeader(code)
	_, _ = x.w.Write(b)
}

// late gives the answer of a handler that took its time the time of a fresh one: the limit of NewServer has run out.
func (x *exchange) late() {
	_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(answerTime)) // an error: there is no connection, as in tests
}
