package fence

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// handle answers one request. The rules of the epoch are here and nowhere else.
func (g *guard) handle(in incoming) {
	c, r := in.from, in.req
	if in.gone {
		_ = c.conn.Close()
		if g.agent == c {
			g.agent, g.idle = nil, time.Now()
		}
		return
	}
	if r.Op == "hello" && (g.agent == nil || g.agent == c) {
		g.agent = c
		c.send(reply{ID: r.ID})
		return
	}
	if g.agent != c {
		pid := 0
		if g.agent != nil {
			pid = g.agent.pid
		}
		c.send(reply{ID: r.ID, Code: "in_use", Error: fmt.Sprintf("the guard serves the agent with process id %d; stop that one first", pid)})
		_ = c.conn.Close()
		return
	}
	out, later := g.do(c, r)
	if !later {
		out.ID = r.ID
		c.send(out)
	}
}

// do performs a request; later says that the reply comes when nothing is left.
func (g *guard) do(c *client, r request) (out reply, later bool) {
	fail := func(err error) (reply, bool) { return reply{Code: code(err), Error: err.Error()}, false }
	switch r.Op {
	case "state":
		s := g.state
		return reply{State: &s}, false
	case "start":
		pid, err := g.start(*r.Start)
		if err != nil {
			return fail(err)
		}
		return reply{PID: pid}, false
	case "stop":
		return g.stop(c, r, 0)
	case "open":
		if g.busy() && g.state.Postmaster.Primary {
			return fail(fmt.Errorf("%w: a primary of epoch %d", ErrRunning, g.state.Postmaster.Epoch))
		}
		if r.Epoch <= g.state.Epoch {
			return fail(fmt.Errorf("%w: epoch %d is not above %d", ErrNoEpoch, r.Epoch, g.state.Epoch))
		}
		g.state.Epoch, g.state.Open, g.state.Deadline = r.Epoch, true, r.Deadline
		g.head, g.enforce = r.Head, r.Enforce
		return reply{}, false
	case "extend":
		if !g.state.Open || r.Epoch != g.state.Epoch {
			return fail(fmt.Errorf("%w: epoch %d", ErrNoEpoch, r.Epoch))
		}
		g.state.Deadline, g.head, g.enforce = r.Deadline, r.Head, r.Enforce
		return reply{}, false
	case "promote":
		if err := g.live(r.Epoch); err != nil {
			return fail(err)
		}
		if !g.state.Postmaster.Running {
			return fail(errors.New("no postmaster runs"))
		}
		g.state.Postmaster.Primary, g.state.Postmaster.Epoch = true, r.Epoch
		return reply{}, false
	case "close":
		if r.Epoch != g.state.Epoch || !g.state.Open {
			return reply{}, false // closed already, for ever
		}
		if g.busy() && g.state.Postmaster.Primary {
			r.Mode = ModeKill
			return g.stop(c, r, r.Epoch)
		}
		g.state.Open = false
		return reply{}, false
	case "shutdown":
		if g.busy() {
			return fail(ErrRunning)
		}
		g.end = true
		return reply{}, false
	}
	return fail(fmt.Errorf("protocol version %d has no request %q", protocolVersion, r.Op))
}

func code(err error) string {
	for name, e := range errorCodes() {
		if errors.Is(err, e) {
			return name
		}
	}
	return ""
}

// live is rule R7: the epoch is open and its deadline has not passed.
func (g *guard) live(epoch uint64) error {
	if !g.state.Open || epoch != g.state.Epoch {
		return fmt.Errorf("%w: epoch %d is not open", ErrNoEpoch, epoch)
	}
	if g.clock.Now() >= g.state.Deadline {
		return fmt.Errorf("%w: the deadline of epoch %d has passed", ErrNoEpoch, epoch)
	}
	return nil
}

func (g *guard) start(req StartRequest) (int, error) {
	if g.busy() {
		return 0, ErrRunning
	}
	if req.Primary {
		if err := g.live(req.Epoch); err != nil {
			return 0, err
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = null.Close() }()
	out := os.Stderr
	if req.Log != "" {
		if out, err = os.OpenFile(req.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return 0, fmt.Errorf("the server's log: %w", err)
		}
		defer func() { _ = out.Close() }()
	}
	pid, err := syscall.ForkExec(req.Path, append([]string{req.Path}, req.Args...), &syscall.ProcAttr{
		Dir: req.Dir, Env: req.Env, Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		// The postmaster ends with the guard: SIGQUIT makes it end its backends too, where SIGKILL would leave busy
		// ones to finish (hazard A4).
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGQUIT},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", req.Path, err)
	}
	g.stage, g.killing = stageNone, false
	g.state.Postmaster = Postmaster{Running: true, PID: pid, Primary: req.Primary}
	if req.Primary {
		g.state.Postmaster.Epoch = req.Epoch
	}
	return pid, nil
}

// stop signals, and answers when nothing is left; close, when not 0, is an epoch to close then.
func (g *guard) stop(c *client, r request, close uint64) (reply, bool) {
	sig, ok := r.Mode.signal()
	if !ok {
		return reply{Error: fmt.Sprintf("there is no stop mode %q", r.Mode)}, false
	}
	if !g.busy() {
		if close != 0 {
			g.state.Open = false
		}
		return reply{}, false
	}
	if r.Mode == ModeKill {
		g.kill()
	} else {
		g.signal(sig)
	}
	g.waiters = append(g.waiters, waiter{to: c, id: r.ID, close: close})
	return reply{}, true
}
