package dcstest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// The cases pass on a sound store, also when they report to a recorder.
func TestCasesPassOnMemory(t *testing.T) {
	for name, c := range allCases() {
		t.Run(name, func(t *testing.T) {
			if !strings.HasPrefix(name, "Close/") { // which counts goroutines, and so runs alone, before the others go on
				t.Parallel()
			}
			w := newWorld()
			w.h.Patience, w.h.RestartPatience = 10*time.Second, 10*time.Second
			if got := record(t, w.h, c); len(got) > 0 {
				t.Errorf("reported on a sound store: %q", got)
			}
		})
	}
}

// The suite can fail: each mistake is reported by the cases that are there for it, and each case reports some mistake.
func TestMistakesAreReported(t *testing.T) {
	cases := allCases()
	shown := make(map[string]bool)
	for _, m := range mistakes() {
		for _, name := range m.cases {
			shown[name] = true
		}
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			if !slices.ContainsFunc(m.cases, func(name string) bool { return strings.HasPrefix(name, "Close/") }) {
				t.Parallel()
			}
			for _, name := range m.cases {
				c, ok := cases[name]
				if !ok {
					t.Fatalf("there is no case %q", name)
				}
				var got []string
				for try := 0; len(got) == 0 && try < max(m.tries, 1); try++ {
					w := newWorld()
					m.make(w)
					got = record(t, w.h, c)
				}
				if len(got) == 0 {
					t.Errorf("%s does not report it", name)
					continue
				}
				t.Logf("%s: %s", name, got[0])
			}
		})
	}
	for name := range cases {
		if !shown[name] {
			t.Errorf("no mistake shows that %s can fail", name)
		}
	}
}

// mistakes is the list, in the order of the groups.
func mistakes() []mistake {
	return slices.Concat(readMistakes(), commitMistakes(), sessionMistakes(), watchMistakes(), silenceMistakes(), otherMistakes(),
		lifeMistakes(), transactionMistakes(), networkMistakes(), leaderMistakes())
}

func readMistakes() []mistake {
	return []mistake{
		{name: "a phantom key", cases: []string{"Read/NothingThere", "Keys/PrefixesDoNotMeet"},
			make: onRead(func(items []dcs.Item) []dcs.Item { return append(items, dcs.Item{Key: "zz", Version: 1}) })},
		{name: "stale reads", make: each(previous), cases: []string{
			"Read/OwnWriteAtOnce", "Read/OthersAcknowledgedWriteAtOnce", "Races/HistoryIsLinearizable", "Watch/LosesNothing"}},
		{name: "unsorted", cases: []string{"Read/SortedByKey"},
			make: onRead(func(items []dcs.Item) []dcs.Item { slices.Reverse(items); return items })},
		{name: "shared memory", make: each(oneSnapshot), cases: []string{"Read/SnapshotIsTheCallers"}},
		{name: "names are decoded", cases: []string{"Keys/OddNames"}, make: onRead(func(items []dcs.Item) []dcs.Item {
			for i := range items {
				items[i].Key = strings.ReplaceAll(items[i].Key, "%2F", "/")
			}
			return items
		})},
		{name: "zero bytes are trimmed", cases: []string{"Keys/OddValues"}, make: onRead(func(items []dcs.Item) []dcs.Item {
			for i := range items {
				items[i].Value = bytes.TrimRight(items[i].Value, "\x00")
			}
			return items
		})},
		{name: "empty values are dropped", cases: []string{"Keys/OddValues"}, make: onRead(func(items []dcs.Item) []dcs.Item {
			return slices.DeleteFunc(items, func(it dcs.Item) bool { return len(it.Value) == 0 })
		})},
		{name: "limits promise too much", cases: []string{"Keys/LimitsAreTrue"}, make: each(func(s dcs.Store, b *broken) {
			b.limits = func() dcs.Limits { l := s.Limits(); l.MaxOps++; return l }
		})},
		{name: "limits promise too little", cases: []string{"Keys/LimitsAreTrue"}, make: each(func(s dcs.Store, b *broken) {
			b.limits = func() dcs.Limits { l := s.Limits(); l.MaxValue--; return l }
		})},
		{name: "one prefix shows another", make: shortPrefix, cases: []string{"Keys/PrefixesDoNotMeet", "Keys/PrefixesDoNotDisturbEachOther"}},
	}
}

