package dcstest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// env is what one case works with.
type env struct {
	testing.TB
	h      Harness
	prefix string
	start  time.Time
	moved  time.Duration // by Advance
	report *Report       // nil when nobody wants one
}

// newEnv fills in the defaults of h and chooses a prefix that no other case has, also not in an earlier run on the same
// server.
func newEnv(t testing.TB, h Harness) *env {
	t.Helper()
	if h.Patience == 0 {
		h.Patience = 5 * time.Second
	}
	if h.RestartPatience == 0 {
		h.RestartPatience = 15 * time.Second
	}
	if h.StallPatience == 0 {
		h.StallPatience = 30 * time.Second
	}
	if h.Effort == 0 {
		h.Effort = 5 * time.Second
	}
	if h.Sessions == 0 {
		h.Sessions = 30
	}
	h = h.filled()
	now := time.Now()
	return &env{TB: t, h: h, prefix: fmt.Sprintf("/dcstest/%x-%x", os.Getpid(), now.UnixNano()), start: now}
}

// open returns a new client for the keys below the prefix of this case, closed when the case ends.
func (e *env) open() dcs.Store {
	e.Helper()
	return e.openAt("")
}

// openAt is open for a prefix that is that of the case and more.
func (e *env) openAt(more string) dcs.Store {
	e.Helper()
	s := e.h.Open(e.TB, e.prefix+more)
	e.Cleanup(func() { _ = s.Close() })
	if e.report != nil {
		e.report.Limits = s.Limits()
	}
	return s
}

// direct returns a client that no disturbance touches.
func (e *env) direct() dcs.Store {
	e.Helper()
	s := e.h.Direct(e.TB, e.prefix)
	e.Cleanup(func() { _ = s.Close() })
	return s
}

// measured tells the report how long something took; the longest counts. Only the goroutine of the case may call it.
func (e *env) measured(what string, d time.Duration) {
	if e.report != nil {
		e.report.Measured[what] = max(e.report.Measured[what], d)
	}
}

// openMany returns n clients for the prefix of this case.
func (e *env) openMany(n int) []dcs.Store {
	e.Helper()
	stores := make([]dcs.Store, n)
	for i := range stores {
		stores[i] = e.open()
	}
	return stores
}

// base is the context of all others. It never ends: sessions and stores are closed after e.Context() did.
func (e *env) base() context.Context { return context.WithoutCancel(e.Context()) }

// patient returns a context for one call to a healthy server.
func (e *env) patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(e.base(), e.h.Patience)
}

// tryCommit is Commit with patience. It may be called from any goroutine.
func (e *env) tryCommit(s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
	ctx, cancel := e.patient()
	defer cancel()
	return s.Commit(ctx, txn)
}

// commit must succeed.
func (e *env) commit(s dcs.Store, txn dcs.Txn) dcs.Result {
	e.Helper()
	r, err := e.tryCommit(s, txn)
	if err != nil {
		e.Fatalf("Commit of %s: %v", describe(txn), err)
	}
	return r
}

// put must succeed, and returns the new version.
func (e *env) put(s dcs.Store, key, value string) dcs.Version {
	e.Helper()
	return e.commit(s, dcs.Txn{Then: []dcs.Op{dcs.Put(key, []byte(value))}}).Versions[key]
}

// remove must succeed.
func (e *env) remove(s dcs.Store, key string) {
	e.Helper()
	e.commit(s, dcs.Txn{Then: []dcs.Op{dcs.Delete(key)}})
}

// tryRead is Read with patience. It may be called from any goroutine.
func (e *env) tryRead(s dcs.Store) (dcs.Snapshot, error) {
	ctx, cancel := e.patient()
	defer cancel()
	return s.Read(ctx)
}

// read must succeed.
func (e *env) read(s dcs.Store) dcs.Snapshot {
	e.Helper()
	snap, err := e.tryRead(s)
	if err != nil {
		e.Fatalf("Read: %v", err)
	}
	return snap
}

// has must read whether key is there.
func (e *env) has(s dcs.Store, key string) bool {
	e.Helper()
	_, ok := e.read(s).Item(key)
	return ok
}

