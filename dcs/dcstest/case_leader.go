package dcstest

import (
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// leaderCases are about the loss of one of several servers, the one that leads them.
func leaderCases() []testCase {
	return []testCase{
		{name: "CallsGoOn", run: leaderCalls, needs: "LoseLeader"},
		{name: "SessionsLiveOn", run: leaderSessions, needs: "LoseLeader"},
		{name: "WatchGoesOn", run: leaderWatch, needs: "LoseLeader"},
		{name: "HistoryIsLinearizable", run: historyLeader, needs: "LoseLeader"},
	}
}

func leaderCalls(e *env) {
	s := e.open()
	old := e.put(s, "k", "1")
	at := e.put(s, "k", "2")
	restore := e.disturb(e.h.LoseLeader)
	e.recoversWithin(s, e.h.RestartPatience, "works again without the servers' leader")
	if it, _ := e.read(s).Item("k"); string(it.Value) != "2" || it.Version != at {
		e.Errorf("the key was put as 2 at version %d, and without that leader is %+v", at, it)
	}
	_, err := e.tryCommit(s, dcs.Txn{If: []dcs.Cond{{Key: "k", Version: old}}})
	e.wantKind("a condition on a version of the former leader", err, dcs.ErrConflict)
	if now := e.put(s, "k", "2"); now == at || now == old {
		e.Errorf("version %d was used again by the new leader", now)
	}
	restore()
	e.recovers(s)
	e.wantValue(s, "k", "2")
}

// leaderSessions: a new leader may give a session more time, never less.
func leaderSessions(e *env) {
	s := e.open()
	lasting, short := e.lasting(s), e.session(s, e.ttl(s))
	e.bind(s, "lasting", "v", lasting)
	e.bind(s, "short", "v", short)
	sent := e.now()
	if err := e.renew(short); err != nil {
		e.Fatalf("Renew: %v", err)
	}
	restore := e.disturb(e.h.LoseLeader)
	for {
		snap, err := e.tryRead(s)
		done := e.now()
		if done >= sent+short.TTL() {
			break
		}
		if _, there := snap.Item("short"); err == nil && !there {
			e.Errorf("a change of leader ended a session %v after Renew; its TTL is %v", done-sent, short.TTL())
			break
		}
		e.pass(short.TTL() / 20)
	}
	e.eventually(e.h.RestartPatience, "Renew succeeds under the new leader", func() bool { return e.renew(lasting) == nil })
	e.wantValue(s, "lasting", "v")
	restore()
	e.recovers(s)
	if err := e.renew(lasting); err != nil {
		e.Errorf("Renew when the former leader is back: %v", err)
	}
	e.wantValue(s, "lasting", "v")
}

func leaderWatch(e *env) {
	s, other := e.open(), e.open()
	ctx := e.watchContext()
	all, one := e.watch(ctx, s), e.watch(ctx, s, "k")
	change := func(value string) {
		e.Helper()
		e.eventually(e.h.RestartPatience, "a put succeeds", func() bool {
			_, err := e.tryCommit(other, dcs.Txn{Then: []dcs.Op{dcs.Put("k", []byte(value))}})
			return err == nil
		})
		start := time.Now()
		e.learns(s, all, "k", value)
		e.learns(s, one, "k", value)
		e.measured("wakes a watch without the servers' leader", time.Since(start))
	}
	change("before")
	restore := e.disturb(e.h.LoseLeader)
	change("without the leader")
	restore()
	change("when it is back")
}
