package dcstest

import (
	"time"

	"github.com/pgregent/pgregent/dcs"
)

func restartCases() []testCase {
	return []testCase{
		{name: "DataAndSessionsStay", run: restartStays, needs: "Restart"},
		{name: "WatchWakes", run: restartWatch, needs: "Restart"},
		{name: "HistoryIsLinearizable", run: historyRestart, needs: "Restart"},
		{name: "UnrenewedSessionEnds", run: restartUnrenewed, needs: "Restart"},
	}
}

func restartStays(e *env) {
	s := e.open()
	ses := e.lasting(s)
	seen := []dcs.Version{e.put(s, "k", "1"), e.put(s, "k", "2")}
	e.bind(s, "bound", "v", ses)
	before := e.read(s)
	e.h.Restart(e.TB)
	e.recoversWithin(s, e.h.RestartPatience, "works again after a restart")
	after := e.read(s)
	for _, key := range []string{"k", "bound"} {
		was, _ := before.Item(key)
		is, _ := after.Item(key)
		if string(is.Value) != string(was.Value) || is.Version != was.Version || is.Session != was.Session {
			e.Errorf("%q was %+v before the restart and is %+v after it", key, was, is)
		}
	}
	e.eventually(e.h.RestartPatience, "Renew succeeds after the restart", func() bool { return e.renew(ses) == nil })
	e.wantValue(s, "bound", "v")
	e.remove(s, "k")
	now := e.put(s, "k", "2")
	for _, version := range seen {
		if now == version {
			e.Errorf("version %d was used again after the restart", version)
		}
		_, err := e.tryCommit(s, dcs.Txn{If: []dcs.Cond{{Key: "k", Version: version}}})
		e.wantKind("a condition on a version from before the restart", err, dcs.ErrConflict)
	}
}

// restartWatch: nobody tells the client that its stream is gone; it still hears of what changes from then on.
func restartWatch(e *env) {
	s, other := e.open(), e.open()
	ctx := e.watchContext()
	all, one := e.watch(ctx, s), e.watch(ctx, s, "k")
	e.put(other, "k", "before")
	e.wakes(all, e.h.Patience, "a put before the restart, watching all keys")
	e.wakes(one, e.h.Patience, "a put before the restart, watching the key")
	for _, value := range []string{"after the first restart", "after the second"} {
		e.h.Restart(e.TB)
		e.eventually(e.h.RestartPatience, "a put succeeds after the restart", func() bool {
			_, err := e.tryCommit(other, dcs.Txn{Then: []dcs.Op{dcs.Put("k", []byte(value))}})
			return err == nil
		})
		e.learns(s, all, "k", value)
		e.learns(s, one, "k", value)
	}
}

// restartUnrenewed: a restart may give every session its whole time again, but not more.
func restartUnrenewed(e *env) {
	s := e.open()
	ses := e.session(s, e.ttl(s))
	e.bind(s, "k", "v", ses)
	e.h.Restart(e.TB)
	e.recovers(s)
	limit := ses.TTL() + s.Limits().SessionSlack
	if e.h.Advance != nil {
		e.pass(limit + time.Nanosecond)
		limit = 0
	}
	e.eventually(limit+e.h.Patience, "a session that nobody renewed has ended", func() bool {
		snap, err := e.tryRead(s)
		_, there := snap.Item("k")
		return err == nil && !there
	})
	e.wantGone(s, ses, "after expiry")
}
