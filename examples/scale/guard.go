package main

import (
	"context"
	"errors"
	"sync"
	"syscall"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// guard keeps the rules of a guard over a simulated server, without a process of its own. It enforces the deadline
// whenever anybody asks it something, which is enough where nobody dies.
type guard struct {
	fake  *postgrestest.Fake
	clock dcs.Clock

	mu     sync.Mutex
	state  fence.State
	events chan fence.Event
}

func newGuard(f *postgrestest.Fake, clock dcs.Clock, nonce string) *guard {
	return &guard{fake: f, clock: clock, state: fence.State{Nonce: nonce, BootID: "boot"}, events: make(chan fence.Event, 16)}
}

func (g *guard) Events() <-chan fence.Event { return g.events }
func (g *guard) Close() error               { return nil }

func (g *guard) State(context.Context) (fence.State, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.enforce()
	g.state.Postmaster.Running = g.fake.Process() != nil
	return g.state, nil
}

// enforce is the deadline. The caller holds the lock.
func (g *guard) enforce() {
	if !g.state.Open || g.clock.Now() < g.state.Deadline {
		return
	}
	if p := g.fake.Process(); p != nil && g.state.Postmaster.Primary {
		p.Signal(syscall.SIGKILL)
	}
	g.state.Open = false
}

func (g *guard) Start(_ context.Context, req fence.StartRequest) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.enforce(); req.Primary && !g.opened(req.Epoch) {
		return 0, fence.ErrNoEpoch
	}
	p, err := g.fake.Launch(postgres.Command{Path: req.Path, Args: req.Args})
	if err != nil {
		return 0, err
	}
	g.state.Postmaster = fence.Postmaster{Running: true, PID: p.PID(), Primary: req.Primary, Epoch: req.Epoch}
	go func() {
		<-p.Exited()
		g.events <- fence.Event{Kind: fence.EventExit, PID: p.PID()}
	}()
	return p.PID(), nil
}

func (g *guard) opened(epoch uint64) bool { return g.state.Open && g.state.Epoch == epoch }

func (g *guard) Stop(ctx context.Context, mode fence.Mode) error {
	p := g.fake.Process()
	if p == nil {
		return nil
	}
	p.Signal(map[fence.Mode]syscall.Signal{fence.ModeFast: syscall.SIGINT, fence.ModeImmediate: syscall.SIGQUIT, fence.ModeKill: syscall.SIGKILL}[mode])
	select {
	case <-p.Exited():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *guard) Adopt(context.Context, int) error {
	return errors.New("nothing runs beside a simulated server")
}

func (g *guard) OpenEpoch(_ context.Context, t fence.Term) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.Epoch <= g.state.Epoch {
		return fence.ErrNoEpoch
	}
	g.state.Epoch, g.state.Open, g.state.Deadline = t.Epoch, true, t.Deadline
	return nil
}

func (g *guard) Extend(_ context.Context, t fence.Term) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.enforce(); !g.opened(t.Epoch) {
		return fence.ErrNoEpoch
	}
	g.state.Deadline = t.Deadline
	return nil
}

func (g *guard) Retire(ctx context.Context, epoch uint64) (fence.Proof, error) {
	if err := g.Stop(ctx, fence.ModeFast); err != nil {
		return "", err
	}
	return fence.ProofEmpty, g.CloseEpoch(ctx, epoch)
}

func (g *guard) CloseEpoch(_ context.Context, epoch uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch == g.state.Epoch {
		g.state.Open = false
	}
	return nil
}

func (g *guard) AllowPromote(_ context.Context, epoch uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.enforce(); !g.opened(epoch) {
		return fence.ErrNoEpoch
	}
	g.state.Postmaster.Primary, g.state.Postmaster.Epoch = true, epoch
	return nil
}
