// Package dcstest is the conformance suite for implementations of dcs.Store: run it on your own backend.
//
//	func TestConformance(t *testing.T) {
//		dcstest.Run(t, dcstest.Harness{Open: open, Block: block, Restart: restart})
//	}
//
// It needs a server that is otherwise idle and a harness that can make it silent; Proxy is a TCP proxy for that purpose.
// The suite uses only prefixes of its own, a new one for each case.
//
// The package does not start servers, does not measure speed, and does not test the lease protocol, which stands above
// Store and is the same over every backend.
package dcstest

import (
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// Harness is what the suite must know about the server under test. Only Open is required; the cases that need a hook
// that is nil are not run, and Run logs which.
//
// Hooks get the testing.TB of the running case and report their own failures with t.Fatal. What a hook returns to undo
// its effect is called once, at the latest when the case ends, before the stores are closed.
type Harness struct {
	// Open returns a new client of the one server under test for the keys below prefix, such as "/dcstest/racers-1".
	// Every call makes a client of its own (own connections), also for a prefix that is open already. The suite closes
	// what it opened; Open itself registers only what belongs to it and not to the Store.
	Open func(t testing.TB, prefix string) dcs.Store

	// Block makes the server silent for every client: requests and connections are accepted, nothing is answered, until
	// unblock is called. With a Proxy this is SetMode(BlackHole), and unblock is SetMode(Pass).
	Block func(t testing.TB) (unblock func())

	// Mute makes the server do what it is asked and loses the replies, for every client, until unmute is called. With a
	// Proxy this is SetMode(DropReplies), and unmute is SetMode(Pass).
	Mute func(t testing.TB) (unmute func())

	// Refuse makes the server refuse connections and cuts those that are open, for every client, until accept is called.
	// With a Proxy this is SetMode(Refuse), and accept is SetMode(Pass).
	Refuse func(t testing.TB) (accept func())

	// Restart stops the server and starts it again with its data. It returns when the server is up; clients reconnect by
	// themselves.
	Restart func(t testing.TB)

	// Advance moves the clock on which sessions expire, for a server with a settable clock. When it is nil, the suite
	// waits in real time.
	Advance func(d time.Duration)

	// TTL is the time-out of the sessions that the suite lets expire. 0 means the shortest that Limits allows, at least
	// 1 s. Expiry cases take about TTL + Limits().SessionSlack each when Advance is nil.
	TTL time.Duration

	// Patience is the longest that a healthy server may take for one call, or to wake a watch. 0 means 5 s.
	Patience time.Duration

	// RestartPatience is the longest, after the server was restarted or answers again, until calls succeed and watches
	// have woken. 0 means 15 s.
	RestartPatience time.Duration

	// Ignore lists substrings of stack traces. The goroutines that have one in theirs belong to the server (when it runs
	// in this process) and not to the Store, so they may live on after Close. Those of Proxy are known.
	Ignore []string
}

// Run runs the suite, each case as a subtest named after what it proves: "Sessions/ExpireNeitherEarlyNorLate". Cases do
// not run in parallel: some make the server silent.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.Open == nil {
		t.Fatal("dcstest: Harness.Open is nil; it is required")
	}
	for _, g := range groups() {
		t.Run(g.name, func(t *testing.T) {
			for _, c := range g.cases {
				if c.needs != "" && !h.has(c.needs) {
					t.Logf("%s is not run: the harness has no %s", c.name, c.needs)
					continue
				}
				t.Run(c.name, func(t *testing.T) { c.run(newEnv(t, h)) })
			}
		})
	}
}

// has says whether the optional hook is there.
func (h Harness) has(hook string) bool {
	switch hook {
	case "Block":
		return h.Block != nil
	case "Mute":
		return h.Mute != nil
	case "Refuse":
		return h.Refuse != nil
	case "Restart":
		return h.Restart != nil
	}
	return false
}

// group is the cases about one promise of the contract.
type group struct {
	name  string
	cases []testCase
}

// testCase is one case. run gets a testing.TB (in env) and not a *testing.T so that the suite itself can be tested:
// against a broken store a case must fail, and a recorder then catches that.
type testCase struct {
	name  string
	run   func(e *env)
	needs string // the hook without which it cannot run; empty for none
}

func groups() []group {
	return []group{
		{"Read", readCases()},
		{"Keys", keyCases()},
		{"Commit", commitCases()},
		{"Races", raceCases()},
		{"Sessions", sessionCases()},
		{"Watch", watchCases()},
		{"Silence", silenceCases()},
		{"Restart", restartCases()},
		{"Close", closeCases()},
	}
}
