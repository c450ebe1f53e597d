package dcstest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

func silenceCases() []testCase {
	return []testCase{
		{name: "NoCallOutlivesItsDeadline", run: silenceDeadline, needs: "Block"},
		{name: "NoCallOutlivesItsCancellation", run: silenceCancel, needs: "Block"},
		{name: "CommitIsUnknownOrNotSent", run: silenceCommit, needs: "Block"},
		{name: "WatchWakesAfterSilence", run: silenceWatch, needs: "Block"},
		{name: "ChangeDuringSilenceWakes", run: silenceChange, needs: "Block Direct"},
		{name: "UnknownIsSettledByTheNextWrite", run: silenceSettled, needs: "Block"},
		{name: "LostReplyIsUnknown", run: silenceMuted, needs: "Mute"},
		{name: "ReplyCutOffIsNotAConflict", run: silenceCutOff, needs: "Mute"},
		{name: "RefusedConnectionIsNoLie", run: silenceRefused, needs: "Refuse"},
	}
}

// overrun is how long after the end of its context a call may return, on a busy machine.
const overrun = time.Second

// call is one method with everything but the context.
type call struct {
	name    string
	changes bool // it changes something on the server
	do      func(ctx context.Context) error
}

// calls is every method of a Store and a Session that takes a context; Commit puts the key k.
func calls(s dcs.Store, ses dcs.Session) []call {
	const key = "k"
	return []call{
		{"Read", false, func(ctx context.Context) error { _, err := s.Read(ctx); return err }},
		{"Commit", true, func(ctx context.Context) error {
			_, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put(key, []byte("v"))}})
			return err
		}},
		{"Watch", false, func(ctx context.Context) error { _, err := s.Watch(ctx, key); return err }},
		{"OpenSession", true, func(ctx context.Context) error {
			_, err := s.OpenSession(ctx, s.Limits().MinTTL)
			return err
		}},
		{"Session.Renew", true, ses.Renew},
		{"Session.Close", true, ses.Close},
	}
}

// refused says that an error claims that the server refused.
func refused(err error) bool {
	return errors.Is(err, dcs.ErrConflict) || errors.Is(err, dcs.ErrSessionLost)
}

// returns calls all methods at once, each in a goroutine, and asserts that each returns until the overrun after end, and
// with an error that a silent server allows.
func (e *env) returns(ctx context.Context, end time.Time, list []call) {
	e.Helper()
	type result struct {
		err  error
		late time.Duration
	}
	results := make([]chan result, len(list))
	for i, c := range list {
		results[i] = make(chan result, 1)
		go func() {
			err := c.do(ctx)
			results[i] <- result{err, time.Since(end)}
		}()
	}
	for i, c := range list {
		select {
		case r := <-results[i]:
			e.measured("returns after its deadline", r.late)
			switch {
			case r.late > overrun:
				e.Errorf("%s returned %v after its context had ended", c.name, r.late)
			case r.err == nil && c.name != "Watch": // a watch may be mended later
				e.Errorf("%s returned no error, and the server never answered", c.name)
			case refused(r.err):
				e.Errorf("%s claims a refusal, and the server never answered: %v", c.name, r.err)
			}
		case <-time.After(time.Until(end) + overrun + e.h.Patience):
			e.Errorf("%s did not return", c.name)
		}
	}
}

// warm makes a client whose connection is in use.
func (e *env) warm() (dcs.Store, dcs.Session) {
	e.Helper()
	s := e.open()
	e.put(s, "warm", "v")
	e.read(s)
	return s, e.lasting(s)
}

// recovers waits until a client works again.
func (e *env) recovers(s dcs.Store) {
	e.Helper()
	e.recoversWithin(s, e.h.RestartPatience, "works again after a disturbance")
}

// recoversWithin tries for at most limit, a second at a time, and measures how long that took.
func (e *env) recoversWithin(s dcs.Store, limit time.Duration, what string) {
	e.Helper()
	start := time.Now()
	e.eventually(limit, "Read and Commit succeed again", func() bool {
		ctx, cancel := context.WithTimeout(e.base(), min(time.Second, e.h.Patience))
		defer cancel()
		_, err := s.Read(ctx)
		if err == nil {
			_, err = s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("recovered", nil)}})
		}
		return err == nil
	})
	e.measured(what, time.Since(start))
}

