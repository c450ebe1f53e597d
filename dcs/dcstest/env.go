package dcstest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// env is what one case works with.
type env struct {
	testing.TB
	h      Harness
	prefix string
}

// newEnv fills the defaults of h in and chooses a prefix.
func newEnv(t testing.TB, h Harness) *env {
	if h.Patience == 0 {
		h.Patience = 5 * time.Second
	}
	if h.RestartPatience == 0 {
		h.RestartPatience = 15 * time.Second
	}
	e := &env{TB: t, h: h, prefix: fmt.Sprintf("/dcstest/%x-%x", os.Getpid(), time.Now().UnixNano())}
	return e
}

// open returns a store for the prefix of this case plus suffix, closed at the end of the case.
func (e *env) open(suffix string) dcs.Store {
	e.Helper()
	s := e.h.Open(e, e.prefix+suffix)
	e.Cleanup(func() { _ = s.Close() })
	return s
}

// ctx returns a context for one call to a healthy server.
func (e *env) ctx() context.Context {
	ctx, cancel := context.WithTimeout(e.Context(), e.h.Patience)
	e.Cleanup(cancel)
	return ctx
}

// need skips the case, or fails it where nothing may be missing, unless the harness has the hook.
func (e *env) need(hook string, have bool) {
	e.Helper()
	switch {
	case have:
	case os.Getenv("PGREGENT_REQUIRE") == "1":
		e.Fatalf("the harness has no %s, and PGREGENT_REQUIRE=1 asks for every case", hook)
	default:
		e.Skipf("the harness has no %s", hook)
	}
}

// commit must succeed.
func (e *env) commit(s dcs.Store, txn dcs.Txn) dcs.Result {
	e.Helper()
	r, err := s.Commit(e.ctx(), txn)
	if err != nil {
		e.Fatalf("Commit(%+v): %v", txn, err)
	}
	return r
}

// read must succeed.
func (e *env) read(s dcs.Store) dcs.Snapshot {
	e.Helper()
	snap, err := s.Read(e.ctx())
	if err != nil {
		e.Fatalf("Read: %v", err)
	}
	return snap
}

// refused asserts that err is of the kind want.
func (e *env) refused(what string, err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("%s: got error %v, want %v", what, err, want)
	}
}
