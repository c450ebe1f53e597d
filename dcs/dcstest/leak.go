package dcstest

import (
	"runtime"
	"strings"
)

// goroutines returns the stack of every goroutine that is not known to belong to somebody else, by its number.
func (e *env) goroutines() map[string]string {
	buf := make([]byte, 1<<16)
	for n := runtime.Stack(buf, true); ; n = runtime.Stack(buf, true) {
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		head, _, _ := strings.Cut(stack, " [") // "goroutine 12"
		if !e.foreign(stack) {
			all[head] = stack
		}
	}
	return all
}

// foreign says whether a goroutine belongs to the test runner, a Proxy or the server.
func (e *env) foreign(stack string) bool {
	for _, mark := range append([]string{"testing.(*T).Run(", "testing.runTests", "dcstest.(*Proxy).", "dcstest.(*link)."}, e.h.Ignore...) {
		if strings.Contains(stack, mark) {
			return true
		}
	}
	return false
}

// noneLeft asserts that soon there is no goroutine that was not there before.
func (e *env) noneLeft(before map[string]string) {
	e.Helper()
	var left []string
	gone := func() bool {
		left = left[:0]
		for number, stack := range e.goroutines() {
			if _, ok := before[number]; !ok {
				left = append(left, stack)
			}
		}
		return len(left) == 0
	}
	e.Cleanup(func() {
		if e.Failed() && len(left) > 0 {
			e.Logf("goroutines left:\n%s", strings.Join(left, "\n\n"))
		}
	})
	e.eventually(e.h.Patience, "every goroutine of a closed client is gone", gone)
}
