package dcstest

import (
	"context"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

func closeCases() []testCase {
	return []testCase{
		{name: "Twice", run: closeTwice},
		{name: "OthersGoOn", run: closeOthers},
		{name: "NoGoroutineLeft", run: closeLeavesNothing},
		{name: "NoGoroutineLeftAfterSilence", run: closeAfterSilence, needs: "Block"},
		{name: "NoConnectionLeft", run: closeConnections, needs: "Connections"},
	}
}

func closeTwice(e *env) {
	s := e.open()
	ses := e.lasting(s)
	e.put(s, "k", "v")
	for _, which := range []string{"first", "second"} {
		if err := s.Close(); err != nil {
			e.Errorf("the %s Close: %v", which, err)
		}
	}
	ctx, cancel := e.patient()
	defer cancel()
	for _, c := range calls(s, ses) {
		switch err := c.do(ctx); c.name {
		case "Read", "Commit", "Watch", "OpenSession":
			e.wantKind(c.name+" after Close", err, dcs.ErrClosed)
		default: // a session may have a connection of its own, but must not lie
			if refused(err) {
				e.Errorf("%s after Close of the store claims a refusal: %v", c.name, err)
			}
		}
	}
	if got := s.Limits(); got.MinTTL < 0 {
		e.Errorf("Limits after Close: %+v", got)
	}
}

func closeOthers(e *env) {
	s, other := e.open(), e.open()
	ch := e.watch(e.watchContext(), other, "k")
	ses := e.lasting(other)
	if err := s.Close(); err != nil {
		e.Fatalf("Close: %v", err)
	}
	e.bind(other, "k", "v", ses)
	e.wakes(ch, e.h.Patience, "a put, after another client was closed")
	if err := e.renew(ses); err != nil {
		e.Errorf("Renew after another client was closed: %v", err)
	}
}

// use does a bit of everything with a client and closes it. The watches end before and after Close.
func (e *env) use() {
	e.Helper()
	s := e.h.Open(e.TB, e.prefix)
	early, endEarly := context.WithCancel(e.base())
	late, endLate := context.WithCancel(e.base())
	defer endEarly()
	defer endLate()
	first, second := e.watch(early, s), e.watch(late, s, "k")
	ctx, cancel := e.patient()
	defer cancel()
	ses, err := s.OpenSession(ctx, max(30*time.Second, s.Limits().MinTTL))
	if err != nil {
		e.Fatalf("OpenSession: %v", err)
	}
	e.bind(s, "k", "v", ses)
	if err := e.renew(ses); err != nil {
		e.Errorf("Renew: %v", err)
	}
	e.read(s)
	if err := e.closeSession(ses); err != nil {
		e.Errorf("Close of the session: %v", err)
	}
	endEarly()
	e.closes(first)
	if err := s.Close(); err != nil {
		e.Errorf("Close: %v", err)
	}
	endLate()
	e.closes(second)
}

func closeLeavesNothing(e *env) {
	e.use() // whatever is started once and for good is started now
	before := e.goroutines()
	for range 3 {
		e.use()
	}
	e.noneLeft(before)
}

// closeAfterSilence: calls that were given up, and a Close while the server does not answer.
func closeAfterSilence(e *env) {
	e.use()
	before := e.goroutines()
	s := e.h.Open(e.TB, e.prefix)
	e.put(s, "k", "v")
	ctx, cancel := e.patient()
	ses, err := s.OpenSession(ctx, max(30*time.Second, s.Limits().MinTTL))
	if err != nil {
		e.Fatalf("OpenSession: %v", err)
	}
	cancel()
	unblock := e.disturb(e.h.Block)
	end := time.Now().Add(200 * time.Millisecond)
	ctx, cancel = context.WithDeadline(e.base(), end)
	defer cancel()
	e.returns(ctx, end, calls(s, ses))
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			e.Logf("Close while the server is silent: %v", err)
		}
	case <-time.After(e.h.Patience):
		e.Errorf("Close did not return within %v while the server is silent", e.h.Patience)
	}
	unblock()
	e.noneLeft(before)
}

// closeConnections: a closed client has no connection, whether the server ended it or not.
func closeConnections(e *env) {
	none := func() bool { return e.h.Connections() == 0 }
	e.eventually(e.h.Patience, "the connections of earlier cases are gone", none)
	e.use()
	e.eventually(e.h.Patience, "the connections of a closed client are gone", none)
}