func silenceDeadline(e *env) {
	s, ses := e.warm()
	unblock := e.disturb(e.h.Block)
	const limit = 300 * time.Millisecond
	for range 2 { // a client may have noticed the first time, and behave differently the second
		end := time.Now().Add(limit)
		ctx, cancel := context.WithDeadline(e.base(), end)
		e.returns(ctx, end, calls(s, ses))
		cancel()
	}
	unblock()
	e.recovers(s)
}

func silenceCancel(e *env) {
	s, ses := e.warm()
	unblock := e.disturb(e.h.Block)
	ctx, cancel := context.WithCancel(e.base())
	end := time.Now().Add(200 * time.Millisecond)
	time.AfterFunc(time.Until(end), cancel)
	e.returns(ctx, end, calls(s, ses))
	unblock()
	e.recovers(s)
}

// silenceCommit: a Commit that was not answered is unknown. Any other error says that nothing happened, and then nothing
// must have.
func silenceCommit(e *env) {
	s, _ := e.warm()
	other := e.open()
	unblock := e.disturb(e.h.Block)
	unknown := make(map[string]bool)
	for i := range 4 {
		key := fmt.Sprintf("blocked %d", i)
		unknown[key] = e.lostCommit(s, key, 200*time.Millisecond)
	}
	unblock()
	e.recovers(s)
	e.recovers(other)
	e.checkLost(other, unknown)
}

// lostCommit commits while no answer can come, and says whether the outcome is said to be unknown.
func (e *env) lostCommit(s dcs.Store, key string, limit time.Duration) (unknown bool) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.base(), limit)
	defer cancel()
	_, err := s.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: key}}, Then: []dcs.Op{dcs.Put(key, []byte("v"))}})
	switch {
	case err == nil:
		e.Errorf("Commit of %q returned no error, and the server never answered", key)
	case refused(err):
		e.Errorf("Commit of %q claims a refusal, and the server never answered: %v", key, err)
	case errors.Is(err, dcs.ErrUnknown):
		return true
	}
	return false
}

// checkLost asserts that what is there was not said to have failed, now and a little later.
func (e *env) checkLost(s dcs.Store, unknown map[string]bool) {
	e.Helper()
	for range 3 {
		snap := e.read(s)
		for key, may := range unknown {
			if _, ok := snap.Item(key); ok && !may {
				e.Errorf("the Commit of %q happened; its error did not say ErrUnknown", key)
			}
		}
		wait(50 * time.Millisecond)
	}
}

// silenceWatch: the stream of a watch may have died while the server was silent.
func silenceWatch(e *env) {
	s, _ := e.warm()
	other := e.open()
	ch := e.watch(e.watchContext(), s, "k")
	e.put(other, "k", "before")
	e.wakes(ch, e.h.Patience, "a put before the silence")
	unblock := e.disturb(e.h.Block)
	wait(300 * time.Millisecond)
	unblock()
	e.recovers(other)
	e.put(other, "k", "after")
	e.learns(s, ch, "k", "after")
}

// silenceChange: something changes while a client hears nothing, and nothing does afterwards. Its watch wakes for that.
func silenceChange(e *env) {
	direct := e.direct()
	s, _ := e.warm()
	ch := e.watch(e.watchContext(), s, "k")
	e.put(direct, "k", "before")
	e.wakes(ch, e.h.Patience, "a put before the silence")
	e.quiet(ch)
	unblock := e.disturb(e.h.Block)
	wait(300 * time.Millisecond)
	e.put(direct, "k", "during")
	wait(300 * time.Millisecond)
	unblock()
	e.learns(s, ch, "k", "during")
}

