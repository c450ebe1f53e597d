package dcstest

import (
	"context"
	"errors"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// checkThenAct looks at the conditions first and puts later.
func checkThenAct(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
	snap, err := s.Read(ctx)
	if err != nil {
		return dcs.Result{}, err
	}
	for _, c := range txn.If {
		if it, _ := snap.Item(c.Key); it.Version != c.Version {
			return dcs.Result{}, dcs.ErrConflict
		}
	}
	wait(time.Millisecond)
	return s.Commit(ctx, dcs.Txn{Then: txn.Then})
}

// oneByOne does the operations one after the other.
func oneByOne(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
	all := dcs.Result{Versions: make(map[string]dcs.Version)}
	if _, err := s.Commit(ctx, dcs.Txn{If: txn.If}); err != nil {
		return dcs.Result{}, err
	}
	for _, o := range txn.Then {
		r, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{o}})
		if err != nil {
			return dcs.Result{}, err
		}
		maps.Copy(all.Versions, r.Versions)
		wait(100 * time.Microsecond)
	}
	return all, nil
}

// hashed is a version made of the value, so that it comes back with the value.
func hashed(value []byte) dcs.Version {
	h := fnv.New64a()
	_, _ = h.Write(value)
	return dcs.Version(h.Sum64())
}

// versionsOfValues replaces versions with hashes of values, in conditions, results and reads.
func versionsOfValues(s dcs.Store, b *broken) {
	b.read = func(ctx context.Context) (dcs.Snapshot, error) {
		snap, err := s.Read(ctx)
		for i := range snap.Items {
			snap.Items[i].Version = hashed(snap.Items[i].Value)
		}
		return snap, err
	}
	b.commit = func(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
		snap, err := s.Read(ctx)
		if err != nil {
			return dcs.Result{}, err
		}
		txn.If = slices.Clone(txn.If)
		for i, c := range txn.If {
			if it, ok := snap.Item(c.Key); ok && hashed(it.Value) == c.Version {
				txn.If[i].Version = it.Version
			}
		}
		r, err := s.Commit(ctx, txn)
		for _, o := range txn.Then {
			if _, ok := r.Versions[o.Key]; ok {
				r.Versions[o.Key] = hashed(o.Value)
			}
		}
		return r, err
	}
}

// onError replaces the error of a Commit.
func onError(from, to error) func(*world) {
	return onCommit(func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
		r, err := s.Commit(ctx, txn)
		if errors.Is(err, from) {
			err = to
		}
		return r, err
	})
}

// afterSilence calls broke when the server has been silent once.
func afterSilence(w *world, broke func()) {
	block := w.h.Block
	w.h.Block = func(t testing.TB) func() {
		t.Helper()
		undo := block(t)
		return func() {
			broke()
			undo()
		}
	}
}

// deafAfter returns a wrapper whose watches hear nothing more once gone is set.
func deafAfter(gone *atomic.Bool) func(*world) {
	return onWake(func(dcs.Store) func() int {
		return func() int {
			if gone.Load() {
				return 0
			}
			return 1
		}
	})
}

// sharedWatches ends all watches of a Store with the first that ends.
func sharedWatches(s dcs.Store, b *broken) {
	var gone atomic.Bool
	b.watch = func(ctx context.Context, keys ...string) (<-chan struct{}, error) {
		in, err := s.Watch(ctx, keys...)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { gone.Store(true) })
		return relay(in, func() int {
			if gone.Load() {
				return 0
			}
			return 1
		}), nil
	}
}

// renewsByItself renews every session of a Store with every other call.
func renewsByItself(s dcs.Store, b *broken) {
	var mu sync.Mutex
	var sessions []dcs.Session
	b.session = func(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
		ses, err := s.OpenSession(ctx, ttl)
		mu.Lock()
		defer mu.Unlock()
		sessions = append(sessions, ses)
		return ses, err
	}
	b.commit = func(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, ses := range sessions {
			_ = ses.Renew(ctx)
		}
		return s.Commit(ctx, txn)
	}
}

// keepsBinding leaves a key bound to its session when it is put for good.
func keepsBinding(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error) {
	snap, err := s.Read(ctx)
	if err != nil {
		return dcs.Result{}, err
	}
	txn.Then = slices.Clone(txn.Then)
	for i, o := range txn.Then {
		if it, ok := snap.Item(o.Key); ok && !o.Delete && o.Session == "" {
			txn.Then[i].Session = it.Session
		}
	}
	return s.Commit(ctx, txn)
}

// onlyPuts is a watch that sees no key vanish.
func onlyPuts(s dcs.Store) func() int {
	var newest dcs.Version
	return func() int {
		snap, err := s.Read(context.Background())
		if err != nil {
			return 1
		}
		n := 0
		for _, it := range snap.Items {
			if it.Version > newest {
				newest, n = it.Version, 1
			}
		}
		return n
	}
}

// previous is a Read that returns what the one before saw.
func previous(s dcs.Store, b *broken) {
	var mu sync.Mutex
	var last *dcs.Snapshot
	b.read = func(ctx context.Context) (dcs.Snapshot, error) {
		snap, err := s.Read(ctx)
		if err != nil {
			return snap, err
		}
		mu.Lock()
		defer mu.Unlock()
		old := last
		last = &snap
		if old != nil {
			return *old, nil
		}
		return snap, nil
	}
}

// oneSnapshot is a Read that hands the same memory out as long as nothing changes.
func oneSnapshot(s dcs.Store, b *broken) {
	var mu sync.Mutex
	var last dcs.Snapshot
	b.read = func(ctx context.Context) (dcs.Snapshot, error) {
		snap, err := s.Read(ctx)
		if err != nil {
			return snap, err
		}
		mu.Lock()
		defer mu.Unlock()
		same := func(a, b dcs.Item) bool { return a.Key == b.Key && a.Version == b.Version }
		if !slices.EqualFunc(snap.Items, last.Items, same) {
			last = snap
		}
		return last, nil
	}
}

// shortPrefix opens the prefix without its last letter and cuts that off the keys.
func shortPrefix(w *world) {
	open := w.h.Open
	w.h.Open = func(t testing.TB, prefix string) dcs.Store {
		t.Helper()
		if i := strings.LastIndex(prefix, "/ab"); i > 0 {
			prefix = prefix[:i] + "/a"
		}
		return open(t, prefix)
	}
}
