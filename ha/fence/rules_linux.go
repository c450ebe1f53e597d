package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// handle answers one request. The rules of the epoch are in this file and nowhere else.
func (g *guard) handle(in incoming) {
	c, r := in.from, in.req
	if in.gone {
		_ = c.conn.Close()
		if g.agent == c {
			g.agent, g.idle = nil, g.clock.Now()
		}
		return
	}
	if r.Op == opHello && (g.agent == nil || g.agent == c || !alive(g.agent.pid)) {
		c.send(g.hello(c, r))
		return
	}
	if g.agent != c {
		pid := 0
		if g.agent != nil {
			pid = g.agent.pid
		}
		c.send(reply{ID: r.ID, PID: pid, Code: "in_use", Error: fmt.Sprintf("the guard serves the agent with process id %d; stop that one first", pid)})
		_ = c.conn.Close()
		return
	}
	out, later := g.do(c, r)
	if !later {
		out.ID = r.ID
		c.send(out)
	}
}

// hello begins to serve an agent. The last one, if any, is gone: a killed process keeps its socket for a moment.
func (g *guard) hello(c *client, r request) reply {
	if r.Version != protocolVersion {
		return reply{ID: r.ID, Code: code(ErrVersion), Error: fmt.Sprintf(
			"this guard speaks version %d, the agent %d: stop PostgreSQL in order with the pgregent that started it, or kill the guard (process id %d), which ends PostgreSQL",
			protocolVersion, r.Version, g.state.PID)}
	}
	if g.agent != nil && g.agent != c {
		_ = g.agent.conn.Close()
	}
	if err := g.configure(*r.Options); err != nil {
		return reply{ID: r.ID, Code: code(err), Error: err.Error()}
	}
	g.agent = c
	return reply{ID: r.ID}
}

// configure takes over what an agent asks for. What concerns a running server waits for its next start.
func (g *guard) configure(o Options) error {
	if o.Program == "" {
		o.Program = "postgres"
	}
	namespace := g.options.PIDNamespace
	dog := g.options.Watchdog
	g.options = o
	if g.busy() {
		g.options.PIDNamespace = namespace
	} else if o.DataDir != "" {
		g.dir = o.DataDir
		if err := g.takeOver(); err != nil {
			return err
		}
	}
	if dog != o.Watchdog {
		g.dog.disarm()
		g.dog = newWatchdog(o.Watchdog)
	}
	g.describe()
	return nil
}

// do performs a request; later says that the reply comes when nothing is left.
func (g *guard) do(c *client, r request) (out reply, later bool) {
	var err error
	switch r.Op {
	case opState:
		s := g.state
		return reply{State: &s}, false
	case opStart:
		out.PID, err = g.start(*r.Start)
	case opAdopt:
		err = g.adopt(r.PID)
	case opStop:
		return g.stop(r.Mode, waiter{to: c, id: r.ID})
	case opOpen:
		err = g.open(*r.Term)
	case opExtend:
		err = g.extend(*r.Term)
	case opPromote:
		err = g.allowPromote(r.Epoch)
	case opRetire, opClose:
		return g.close(c, r)
	case opShutdown:
		if g.busy() {
			err = ErrRunning
			break
		}
		g.ending = true // when standby.signal is written
	default:
		err = fmt.Errorf("version %d of the protocol has no request %q", protocolVersion, r.Op)
	}
	if err != nil {
		return reply{Code: code(err), Error: err.Error()}, false
	}
	return out, false
}

// open opens an epoch, which must be higher than any before: a closed one never opens again (R8). A primary that the
// guard was told to take charge of, and that belongs to no epoch yet, comes under this one.
func (g *guard) open(t Term) error {
	p := &g.state.Postmaster
	unclaimed := p.Epoch == 0 && g.ladder.stage == stageNone
	if g.busy() && p.Primary && !unclaimed {
		return fmt.Errorf("%w: a primary of epoch %d", ErrRunning, p.Epoch)
	}
	if t.Epoch <= g.state.Epoch {
		return fmt.Errorf("%w: epoch %d is not above %d", ErrNoEpoch, t.Epoch, g.state.Epoch)
	}
	if err := g.feed(t); err != nil {
		return err
	}
	g.state.Epoch, g.state.Open, g.head = t.Epoch, true, t.HeadStart
	g.setDeadline(g.afterLeaps(t))
	if p.Running && p.Primary {
		p.Epoch = t.Epoch
		g.armKernel()
		g.beginMark()
	}
	return nil
}

