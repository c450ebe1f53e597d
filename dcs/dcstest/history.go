package dcstest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// historyClient works on the keys of a history and records what it does and hears.
type historyClient struct {
	e      *env
	id     int
	store  dcs.Store
	limit  time.Duration // for one call
	rec    *recording
	random *rand.Rand
	calls  int // made so far
	seen   historyState
	at     [len(historyKeys)]dcs.Version // of what was seen
}

// step makes one call, chosen at random: mostly a transaction over one to three keys with conditions on what was seen
// last, in between reads. The keys that are changed need not be those that conditions are on; one in ten has no condition.
//
// An error means that nothing happened, as far as the client was told, and that it is not part of the history.
func (c *historyClient) step() error {
	c.calls++
	ctx, cancel := context.WithTimeout(c.e.base(), c.limit)
	defer cancel()
	call := time.Since(c.rec.start)
	if c.random.IntN(3) == 0 {
		return c.read(ctx, call)
	}
	txn, in := c.transaction()
	r, err := c.store.Commit(ctx, txn)
	switch {
	case err == nil:
		c.rec.note(c.id, call, in, historyOutput{})
		for i, key := range historyKeys {
			if in.changed[i] {
				c.seen[i], c.at[i] = in.put[i], r.Versions[key]
			}
		}
		return nil
	case errors.Is(err, dcs.ErrConflict):
		c.rec.note(c.id, call, in, historyOutput{conflict: true})
	case errors.Is(err, dcs.ErrUnknown):
		c.rec.note(c.id, call, in, historyOutput{unknown: true})
	default:
		return err
	}
	return c.read(ctx, time.Since(c.rec.start))
}

// transaction draws one.
func (c *historyClient) transaction() (dcs.Txn, historyInput) {
	var txn dcs.Txn
	var in historyInput
	if c.random.IntN(10) > 0 {
		for _, i := range c.random.Perm(len(historyKeys))[:1+c.random.IntN(len(historyKeys))] {
			in.asked[i], in.want[i] = true, c.seen[i]
			txn.If = append(txn.If, dcs.Cond{Key: historyKeys[i], Version: c.at[i]})
		}
	}
	for _, i := range c.random.Perm(len(historyKeys))[:1+c.random.IntN(len(historyKeys))] {
		in.changed[i] = true
		if c.random.IntN(5) == 0 {
			txn.Then = append(txn.Then, dcs.Delete(historyKeys[i]))
			continue
		}
		in.put[i] = fmt.Sprintf("%d.%d.%d", c.id, c.calls, i)
		txn.Then = append(txn.Then, dcs.Put(historyKeys[i], []byte(in.put[i])))
	}
	return txn, in
}

func (c *historyClient) read(ctx context.Context, call time.Duration) error {
	snap, err := c.store.Read(ctx)
	if err != nil {
		return err
	}
	for i, key := range historyKeys {
		it, _ := snap.Item(key)
		c.seen[i], c.at[i] = string(it.Value), it.Version
	}
	c.rec.note(c.id, call, historyInput{read: true}, historyOutput{seen: c.seen})
	return nil
}

// clients opens n of them over one recording.
func (e *env) clients(n int, limit time.Duration) ([]*historyClient, *recording) {
	rec := &recording{start: time.Now()}
	list := make([]*historyClient, n)
	for i := range list {
		list[i] = &historyClient{id: i, e: e, store: e.open(), limit: limit, rec: rec, random: rand.New(rand.NewPCG(1, uint64(i)))}
	}
	return list, rec
}

func historyQuiet(e *env) {
	clients, rec := e.clients(4, e.h.Patience)
	e.together(len(clients), func(i int) error {
		for range 60 {
			if err := clients[i].step(); err != nil {
				return fmt.Errorf("client %d, call %d: %w", i, clients[i].calls, err)
			}
		}
		return nil
	})
	e.check(rec)
}

// steps lets every client make calls at the same time as the others, whatever becomes of them: some until done is closed,
// and n more.
func steps(clients []*historyClient, n int, done <-chan struct{}) *sync.WaitGroup {
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for left := n; left > 0; {
				_ = c.step()
				select {
				case <-done:
					left--
				default:
					wait(20 * time.Millisecond) // not more calls than porcupine can order
				}
			}
		})
	}
	return &wg
}

// historyThrough records what clients do and hear before, while and after each of several disturbances, each of a length.
func (e *env) historyThrough(hook func(testing.TB) func(), limit time.Duration, lengths ...time.Duration) {
	e.Helper()
	const calls = 8
	clients, rec := e.clients(3, limit)
	for _, length := range lengths {
		done := make(chan struct{})
		all := steps(clients, calls, done)
		wait(100 * time.Millisecond)
		undo := e.disturb(hook)
		wait(length)
		undo()
		close(done)
		all.Wait()
		for _, c := range clients {
			e.eventually(e.h.RestartPatience, "a call succeeds after the disturbance", func() bool { return c.step() == nil })
		}
	}
	e.check(rec)
}

// historyMuted: the replies of some calls are lost. What such a client then reports must not contradict what happened:
// above all, an own write that got through is not a conflict.
func historyMuted(e *env) {
	// Shorter than a call's limit: it ends with the connection; longer: with its context.
	const short, long = 150 * time.Millisecond, 400 * time.Millisecond
	e.historyThrough(e.h.Mute, 300*time.Millisecond, short, long, short, short, short)
}

// historyLossy: connections end in the middle of calls, again and again.
func historyLossy(e *env) {
	e.historyThrough(e.in(Lossy), min(2*time.Second, e.h.Patience), time.Second, time.Second)
}

// historyRestart: the server restarts in the middle of calls, and forgets nothing that it acknowledged.
func historyRestart(e *env) {
	restart := func(t testing.TB) func() { e.h.Restart(t); return func() {} }
	e.historyThrough(restart, min(time.Second, e.h.Patience), 0, 0)
}

// historyLeader: the leader goes and comes back in the middle of calls. One that was frozen or cut off answers nothing
// from the time before.
func historyLeader(e *env) {
	e.historyThrough(e.h.LoseLeader, min(time.Second, e.h.Patience), 2*time.Second, time.Second)
}
