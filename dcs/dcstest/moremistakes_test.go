package dcstest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
)

func lifeMistakes() []mistake {
	return []mistake{
		{name: "somebody renews for a closed client", make: renewsAfterClose, cases: []string{"Sessions/ClientThatVanished"}},
		{name: "store close ends its sessions, too", cases: []string{"Sessions/ClientThatVanished"}, make: func(w *world) {
			onOpened(w, func(s dcs.Store, b *broken, opened func() []dcs.Session) {
				b.closing = func() error {
					for _, ses := range opened() {
						w.srv.EndSession(ses.ID())
					}
					return s.Close()
				}
			})
		}},
		{name: "load ends sessions", cases: []string{"Sessions/LivesUnderLoad"}, make: func(w *world) {
			var commits atomic.Int64
			onOpened(w, func(s dcs.Store, b *broken, opened func() []dcs.Session) {
				b.commit = func(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
					if commits.Add(1) >= 50 {
						for _, ses := range opened() {
							w.srv.EndSession(ses.ID())
						}
					}
					return s.Commit(ctx, txn)
				}
			})
		}},
		{name: "sessions are shared when there are many", cases: []string{"Sessions/ManyAtOnce"}, make: func(w *world) {
			onOpened(w, func(_ dcs.Store, b *broken, opened func() []dcs.Session) {
				open := b.session
				b.session = func(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
					if all := opened(); len(all) >= 20 {
						return all[0], nil
					}
					return open(ctx, ttl)
				}
			})
		}},
		{name: "an unanswered renewal loses the session", cases: []string{"Sessions/ShortSilenceEndsNone"},
			make: onSession(func(b *brokenSession) {
				lost := false
				b.renew = func(ctx context.Context) error {
					if lost {
						return dcs.ErrSessionLost
					}
					err := b.Session.Renew(ctx)
					lost = err != nil
					return err
				}
			})},
		{name: "a session is opened anew after silence", make: reopens, cases: []string{"Sessions/LongSilenceEndsIt"}},
		{name: "restart makes sessions immortal", cases: []string{"Restart/UnrenewedSessionEnds"}, make: func(w *world) {
			limits := dcs.Limits{MinTTL: time.Millisecond}
			each(func(_ dcs.Store, b *broken) { b.limits = func() dcs.Limits { return limits } })(w)
			w.h.Restart = func(testing.TB) {
				late := limits
				late.SessionSlack = time.Hour
				w.srv.SetLimits(late)
				w.srv.Restart()
			}
		}},
	}
}

// breaksOthers lets a call that its caller gives up close the connection that all share.
func breaksOthers(w *world) {
	each(func(s dcs.Store, b *broken) {
		var closed atomic.Bool
		b.read = func(ctx context.Context) (dcs.Snapshot, error) {
			if _, limited := ctx.Deadline(); !limited {
				<-ctx.Done()
				closed.Store(true)
			}
			return s.Read(ctx)
		}
		b.commit = func(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
			r, err := s.Commit(ctx, txn)
			if err == nil && closed.Swap(false) {
				err = dcs.ErrUnknown
			}
			return r, err
		}
	})(w)
}

// onOpened breaks every Store, which knows the sessions that it opened.
func onOpened(w *world, f func(s dcs.Store, b *broken, opened func() []dcs.Session)) {
	each(func(s dcs.Store, b *broken) {
		var mu sync.Mutex
		var all []dcs.Session
		b.session = func(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
			ses, err := s.OpenSession(ctx, ttl)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, ses)
			}
			return ses, err
		}
		f(s, b, func() []dcs.Session {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		})
	})(w)
}

// renewsAfterClose is a client whose Close leaves something behind that renews.
func renewsAfterClose(w *world) {
	var left []dcs.Session
	onOpened(w, func(_ dcs.Store, b *broken, opened func() []dcs.Session) {
		b.closing = func() error { left = append(left, opened()...); return nil }
	})
	advance := w.h.Advance
	w.h.Advance = func(d time.Duration) {
		for _, ses := range left {
			_ = ses.Renew(context.Background())
		}
		advance(d)
	}
}

