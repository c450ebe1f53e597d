package dcstest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/pgregent/pgregent/dcs"
)

// A history is what several clients did to one key, with the time each call took. porcupine looks for an order of the
// calls, each somewhere within its time, in which one copy of the key would have answered the same.
//
// Every put writes a value of its own. So a version stands for a value, and the model needs no versions: a condition on
// the version that came with value x holds exactly while the value is x. A store that gives a version out twice, or
// checks conditions on an old copy, does something that no order explains.

// historyInput is one call. The zero want means that the key is absent.
type historyInput struct {
	read bool
	want string // Commit: the value that the condition asks for, "" for absent
	put  string // Commit: the new value, "" for a delete
}

// historyOutput is its answer. An unknown outcome matches anything: the call may have happened, at any time from then on.
type historyOutput struct {
	value    string // Read: "" for absent
	conflict bool
	unknown  bool
}

// historyModel is one key; its state is the value as a string, "" for absent.
func historyModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			value, in, out := state.(string), input.(historyInput), output.(historyOutput)
			holds := in.want == value
			switch {
			case in.read:
				return out.unknown || out.value == value, value
			case out.unknown && !holds, out.conflict && !holds:
				return true, value
			case out.conflict:
				return false, value
			default:
				return holds, in.put
			}
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
	}
}

// recording collects a history.
type recording struct {
	mu    sync.Mutex
	start time.Time
	ops   []porcupine.Operation
}

// note records a call that began at call.
func (r *recording) note(client int, call time.Duration, in historyInput, out historyOutput) {
	end := int64(time.Since(r.start))
	if out.unknown {
		end = math.MaxInt64
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: in, Call: int64(call), Output: out, Return: end})
}

// historyClient works on the key "k" and records what it does and hears.
type historyClient struct {
	e       *env
	id      int
	store   dcs.Store
	limit   time.Duration // for one call
	rec     *recording
	random  *rand.Rand
	calls   int    // made so far
	seen    string // the value last seen, and its version
	version dcs.Version
}

// step makes one call, chosen at random: mostly compare-and-swap on what was seen last, in between reads.
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
	in := historyInput{want: c.seen, put: fmt.Sprintf("client %d call %d", c.id, c.calls)}
	op := dcs.Put("k", []byte(in.put))
	if c.seen != "" && c.random.IntN(5) == 0 {
		in.put, op = "", dcs.Delete("k")
	}
	r, err := c.store.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: "k", Version: c.version}}, Then: []dcs.Op{op}})
	switch {
	case err == nil:
		c.rec.note(c.id, call, in, historyOutput{})
		c.seen, c.version = in.put, r.Versions["k"]
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

func (c *historyClient) read(ctx context.Context, call time.Duration) error {
	snap, err := c.store.Read(ctx)
	if err != nil {
		return err
	}
	it, _ := snap.Item("k")
	c.seen, c.version = string(it.Value), it.Version
	c.rec.note(c.id, call, historyInput{read: true}, historyOutput{value: c.seen})
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

// check asks porcupine.
func (e *env) check(rec *recording) {
	e.Helper()
	switch porcupine.CheckOperationsTimeout(historyModel(), rec.ops, 30*time.Second) {
	case porcupine.Ok:
	case porcupine.Illegal:
		for _, op := range rec.ops {
			e.Logf("client %d, %v to %v: %+v: %+v", op.ClientId, time.Duration(op.Call), time.Duration(op.Return), op.Input, op.Output)
		}
		e.Errorf("no order explains these %d calls: the store is not linearizable", len(rec.ops))
	case porcupine.Unknown:
		e.Errorf("the history of %d calls could not be checked in 30 s", len(rec.ops))
	}
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

// historyMuted: the replies of some calls are lost. What such a client then reports must not contradict what happened:
// above all, an own write that got through is not a conflict.
func historyMuted(e *env) {
	clients, rec := e.clients(3, 300*time.Millisecond)
	// Shorter than a call's limit: it ends with the connection; longer: with its context.
	for _, silence := range []time.Duration{150, 400, 150, 200, 150} {
		steps := func(n int) *sync.WaitGroup {
			var wg sync.WaitGroup
			for _, c := range clients {
				wg.Go(func() {
					for range n {
						_ = c.step()
					}
				})
			}
			return &wg
		}
		steps(8).Wait()
		unmute := e.disturb(e.h.Mute)
		muted := steps(8)
		wait(silence * time.Millisecond)
		unmute()
		muted.Wait()
		for _, c := range clients {
			e.eventually(e.h.RestartPatience, "a call succeeds after replies came through again",
				func() bool { return c.step() == nil })
		}
	}
	e.check(rec)
}
