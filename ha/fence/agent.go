package fence

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Config is where the guard lives and how it is started.
type Config struct {
	// Dir is a folder of this node alone: socket, lock and log are in it. It is made with mode 0700.
	Dir string
	// Program starts a guard; nil re-executes this program, whose main must begin with Main().
	Program []string
	Options Options
	Log     *slog.Logger // nil: discard
}

// Names in Config.Dir, and the variable by which a process knows that it is to be a guard.
const (
	socketName = "guard.sock"
	lockName   = "guard.lock"
	logName    = "guard.log"
	noncesName = "guard.nonces"
	maxNonces  = 32
	guardEnv   = "PGREGENT_GUARD_DIR"
)

// Guard is the agent's connection to its guard. Methods may be called from any goroutine.
type Guard struct {
	conn   net.Conn
	events chan Event

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan reply
	lost    bool
}

// Open connects to the guard that lives in c.Dir, or starts one. Only one agent is served at a time: a second one gets
// ErrInUse with the first one's process id (hazard A15). A guard that an older version left, with PostgreSQL under it,
// and that speaks another protocol, is ErrVersion.
func Open(ctx context.Context, c Config) (*Guard, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("fence: the guard's folder: %w", err)
	}
	// A guard that is ending accepts a connection that it never serves: then there is another try, with a new one.
	var err error
	for range 5 {
		var g *Guard
		if g, err = open(ctx, c); !errors.Is(err, ErrGuardLost) {
			return g, err
		}
	}
	return nil, err
}

func open(ctx context.Context, c Config) (*Guard, error) {
	conn, err := dial(c.Dir)
	if err != nil {
		if err := spawn(c); err != nil {
			return nil, err
		}
		if conn, err = await(ctx, c.Dir); err != nil {
			return nil, fmt.Errorf("fence: the guard did not start, see %s: %w", filepath.Join(c.Dir, logName), err)
		}
	}
	g := &Guard{conn: conn, events: make(chan Event, 64), waiting: map[uint64]chan reply{}}
	go g.read()
	if _, err := g.call(ctx, request{Op: opHello, Version: protocolVersion, Options: &c.Options}); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return g, nil
}

// dial connects through the folder's descriptor, so that a long path does not exceed what a socket address takes.
func dial(dir string) (net.Conn, error) {
	var conn net.Conn
	err := throughDir(dir, func(path string) (err error) {
		conn, err = net.DialTimeout("unix", path, time.Second)
		return err
	})
	return conn, err
}

func throughDir(dir string, f func(path string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName))
}

