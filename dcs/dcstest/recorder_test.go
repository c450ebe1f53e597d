package dcstest

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// recorder is a testing.TB whose failures are kept and fail nothing: the suite under test reports to it.
type recorder struct {
	testing.TB // the real one, for everything that is not about failing; embedding it is the only way to be a testing.TB

	mu       sync.Mutex
	failures []string
	failed   bool
	cleanups []func()
}

// record runs one case against h and returns what it reported. With no failure it returns nil.
func record(t testing.TB, h Harness, c testCase) []string {
	t.Helper()
	r := &recorder{TB: t}
	r.inGoroutine(func() { c.run(newEnv(r, h)) })
	for len(r.cleanups) > 0 {
		last := r.cleanups[len(r.cleanups)-1]
		r.cleanups = r.cleanups[:len(r.cleanups)-1]
		r.inGoroutine(last)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed && len(r.failures) == 0 {
		return []string{"failed without a word"}
	}
	return slices.Clone(r.failures)
}

// inGoroutine runs f so that FailNow can end it.
func (r *recorder) inGoroutine(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func (r *recorder) fail(message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
	if message != "" {
		r.failures = append(r.failures, message)
	}
}

func (r *recorder) Error(args ...any)                 { r.fail(fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.fail(fmt.Sprintf(format, args...)) }
func (r *recorder) Fatal(args ...any)                 { r.fail(fmt.Sprint(args...)); runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) {
	r.fail(fmt.Sprintf(format, args...))
	runtime.Goexit()
}
func (r *recorder) Fail()    { r.fail("") }
func (r *recorder) FailNow() { r.fail(""); runtime.Goexit() }
func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}
func (r *recorder) Log(...any)          {}
func (r *recorder) Logf(string, ...any) {}
func (r *recorder) Cleanup(f func())    { r.cleanups = append(r.cleanups, f) }

// allCases returns every case by its full name.
func allCases() map[string]testCase {
	all := make(map[string]testCase)
	for _, g := range groups() {
		for _, c := range g.cases {
			all[g.name+"/"+c.name] = c
		}
	}
	return all
}
