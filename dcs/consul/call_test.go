package consul

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// authority is the certificate that httptest's servers show, which signed itself.
func authority(t *testing.T) []byte {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// answer is what a fake Consul says to one request; nil says nothing until the client hangs up.
type answer func(w http.ResponseWriter)

func say(status int, body string) answer {
	return func(w http.ResponseWriter) {
		w.Header().Set("X-Consul-Index", "7")
		w.Header().Set("X-Consul-LastContact", "0")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hangUp is a connection that breaks after the request.
func hangUp(http.ResponseWriter) { panic(http.ErrAbortHandler) }

// fake answers the requests to one path by the list given, the last of it again and again, and all else as an empty Consul.
type fake struct {
	path string

	mu    sync.Mutex
	list  []answer
	count int
	last  *http.Request
	body  string
}

func (f *fake) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	if !strings.HasPrefix(req.URL.Path, f.path) {
		say(http.StatusNotFound, "")(w)
		return
	}
	f.mu.Lock()
	a := f.list[min(f.count, len(f.list)-1)]
	f.count++
	f.last, f.body = req, string(body)
	f.mu.Unlock()
	if a == nil {
		<-req.Context().Done()
		return
	}
	a(w)
}

func (f *fake) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// faked is a Store on fakes, one for each.
func faked(t *testing.T, c Config, fakes ...*fake) *Store {
	t.Helper()
	c.Prefix = "/service/x"
	for _, f := range fakes {
		server := httptest.NewServer(f)
		t.Cleanup(server.Close)
		c.Addresses = append(c.Addresses, server.URL)
	}
	c, err := c.normal()
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStore(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

const committed = `{"Results":[{"KV":{"Key":"service/x/k","ModifyIndex":9}}],"Errors":null}`

func rolledBack(op int, what string) string {
	return fmt.Sprintf(`{"Results":null,"Errors":[{"OpIndex":%d,"What":%q}]}`, op, what)
}

var (
	putOnce   = dcs.Txn{Then: []dcs.Op{dcs.Put("k", []byte("v"))}}
	putFenced = dcs.Txn{If: []dcs.Cond{{Key: "k", Version: 5}}, Then: []dcs.Op{dcs.Put("k", []byte("v"))}}
	putBound  = dcs.Txn{Then: []dcs.Op{dcs.PutSession("k", nil, "s")}}
)

// A Commit at a Consul that answers as listed: what is reported, and how often it was sent.
func TestCommitOutcomes(t *testing.T) {
	const stale = `failed index check for key "service/x/k", current modify index 9 != 5`
	for _, c := range []struct {
		name  string
		txn   dcs.Txn
		list  []answer
		want  error // nil: done
		never error // a kind that the error must not have
		times int
	}{
		{name: "done", txn: putOnce, list: []answer{say(200, committed)}, times: 1},
		{name: "conflict", txn: putFenced, list: []answer{say(409, rolledBack(0, stale))}, want: dcs.ErrConflict, times: 1},
		{name: "session lost", txn: putBound, list: []answer{say(409, rolledBack(1, "invalid session \"s\""))}, want: dcs.ErrSessionLost, times: 1},
		{name: "lock delay, then done", txn: putBound, list: []answer{say(409, rolledBack(1, "failed to lock key \"k\" due to lock delay")), say(200, committed)}, times: 2},
		{name: "no leader, then done", txn: putOnce, list: []answer{say(500, "No cluster leader"), say(500, "No cluster leader"), say(200, committed)}, times: 3},
		{name: "cut off once", txn: putOnce, list: []answer{hangUp, say(200, committed)}, want: dcs.ErrUnknown, times: 1},
		{name: "leadership lost", txn: putOnce, list: []answer{say(500, "leadership lost while committing log"), say(200, committed)}, want: dcs.ErrUnknown, times: 1},
		{name: "cut off, then done", txn: putFenced, list: []answer{hangUp, say(200, committed)}, times: 2},
		{name: "cut off, then refused", txn: putFenced, list: []answer{hangUp, say(409, rolledBack(0, stale))}, want: dcs.ErrUnknown, never: dcs.ErrConflict, times: 2},
		{name: "silent, then done", txn: putFenced, list: []answer{nil, say(200, committed)}, times: 2},
		{name: "half a reply", txn: putOnce, list: []answer{say(200, committed[:20])}, want: dcs.ErrUnknown, times: 1},
		{name: "no version in the reply", txn: putOnce, list: []answer{say(200, `{"Results":[]}`)}, want: dcs.ErrUnknown, times: 1},
		{name: "no rights", txn: putOnce, list: []answer{say(403, "Permission denied")}, want: errAny, never: dcs.ErrUnknown, times: 1},
		{name: "no rights, in the transaction", txn: putOnce, list: []answer{say(409, rolledBack(0, "Permission denied"))}, want: errNever, never: dcs.ErrUnknown, times: 1},
		{name: "too large", txn: putOnce, list: []answer{say(413, "too large")}, want: dcs.ErrTooLarge, never: dcs.ErrUnknown, times: 1},
		{name: "not Consul", txn: putOnce, list: []answer{say(404, "404 page not found")}, want: errNotConsul, never: dcs.ErrUnknown, times: 1},
		{name: "redirected", txn: putOnce, list: []answer{func(w http.ResponseWriter) {
			w.Header().Set("Location", "/v1/txn/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}}, want: errNotConsul, never: dcs.ErrUnknown, times: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{path: "/v1/txn", list: c.list}
			_, err := faked(t, Config{}, f).Commit(within(t, 3*time.Second), c.txn)
			switch {
			case c.want == nil && err != nil, c.want == errAny && err == nil, //nolint:errorlint // a mark
				c.want != nil && c.want != errAny && !errors.Is(err, c.want): //nolint:errorlint // a mark
				t.Errorf("%v, want %v", err, c.want)
			case c.never != nil && errors.Is(err, c.never):
				t.Errorf("%v must not be %v", err, c.never)
			}
			if f.asked() != c.times {
				t.Errorf("it was sent %d times, want %d", f.asked(), c.times)
			}
		})
	}
}

var errAny = errors.New("any error")

// A Consul that never answers: every call ends with its context, and says what it must.
func TestSilent(t *testing.T) {
	f := &fake{path: "/", list: []answer{nil}}
	s := faked(t, Config{}, f)
	const limit = 150 * time.Millisecond
	start := time.Now()
	if _, err := s.Commit(within(t, limit), putOnce); !errors.Is(err, dcs.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Commit: %v", err)
	}
	if f.asked() != 1 {
		t.Errorf("a Commit that may not be repeated was sent %d times", f.asked())
	}
	if _, err := s.Read(within(t, limit)); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, dcs.ErrUnknown) {
		t.Errorf("Read: %v", err)
	}
	if _, err := s.OpenSession(within(t, limit), time.Second); !errors.Is(err, dcs.ErrUnknown) {
		t.Errorf("OpenSession: %v", err)
	}
	ses := &session{store: s, id: "x"}
	if err := ses.Renew(within(t, limit)); !errors.Is(err, dcs.ErrUnknown) || errors.Is(err, dcs.ErrSessionLost) {
		t.Errorf("Renew: %v", err)
	}
	if took := time.Since(start); took > 4*limit+time.Second {
		t.Errorf("four calls of %v took %v", limit, took)
	}
}

// The first of two endpoints never answers, or is not there: the other one is asked in time, and preferred from then on.
func TestSecondEndpoint(t *testing.T) {
	for _, first := range []answer{nil, hangUp, say(500, "No cluster leader")} {
		a, b := &fake{path: "/v1/txn", list: []answer{first}}, &fake{path: "/v1/txn", list: []answer{say(200, committed)}}
		s := faked(t, Config{}, a, b)
		start := time.Now()
		if _, err := s.Commit(within(t, 3*time.Second), putFenced); err != nil {
			t.Errorf("Commit: %v", err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("Commit took %v", took)
		}
		if _, err := s.Commit(within(t, 3*time.Second), putFenced); err != nil || a.asked() != 1 || b.asked() != 2 {
			t.Errorf("another Commit: %v; the endpoints were asked %d and %d times", err, a.asked(), b.asked())
		}
	}
}

// What "not found" means depends on who says it.
func TestRenewNotFound(t *testing.T) {
	infos := map[string]struct {
		info answer
		want error
	}{
		"gone":                {say(200, "[]"), dcs.ErrSessionLost},
		"the leader knows it": {say(200, `[{"ID":"x"}]`), dcs.ErrUnknown},
		"no leader":           {say(500, "No cluster leader"), dcs.ErrUnknown},
		"not Consul":          {func(w http.ResponseWriter) { _, _ = io.WriteString(w, "[]") }, errNotConsul},
	}
	for name, c := range infos {
		// Renew asks for the session when it is told that there is none.
		f := &fake{path: "/v1/session/info/x", list: []answer{c.info}}
		ses := &session{store: faked(t, Config{}, f), id: "x"}
		err := ses.Renew(within(t, 300*time.Millisecond))
		if name == "the leader knows it" || name == "no leader" {
			if err == nil || errors.Is(err, dcs.ErrSessionLost) {
				t.Errorf("%s: %v", name, err)
			}
		} else if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if ses.ended.Load() != errors.Is(err, dcs.ErrSessionLost) {
			t.Errorf("%s: ended is %v after %v", name, ses.ended.Load(), err)
		}
		if c.want == dcs.ErrSessionLost && !strings.Contains(f.last.URL.RawQuery, "consistent") { //nolint:errorlint // a mark
			t.Errorf("the question is %q, want a consistent one", f.last.URL)
		}
	}
}

// A session as it goes over the wire; a minimum of the servers that is longer than Consul's own is learned.
func TestOpenSessionRequest(t *testing.T) {
	f := &fake{path: "/v1/session/create", list: []answer{
		say(500, "Invalid Session TTL '10000000000', must be between [20s=24h0m0s]"), say(200, `{"ID":"abc"}`)}}
	s := faked(t, Config{SessionName: "x-pg1", Token: "t", Datacenter: "east"}, f)
	ses, err := s.OpenSession(within(t, 3*time.Second), 8*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if ses.ID() != "abc" || ses.TTL() != 20*time.Second || s.Limits().MinTTL != 20*time.Second {
		t.Errorf("session %s of %v, limits %+v", ses.ID(), ses.TTL(), s.Limits())
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(f.body), &body); err != nil {
		t.Fatal(err)
	}
	if body["Behavior"] != "delete" || body["LockDelay"] != "1ms" || body["TTL"] != "20s" || body["Name"] != "x-pg1" || fmt.Sprint(body["NodeChecks"]) != "[]" {
		t.Errorf("the request is %s", f.body)
	}
	if f.last.Header.Get("X-Consul-Token") != "t" || f.last.URL.Query().Get("dc") != "east" {
		t.Errorf("the request is %v with %v", f.last.URL, f.last.Header)
	}
	// 60 s: the server ends it after twice what it is told.
	if ses, err = s.OpenSession(within(t, 3*time.Second), 60*time.Second); err != nil || ses.TTL() != time.Minute || !strings.Contains(f.body, `"TTL":"30s"`) {
		t.Errorf("%v, %s", err, f.body)
	}
}

// TestCheckIsConsistent: a transaction that Consul is asked to write nothing by is a read to it, and has to be a consistent one,
// also when it would have deleted what has to be absent.
func TestCheckIsConsistent(t *testing.T) {
	absent := dcs.Cond{Key: "k", Version: dcs.Absent}
	for name, c := range map[string]struct {
		txn  dcs.Txn
		want bool
	}{
		"conditions only":    {dcs.Txn{If: []dcs.Cond{absent}}, true},
		"deletes the absent": {dcs.Txn{If: []dcs.Cond{absent}, Then: []dcs.Op{dcs.Delete("k")}}, true},
		"deletes another":    {dcs.Txn{If: []dcs.Cond{absent}, Then: []dcs.Op{dcs.Delete("l")}}, false},
	} {
		f := &fake{path: "/v1/txn", list: []answer{say(200, `{"Results":[],"Errors":null}`)}}
		if _, err := faked(t, Config{}, f).Commit(within(t, 3*time.Second), c.txn); err != nil {
			t.Fatal(err)
		}
		if got := f.last.URL.Query().Has("consistent"); got != c.want {
			t.Errorf("%s: consistent is %v, want %v", name, got, c.want)
		}
	}
}

// What may be missing from a Read makes it an error.
func TestReadDoubtful(t *testing.T) {
	filtered := func(w http.ResponseWriter) {
		w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
		say(200, `[]`)(w)
	}
	for name, c := range map[string]struct {
		answer answer
		want   error
	}{
		"filtered":     {filtered, errNever},
		"no index":     {func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, errNotConsul},
		"another page": {say(200, "<html>"), errAny},
		"half":         {say(200, `[{"Key":"service/x/k",`), errAny},
	} {
		s := faked(t, Config{}, &fake{path: "/v1/kv/", list: []answer{c.answer}})
		if _, err := s.Read(within(t, 300*time.Millisecond)); err == nil || c.want != errAny && !errors.Is(err, c.want) { //nolint:errorlint // a mark
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	s := faked(t, Config{}, &fake{path: "/v1/kv/service/x/", list: []answer{say(200,
		`[{"Key":"service/x/","ModifyIndex":1},{"Key":"service/x/k","Value":"dg==","ModifyIndex":2,"Session":"s"}]`)}})
	snap, err := s.Read(within(t, 3*time.Second))
	if err != nil || len(snap.Items) != 1 || snap.Items[0].Key != "k" || string(snap.Items[0].Value) != "v" || snap.Items[0].Version != 2 || snap.Items[0].Session != "s" {
		t.Errorf("%+v, %v", snap, err)
	}
}

// TLS, with an authority, without one, and without verification.
func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(&fake{path: "/v1/kv/", list: []answer{say(404, "")}})
	defer server.Close()
	server.Config.ErrorLog = nil
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, authority(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		give Config
		want string // in the error; empty for none
	}{
		{Config{URL: server.URL, CACert: file}, ""},
		{Config{URL: server.URL, SkipVerify: true}, ""},
		{Config{URL: server.URL}, "check cacert"},
		{Config{URL: "http" + strings.TrimPrefix(server.URL, "https")}, "use https"},
	} {
		c.give.Prefix = "/service/x"
		start := time.Now()
		s, err := Open(within(t, 5*time.Second), c.give)
		if err == nil {
			_ = s.Close()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.give, err, c.want)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%+v: %v; nothing but another setting mends it", c.give, took)
		}
	}
}

// A watch whose questions fail, or are answered with nonsense, asks on without haste.
func TestWatchPatience(t *testing.T) {
	f := &fake{path: "/v1/kv/service/x/k", list: []answer{say(500, "rpc error making call: EOF")}}
	s := faked(t, Config{}, f)
	ctx, cancel := context.WithCancel(t.Context())
	ch, err := s.Watch(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Second)
	if n := f.asked(); n < 2 || n > 10 {
		t.Errorf("%d questions in a second", n)
	}
	// An absent key, and an index that moves with other keys: nothing new after the first answer.
	f.mu.Lock()
	f.list = []answer{say(404, "")}
	f.mu.Unlock()
	select {
	case <-ch:
	case <-time.After(5 * time.Second):
		t.Fatal("no wake-up when it was set up")
	}
	before := f.asked()
	<-time.After(time.Second)
	if n := f.asked() - before; n > 15 {
		t.Errorf("%d questions in a second that tell nothing new", n)
	}
	cancel()
	for range ch { //nolint:revive // until it is closed
	}
}
