package dcs_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
)

// open returns a Client over a store in memory.
func open(o *dcs.ClientOptions) *dcs.Client {
	return dcs.NewClient(memory.NewServer(memory.NewManualClock()).Open("p"), o)
}

func TestClientErrorsSayWhatWasDone(t *testing.T) {
	c := open(nil)
	ctx := t.Context()
	ses, err := c.OpenSession(ctx, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := ses.Close(ctx); err != nil {
		t.Fatal(err)
	}
	two := dcs.Txn{If: []dcs.Cond{{Key: "lease", Version: 9}}, Then: []dcs.Op{dcs.Put("lease", nil), dcs.Put("leader", nil)}}
	_, conflict := c.Commit(ctx, two)
	_, lost := c.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.PutSession("leader", nil, ses.ID())}})
	_, onlyIf := c.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: "config", Version: 9}}})
	_, malformed := c.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("/x", nil)}})
	renew := ses.Renew(ctx)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, cancelled := c.Commit(ended, two)
	_, read := c.Read(ended)
	_, watch := c.Watch(ended, "a", "b")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_, closed := c.Read(ctx)
	for _, test := range []struct {
		err    error
		kind   error
		prefix string
	}{
		{conflict, dcs.ErrConflict, "dcs: commit lease,leader: "},
		{lost, dcs.ErrSessionLost, "dcs: commit leader: "},
		{onlyIf, dcs.ErrConflict, "dcs: commit config: "},
		{malformed, dcs.ErrMalformed, "dcs: commit /x: "},
		{renew, dcs.ErrSessionLost, "dcs: renew " + ses.ID() + ": "},
		{cancelled, context.Canceled, "dcs: commit lease,leader: "},
		{read, context.Canceled, "dcs: read: "},
		{watch, context.Canceled, "dcs: watch a,b: "},
		{closed, dcs.ErrClosed, "dcs: read: "},
	} {
		if !errors.Is(test.err, test.kind) || !strings.HasPrefix(test.err.Error(), test.prefix) {
			t.Errorf("got %q, want %q and the kind %q", test.err, test.prefix, test.kind)
		}
		if errors.Is(test.err, dcs.ErrUnknown) {
			t.Errorf("%q is said to be unknown", test.err)
		}
	}
}

func TestTxnValidate(t *testing.T) {
	put := func(keys ...string) (ops []dcs.Op) {
		for _, k := range keys {
			ops = append(ops, dcs.Put(k, nil))
		}
		return ops
	}
	for name, txn := range map[string]dcs.Txn{
		"empty key":                {Then: put("")},
		"absolute key":             {Then: put("/a")},
		"same key twice":           {Then: put("a", "b", "a")},
		"empty key in If":          {If: []dcs.Cond{{}}},
		"absolute key in If":       {If: []dcs.Cond{{Key: "/a"}}},
		"same key twice in If":     {If: []dcs.Cond{{Key: "a"}, {Key: "a", Version: 2}}},
		"delete with a value":      {Then: []dcs.Op{{Key: "a", Delete: true, Value: []byte("x")}}},
		"delete bound to sessions": {Then: []dcs.Op{{Key: "a", Delete: true, Session: "x"}}},
	} {
		if err := txn.Validate(); !errors.Is(err, dcs.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := dcs.Txn{If: []dcs.Cond{{Key: "a"}, {Key: "b"}}, Then: append(put("a", "b/c"), dcs.Delete("d"))}
	for _, txn := range []dcs.Txn{{}, good} {
		if err := txn.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestLimitsCheck(t *testing.T) {
	l := dcs.Limits{MaxValue: 3, MaxOps: 2}
	two := dcs.Txn{If: []dcs.Cond{{Key: "a"}}, Then: []dcs.Op{dcs.Put("a", []byte("abc"))}}
	if err := l.Check(two); err != nil {
		t.Error(err)
	}
	long := dcs.Txn{Then: []dcs.Op{dcs.Put("a", []byte("abcd"))}}
	three := dcs.Txn{If: []dcs.Cond{{Key: "a"}, {Key: "b"}}, Then: two.Then}
	for _, txn := range []dcs.Txn{long, three} {
		if err := l.Check(txn); !errors.Is(err, dcs.ErrTooLarge) {
			t.Error(err)
		}
		if err := (dcs.Limits{}).Check(txn); err != nil {
			t.Errorf("no limit is known, yet: %v", err)
		}
	}
}

// deaf is a Store that ignores contexts: every call waits until answer is closed.
type deaf struct {
	dcs.Store
	answer chan struct{}
}

func (d deaf) Read(context.Context) (dcs.Snapshot, error) {
	<-d.answer
	return dcs.Snapshot{}, nil
}

func (d deaf) Commit(context.Context, dcs.Txn) (dcs.Result, error) {
	<-d.answer
	return dcs.Result{}, nil
}

func (d deaf) Watch(context.Context, ...string) (<-chan struct{}, error) {
	<-d.answer
	return nil, nil
}

func (d deaf) OpenSession(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
	<-d.answer
	return d.Store.OpenSession(context.WithoutCancel(ctx), ttl)
}

// Whether the backend obeys its context (memory under Hang) or not (deaf), and whether the caller's context or the
// Client's time-out ends it: the call returns in time, with the right kind.
func TestClientCallsEndInTime(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"context": 0, "time-out": time.Second} {
		for _, ignores := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { callsEndInTime(t, timeout, ignores) })
			})
		}
	}
}