// reopens replaces a lost session by a new one under the old ID.
func reopens(w *world) {
	each(func(s dcs.Store, b *broken) {
		b.session = func(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
			ses, err := s.OpenSession(ctx, ttl)
			if err != nil {
				return nil, err
			}
			return &brokenSession{Session: ses, renew: func(ctx context.Context) error {
				err := ses.Renew(ctx)
				if errors.Is(err, dcs.ErrSessionLost) {
					_, err = s.OpenSession(ctx, ttl)
				}
				return err
			}}, nil
		}
	})(w)
}

func transactionMistakes() []mistake {
	return []mistake{
		{name: "snapshot isolation", make: onCommit(writeSkew), tries: 8,
			cases: []string{"Races/NoWriteSkew", "Races/HistoryIsLinearizable"}},
		{name: "check then act between two", make: onCommit(checkThenAct), tries: 5, cases: []string{"Races/OneOfTwoWinsEachTime"}},
		{name: "Read shows one page", cases: []string{"Keys/ManyKeys"},
			make: onRead(func(items []dcs.Item) []dcs.Item { return items[:min(len(items), 256)] })},
		{name: "an unanswered commit is repeated without its condition", make: repeatsLater, cases: []string{"Silence/UnknownIsSettledByTheNextWrite"}},
		{name: "reads are stale after a restart", cases: []string{"Restart/HistoryIsLinearizable"}, make: func(w *world) {
			w.h.Restart = func(testing.TB) { w.inject(memory.Stale, 20) }
		}},
	}
}

// writeSkew checks all conditions on a copy, and those on the keys that change once more in the end.
func writeSkew(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
	snap, err := s.Read(ctx)
	if err != nil {
		return dcs.Result{}, err
	}
	var kept []dcs.Cond
	for _, c := range txn.If {
		if it, _ := snap.Item(c.Key); it.Version != c.Version {
			return dcs.Result{}, dcs.ErrConflict
		}
		if slices.ContainsFunc(txn.Then, func(o dcs.Op) bool { return o.Key == c.Key }) {
			kept = append(kept, c)
		}
	}
	wait(time.Millisecond)
	return s.Commit(ctx, dcs.Txn{If: kept, Then: txn.Then})
}

// repeatsLater sends a Commit whose outcome is unknown once more, some time after the silence and without conditions.
func repeatsLater(w *world) {
	var mu sync.Mutex
	var late []func()
	onCommit(func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
		r, err := s.Commit(ctx, txn)
		if errors.Is(err, dcs.ErrUnknown) {
			mu.Lock()
			defer mu.Unlock()
			late = append(late, func() { _, _ = s.Commit(context.Background(), dcs.Txn{Then: txn.Then}) })
		}
		return r, err
	})(w)
	afterSilence(w, func() {
		mu.Lock()
		defer mu.Unlock()
		for _, f := range late {
			time.AfterFunc(100*time.Millisecond, f)
		}
		late = nil
	})
}

func networkMistakes() []mistake {
	return []mistake{
		{name: "gives up before its caller", make: impatient, cases: []string{"Network/SlowAnswersAreAnswers", "Network/LargeValuesOnAThinLine"}},
		{name: "a late answer is called a failure", make: onError(dcs.ErrUnknown, errors.New("time-out")),
			cases: []string{"Network/TooSlowAnswersAreUnknown"}},
		{name: "a lost request is called done", make: onError(dcs.ErrUnknown, nil), cases: []string{"Network/LostRequestsAreNoLie"}},
		{name: "keeps a dead connection", make: keepsDead, cases: []string{"Network/StalledConnectionIsReplaced", "Network/HalfClosedConnectionIsReplaced"}},
		{name: "watch keeps a dead connection", cases: []string{"Network/StalledConnectionIsReplaced", "Network/HalfClosedConnectionIsReplaced"},
			make: func(w *world) {
				var gone atomic.Bool
				deafAfter(&gone)(w)
				onTrouble(w, func(on bool) { gone.Store(gone.Load() || on) })
			}},
		{name: "tries again on a new connection", tries: 8, cases: []string{"Network/HistoryWithCutConnectionsIsLinearizable"},
			make: onCommit(func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
				r, err := s.Commit(ctx, txn)
				if errors.Is(err, dcs.ErrUnknown) && ctx.Err() == nil {
					return s.Commit(ctx, txn)
				}
				return r, err
			})},
		{name: "a watch looks away during silence", cases: []string{"Silence/ChangeDuringSilenceWakes"}, make: func(w *world) {
			var silent atomic.Bool
			deafAfter(&silent)(w)
			block := w.h.Block
			w.h.Block = func(t testing.TB) func() {
				t.Helper()
				undo := block(t)
				silent.Store(true)
				return func() { silent.Store(false); undo() }
			}
		}},
		{name: "connection is left", cases: []string{"Close/NoConnectionLeft"}, make: each(func(_ dcs.Store, b *broken) {
			b.closing = func() error { return nil }
		})},
	}
}

