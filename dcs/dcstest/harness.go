// Package dcstest is the conformance suite for implementations of dcs.Store: run it on your own backend.
//
//	func TestConformance(t *testing.T) {
//		h := dcstest.Through(t, []string{addr}, open)
//		h.Restart = restart
//		dcstest.Run(t, h)
//	}
//
// It needs a server that is otherwise idle and a harness that can disturb it; Through makes one with a Proxy in front of
// each server. The suite uses only prefixes of its own, a new one for each case. docs/backends.md tells how to write a
// backend and its harness.
//
// The package does not start servers, does not measure speed, and does not test the lease protocol, which stands above
// Store and is the same over every backend. It leaves to the backend's own tests what it cannot know: TLS and passwords,
// the server's error codes, lists of endpoints, and a server that lost its data.
package dcstest

import (
	"strings"
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

	// Proxies are all that stand between Open's clients and the servers. Block, Mute, Refuse, Disturb and Connections, where
	// they are nil, are made of them.
	Proxies []*Proxy

	// Direct returns, as Open does, a client that Block, Mute, Refuse and Disturb do not touch: the one that changes something
	// while the others hear nothing.
	Direct func(t testing.TB, prefix string) dcs.Store

	// Disturb makes the network as bad as trouble says, for every client of Open, until undo is called.
	Disturb func(t testing.TB, trouble Trouble) (undo func())

	// Connections is how many connections the clients of Open have now.
	Connections func() int

	// LoseLeader kills or freezes the server that leads the others, or isolates it; those that remain can go on without it.
	// It returns without waiting for the new leader. restore brings the server back and returns when it is up. With several
	// servers only; of one server set Alone.
	LoseLeader func(t testing.TB) (restore func())

	// Alone says that the store is one server, so that the cases about losing one of several do not apply.
	Alone bool

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

	// StallPatience is the longest until a client has replaced a connection that carries nothing any more and does not end
	// either. 0 means 30 s.
	StallPatience time.Duration

	// Effort is how long a case repeats a race that goes well. 0 means 5 s.
	Effort time.Duration

	// Sessions is how many sessions the store must keep at once. 0 means 30.
	Sessions int

	// Ignore lists substrings of stack traces. The goroutines that have one in theirs belong to the server (when it runs
	// in this process) and not to the Store, so they may live on after Close. Those of Proxy are known.
	Ignore []string
}

// Run runs the suite, each case as a subtest named after what it proves: "Sessions/ExpireNeitherEarlyNorLate". Cases do
// not run in parallel: some make the server silent. At the end it logs the Report, and returns it: a backend that must
// miss no case asserts that NotRun is empty.
func Run(t *testing.T, h Harness) Report {
	t.Helper()
	if h.Open == nil {
		t.Fatal("dcstest: Harness.Open is nil; it is required")
	}
	h = h.filled()
	r := Report{Measured: make(map[string]time.Duration), NotRun: make(map[string][]string)}
	for _, g := range groups() {
		t.Run(g.name, func(t *testing.T) {
			for _, c := range g.cases {
				full := g.name + "/" + c.name
				switch missing := h.missing(c.needs); {
				case missing == "LoseLeader" && h.Alone:
				case missing != "":
					r.NotRun[missing] = append(r.NotRun[missing], full)
				default:
					t.Run(c.name, func(t *testing.T) {
						e := newEnv(t, h)
						e.report = &r
						c.run(e)
					})
					r.Cases++
				}
			}
		})
	}
	t.Logf("dcstest: %v", r)
	return r
}

// missing returns the first of the hooks, separated by spaces, that is not there; empty when all are.
func (h Harness) missing(hooks string) string {
	there := map[string]bool{
		"Block": h.Block != nil, "Mute": h.Mute != nil, "Refuse": h.Refuse != nil, "Restart": h.Restart != nil,
		"Direct": h.Direct != nil, "Disturb": h.Disturb != nil, "Connections": h.Connections != nil, "LoseLeader": h.LoseLeader != nil,
	}
	for _, hook := range strings.Fields(hooks) {
		if !there[hook] {
			return hook
		}
	}
	return ""
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
	needs string // the hooks without which it cannot run, separated by spaces; empty for none
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
		{"Network", networkCases()},
		{"Restart", restartCases()},
		{"Leader", leaderCases()},
		{"Close", closeCases()},
	}
}