// wantValue asserts what s reads under key.
func (e *env) wantValue(s dcs.Store, key, want string) {
	e.Helper()
	it, ok := e.read(s).Item(key)
	switch {
	case !ok:
		e.Errorf("the key %q is absent, want the value %q", key, want)
	case string(it.Value) != want:
		e.Errorf("the key %q has the value %q, want %q", key, it.Value, want)
	}
}

// wantAbsent asserts that s reads nothing under key.
func (e *env) wantAbsent(s dcs.Store, key, why string) {
	e.Helper()
	if it, ok := e.read(s).Item(key); ok {
		e.Errorf("the key %q is there with the value %q: %s", key, it.Value, why)
	}
}

// wantKind asserts the kind of an error.
func (e *env) wantKind(what string, err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("%s: the error is %q, want the kind %q", what, fmt.Sprint(err), want)
	}
}

// ttl is the time-out for sessions that are left to expire.
func (e *env) ttl(s dcs.Store) time.Duration {
	if e.h.TTL > 0 {
		return e.h.TTL
	}
	return max(time.Second, s.Limits().MinTTL)
}

// session must open one. It is closed when the case ends.
func (e *env) session(s dcs.Store, ttl time.Duration) dcs.Session {
	e.Helper()
	ctx, cancel := e.patient()
	defer cancel()
	ses, err := s.OpenSession(ctx, ttl)
	if err != nil {
		e.Fatalf("OpenSession(%v): %v", ttl, err)
	}
	e.Cleanup(func() { _ = e.closeSession(ses) })
	return ses
}

// lasting is a session that does not expire during a case.
func (e *env) lasting(s dcs.Store) dcs.Session {
	e.Helper()
	return e.session(s, max(30*time.Second, s.Limits().MinTTL))
}

// bind must put key, bound to ses.
func (e *env) bind(s dcs.Store, key, value string, ses dcs.Session) dcs.Version {
	e.Helper()
	return e.commit(s, dcs.Txn{Then: []dcs.Op{dcs.PutSession(key, []byte(value), ses.ID())}}).Versions[key]
}

// renew is Session.Renew with patience.
func (e *env) renew(ses dcs.Session) error {
	ctx, cancel := e.patient()
	defer cancel()
	return ses.Renew(ctx)
}

// closeSession is Session.Close with patience.
func (e *env) closeSession(ses dcs.Session) error {
	ctx, cancel := e.patient()
	defer cancel()
	return ses.Close(ctx)
}

// now is the time on which sessions expire, since the case began.
func (e *env) now() time.Duration {
	if e.h.Advance != nil {
		return e.moved
	}
	return time.Since(e.start)
}

// pass lets d pass on the clock on which sessions expire.
func (e *env) pass(d time.Duration) {
	if e.h.Advance != nil {
		e.moved += d
		e.h.Advance(d)
		return
	}
	wait(d)
}

// wait lets real time pass.
func wait(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// eventually asks until yes says so, at most for the time limit.
func (e *env) eventually(limit time.Duration, what string, yes func() bool) {
	e.Helper()
	for end := time.Now().Add(limit); !yes(); wait(10 * time.Millisecond) {
		if time.Now().After(end) {
			e.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// in is the hook of one trouble, for disturb.
func (e *env) in(trouble Trouble) func(testing.TB) func() {
	return func(t testing.TB) func() { return e.h.Disturb(t, trouble) }
}

// disturb calls a hook that makes the server misbehave, and sees to it that the effect ends.
func (e *env) disturb(hook func(testing.TB) func()) (undo func()) {
	e.Helper()
	undo = sync.OnceFunc(hook(e.TB))
	e.Cleanup(undo)
	return undo
}

// describe is a Txn in few words: values may be long.
func describe(txn dcs.Txn) string {
	var s string
	for _, c := range txn.If {
		s += fmt.Sprintf("if %q at %d ", c.Key, c.Version)
	}
	for _, o := range txn.Then {
		switch {
		case o.Delete:
			s += fmt.Sprintf("delete %q ", o.Key)
		default:
			s += fmt.Sprintf("put %q (%d bytes, session %q) ", o.Key, len(o.Value), o.Session)
		}
	}
	return "{" + s + "}"
}
