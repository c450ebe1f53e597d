package dcstest

import (
	"context"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// broken is a Store with one or more methods replaced; nil ones are those of the Store below.
type broken struct {
	dcs.Store
	read    func(ctx context.Context) (dcs.Snapshot, error)
	commit  func(ctx context.Context, txn dcs.Txn) (dcs.Result, error)
	watch   func(ctx context.Context, keys ...string) (<-chan struct{}, error)
	session func(ctx context.Context, ttl time.Duration) (dcs.Session, error)
	limits  func() dcs.Limits
	closing func() error
}

func (b *broken) Read(ctx context.Context) (dcs.Snapshot, error) {
	if b.read != nil {
		return b.read(ctx)
	}
	return b.Store.Read(ctx)
}

func (b *broken) Commit(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
	if b.commit != nil {
		return b.commit(ctx, txn)
	}
	return b.Store.Commit(ctx, txn)
}

func (b *broken) Watch(ctx context.Context, keys ...string) (<-chan struct{}, error) {
	if b.watch != nil {
		return b.watch(ctx, keys...)
	}
	return b.Store.Watch(ctx, keys...)
}

func (b *broken) OpenSession(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
	if b.session != nil {
		return b.session(ctx, ttl)
	}
	return b.Store.OpenSession(ctx, ttl)
}

func (b *broken) Limits() dcs.Limits {
	if b.limits != nil {
		return b.limits()
	}
	return b.Store.Limits()
}

func (b *broken) Close() error {
	if b.closing != nil {
		return b.closing()
	}
	return b.Store.Close()
}

// brokenSession is a Session with methods replaced.
type brokenSession struct {
	dcs.Session
	id      string
	ttl     time.Duration
	renew   func(ctx context.Context) error
	closing func(ctx context.Context) error
}

func (b *brokenSession) ID() string {
	if b.id != "" {
		return b.id
	}
	return b.Session.ID()
}

func (b *brokenSession) TTL() time.Duration {
	if b.ttl != 0 {
		return b.ttl
	}
	return b.Session.TTL()
}

func (b *brokenSession) Renew(ctx context.Context) error {
	if b.renew != nil {
		return b.renew(ctx)
	}
	return b.Session.Renew(ctx)
}

func (b *brokenSession) Close(ctx context.Context) error {
	if b.closing != nil {
		return b.closing(ctx)
	}
	return b.Session.Close(ctx)
}

// mistake is one way to get the contract wrong, and the cases that must report it.
type mistake struct {
	name  string
	make  func(w *world)
	cases []string
	tries int // a race may go well by luck: how often to try; 0 means once
}

// each breaks every Store on its own.
func each(f func(s dcs.Store, b *broken)) func(*world) {
	return func(w *world) {
		w.wrap(func(s dcs.Store, _ string) dcs.Store {
			b := &broken{Store: s}
			f(s, b)
			return b
		})
	}
}

// onCommit breaks Commit.
func onCommit(f func(ctx context.Context, s dcs.Store, txn dcs.Txn) (dcs.Result, error)) func(*world) {
	return each(func(s dcs.Store, b *broken) {
		b.commit = func(ctx context.Context, txn dcs.Txn) (dcs.Result, error) { return f(ctx, s, txn) }
	})
}

// onRead breaks what Read returns.
func onRead(f func(items []dcs.Item) []dcs.Item) func(*world) {
	return each(func(s dcs.Store, b *broken) {
		b.read = func(ctx context.Context) (dcs.Snapshot, error) {
			snap, err := s.Read(ctx)
			snap.Items = f(snap.Items)
			return snap, err
		}
	})
}

// onSession breaks every session.
func onSession(f func(b *brokenSession)) func(*world) {
	return each(func(s dcs.Store, b *broken) {
		b.session = func(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
			ses, err := s.OpenSession(ctx, ttl)
			if err != nil {
				return nil, err
			}
			bs := &brokenSession{Session: ses}
			f(bs)
			return bs, nil
		}
	})
}

// onTTL breaks the time-out: asked for, told.
func onTTL(asked, told func(ttl time.Duration) time.Duration) func(*world) {
	return each(func(s dcs.Store, b *broken) {
		b.session = func(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
			ses, err := s.OpenSession(ctx, asked(ttl))
			if err != nil {
				return nil, err
			}
			return &brokenSession{Session: ses, ttl: told(ttl)}, nil
		}
	})
}

// onWake breaks watches: wakes says how many wake-ups to make of one.
func onWake(wakes func(s dcs.Store) func() int) func(*world) {
	return each(func(s dcs.Store, b *broken) {
		b.watch = func(ctx context.Context, keys ...string) (<-chan struct{}, error) {
			in, err := s.Watch(ctx, keys...)
			if err != nil {
				return nil, err
			}
			return relay(in, wakes(s)), nil
		}
	})
}

// relay passes wake-ups on until in is closed.
func relay(in <-chan struct{}, wakes func() int) <-chan struct{} {
	out := make(chan struct{}, 10000)
	go func() {
		defer close(out)
		for range in {
			for range wakes() {
				out <- struct{}{}
			}
		}
	}()
	return out
}
