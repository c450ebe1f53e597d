package dcstest

import (
	"errors"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

func sessionCases() []testCase {
	return []testCase{
		{name: "IDAndTTL", run: sessionIdentity},
		{name: "BindAndUnbind", run: sessionBind},
		{name: "CloseDeletesAtOnce", run: sessionClose},
		{name: "StoreCloseEndsNone", run: sessionStoreClose},
		{name: "RenewKeepsAlive", run: sessionRenew},
		{name: "ExpireNeitherEarlyNorLate", run: sessionExpire},
		{name: "EndedIsNotRevived", run: sessionEnded},
		{name: "ClientThatVanished", run: sessionVanished},
		{name: "LivesUnderLoad", run: sessionLoad},
		{name: "ManyAtOnce", run: sessionMany},
		{name: "ShortSilenceEndsNone", run: sessionShortSilence, needs: "Block"},
		{name: "LongSilenceEndsIt", run: sessionLongSilence, needs: "Block Direct"},
	}
}

func sessionIdentity(e *env) {
	s, other := e.open(), e.open()
	least := s.Limits().MinTTL
	seen := make(map[string]bool)
	for _, ttl := range []time.Duration{time.Nanosecond, time.Second, 1700 * time.Millisecond, 8 * time.Second, 30 * time.Second} {
		for _, store := range []dcs.Store{s, other} {
			ses := e.session(store, ttl)
			if ttl == time.Nanosecond {
				e.measured("keeps a session at least", ses.TTL())
			}
			if got := ses.TTL(); got < max(ttl, least) || got > max(ttl, least)+time.Second {
				e.Errorf("a session of %v has the TTL %v; want it rounded up by less than 1 s, not down (MinTTL is %v)", ttl, got, least)
			}
			if id := ses.ID(); id == "" || seen[id] {
				e.Errorf("the session ID %q is empty or was used before", id)
			}
			seen[ses.ID()] = true
		}
	}
}

func sessionBind(e *env) {
	s, other := e.open(), e.open()
	one, two := e.lasting(s), e.lasting(s)
	bound := func(key, want, why string) {
		e.Helper()
		if it, ok := e.read(other).Item(key); !ok || it.Session != want {
			e.Errorf("%s: the key %q is bound to %q (there: %v), want %q", why, key, it.Session, ok, want)
		}
	}
	for _, key := range []string{"stays", "freed", "moved", "taken"} {
		e.bind(s, key, "v", one)
		bound(key, one.ID(), "after a bound put")
	}
	e.put(s, "freed", "v")
	bound("freed", "", "after a permanent put")
	e.bind(s, "moved", "v", two)
	bound("moved", two.ID(), "after a put bound to another session")
	e.put(other, "taken", "v")
	bound("taken", "", "after another client's permanent put")
	e.bind(s, "stays", "w", one)
	bound("stays", one.ID(), "after another put bound to the same session")
	if err := e.closeSession(one); err != nil {
		e.Fatalf("Close of the session: %v", err)
	}
	e.wantAbsent(other, "stays", "its session was closed")
	bound("freed", "", "after its former session was closed")
	bound("taken", "", "after its former session was closed")
	bound("moved", two.ID(), "after its former session was closed")
}

func sessionClose(e *env) {
	s, other := e.open(), e.open()
	ses := e.lasting(s)
	for _, key := range []string{"a", "members/b", "z"} {
		e.bind(s, key, "v", ses)
	}
	e.put(s, "permanent", "v")
	if err := e.closeSession(ses); err != nil {
		e.Fatalf("Close: %v", err)
	}
	if items := e.read(other).Items; len(items) != 1 || items[0].Key != "permanent" {
		e.Errorf("right after Close another client reads %d keys, want only the permanent one: %+v", len(items), items)
	}
	if err := e.closeSession(ses); err != nil {
		e.Errorf("the second Close: %v", err)
	}
	e.wantGone(s, ses, "after Close")
}

// wantGone asserts that an ended session is refused everywhere, and that this brings nothing back.
func (e *env) wantGone(s dcs.Store, ses dcs.Session, when string) {
	e.Helper()
	before := len(e.read(s).Items)
	e.wantKind("Renew "+when, e.renew(ses), dcs.ErrSessionLost)
	_, err := e.tryCommit(s, dcs.Txn{Then: []dcs.Op{dcs.PutSession("too late", nil, ses.ID())}})
	e.wantKind("a put bound to the session "+when, err, dcs.ErrSessionLost)
	e.wantKind("the second Renew "+when, e.renew(ses), dcs.ErrSessionLost)
	if after := e.read(s).Items; len(after) != before {
		e.Errorf("%s there were %d keys; after Renew and a put, both refused, %d: %+v", when, before, len(after), after)
	}
}

func sessionStoreClose(e *env) {
	s, other := e.open(), e.open()
	ses := e.lasting(s)
	e.bind(s, "k", "v", ses)
	if err := s.Close(); err != nil {
		e.Errorf("Close of the store: %v", err)
	}
	for range 5 {
		e.wantValue(other, "k", "v")
		wait(10 * time.Millisecond)
	}
}

func sessionRenew(e *env) {
	s := e.open()
	ses := e.session(s, e.ttl(s))
	e.bind(s, "k", "v", ses)
	for end := e.now() + 2*ses.TTL() + s.Limits().SessionSlack; e.now() < end; {
		e.pass(ses.TTL() / 4)
		if err := e.renew(ses); err != nil {
			e.Fatalf("Renew every quarter of the TTL of %v: %v", ses.TTL(), err)
		}
	}
	e.wantValue(s, "k", "v")
}

// sessionExpire watches a session end that is renewed once and then not any more. The client goes on with other calls:
// only Renew may keep it alive (hazard A2).
func sessionExpire(e *env) {
	s, other := e.open(), e.open()
	ses := e.session(s, e.ttl(s))
	e.bind(s, "k", "v", ses)
	e.pass(ses.TTL() / 2)
	sent := e.now()
	if err := e.renew(ses); err != nil {
		e.Fatalf("Renew: %v", err)
	}
	renewed := e.now()
	// No earlier than TTL after the renewal was sent, no later than TTL and slack after it was answered.
	earliest, latest := sent+ses.TTL(), renewed+ses.TTL()+s.Limits().SessionSlack
	for {
		begun := e.now()
		e.put(s, "busy", "v")
		there := e.has(other, "k")
		if !there {
			e.measured("ends a session after its ttl, at the latest", e.now()-earliest)
			if done := e.now(); done < earliest {
				e.Errorf("the session ended %v after Renew, its TTL is %v", done-sent, ses.TTL())
			}
			break
		}
		if begun > latest {
			e.Fatalf("the session lives %v after Renew; TTL %v, slack %v", begun-renewed, ses.TTL(), s.Limits().SessionSlack)
		}
		e.pass(expiryStep(e.now(), earliest, latest, ses.TTL()))
	}
	e.wantAbsent(s, "k", "its session expired, as another client saw")
	e.wantGone(s, ses, "after expiry")
	if err := e.closeSession(ses); err != nil {
		e.Errorf("Close after expiry: %v", err)
	}
	e.wantAbsent(s, "k", "nothing recreates it")
}

// expiryStep is how long to wait until the next look: rarely at first, and at the moments that matter for a clock that
// moves only by hand.
func expiryStep(now, earliest, latest, ttl time.Duration) time.Duration {
	step := ttl / 20
	for _, mark := range []time.Duration{earliest - time.Millisecond, earliest, latest, latest + time.Nanosecond} {
		if now < mark && mark-now < step {
			return mark - now
		}
	}
	return step
}

// sessionEnded: several sessions end at once; what is bound to a living one stays.
func sessionEnded(e *env) {
	s := e.open()
	living := e.lasting(s)
	e.bind(s, "living", "v", living)
	var ended []dcs.Session
	for i := range 3 {
		ses := e.session(s, e.ttl(s))
		e.bind(s, fmt.Sprintf("ended %d", i), "v", ses)
		ended = append(ended, ses)
	}
	for end := e.now() + ended[2].TTL() + s.Limits().SessionSlack + time.Millisecond; e.now() < end; {
		e.pass(min(ended[2].TTL()/4, max(end-e.now(), time.Millisecond)))
		if err := e.renew(living); err != nil {
			e.Fatalf("Renew of the living session: %v", err)
		}
	}
	if items := e.read(s).Items; len(items) != 1 || items[0].Key != "living" {
		e.Errorf("want only the key of the living session, got %+v", items)
	}
	for _, ses := range ended {
		e.wantGone(s, ses, "after expiry")
	}
	e.bind(s, "living", "w", living)
	if err := e.renew(living); errors.Is(err, dcs.ErrSessionLost) {
		e.Errorf("the living session: %v", err)
	}
}
