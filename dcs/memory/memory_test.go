package memory_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
)

// put stores value under k.
func put(t *testing.T, s dcs.Store, value string) {
	t.Helper()
	if _, err := s.Commit(t.Context(), dcs.Txn{Then: []dcs.Op{dcs.Put("k", []byte(value))}}); err != nil {
		t.Fatal(err)
	}
}

// value returns what s reads under k, or "-" when it is absent.
func value(t *testing.T, s dcs.Store) string {
	t.Helper()
	snap, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	it, ok := snap.Item("k")
	if !ok {
		return "-"
	}
	return string(it.Value)
}

// What each fault does to a commit: what the caller hears, and whether it happened.
func TestFaultsOfCommit(t *testing.T) {
	for name, c := range map[string]struct {
		fault memory.Fault
		want  error
		now   string // the value right after
		later string // the value after DeliverLate
	}{
		"refuse":       {memory.Refuse, memory.ErrRefused, "old", "old"},
		"hang":         {memory.Hang, dcs.ErrUnknown, "old", "old"},
		"mute":         {memory.Mute, dcs.ErrUnknown, "new", "new"},
		"lose request": {memory.LoseRequest, dcs.ErrUnknown, "old", "old"},
		"lose reply":   {memory.LoseReply, dcs.ErrUnknown, "new", "new"},
		"late":         {memory.Late, dcs.ErrUnknown, "old", "new"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := memory.NewServer(memory.NewManualClock())
				faulty, other := srv.Open("p"), srv.Open("p")
				put(t, other, "old")
				faulty.Inject(c.fault, 1, dcs.CallCommit)
				if got := value(t, faulty); got != "old" {
					t.Errorf("a Read, to which the fault does not apply, shows %q", got)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := faulty.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("k", []byte("new"))}})
				if !errors.Is(err, c.want) || (errors.Is(c.want, memory.ErrRefused) && errors.Is(err, dcs.ErrUnknown)) {
					t.Errorf("Commit: %v, want %v", err, c.want)
				}
				if got := value(t, other); got != c.now {
					t.Errorf("the value is %q, want %q", got, c.now)
				}
				faulty.DeliverLate()
				if got := value(t, other); got != c.later {
					t.Errorf("afterwards the value is %q, want %q", got, c.later)
				}
				put(t, faulty, "newer") // the fault is used up
			})
		})
	}
}

func TestStaleRead(t *testing.T) {
	srv := memory.NewServer(memory.NewManualClock())
	s, other := srv.Open("p"), srv.Open("p")
	put(t, other, "1")
	s.Inject(memory.Stale, 2)
	put(t, other, "2")
	for i, want := range []string{"1", "1", "2"} {
		if got := value(t, s); got != want {
			t.Errorf("read %d: %q, want %q", i+1, got, want)
		}
	}
	if got := value(t, other); got != "2" {
		t.Errorf("the other store reads %q", got)
	}
	srv.Inject(memory.Stale, 1)
	put(t, other, "3")
	if got := value(t, s); got != "2" {
		t.Errorf("with a stale server: %q, want 2", got)
	}
}