// spawn starts a guard in a session of its own, so that neither the agent's end nor a signal to its group reaches it.
func spawn(c Config) error {
	program := c.Program
	if len(program) == 0 {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("fence: this program cannot be re-executed as a guard: %w", err)
		}
		program = []string{self}
	}
	out, err := os.OpenFile(filepath.Join(c.Dir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("fence: the guard's log: %w", err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(program[0], program[1:]...) //nolint:noctx // it outlives every context of the agent
	cmd.Env = append(withoutSecrets(os.Environ()), guardEnv+"="+c.Dir)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("fence: start the guard %s: %w", program[0], err)
	}
	go func() { _ = cmd.Wait() }() // so that a guard that ends is no zombie while the agent lives
	return nil
}

// withoutSecrets leaves out what PostgreSQL must not inherit (hazard E2).
func withoutSecrets(environ []string) []string {
	var out []string
	for _, kv := range environ {
		if strings.HasPrefix(kv, "PATRONI_") || strings.HasPrefix(kv, "NOTIFY_SOCKET=") || strings.HasPrefix(kv, guardEnv+"=") {
			continue
		}
		out = append(out, kv)
	}
	return out
}

func await(ctx context.Context, dir string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := dial(dir)
		if err == nil {
			return conn, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

// read hands replies to their callers and events to the channel, until the connection ends.
func (g *Guard) read() {
	s := bufio.NewScanner(g.conn)
	s.Buffer(make([]byte, 4096), maxMessage)
	for s.Scan() {
		var r reply
		if json.Unmarshal(s.Bytes(), &r) != nil {
			break
		}
		if r.Event != nil {
			g.push(*r.Event)
			continue
		}
		g.mu.Lock()
		ch := g.waiting[r.ID]
		delete(g.waiting, r.ID)
		g.mu.Unlock()
		if ch != nil {
			ch <- r
		}
	}
	g.mu.Lock()
	g.lost = true
	for id, ch := range g.waiting {
		delete(g.waiting, id)
		close(ch)
	}
	g.mu.Unlock()
	g.push(Event{Kind: EventGuardLost})
	close(g.events)
}

// push drops an event when nobody has taken the last 64: State tells the truth anyway.
func (g *Guard) push(e Event) {
	select {
	case g.events <- e:
	default:
	}
}

// Events are pushed by the guard at once. The channel is closed after EventGuardLost.
func (g *Guard) Events() <-chan Event { return g.events }

func (g *Guard) call(ctx context.Context, r request) (reply, error) {
	ch := make(chan reply, 1)
	g.mu.Lock()
	if g.lost {
		g.mu.Unlock()
		return reply{}, ErrGuardLost
	}
	g.next++
	r.ID = g.next
	g.waiting[r.ID] = ch
	b, err := json.Marshal(r)
	if err == nil {
		_ = g.conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, err = g.conn.Write(append(b, '\n'))
	}
	g.mu.Unlock()
	if err != nil {
		return reply{}, fmt.Errorf("%w: %w", ErrGuardLost, err)
	}
	select {
	case got, ok := <-ch:
		if !ok {
			return reply{}, ErrGuardLost
		}
		if got.Error != "" {
			if e := errorCodes()[got.Code]; e != nil {
				return got, fmt.Errorf("fence: %w: %s", e, got.Error)
			}
			return got, fmt.Errorf("fence: %s", got.Error)
		}
		return got, nil
	case <-ctx.Done():
		g.mu.Lock()
		delete(g.waiting, r.ID)
		g.mu.Unlock()
		return reply{}, fmt.Errorf("fence: %s: %w", r.Op, ctx.Err())
	}
}

// AgentPID is the process that the guard of dir serves, other than this one; 0 when there is no guard or it serves
// nobody. It is for commands that signal the agent of a node.
func AgentPID(ctx context.Context, dir string) (int, error) {
	conn, err := dial(dir)
	if err != nil {
		return 0, nil //nolint:nilerr // no guard
	}
	g := &Guard{conn: conn, events: make(chan Event, 64), waiting: map[uint64]chan reply{}}
	go g.read()
	defer func() { _ = conn.Close() }()
	r, err := g.call(ctx, request{Op: opState})
	if errors.Is(err, ErrInUse) {
		return r.PID, nil
	}
	return 0, err
}

// State asks the guard how things stand.
func (g *Guard) State(ctx context.Context) (State, error) {
	r, err := g.call(ctx, request{Op: opState})
	if err != nil {
		return State{}, err
	}
	return *r.State, nil
}

// Start starts a postmaster as the guard's child. As primary it is refused with ErrNoEpoch unless the epoch is the
// open one and its deadline has not passed (lease rule R7, hazard A17); with ErrRunning while anything of an earlier
// one is left, whoever started that.
func (g *Guard) Start(ctx context.Context, req StartRequest) (pid int, err error) {
	r, err := g.call(ctx, request{Op: opStart, Start: &req})
	return r.PID, err
}

// Stop stops the postmaster and returns when nothing of it is left (proof "empty"). When ctx ends first, the signal
// has been sent all the same.
func (g *Guard) Stop(ctx context.Context, mode Mode) error {
	_, err := g.call(ctx, request{Op: opStop, Mode: mode})
	return err
}

// OpenEpoch opens an epoch, higher than any before, with its first deadline. ErrRunning: a primary of another epoch still
// runs. ErrWatchdog: a watchdog is required and
// cannot be used; the epoch is not open then.
func (g *Guard) OpenEpoch(ctx context.Context, t Term) error {
	_, err := g.call(ctx, request{Op: opOpen, Term: &t})
	return err
}

// Extend sets the deadline of the open epoch, later or earlier (R10). A closed epoch is ErrNoEpoch.
func (g *Guard) Extend(ctx context.Context, t Term) error {
	_, err := g.call(ctx, request{Op: opExtend, Term: &t})
	return err
}

// Adopt puts the guard in charge of a postmaster of the data directory that it did not start. See Postmaster.Foreign.
func (g *Guard) Adopt(ctx context.Context, pid int) error {
	_, err := g.call(ctx, request{Op: opAdopt, PID: pid})
	return err
}

// Retire ends the primary of the epoch by a fast shutdown, closes the epoch for ever as soon as there is a proof that
// nothing of it acknowledges a write any more, and returns the proof (R8). With ProofShutdown the postmaster may still
// run, for its archiver and its walsenders: Stop waits for its end. When ctx ends first, the signal has been sent and
// the epoch is still open.
func (g *Guard) Retire(ctx context.Context, epoch uint64) (Proof, error) {
	r, err := g.call(ctx, request{Op: opRetire, Epoch: epoch})
	return r.Proof, err
}

// CloseEpoch closes the epoch for ever (R8). A primary that still runs under it is killed first; it returns when
// nothing is left.
func (g *Guard) CloseEpoch(ctx context.Context, epoch uint64) error {
	_, err := g.call(ctx, request{Op: opClose, Epoch: epoch})
	return err
}

// AllowPromote marks the running replica as primary under the open epoch, before it is promoted, so that the deadline
// covers it.
func (g *Guard) AllowPromote(ctx context.Context, epoch uint64) error {
	_, err := g.call(ctx, request{Op: opPromote, Epoch: epoch})
	return err
}

// Shutdown ends the guard when nothing runs under it.
func (g *Guard) Shutdown(ctx context.Context) error {
	_, err := g.call(ctx, request{Op: opShutdown})
	return err
}

// Close leaves the guard, which goes on guarding.
func (g *Guard) Close() error { return g.conn.Close() }