// extend moves the deadline of the open epoch. A later one than before is accepted for the open epoch only, an earlier
// one always (R10).
func (g *guard) extend(t Term) error {
	if !g.state.Open || t.Epoch != g.state.Epoch {
		return fmt.Errorf("%w: epoch %d", ErrNoEpoch, t.Epoch)
	}
	if g.clock.Now() >= g.state.Deadline {
		return fmt.Errorf("%w: the deadline of epoch %d has passed", ErrNoEpoch, t.Epoch)
	}
	g.head = t.HeadStart
	g.setDeadline(g.afterLeaps(t))
	switch g.ladder.stage {
	case stageFast:
		g.ladder.at = min(g.state.Deadline, max(g.ladder.at, g.ladder.begun+fastPatience))
	case stageImmediate:
		g.ladder.at = min(g.ladder.at, g.state.Deadline)
	}
	g.armKernel()
	g.admit()
	return g.feed(t)
}

// allowPromote marks the running replica as a primary to be (R7).
func (g *guard) allowPromote(epoch uint64) error {
	if err := g.live(epoch); err != nil {
		return err
	}
	if !g.state.Postmaster.Running || g.ladder.stage != stageNone {
		return errors.New("no postmaster runs, or it is being stopped")
	}
	g.state.Postmaster.Primary, g.state.Postmaster.Epoch = true, epoch
	g.armKernel()
	g.admit()
	g.beginMark()
	return nil
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

// close closes an epoch, after what runs under it has ended: killed, or with retire by a fast shutdown.
func (g *guard) close(c *client, r request) (reply, bool) {
	if r.Epoch != g.state.Epoch || !g.state.Open {
		return reply{Proof: g.closedBy}, false // closed already, for ever
	}
	if p := &g.state.Postmaster; p.Running && !p.Primary && isPrimary(g.dir, p.PID, g.lockFile) {
		g.onPrimary(p.PID) // promoted by somebody else, just now
	}
	w := waiter{to: c, id: r.ID, close: r.Epoch}
	switch {
	case !g.leading():
		g.closeEpoch(ProofEmpty)
		return reply{Proof: ProofEmpty}, false
	case r.Op == opRetire:
		w.early = true
		g.beginProof()
		return g.stop(ModeFast, w)
	}
	return g.stop(ModeKill, w)
}

// stop signals, and answers when nothing is left.
func (g *guard) stop(mode Mode, w waiter) (reply, bool) {
	if !g.busy() {
		return reply{Proof: ProofEmpty}, false
	}
	if sig, _ := mode.signal(); sig == syscall.SIGKILL {
		g.kill()
	} else {
		g.signal(sig)
	}
	g.waiters = append(g.waiters, w)
	return reply{}, true
}

// admit lets TCP clients in until the deadline, where that is the kernel's to watch.
func (g *guard) admit() {
	if g.admission != nil && g.state.Open && g.leading() {
		g.note(&g.trouble.admission, g.admission.admit(g.state.Deadline-g.clock.Now()))
	}
}

// feed keeps the watchdog quiet for another time-out. In a pause there is no deadline, and no watchdog.
func (g *guard) feed(t Term) error {
	if t.Deadline-g.clock.Now() > noDeadline {
		g.dog.disarm()
		g.describe()
		return nil
	}
	was := g.dog.active()
	err := g.dog.feed(t)
	required := g.options.Watchdog.Mode == WatchdogRequired
	if errors.Is(err, fs.ErrNotExist) && !required {
		err = nil // a machine without one
	}
	g.note(&g.trouble.watchdog, err)
	if was != g.dog.active() {
		g.describe()
	}
	if err != nil && required {
		return fmt.Errorf("%w: %w", ErrWatchdog, err)
	}
	return nil
}