func commitMistakes() []mistake {
	return []mistake{
		{name: "conditions are ignored", cases: []string{"Commit/Conditions", "Commit/AllOrNothing"},
			make: onCommit(func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
				return s.Commit(ctx, dcs.Txn{Then: txn.Then})
			})},
		{name: "only the first condition counts", cases: []string{"Commit/Conditions", "Commit/AllOrNothing"},
			make: onCommit(func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
				txn.If = txn.If[:min(len(txn.If), 1)]
				return s.Commit(ctx, txn)
			})},
		{name: "operations one by one", make: onCommit(oneByOne), tries: 5,
			cases: []string{"Commit/AllOrNothing", "Races/SnapshotsAreConsistentCuts"}},
		{name: "check then act", make: onCommit(checkThenAct), tries: 5, cases: []string{
			"Races/OneWinsTheCreation", "Races/OneWinsTheUpdate", "Races/OneWinsTwoKeys", "Races/OneWinsWithSessions",
			"Races/HistoryIsLinearizable"}},
		{name: "no versions in the result", cases: []string{"Commit/ResultNamesWhatWasPut", "Read/OwnWriteAtOnce"},
			make: onCommit(func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
				_, err := s.Commit(ctx, txn)
				return dcs.Result{}, err
			})},
		{name: "versions come back with values", make: each(versionsOfValues),
			cases: []string{"Commit/VersionsAreNeverUsedAgain", "Restart/DataAndSessionsStay"}},
		{name: "delete of an absent key fails", cases: []string{"Commit/DeleteOfAbsentKey"},
			make: onCommit(func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
				snap, err := s.Read(ctx)
				for _, o := range txn.Then {
					if _, there := snap.Item(o.Key); o.Delete && !there {
						err = dcs.ErrConflict
					}
				}
				if err != nil {
					return dcs.Result{}, err
				}
				return s.Commit(ctx, txn)
			})},
		{name: "context is ignored", cases: []string{"Commit/EndedContext"},
			make: onCommit(func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
				return s.Commit(context.WithoutCancel(ctx), txn)
			})},
		{name: "a cancelled call ends those beside it", make: breaksOthers, cases: []string{"Commit/CancelledCallsSpareOthers"}},
		{name: "conflict is called a lost session", make: onError(dcs.ErrConflict, dcs.ErrSessionLost), cases: []string{"Commit/Conditions"}},
		{name: "lost session is called a conflict", make: onError(dcs.ErrSessionLost, dcs.ErrConflict),
			cases: []string{"Commit/AllOrNothing", "Sessions/CloseDeletesAtOnce"}},
	}
}