func TestFaultsUntilClear(t *testing.T) {
	srv := memory.NewServer(memory.NewManualClock())
	s := srv.Open("p")
	ses, err := s.OpenSession(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	s.Inject(memory.Refuse, 0)
	_, readErr := s.Read(t.Context())
	_, watchErr := s.Watch(t.Context())
	_, openErr := s.OpenSession(t.Context(), time.Second)
	for what, err := range map[string]error{
		"Read": readErr, "Watch": watchErr, "OpenSession": openErr,
		"Renew": ses.Renew(t.Context()), "Close": ses.Close(t.Context()),
	} {
		if !errors.Is(err, memory.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.Clear()
	if err := ses.Renew(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSessionExpiresOnTheClock(t *testing.T) {
	clock := memory.NewManualClock()
	srv := memory.NewServer(clock)
	srv.SetLimits(dcs.Limits{MinTTL: 2 * time.Second, SessionSlack: time.Second})
	s := srv.Open("p")
	ses, err := s.OpenSession(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if ses.TTL() != 2*time.Second {
		t.Errorf("the ttl is %v, want it raised to 2s", ses.TTL())
	}
	if _, err := s.Commit(t.Context(), dcs.Txn{Then: []dcs.Op{dcs.PutSession("k", []byte("v"), ses.ID())}}); err != nil {
		t.Fatal(err)
	}
	wake, err := s.Watch(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Second)
	if err := ses.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	clock.Advance(3*time.Second - 1)
	if len(wake) != 0 || value(t, s) != "v" {
		t.Error("the session ended early")
	}
	clock.Advance(1)
	if len(wake) != 1 { // before anybody read
		t.Error("the watch did not wake")
	}
	if value(t, s) != "-" || !errors.Is(ses.Renew(t.Context()), dcs.ErrSessionLost) {
		t.Error("the session did not end")
	}
}

func TestEndSessionEarly(t *testing.T) {
	srv := memory.NewServer(memory.NewManualClock())
	s := srv.Open("p")
	ses, err := s.OpenSession(t.Context(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if !srv.EndSession(ses.ID()) || srv.EndSession(ses.ID()) {
		t.Error("EndSession must find the session once")
	}
	if err := ses.Renew(t.Context()); !errors.Is(err, dcs.ErrSessionLost) {
		t.Errorf("Renew: %v", err)
	}
}

// With a clock that needs a goroutine, one wakes the watch in time; and none is left when the watch has ended.
func TestWatchOnTheProcessClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(dcs.ProcessClock()).Open("p")
		long, err := s.OpenSession(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		wake, err := s.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		short, err := s.OpenSession(t.Context(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for key, ses := range map[string]dcs.Session{"long": long, "short": short} {
			if _, err := s.Commit(t.Context(), dcs.Txn{Then: []dcs.Op{dcs.PutSession(key, nil, ses.ID())}}); err != nil {
				t.Fatal(err)
			}
		}
		<-wake // the puts
		start := time.Now()
		<-wake
		if took := time.Since(start); took != time.Second {
			t.Errorf("woken after %v, want 1s", took)
		}
		cancel()
		for range wake {
		}
		synctest.Wait()
		stacks := make([]byte, 1<<20)
		if stacks = stacks[:runtime.Stack(stacks, true)]; strings.Contains(string(stacks), "memory.afterFunc") {
			t.Errorf("a goroutine is left:\n%s", stacks)
		}
	})
}

func TestManualClock(t *testing.T) {
	clock := memory.NewManualClock()
	var fired []time.Duration
	note := func() { fired = append(fired, clock.Now()) }
	clock.AfterFunc(3, note)
	clock.AfterFunc(1, func() { note(); clock.AfterFunc(1, note) })
	clock.AfterFunc(2, note)()
	timer := clock.Timer(5)
	if next, ok := clock.Next(); next != 1 || !ok {
		t.Errorf("Next: %v, %v", next, ok)
	}
	clock.Advance(4)
	if want := []time.Duration{1, 2, 3}; len(fired) != 3 || fired[0] != want[0] || fired[1] != want[1] || fired[2] != want[2] {
		t.Errorf("fired at %v, want %v", fired, want)
	}
	if clock.Now() != 4 || len(timer.C()) != 0 {
		t.Errorf("at %v, timer fired: %v", clock.Now(), len(timer.C()) != 0)
	}
	clock.Advance(1)
	if len(timer.C()) != 1 {
		t.Error("the timer did not fire")
	}
	timer.Stop()
	if len(timer.C()) != 0 {
		t.Error("a stopped timer has a value")
	}
}

// What one turn of a leader costs: renew the session, renew the record, read.
func BenchmarkLeaderTurn(b *testing.B) {
	clock := memory.NewManualClock()
	s := memory.NewServer(clock).Open("/service/sim")
	ctx := b.Context()
	ses, err := s.OpenSession(ctx, 8*time.Second)
	if err != nil {
		b.Fatal(err)
	}
	var version dcs.Version
	for _, key := range []string{"config", "initialize", "leader", "members/a", "members/b", "members/c", "status"} {
		if _, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put(key, make([]byte, 200))}}); err != nil {
			b.Fatal(err)
		}
	}
	value := make([]byte, 300)
	b.ReportAllocs()
	for b.Loop() {
		clock.Advance(time.Second)
		if err := ses.Renew(ctx); err != nil {
			b.Fatal(err)
		}
		r, err := s.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: "lease", Version: version}}, Then: []dcs.Op{dcs.Put("lease", value)}})
		if err != nil {
			b.Fatal(err)
		}
		version = r.Versions["lease"]
		if _, err := s.Read(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