func callsEndInTime(t *testing.T, timeout time.Duration, ignores bool) {
	t.Helper()
	mem := memory.NewServer(memory.NewManualClock()).Open("p")
	var s dcs.Store = mem
	mem.Inject(memory.Hang, 0)
	if ignores {
		answer := make(chan struct{})
		defer synctest.Wait()
		defer close(answer)
		mem.Clear()
		s = deaf{mem, answer}
	}
	c := dcs.NewClient(s, &dcs.ClientOptions{Timeout: timeout})
	limit := time.Hour
	if timeout == 0 {
		limit = time.Second
	}
	calls := map[dcs.Call]func(context.Context) error{
		dcs.CallRead:        func(ctx context.Context) error { _, err := c.Read(ctx); return err },
		dcs.CallCommit:      func(ctx context.Context) error { _, err := c.Commit(ctx, dcs.Txn{}); return err },
		dcs.CallWatch:       func(ctx context.Context) error { _, err := c.Watch(ctx); return err },
		dcs.CallOpenSession: func(ctx context.Context) error { _, err := c.OpenSession(ctx, time.Minute); return err },
	}
	for call, do := range calls {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		start := time.Now()
		err := do(ctx)
		cancel()
		if took := time.Since(start); took < time.Second || took > time.Second+10*time.Millisecond {
			t.Errorf("%s took %v", call, took)
		}
		mayHaveHappened := call == dcs.CallCommit || call == dcs.CallOpenSession
		if errors.Is(err, dcs.ErrUnknown) != mayHaveHappened {
			t.Errorf("%s: %v", call, err)
		}
		if !errors.Is(err, context.DeadlineExceeded) && (call != dcs.CallWatch || !errors.Is(err, context.Canceled)) {
			t.Errorf("%s: %v, want the cause to be the deadline", call, err)
		}
		if got := c.Stats().Calls[call].Abandoned; (got == 1) != ignores {
			t.Errorf("%s: %d abandoned", call, got)
		}
	}
}

// A session that nobody waits for any more is closed when it comes, or it would keep its keys for a ttl.
func TestClientClosesALateSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := memory.NewServer(memory.NewManualClock())
		answer := make(chan struct{})
		c := dcs.NewClient(deaf{srv.Open("p"), answer}, &dcs.ClientOptions{Timeout: time.Second})
		if _, err := c.OpenSession(t.Context(), time.Minute); !errors.Is(err, dcs.ErrUnknown) {
			t.Fatalf("OpenSession: %v", err)
		}
		close(answer)
		synctest.Wait()
		if srv.EndSession("session-1") {
			t.Error("the late session is still open")
		}
	})
}

// The time-out is for setting a watch up; it must not end it later.
func TestClientWatchOutlivesTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(&dcs.ClientOptions{Timeout: time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		wake, err := c.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		if _, err := c.Commit(t.Context(), dcs.Txn{Then: []dcs.Op{dcs.Put("k", nil)}}); err != nil {
			t.Fatal(err)
		}
		if _, open := <-wake; !open {
			t.Fatal("the watch ended with the time-out")
		}
		cancel()
		if _, open := <-wake; open {
			t.Error("a wake-up for nothing")
		}
	})
}