// impatient gives every call 20 ms.
func impatient(w *world) {
	const own = 20 * time.Millisecond
	each(func(s dcs.Store, b *broken) {
		b.read = func(ctx context.Context) (dcs.Snapshot, error) {
			ctx, cancel := context.WithTimeout(ctx, own)
			defer cancel()
			return s.Read(ctx)
		}
		b.commit = func(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
			ctx, cancel := context.WithTimeout(ctx, own)
			defer cancel()
			return s.Commit(ctx, txn)
		}
	})(w)
}

// onTrouble calls f when a trouble begins and when it ends.
func onTrouble(w *world, f func(on bool)) {
	disturb := w.h.Disturb
	w.h.Disturb = func(t testing.TB, trouble Trouble) func() {
		t.Helper()
		undo := disturb(t, trouble)
		f(true)
		return func() { f(false); undo() }
	}
}

// keepsDead reads nothing more from a connection that was in trouble, as long as nobody ends it.
func keepsDead(w *world) {
	var dead atomic.Bool
	each(func(s dcs.Store, b *broken) {
		b.read = func(ctx context.Context) (dcs.Snapshot, error) {
			if dead.Load() {
				<-ctx.Done()
				return dcs.Snapshot{}, ctx.Err()
			}
			return s.Read(ctx)
		}
	})(w)
	onTrouble(w, dead.Store)
}

func leaderMistakes() []mistake {
	lose := func(before func(w *world, t testing.TB)) func(*world) {
		return func(w *world) {
			next := w.h.LoseLeader
			w.h.LoseLeader = func(t testing.TB) func() {
				t.Helper()
				before(w, t)
				return next(t)
			}
		}
	}
	return []mistake{
		{name: "the new leader gives versions out again", cases: []string{"Leader/CallsGoOn"}, make: each(versionsOfValues)},
		{name: "reads end with the leader", cases: []string{"Leader/CallsGoOn"}, make: func(w *world) {
			var dead atomic.Bool
			onRead(func(items []dcs.Item) []dcs.Item {
				if dead.Load() {
					return nil
				}
				return items
			})(w)
			lose(func(*world, testing.TB) { dead.Store(true) })(w)
		}},
		{name: "the new leader knows no sessions", cases: []string{"Leader/SessionsLiveOn"}, make: func(w *world) {
			var all []func() []dcs.Session
			onOpened(w, func(_ dcs.Store, _ *broken, opened func() []dcs.Session) { all = append(all, opened) })
			lose(func(w *world, _ testing.TB) {
				for _, opened := range all {
					for _, ses := range opened() {
						w.srv.EndSession(ses.ID())
					}
				}
			})(w)
		}},
		{name: "watch ends with the leader", cases: []string{"Leader/WatchGoesOn"}, make: func(w *world) {
			var gone atomic.Bool
			deafAfter(&gone)(w)
			lose(func(*world, testing.TB) { gone.Store(true) })(w)
		}},
		{name: "the former leader answers reads", cases: []string{"Leader/HistoryIsLinearizable"}, make: func(w *world) {
			w.h.LoseLeader = func(testing.TB) func() { return w.inject(memory.Stale, 20) }
		}},
	}
}