func sessionMistakes() []mistake {
	same := func(ttl time.Duration) time.Duration { return ttl }
	return []mistake{
		{name: "ttl is rounded down", make: onTTL(same, func(ttl time.Duration) time.Duration { return max(ttl.Truncate(time.Second), time.Millisecond) }),
			cases: []string{"Sessions/IDAndTTL"}},
		{name: "ttl in the wrong unit", make: onTTL(same, func(ttl time.Duration) time.Duration { return max(ttl*1000, time.Millisecond) }),
			cases: []string{"Sessions/IDAndTTL"}},
		{name: "one ID for all", make: onSession(func(b *brokenSession) { b.id = "id" }), cases: []string{"Sessions/IDAndTTL"}},
		{name: "keys stay bound", make: onCommit(keepsBinding), cases: []string{"Sessions/BindAndUnbind"}},
		{name: "close only forgets", make: onSession(func(b *brokenSession) { b.closing = func(context.Context) error { return nil } }),
			cases: []string{"Sessions/CloseDeletesAtOnce", "Sessions/BindAndUnbind"}},
		{name: "store close ends sessions", cases: []string{"Sessions/StoreCloseEndsNone"}, make: func(w *world) {
			each(func(s dcs.Store, b *broken) {
				var ids []string
				b.session = func(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
					ses, err := s.OpenSession(ctx, ttl)
					if err == nil {
						ids = append(ids, ses.ID())
					}
					return ses, err
				}
				b.closing = func() error {
					for _, id := range ids {
						w.srv.EndSession(id)
					}
					return s.Close()
				}
			})(w)
		}},
		{name: "renew does nothing", make: onSession(func(b *brokenSession) { b.renew = func(context.Context) error { return nil } }),
			cases: []string{"Sessions/RenewKeepsAlive", "Sessions/ExpireNeitherEarlyNorLate", "Sessions/CloseDeletesAtOnce"}},
		{name: "early expiry", make: onTTL(func(ttl time.Duration) time.Duration { return ttl - ttl/10 }, same),
			cases: []string{"Sessions/ExpireNeitherEarlyNorLate"}},
		{name: "late expiry", make: onTTL(func(ttl time.Duration) time.Duration { return ttl + ttl/10 }, same),
			cases: []string{"Sessions/ExpireNeitherEarlyNorLate"}},
		{name: "renews by itself", make: each(renewsByItself), cases: []string{"Sessions/ExpireNeitherEarlyNorLate"}},
		{name: "renew revives", cases: []string{"Sessions/EndedIsNotRevived", "Sessions/ExpireNeitherEarlyNorLate"},
			make: onSession(func(b *brokenSession) {
				b.renew = func(ctx context.Context) error {
					err := b.Session.Renew(ctx)
					if errors.Is(err, dcs.ErrSessionLost) {
						return nil
					}
					return err
				}
			})},
	}
}

func watchMistakes() []mistake {
	return []mistake{
		{name: "misses deletes", make: onWake(onlyPuts), cases: []string{"Watch/WakesOnEveryChange", "Watch/WakesOnExpiry"}},
		{name: "one ends all", make: each(sharedWatches), cases: []string{"Watch/WakesForItsKeys", "Watch/ClosesOnlyWithItsContext"}},
		{name: "does not coalesce", make: onWake(func(dcs.Store) func() int { return func() int { return 50 } }),
			cases: []string{"Watch/Coalesces"}},
		{name: "deaf when nobody receives", cases: []string{"Watch/Coalesces"}, make: onWake(func(dcs.Store) func() int {
			n := 0
			return func() int { n++; return max(0, 2-n) }
		})},
		{name: "loses wake-ups", cases: []string{"Watch/LosesNothing"}, make: onWake(func(dcs.Store) func() int {
			n := 0
			return func() int { n++; return n % 2 }
		})},
		{name: "never closes", cases: []string{"Watch/ClosesOnlyWithItsContext", "Watch/WakesForItsKeys", "Close/NoGoroutineLeft"},
			make: each(func(s dcs.Store, b *broken) {
				b.watch = func(ctx context.Context, keys ...string) (<-chan struct{}, error) {
					return s.Watch(context.WithoutCancel(ctx), keys...)
				}
			})},
		{name: "closes by itself", cases: []string{"Watch/ClosesOnlyWithItsContext", "Watch/WakesOnEveryChange"},
			make: each(func(s dcs.Store, b *broken) {
				b.watch = func(ctx context.Context, keys ...string) (<-chan struct{}, error) {
					ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
					context.AfterFunc(ctx, cancel)
					return s.Watch(ctx, keys...)
				}
			})},
	}
}

