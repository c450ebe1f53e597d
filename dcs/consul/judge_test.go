package consul

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/pgregent/dcs"
)

func TestJudge(t *testing.T) {
	said := func(code int, body string) error { return api.StatusError{Code: code, Body: body} }
	for _, c := range []struct {
		name   string
		err    error
		sent   bool
		status int
		want   verdict
		kind   error // that the error must have; nil for any
		words  string
	}{
		{name: "done", sent: true, status: 200, want: done},
		{name: "conflict", err: fmt.Errorf("%w: x", dcs.ErrConflict), sent: true, status: 409, want: refused, kind: dcs.ErrConflict},
		{name: "session lost", err: dcs.ErrSessionLost, sent: true, status: 404, want: refused, kind: dcs.ErrSessionLost},
		{name: "lock delay", err: later("lock delay"), sent: true, status: 409, want: failed},
		{name: "connection refused", err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}, want: failed},
		{name: "deadline before sending", err: context.DeadlineExceeded, want: failed},
		{name: "untrusted certificate", err: &tls.CertificateVerificationError{Err: errors.New("x")}, want: barred, words: "cacert"},
		{name: "no TLS there", err: tls.RecordHeaderError{Msg: "x"}, want: barred, words: "use http"},
		{name: "client certificate refused", err: &net.OpError{Op: "remote error", Err: tls.AlertError(42)}, sent: true, want: barred, words: "cert and key"},
		{name: "deadline after sending", err: context.DeadlineExceeded, sent: true, want: unknown},
		{name: "reset after sending", err: io.ErrUnexpectedEOF, sent: true, want: unknown},
		{name: "reply cut off", err: io.ErrUnexpectedEOF, sent: true, status: 200, want: unknown},
		{name: "rollback cut off", err: io.ErrUnexpectedEOF, sent: true, status: 409, want: unknown},
		{name: "no leader", err: said(500, "No cluster leader"), sent: true, status: 500, want: failed},
		{name: "no leader, forwarded", err: said(500, "rpc error making call: No cluster leader"), sent: true, status: 500, want: failed},
		{name: "no leader, from a transaction", err: errors.New("Failed request: No cluster leader"), sent: true, status: 500, want: failed},
		{name: "not the leader", err: said(500, "node is not the leader"), sent: true, status: 500, want: failed},
		{name: "no connection to the leader", err: said(500, "rpc error getting client: failed to get conn"), sent: true, status: 500, want: failed},
		{name: "leadership lost", err: said(500, "leadership lost while committing log"), sent: true, status: 500, want: unknown},
		{name: "connection to the leader broke", err: said(500, "rpc error making call: EOF"), sent: true, status: 500, want: unknown},
		{name: "the client hides the text", err: errors.New("Unexpected response code: 500"), sent: true, status: 500, want: unknown},
		{name: "rate limit", err: said(503, "rate limit reached, try again later"), sent: true, status: 503, want: failed},
		{name: "a proxy's 502", err: said(502, "<html>"), sent: true, status: 502, want: unknown},
		{name: "a proxy's 503", err: said(503, "upstream is down"), sent: true, status: 503, want: unknown},
		{name: "a proxy's 504", err: said(504, ""), sent: true, status: 504, want: unknown},
		{name: "no right", err: said(403, "Permission denied: token with AccessorID 'x' lacks permission"), sent: true, status: 403, want: refused, words: "set token"},
		{name: "no such token", err: said(403, "ACL not found"), sent: true, status: 403, want: refused, words: "set token"},
		{name: "no right to renew", err: errors.New("Unexpected response code: 403"), sent: true, status: 403, want: refused, words: "set token"},
		{name: "a proxy's 403", err: said(403, "<html>go away"), sent: true, status: 403, want: unknown},
		{name: "a proxy's 403 to a transaction", err: errors.New("Failed request: <html>go away"), sent: true, status: 403, want: unknown},
		{name: "too large", err: errors.New("Failed request: Request body too large"), sent: true, status: 413, want: refused, kind: dcs.ErrTooLarge},
		{name: "bad request", err: errors.New("Failed request: Failed to parse body"), sent: true, status: 400, want: refused},
		{name: "wants TLS", err: said(400, "Client sent an HTTP request to an HTTPS server."), sent: true, status: 400, want: barred, words: "https"},
		{name: "another server", err: errors.New("Failed request: 404 page not found"), sent: true, status: 404, want: barred, kind: errNotConsul},
		{name: "a redirect", err: said(301, ""), sent: true, status: 301, want: barred, kind: errNotConsul},
		{name: "no datacenter", err: said(500, "No path to datacenter"), sent: true, status: 500, want: barred, words: "dc"},
	} {
		v, err := judge(c.err, c.sent, c.status)
		if v != c.want || (err == nil) != (c.err == nil) || c.kind != nil && !errors.Is(err, c.kind) {
			t.Errorf("%s: verdict %d with the error %v, want %d of the kind %v", c.name, v, err, c.want, c.kind)
		}
		if err != nil && !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: the error is %q, want %q in it", c.name, err, c.words)
		}
		if errors.Is(err, dcs.ErrUnknown) {
			t.Errorf("%s: the call says what is unknown, not the attempt", c.name)
		}
	}
}

