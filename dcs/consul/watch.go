package consul

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/pgregent/dcs"
)

const (
	pollFor        = 20 * time.Second       // how long the server may hold a question, after which a silent one is noticed
	pollLimit      = 24 * time.Second       // how long it may take: the server adds up to a sixteenth
	pollPause      = 100 * time.Millisecond // after an answer that tells nothing new: the index of an absent key moves with others
	watchFirstWait = 50 * time.Millisecond  // before it is asked again after an error
	watchMostWait  = 2 * time.Second        // ... after many in a row
	watchLag       = 2 * time.Second        // how much later than a Read a watch may learn of a change
	mostTargets    = 16                     // of one watch; above that all of the prefix is watched
)

// target is one blocking query, asked again and again: one key, or all below the prefix. Its first question is answered at
// once, and one wake-up stands for all that was before, so there is no index to resume from after an error.
type target struct {
	store *Store
	key   string // relative; empty for all below the prefix
	ch    chan struct{}

	index uint64 // of the last answer; 0 while there is none

	seen   atomic.Uint64 // the newest ModifyIndex that an answer has covered; 0 while there is none
	there  atomic.Int64  // how many keys there were
	behind atomic.Int64  // since when a Read has shown something else, in nanoseconds since Store.started; 0 when not
	lagged chan struct{}
}

// Watch implements dcs.Store. It does not wait for the server: one wake-up follows when the watch is set up, now or later.
func (s *Store) Watch(ctx context.Context, keys ...string) (<-chan struct{}, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.ctx.Err() != nil {
		return nil, dcs.ErrClosed
	}
	if len(keys) > mostTargets {
		keys = nil
	}
	for _, k := range keys {
		if k == "" || path.Clean("/"+k) != "/"+k { // the server would see another path
			keys = nil
			break
		}
	}
	if len(keys) == 0 {
		keys = []string{""}
	}
	ch := make(chan struct{}, 1)
	var all sync.WaitGroup
	for _, k := range keys {
		t := &target{store: s, key: k, ch: ch, lagged: make(chan struct{}, 1)}
		s.mu.Lock()
		s.targets[t] = struct{}{}
		s.mu.Unlock()
		all.Go(func() { t.run(ctx) })
	}
	go func() {
		all.Wait()
		<-ctx.Done() // after Close of the Store, the channel stays open until then
		close(ch)
	}()
	return ch, nil
}

// Why a question is given up that did not fail.
var (
	errMoved  = errors.New("another endpoint is preferred now")
	errLagged = errors.New("the watch lags behind what was read")
)

// run asks until ctx ends.
func (t *target) run(ctx context.Context) {
	defer func() {
		t.store.mu.Lock()
		delete(t.store.targets, t)
		t.store.mu.Unlock()
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.store.ctx, func() { cancel(dcs.ErrClosed) })()
	wait := watchFirstWait
	for ctx.Err() == nil {
		e, moved := t.store.pool.first()
		news, err := t.ask(ctx, e, moved)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			worked := t.index != 0
			t.index = 0
			t.seen.Store(0)
			level := slog.LevelDebug
			if worked {
				wait, level = watchFirstWait, slog.LevelInfo
			}
			if errors.Is(err, errMoved) {
				continue
			}
			t.store.config.Logger.Log(ctx, level, "consul: a watch is set up again", slog.String("endpoint", e.url), slog.Any("error", err))
			if !errors.Is(err, errLagged) {
				t.store.pool.leave(e)
			}
			pause(ctx, wait)
			wait = min(2*wait, watchMostWait)
		case news:
			wait = watchFirstWait
			select {
			case t.ch <- struct{}{}:
			default: // there is a wake-up already
			}
		default:
			pause(ctx, pollPause)
		}
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// ask asks once, at one endpoint, and says whether the answer tells something new.
func (t *target) ask(ctx context.Context, e *endpoint, moved <-chan struct{}) (news bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, stop := context.WithTimeout(ctx, pollLimit)
	defer stop()
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-moved:
			cancel(errMoved)
		case <-t.lagged:
			cancel(errLagged)
		case <-over:
		}
	}()
	q := (&api.QueryOptions{WaitIndex: t.index, WaitTime: pollFor}).WithContext(ctx)
	there, modified, meta, err := t.query(e.client, q)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return false, err
	}
	if meta.LastIndex == 0 {
		return false, errNotConsul
	}
	before, wasThere, first := t.seen.Load(), t.there.Load(), t.index == 0
	if meta.LastIndex < t.index { // the state was restored: from the beginning, as Consul asks for
		t.index = 0
	} else {
		t.index = meta.LastIndex
	}
	t.there.Store(there)
	t.seen.Store(max(meta.LastIndex, modified))
	t.behind.Store(0)
	switch {
	case first, t.index == 0, there != wasThere:
		return true, nil
	case there == 0:
		return false, nil
	default:
		return meta.LastIndex != before, nil
	}
}

// query asks for one key, or for the names of all.
func (t *target) query(cl *api.Client, q *api.QueryOptions) (there int64, modified uint64, meta *api.QueryMeta, err error) {
	if t.key == "" {
		names, meta, err := cl.KV().Keys(t.store.prefix, "", q)
		for _, name := range names {
			if name != t.store.prefix { // see Read
				there++
			}
		}
		return there, 0, meta, err
	}
	pair, meta, err := cl.KV().Get(t.store.prefix+t.key, q)
	if pair != nil {
		return 1, pair.ModifyIndex, meta, err
	}
	return 0, 0, meta, err
}

// compare looks for watches that have not shown what a Read has: a question may hang at a server that is frozen or cut off,
// while all else goes on at another (hazard C4). It costs no request.
func (s *Store) compare(read dcs.Snapshot) {
	now := int64(time.Since(s.started))
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.targets {
		newest, there := t.newest(read)
		seen := t.seen.Load()
		if seen == 0 || newest <= seen && there == t.there.Load() {
			t.behind.Store(0)
			continue
		}
		if t.behind.CompareAndSwap(0, now) || now-t.behind.Load() < int64(watchLag) {
			continue
		}
		t.behind.Store(0)
		select {
		case t.lagged <- struct{}{}:
		default:
		}
	}
}

// newest is the newest version of the keys of the target, and how many there are.
func (t *target) newest(read dcs.Snapshot) (newest uint64, there int64) {
	for _, it := range read.Items {
		if t.key == "" || t.key == it.Key {
			newest = max(newest, uint64(it.Version))
			there++
		}
	}
	return newest, there
}