func silenceMistakes() []mistake {
	return []mistake{
		{name: "reads ignore the context", cases: []string{"Silence/NoCallOutlivesItsDeadline", "Silence/NoCallOutlivesItsCancellation"},
			make: each(func(s dcs.Store, b *broken) {
				b.read = func(ctx context.Context) (dcs.Snapshot, error) { return s.Read(context.WithoutCancel(ctx)) }
			})},
		{name: "renew ignores the context", cases: []string{"Silence/NoCallOutlivesItsDeadline", "Silence/NoCallOutlivesItsCancellation"},
			make: onSession(func(b *brokenSession) {
				b.renew = func(ctx context.Context) error { return b.Session.Renew(context.WithoutCancel(ctx)) }
			})},
		{name: "unknown is called done", make: onError(dcs.ErrUnknown, nil), cases: []string{
			"Silence/CommitIsUnknownOrNotSent", "Silence/NoCallOutlivesItsDeadline", "Silence/LostReplyIsUnknown"}},
		{name: "unknown is called failed", make: onError(dcs.ErrUnknown, errors.New("time-out")), tries: 8, cases: []string{
			"Silence/LostReplyIsUnknown", "Silence/ReplyCutOffIsNotAConflict", "Races/HistoryWithLostRepliesIsLinearizable"}},
		{name: "performed late and said to be refused", cases: []string{"Silence/CommitIsUnknownOrNotSent"}, make: performedLate},
		{name: "refused connection is called a conflict", cases: []string{"Silence/RefusedConnectionIsNoLie"},
			make: onCommit(func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
				r, err := s.Commit(ctx, txn)
				if err != nil && !errors.Is(err, dcs.ErrUnknown) {
					err = dcs.ErrConflict
				}
				return r, err
			})},
		{name: "tries again by itself", tries: 8, cases: []string{"Silence/ReplyCutOffIsNotAConflict", "Races/HistoryWithLostRepliesIsLinearizable"},
			make: onCommit(func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
				r, err := s.Commit(ctx, txn)
				if errors.Is(err, dcs.ErrUnknown) && ctx.Err() == nil {
					return s.Commit(ctx, txn)
				}
				return r, err
			})},
		{name: "watch is deaf after silence", cases: []string{"Silence/WatchWakesAfterSilence"}, make: func(w *world) {
			var gone atomic.Bool
			deafAfter(&gone)(w)
			afterSilence(w, func() { gone.Store(true) })
		}},
	}
}

// performedLate keeps what a silent server did not answer and does it afterwards, having said that it failed.
func performedLate(w *world) {
	var mu sync.Mutex
	var late []func()
	onCommit(func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
		r, err := s.Commit(ctx, txn)
		if errors.Is(err, dcs.ErrUnknown) {
			mu.Lock()
			defer mu.Unlock()
			late = append(late, func() { _, _ = s.Commit(context.Background(), txn) })
			return dcs.Result{}, errors.New("not sent")
		}
		return r, err
	})(w)
	block := w.h.Block
	w.h.Block = func(t testing.TB) func() {
		t.Helper()
		undo := block(t)
		return func() {
			undo()
			mu.Lock()
			defer mu.Unlock()
			for _, f := range late {
				f()
			}
		}
	}
}

func otherMistakes() []mistake {
	return []mistake{
		{name: "restart loses sessions", cases: []string{"Restart/DataAndSessionsStay"}, make: func(w *world) {
			var ids []string
			onSession(func(b *brokenSession) { ids = append(ids, b.Session.ID()) })(w)
			w.h.Restart = func(testing.TB) {
				for _, id := range ids {
					w.srv.EndSession(id)
				}
			}
		}},
		{name: "watch is deaf after a restart", cases: []string{"Restart/WatchWakes"}, make: func(w *world) {
			var gone atomic.Bool
			deafAfter(&gone)(w)
			w.h.Restart = func(testing.TB) { gone.Store(true) }
		}},
		{name: "second close fails", cases: []string{"Close/Twice"}, make: each(func(s dcs.Store, b *broken) {
			closed := false
			b.closing = func() error {
				if closed {
					return dcs.ErrClosed
				}
				closed = true
				return s.Close()
			}
		})},
		{name: "close closes nothing", cases: []string{"Close/Twice"}, make: each(func(_ dcs.Store, b *broken) {
			b.closing = func() error { return nil }
		})},
		{name: "close closes others", cases: []string{"Close/OthersGoOn"}, make: func(w *world) {
			var all []dcs.Store
			each(func(s dcs.Store, b *broken) {
				all = append(all, s)
				b.closing = func() error {
					for _, other := range all {
						_ = other.Close()
					}
					return nil
				}
			})(w)
		}},
		{name: "goroutine is left", cases: []string{"Close/NoGoroutineLeft", "Close/NoGoroutineLeftAfterSilence"}, make: func(w *world) {
			each(func(dcs.Store, *broken) {
				go func() { <-time.After(5 * time.Second) }()
			})(w)
		}},
	}
}