func TestJudgeTxn(t *testing.T) {
	const (
		stale   = `failed index check for key "service/x/k", current modify index 12 != 11`
		gone    = `failed to check index, key "service/x/k" doesn't exist`
		there   = `key "service/x/k" exists`
		session = `invalid session "7d2a"`
		held    = `failed to lock key "service/x/k", lock is already held`
		delay   = `failed to lock key "service/x/k" due to lock delay`
		denied  = "Permission denied"
	)
	for _, c := range []struct {
		list api.TxnErrors
		want error
	}{
		{api.TxnErrors{{OpIndex: 0, What: stale}}, dcs.ErrConflict},
		{api.TxnErrors{{OpIndex: 1, What: gone}}, dcs.ErrConflict},
		{api.TxnErrors{{OpIndex: 1, What: there}, {OpIndex: 2, What: held}}, dcs.ErrConflict},
		{api.TxnErrors{{OpIndex: 0, What: stale}, {OpIndex: 3, What: session}}, dcs.ErrConflict},
		{api.TxnErrors{{OpIndex: 3, What: session}}, dcs.ErrSessionLost},
		{api.TxnErrors{{OpIndex: 2, What: delay}}, errLater},
		{api.TxnErrors{{OpIndex: 0, What: denied}}, errNever},
		{api.TxnErrors{{OpIndex: 0, What: "failed kvs lookup: x"}}, errNever},
		{api.TxnErrors{{OpIndex: 2, What: there}}, errNever}, // no condition
		{api.TxnErrors{nil}, errLater},
		{nil, errLater},
	} {
		err := judgeTxn(c.list, 2)
		if !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want the kind %v", c.list, err, c.want)
		}
		if v, _ := judge(err, true, http.StatusConflict); v != refused && v != failed {
			t.Errorf("%+v: verdict %d; it was rolled back", c.list, v)
		}
	}
}

func TestShortest(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"Unexpected response code: 500 (Invalid Session TTL '10000000000', must be between [15s=24h0m0s])": 15 * time.Second,
		"rpc error making call: Invalid Session TTL '1', must be between [1m0s=24h0m0s]":                   time.Minute,
		"Invalid Session TTL '1', must be between [-5s=24h0m0s]":                                           0,
		"Invalid Session TTL '1', must be between [9999h=24h0m0s]":                                         0,
		"Invalid Session TTL":                         0,
		"must be between [15s=24h0m0s]":               0,
		"Invalid Session TTL 'x', must be between [=": 0,
	} {
		got, ok := shortest(errors.New(text))
		if !ok {
			got = 0
		}
		if got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func FuzzShortest(f *testing.F) {
	f.Add("Invalid Session TTL '10000000000', must be between [15s=24h0m0s]")
	f.Add("Invalid Session TTL '', must be between [1h2m3.5s=")
	f.Fuzz(func(t *testing.T, text string) {
		if d, ok := shortest(errors.New(text)); ok && (d <= 0 || d > 24*time.Hour) {
			t.Errorf("%q: %v", text, d)
		}
	})
}

func FuzzJudgeTxn(f *testing.F) {
	f.Add(0, `key "k" exists`, 1, "invalid session")
	f.Add(-1, "", 99, "key \xff exists")
	f.Fuzz(func(t *testing.T, i int, a string, j int, b string) {
		err := judgeTxn(api.TxnErrors{{OpIndex: i, What: a}, {OpIndex: j, What: b}}, 1)
		v, _ := judge(err, true, http.StatusConflict)
		switch {
		case v != refused && v != failed:
			t.Errorf("verdict %d of %v", v, err)
		case errors.Is(err, dcs.ErrConflict) && !(i < 1 && conditionFailed(a)) && !(j < 1 && conditionFailed(b)):
			t.Errorf("a conflict of no condition: %v", err)
		}
	})
}