func TestClientStats(t *testing.T) {
	clock := memory.NewManualClock()
	mem := memory.NewServer(clock).Open("p")
	c := dcs.NewClient(slow{mem, clock}, &dcs.ClientOptions{Clock: clock})
	ctx := t.Context()
	txn := dcs.Txn{If: []dcs.Cond{{Key: "k"}}, Then: []dcs.Op{dcs.Put("k", nil)}}
	for range 3 {
		_, _ = c.Commit(ctx, txn) // done, conflict, conflict
	}
	mem.Inject(memory.LoseReply, 1)
	_, _ = c.Commit(ctx, txn)
	mem.Inject(memory.Refuse, 1)
	_, _ = c.Commit(ctx, txn)
	_, _ = c.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("", nil)}})
	s := c.Stats().Calls[dcs.CallCommit]
	for outcome, want := range map[dcs.Outcome]uint64{
		dcs.OutcomeDone: 1, dcs.OutcomeConflict: 2, dcs.OutcomeUnknown: 1, dcs.OutcomeFailed: 2, dcs.OutcomeSessionLost: 0,
	} {
		if got, ok := s.Outcomes[outcome]; got != want || !ok {
			t.Errorf("%s: %d, want %d", outcome, got, want)
		}
	}
	l := s.Latency
	if l.Count() != 5 || l.Sum != 15*time.Millisecond || l.Max != 3*time.Millisecond || len(l.Counts) != len(l.Bounds)+1 {
		t.Errorf("latency: %+v", l)
	}
	for i, bound := range l.Bounds {
		if bound >= 3*time.Millisecond {
			if l.Counts[i] != 5 {
				t.Errorf("the bucket up to %v has %d calls, want all 5", bound, l.Counts[i])
			}
			break
		}
	}
	if n := c.Stats().Calls[dcs.CallRead].Latency.Count(); n != 0 {
		t.Errorf("%d reads were counted", n)
	}
}

// slow takes 3 ms for each Commit.
type slow struct {
	dcs.Store
	clock *memory.ManualClock
}

func (s slow) Commit(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
	s.clock.Advance(3 * time.Millisecond)
	return s.Store.Commit(ctx, txn)
}

// answers is a Store that answers what it was told to, when the context has ended.
type answers struct {
	dcs.Store
	err error
}

func (a answers) Commit(ctx context.Context, _ dcs.Txn) (dcs.Result, error) {
	<-ctx.Done()
	return dcs.Result{}, a.err
}

// What a backend says after the context ended: a refusal and a success are facts, anything else may have happened.
func TestClientJudgesAnswersAfterTheEnd(t *testing.T) {
	for _, test := range []struct {
		said    error
		unknown bool
	}{
		{nil, false},
		{dcs.ErrConflict, false},
		{dcs.ErrSessionLost, false},
		{dcs.ErrTooLarge, false},
		{dcs.ErrClosed, false},
		{dcs.ErrUnknown, true},
		{context.DeadlineExceeded, true},
		{errors.New("connection reset"), true},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := dcs.NewClient(answers{open(nil), test.said}, &dcs.ClientOptions{Timeout: time.Second})
			_, err := c.Commit(t.Context(), dcs.Txn{Then: []dcs.Op{dcs.Put("k", nil)}})
			if errors.Is(err, dcs.ErrUnknown) != test.unknown || !errors.Is(err, test.said) {
				t.Errorf("the backend said %v, the Client %v", test.said, err)
			}
		})
	}
}

// watcher is a Store whose Watch takes its time and then does what it should, or fails; it tells the context it got.
type watcher struct {
	dcs.Store
	takes time.Duration
	err   error
	got   chan context.Context // a channel: an abandoned call is in step with nobody
}

func (w watcher) Watch(ctx context.Context, keys ...string) (<-chan struct{}, error) {
	w.got <- ctx
	<-time.After(w.takes)
	if w.err != nil {
		return nil, w.err
	}
	return w.Store.Watch(context.WithoutCancel(ctx), keys...)
}

// A watch that failed, or came as its time was over, is not left behind: its context ends, and nobody gets its channel.
func TestClientEndsAWatchThatFailed(t *testing.T) {
	for name, w := range map[string]watcher{
		"failed":           {err: errors.New("no")},
		"just too late":    {takes: time.Second + 5*time.Millisecond},
		"much too late":    {takes: time.Minute},
		"failed, too late": {takes: time.Minute, err: errors.New("no")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w.Store, w.got = open(nil), make(chan context.Context, 1)
				c := dcs.NewClient(w, &dcs.ClientOptions{Timeout: time.Second})
				ch, err := c.Watch(t.Context(), "k")
				if err == nil || ch != nil {
					t.Errorf("Watch returned a channel: %v, and the error %v", ch != nil, err)
				}
				if ctx := <-w.got; ctx.Err() == nil {
					t.Error("the context of the watch did not end")
				}
				<-time.After(time.Hour)
			})
		})
	}
}
