package dcstest

import (
	"context"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// sessionVanished: a client that is gone, and did not end its session, leaves its keys until the session's time is over.
func sessionVanished(e *env) {
	s, other := e.open(), e.open()
	sent := e.now()
	ses := e.session(s, e.ttl(s))
	e.bind(s, "k", "v", ses)
	opened := e.now()
	if err := s.Close(); err != nil {
		e.Errorf("Close of the store: %v", err)
	}
	earliest, latest := sent+ses.TTL(), opened+ses.TTL()+other.Limits().SessionSlack
	for {
		begun := e.now()
		if !e.has(other, "k") {
			if gone := e.now(); gone < earliest {
				e.Errorf("the key is gone %v after its session was opened; its TTL is %v", gone-sent, ses.TTL())
			}
			return
		}
		if begun > latest {
			e.Fatalf("the session of a closed client lives %v after it was opened; TTL %v, slack %v",
				begun-opened, ses.TTL(), other.Limits().SessionSlack)
		}
		e.pass(expiryStep(e.now(), earliest, latest, ses.TTL()))
	}
}

// sessionLoad: renewals arrive in time although the same client and others keep the server busy.
func sessionLoad(e *env) {
	stores := e.openMany(3)
	s := stores[0]
	ses := e.session(s, e.ttl(s))
	e.bind(s, "k", "v", ses)
	done := make(chan struct{})
	e.together(len(stores)+1, func(i int) error {
		if i < len(stores) {
			return e.busy(stores[i], fmt.Sprintf("busy %d", i), done)
		}
		defer close(done)
		for end := e.now() + 2*ses.TTL() + s.Limits().SessionSlack; e.now() < end; {
			e.pass(ses.TTL() / 4)
			wait(time.Millisecond) // for a clock that moves by hand: let the others have their turn
			if err := e.renew(ses); err != nil {
				return fmt.Errorf("the store is busy; Renew every quarter of the TTL of %v: %w", ses.TTL(), err)
			}
		}
		return nil
	})
	e.wantValue(s, "k", "v")
}

// busy writes and reads without a pause until done is closed, 100 times at least.
func (e *env) busy(s dcs.Store, key string, done <-chan struct{}) error {
	for n := 0; ; n++ {
		select {
		case <-done:
			if n >= 100 {
				return nil
			}
		default:
		}
		if _, err := e.tryCommit(s, dcs.Txn{Then: []dcs.Op{dcs.Put(key, fmt.Append(nil, n))}}); err != nil {
			return fmt.Errorf("Commit %d of a busy client: %w", n, err)
		}
		if _, err := e.tryRead(s); err != nil {
			return fmt.Errorf("Read %d of a busy client: %w", n, err)
		}
	}
}

// sessionMany: each of many sessions has its own key, and takes no other along.
func sessionMany(e *env) {
	s, other := e.open(), e.open()
	sessions := make([]dcs.Session, e.h.Sessions)
	key := func(i int) string { return fmt.Sprintf("members/%05d", i) }
	const workers = 8
	e.together(workers, func(w int) error {
		for i := w; i < len(sessions); i += workers {
			ctx, cancel := e.patient()
			ses, err := s.OpenSession(ctx, max(time.Minute, s.Limits().MinTTL))
			cancel()
			if err != nil {
				return fmt.Errorf("OpenSession %d of %d: %w", i+1, len(sessions), err)
			}
			sessions[i] = ses
			_, err = e.tryCommit(s, dcs.Txn{Then: []dcs.Op{dcs.PutSession(key(i), nil, ses.ID())}})
			if err != nil {
				return fmt.Errorf("put bound to session %d of %d: %w", i+1, len(sessions), err)
			}
		}
		return nil
	})
	e.together(workers, func(w int) error {
		for i := w; i < len(sessions); i += workers {
			if err := e.renew(sessions[i]); err != nil {
				return fmt.Errorf("Renew of session %d of %d: %w", i+1, len(sessions), err)
			}
			if i%2 == 1 {
				if err := e.closeSession(sessions[i]); err != nil {
					return fmt.Errorf("Close of session %d of %d: %w", i+1, len(sessions), err)
				}
			}
		}
		return nil
	})
	snap := e.read(other)
	if want := (len(sessions) + 1) / 2; len(snap.Items) != want {
		e.Errorf("every second of %d sessions was closed; there are %d keys, want %d", len(sessions), len(snap.Items), want)
	}
	for i := 0; i < len(sessions); i += 2 {
		if it, ok := snap.Item(key(i)); !ok || it.Session != sessions[i].ID() {
			e.Fatalf("the key of session %d is bound to %q (there: %v), want %q", i+1, it.Session, ok, sessions[i].ID())
		}
	}
	e.together(workers, func(w int) error {
		for i := w; i < len(sessions); i += workers {
			if err := e.closeSession(sessions[i]); err != nil {
				return fmt.Errorf("Close of session %d of %d: %w", i+1, len(sessions), err)
			}
		}
		return nil
	})
	if left := e.read(other).Items; len(left) != 0 {
		e.Errorf("%d keys are left after all sessions were closed", len(left))
	}
}

// sessionShortSilence: a renewal that was not answered ends nothing while the session's time lasts.
func sessionShortSilence(e *env) {
	s, _ := e.warm()
	ses := e.lasting(s)
	e.bind(s, "k", "v", ses)
	unblock := e.disturb(e.h.Block)
	for range 3 {
		ctx, cancel := context.WithTimeout(e.base(), 200*time.Millisecond)
		if err := ses.Renew(ctx); err == nil || refused(err) {
			e.Errorf("Renew while the server is silent: %v; want an error that claims no refusal", err)
		}
		cancel()
	}
	unblock()
	e.recovers(s)
	e.eventually(e.h.RestartPatience, "Renew succeeds after the silence", func() bool { return e.renew(ses) == nil })
	if it, ok := e.read(s).Item("k"); !ok || it.Session != ses.ID() {
		e.Errorf("after a silence shorter than the TTL the key is bound to %q (there: %v)", it.Session, ok)
	}
}

// sessionLongSilence: a client that was cut off for too long finds its session lost. It does not get a new one under the
// same ID, and its keys do not come back.
func sessionLongSilence(e *env) {
	direct := e.direct()
	s, _ := e.warm()
	ses := e.session(s, e.ttl(s))
	e.bind(s, "k", "v", ses)
	unblock := e.disturb(e.h.Block)
	limit := ses.TTL() + s.Limits().SessionSlack
	if e.h.Advance != nil {
		e.pass(limit + time.Nanosecond)
		limit = 0
	}
	e.eventually(limit+e.h.Patience, "the session of a client that is cut off ends", func() bool { return !e.has(direct, "k") })
	unblock()
	e.recovers(s)
	e.wantGone(s, ses, "after a silence longer than the TTL")
	e.wantAbsent(direct, "k", "nothing recreates it")
}
