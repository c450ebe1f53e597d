package dcstest

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

func networkCases() []testCase {
	return []testCase{
		{name: "SlowAnswersAreAnswers", run: networkSlow, needs: "Disturb"},
		{name: "TooSlowAnswersAreUnknown", run: networkTooSlow, needs: "Disturb"},
		{name: "LargeValuesOnAThinLine", run: networkThin, needs: "Disturb"},
		{name: "LostRequestsAreNoLie", run: networkDeaf, needs: "Disturb"},
		{name: "StalledConnectionIsReplaced", run: networkStalled, needs: "Disturb Direct"},
		{name: "HalfClosedConnectionIsReplaced", run: networkHalfClosed, needs: "Disturb Direct"},
		{name: "HistoryWithCutConnectionsIsLinearizable", run: historyLossy, needs: "Disturb"},
	}
}

// networkSlow: a client has no time-out of its own that is shorter than the caller's.
func networkSlow(e *env) {
	s, ses := e.warm()
	ch := e.watch(e.watchContext(), s, "k")
	e.quiet(ch)
	undo := e.disturb(e.in(Slow))
	at := e.put(s, "k", "v")
	e.wakes(ch, e.h.Patience, "a put, with slow answers")
	e.wantValue(s, "k", "v")
	_, err := e.tryCommit(s, dcs.Txn{If: []dcs.Cond{{Key: "k", Version: at + 1<<40}}, Then: []dcs.Op{dcs.Put("k", []byte("w"))}})
	e.wantKind("a condition that fails, with slow answers", err, dcs.ErrConflict)
	if err := e.renew(ses); err != nil {
		e.Errorf("Renew with slow answers: %v", err)
	}
	e.bind(s, "bound", "v", e.lasting(s))
	if err := e.closeSession(ses); err != nil {
		e.Errorf("Close of the session with slow answers: %v", err)
	}
	undo()
	e.wantValue(s, "k", "v")
}

// networkTooSlow: the answer is under way when the caller's time is over.
func networkTooSlow(e *env) {
	s, ses := e.warm()
	other := e.open()
	e.read(other)
	undo := e.disturb(e.in(Slow))
	unknown := make(map[string]bool)
	for i := range 3 {
		key := fmt.Sprintf("slow %d", i)
		unknown[key] = e.lostCommit(s, key, slowness/2)
	}
	end := time.Now().Add(slowness / 2)
	ctx, cancel := context.WithDeadline(e.base(), end)
	defer cancel()
	e.returns(ctx, end, calls(s, ses))
	undo()
	e.recovers(s)
	e.recovers(other)
	e.checkLost(other, unknown)
}

// networkThin: 100 kB take half a second on their way.
func networkThin(e *env) {
	s, _ := e.warm()
	undo := e.disturb(e.in(Thin))
	value := bytes.Repeat([]byte("v"), 100_000)
	e.commit(s, dcs.Txn{Then: []dcs.Op{dcs.Put("k", value)}})
	it, ok := e.read(s).Item("k")
	if !ok || !bytes.Equal(it.Value, value) {
		e.Errorf("%d bytes were put on a thin line, %d came back (there: %v)", len(value), len(it.Value), ok)
	}
	undo()
}

// networkDeaf: a loss in one direction only. What the server says by itself still arrives, so the connection looks well.
func networkDeaf(e *env) {
	s, ses := e.warm()
	other := e.open()
	e.read(other)
	undo := e.disturb(e.in(Deaf))
	unknown := make(map[string]bool)
	for i := range 3 {
		key := fmt.Sprintf("unheard %d", i)
		unknown[key] = e.lostCommit(s, key, 300*time.Millisecond)
	}
	end := time.Now().Add(300 * time.Millisecond)
	ctx, cancel := context.WithDeadline(e.base(), end)
	defer cancel()
	e.returns(ctx, end, calls(s, ses))
	undo()
	e.recovers(s)
	e.recovers(other)
	e.checkLost(other, unknown)
}

// networkStalled: the connection is dead and nobody says so. New connections would work.
func networkStalled(e *env) {
	e.replaces(Stalled, e.h.StallPatience, "replaces a stalled connection")
}

func networkHalfClosed(e *env) {
	e.replaces(HalfClosed, e.h.RestartPatience, "replaces a half-closed connection")
}

// replaces asserts that calls and watches work again while a trouble lasts that spares new connections.
func (e *env) replaces(trouble Trouble, limit time.Duration, what string) {
	e.Helper()
	direct := e.direct()
	s, _ := e.warm()
	ses := e.session(s, max(2*limit, s.Limits().MinTTL))
	e.bind(s, "bound", "v", ses)
	ch := e.watch(e.watchContext(), s, "k")
	e.put(direct, "k", "before")
	e.wakes(ch, e.h.Patience, "a put before the trouble")
	e.quiet(ch)
	undo := e.disturb(e.in(trouble))
	start := time.Now()
	e.put(direct, "k", "after")
	e.recoversWithin(s, limit, what)
	e.eventually(limit, "Renew succeeds again", func() bool { return e.renew(ses) == nil })
	e.wantValue(direct, "bound", "v")
	e.learnsWithin(s, ch, "k", "after", max(limit-time.Since(start), e.h.Patience))
	e.measured(what+", watches included", time.Since(start))
	undo()
	e.recovers(s)
}