// silenceSettled: what became of a Commit is unknown. Once its key was written by somebody who had read it, it can not
// happen any more: its condition fails, whenever it arrives.
func silenceSettled(e *env) {
	for i := range 3 {
		s, _ := e.warm()
		at := e.put(s, "k", "begin")
		unblock := e.disturb(e.h.Block)
		ctx, cancel := context.WithTimeout(e.base(), 200*time.Millisecond)
		_, err := s.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: "k", Version: at}}, Then: []dcs.Op{dcs.Put("k", []byte("late"))}})
		cancel()
		if err == nil || refused(err) {
			e.Fatalf("round %d: Commit while the server is silent: %v", i+1, err)
		}
		unblock()
		e.recovers(s)
		e.eventually(e.h.RestartPatience, "a write at the version read succeeds", func() bool {
			it, _ := e.read(s).Item("k")
			_, err := e.tryCommit(s, dcs.Txn{If: []dcs.Cond{{Key: "k", Version: it.Version}}, Then: []dcs.Op{dcs.Put("k", []byte("settled"))}})
			return err == nil
		})
		for range 6 {
			e.wantValue(s, "k", "settled")
			wait(50 * time.Millisecond)
		}
	}
}

// learns asserts that who reads on wake-ups only, and again when a Read fails, sees the value in time.
func (e *env) learns(s dcs.Store, ch <-chan struct{}, key, want string) {
	e.Helper()
	e.learnsWithin(s, ch, key, want, e.h.RestartPatience)
}

func (e *env) learnsWithin(s dcs.Store, ch <-chan struct{}, key, want string, limit time.Duration) {
	e.Helper()
	for end := time.After(limit); ; {
		select {
		case _, ok := <-ch:
			if !ok {
				e.Fatal("the channel of a watch was closed, its context has not ended")
			}
		case <-end:
			e.Fatalf("no wake-up within %v after which Read shows %q under %q", limit, want, key)
		}
		var snap dcs.Snapshot
		e.eventually(limit, "Read succeeds", func() bool {
			var err error
			snap, err = e.tryRead(s)
			return err == nil
		})
		if it, _ := snap.Item(key); string(it.Value) == want {
			return
		}
	}
}

// silenceMuted: the server does everything, and no reply arrives.
func silenceMuted(e *env) {
	s, ses := e.warm()
	other := e.open()
	e.read(other)
	unmute := e.disturb(e.h.Mute)
	unknown := make(map[string]bool)
	for i := range 3 {
		key := fmt.Sprintf("muted %d", i)
		unknown[key] = e.lostCommit(s, key, 300*time.Millisecond)
	}
	end := time.Now().Add(300 * time.Millisecond)
	ctx, cancel := context.WithDeadline(e.base(), end)
	defer cancel()
	e.returns(ctx, end, calls(s, ses))
	unmute()
	e.recovers(other)
	e.checkLost(other, unknown)
	if !e.has(other, "muted 0") {
		e.Errorf("the first Commit did not happen: the harness's Mute does not let requests through")
	}
}

// silenceCutOff: the connection is cut while a Commit waits for its reply. A client that then tries again by itself meets
// its own write, and must not call that a conflict.
func silenceCutOff(e *env) {
	for i := range 3 {
		s, _ := e.warm()
		unmute := e.disturb(e.h.Mute)
		time.AfterFunc(200*time.Millisecond, unmute)
		key := fmt.Sprintf("cut %d", i)
		ctx, cancel := context.WithTimeout(e.base(), 2*time.Second)
		_, err := s.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: key}}, Then: []dcs.Op{dcs.Put(key, []byte("v"))}})
		cancel()
		unmute()
		e.recovers(s)
		switch there := e.has(s, key); {
		case there && err != nil && !errors.Is(err, dcs.ErrUnknown):
			e.Errorf("the Commit happened, and reported: %v", err)
		case !there && err == nil:
			e.Error("the Commit reported no error, and did not happen")
		}
	}
}

// silenceRefused: no connection can be made. Whatever is reported must be true.
func silenceRefused(e *env) {
	s, ses := e.warm()
	other := e.open()
	accept := e.disturb(e.h.Refuse)
	unknown := make(map[string]bool)
	for i := range 3 {
		key := fmt.Sprintf("refused %d", i)
		unknown[key] = e.lostCommit(s, key, 300*time.Millisecond)
	}
	end := time.Now().Add(300 * time.Millisecond)
	ctx, cancel := context.WithDeadline(e.base(), end)
	defer cancel()
	e.returns(ctx, end, calls(s, ses))
	accept()
	e.recovers(s)
	e.recovers(other)
	e.checkLost(other, unknown)
}
