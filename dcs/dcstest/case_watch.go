package dcstest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

func watchCases() []testCase {
	return []testCase{
		{name: "WakesOnEveryChange", run: watchChanges},
		{name: "WakesOnExpiry", run: watchExpiry},
		{name: "WakesForItsKeys", run: watchKeys},
		{name: "Coalesces", run: watchCoalesces},
		{name: "LosesNothing", run: watchLosesNothing},
		{name: "ClosesOnlyWithItsContext", run: watchCloses},
	}
}

// watch must set one up that lives until ctx ends.
func (e *env) watch(ctx context.Context, s dcs.Store, keys ...string) <-chan struct{} {
	e.Helper()
	ch, err := s.Watch(ctx, keys...)
	if err != nil {
		e.Fatalf("Watch(%q): %v", keys, err)
	}
	return ch
}

// watchContext ends with the case.
func (e *env) watchContext() context.Context {
	ctx, cancel := context.WithCancel(e.base())
	e.Cleanup(cancel)
	return ctx
}

// quiet receives until nothing came for a while: what was on its way has arrived. It returns how much that was.
func (e *env) quiet(chans ...<-chan struct{}) (n int) {
	e.Helper()
	for idle := time.Now(); time.Since(idle) < 100*time.Millisecond; wait(2 * time.Millisecond) {
		for _, ch := range chans {
			select {
			case _, ok := <-ch:
				if !ok {
					e.Fatal("the channel of a watch was closed, its context has not ended")
				}
				n++
				idle = time.Now()
			default:
			}
		}
	}
	return n
}

// wakes asserts that a watch wakes within limit.
func (e *env) wakes(ch <-chan struct{}, limit time.Duration, why string) {
	e.Helper()
	select {
	case _, ok := <-ch:
		if !ok {
			e.Fatalf("the channel of a watch was closed, its context has not ended (waiting for: %s)", why)
		}
	case <-time.After(limit):
		e.Errorf("a watch did not wake within %v: %s", limit, why)
	}
}

func watchChanges(e *env) {
	s, other := e.open(), e.open()
	ses := e.lasting(other)
	e.put(s, "there", "v")
	ctx := e.watchContext()
	watches := map[string]<-chan struct{}{
		"all keys":  e.watch(ctx, s),
		"one key":   e.watch(ctx, s, "k"),
		"some keys": e.watch(ctx, s, "never", "k", "there"),
	}
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"a put that creates", func() { e.put(other, "k", "v") }},
		{"a put of another value", func() { e.put(other, "k", "w") }},
		{"a put of the same value", func() { e.put(other, "k", "w") }},
		{"an own put", func() { e.put(s, "k", "x") }},
		{"a delete", func() { e.remove(other, "k") }},
		{"a bound put", func() { e.bind(other, "k", "v", ses) }},
		{"the Close of its session", func() { _ = e.closeSession(ses) }},
		{"a put in a transaction with others", func() {
			e.commit(other, dcs.Txn{If: []dcs.Cond{{Key: "k"}}, Then: []dcs.Op{dcs.Put("a", nil), dcs.Put("k", nil), dcs.Put("z", nil)}})
		}},
	} {
		e.quiet(slices.Collect(maps.Values(watches))...)
		step.do()
		for name, ch := range watches {
			e.wakes(ch, e.h.Patience, step.what+", watching "+name)
		}
	}
}

func watchExpiry(e *env) {
	s, other := e.open(), e.open()
	ses := e.session(other, e.ttl(other))
	e.bind(other, "k", "v", ses)
	ctx := e.watchContext()
	all, one := e.watch(ctx, s), e.watch(ctx, s, "k")
	e.quiet(all, one)
	limit := e.h.Patience + ses.TTL() + s.Limits().SessionSlack
	if e.h.Advance != nil {
		e.pass(limit)
		limit = e.h.Patience
	}
	e.wakes(all, limit, "the key's session expired, watching all keys")
	e.wakes(one, limit, "the key's session expired, watching the key")
	// A spurious wake-up would be allowed, so look for the truth until it is there.
	e.eventually(e.h.Patience+s.Limits().SessionSlack, "the key is gone", func() bool { return !e.has(s, "k") })
}

// watchKeys: each of several watches on one Store hears of its own keys, whatever the others do.
func watchKeys(e *env) {
	s := e.open()
	ctx, end := context.WithCancel(e.base())
	defer end()
	chans := make([]<-chan struct{}, 4)
	for i := range chans {
		chans[i] = e.watch(ctx, s, fmt.Sprintf("k%d", i))
	}
	short, cancel := context.WithCancel(ctx)
	gone := e.watch(short, s, "k0")
	cancel()
	e.closes(gone)
	for i, ch := range chans {
		e.quiet(ch)
		e.put(s, fmt.Sprintf("k%d", i), "v")
		e.wakes(ch, e.h.Patience, "a put of its key, after another watch ended")
	}
}

// watchCoalesces: nobody receives while much changes. That blocks nobody, leaves few wake-ups behind, and does not make
// the watch deaf.
func watchCoalesces(e *env) {
	s, other := e.open(), e.open()
	ch := e.watch(e.watchContext(), s)
	const changes = 60
	for i := range changes {
		e.put(other, "k", fmt.Sprint(i))
	}
	wait(100 * time.Millisecond)
	if n := e.quiet(ch); n == 0 || n > changes/4 {
		e.Errorf("%d changes in a row left %d wake-ups; want few, and at least one", changes, n)
	}
	e.put(other, "k", "once more")
	e.wakes(ch, e.h.Patience, "a put after many that nobody received")
}

// watchLosesNothing: who reads after each wake-up, and only then, learns of the last change.
func watchLosesNothing(e *env) {
	s, other := e.open(), e.open()
	ch := e.watch(e.watchContext(), s, "k")
	for round := range 25 {
		want := fmt.Sprint(round)
		e.put(other, "k", want)
		for seen := ""; seen != want; {
			select {
			case <-ch:
			case <-time.After(e.h.Patience):
				e.Fatalf("round %d: no wake-up in %v, and the last read showed %q", round, e.h.Patience, seen)
			}
			it, _ := e.read(s).Item("k")
			seen = string(it.Value)
		}
	}
}

// closes asserts that the channel is closed soon.
func (e *env) closes(ch <-chan struct{}) {
	e.Helper()
	for end := time.After(e.h.Patience); ; {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
		case <-end:
			e.Errorf("the channel of a watch is still open %v after its context ended", e.h.Patience)
			return
		}
	}
}

func watchCloses(e *env) {
	s, other := e.open(), e.open()
	ctx, cancel := context.WithCancel(e.base())
	defer cancel()
	idle, busy := e.watch(ctx, s, "k"), e.watch(ctx, s)
	e.put(other, "k", "v")
	e.quiet(idle, busy)
	e.put(other, "k", "w") // left in the channel when the context ends
	cancel()
	e.closes(idle)
	e.closes(busy)
	deadline, cancel := context.WithTimeout(e.base(), 50*time.Millisecond)
	defer cancel()
	if ch, err := s.Watch(deadline, "k"); err == nil {
		<-deadline.Done()
		e.closes(ch)
	}
	again := e.watch(e.watchContext(), s)
	e.put(other, "k", "x")
	e.wakes(again, e.h.Patience, "a put, on a watch that was set up after others ended")
}
