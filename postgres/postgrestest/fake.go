package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// Fake is a postgres.Controller in memory, with a server that runs when Launch was given its Command. It does what each
// call promises at once: Initdb makes a cluster, Clone takes over another Fake's, Promote begins a timeline. A running
// replica that is configured to follow another running Fake has its position at every look. Tests bend it: Update
// changes what is there, Fail and Delay change how calls go, Calls tells which were made.
//
// It is safe for concurrent use, and it waits only by package time, so that it works within a testing/synctest bubble.
// It is no model of replication: nothing lags, and histories are only compared by timeline number.
type Fake struct {
	mu       sync.Mutex
	begin    time.Time
	state    FakeState
	process  *FakeProcess
	peers    map[string]*Fake
	fails    map[string]error
	delays   map[string]time.Duration
	calls    []Call
	settings postgres.Settings
	stale    bool // configured and not reloaded
	closed   bool
}

// FakeState is what a Fake's data directory and server are like. Update changes it.
type FakeState struct {
	Data     postgres.DataState
	DataErr  string
	SystemID string
	Control  postgres.ControlState
	Signal   bool // standby.signal is there

	Timeline wal.Timeline
	LSN      wal.LSN
	History  wal.History

	Role     postgres.Role     // of the running server
	Upstream postgres.Upstream // as configured
	Cut      bool              // the replica does not reach its upstream
	Hung     bool              // the server runs and answers nothing
	Slots    map[string]wal.LSN

	StartTime    time.Duration // from Launch until the server answers
	NextSystemID string        // what Initdb gives the cluster
	Version      int
}

// Call is one call of a Fake's method.
type Call struct {
	Method string // "Promote"
	Detail string // what it was about, such as the role or the source's name
	At     time.Duration
}

var _ postgres.Controller = (*Fake)(nil)

// NewFake makes a Fake with an empty data directory.
func NewFake() *Fake {
	return &Fake{
		begin: time.Now(), peers: map[string]*Fake{}, fails: map[string]error{}, delays: map[string]time.Duration{},
		state: FakeState{Data: postgres.DataEmpty, NextSystemID: "7000000000000000001", Version: 150000, Slots: map[string]wal.LSN{}},
	}
}

// Join lets fakes reach each other under their names, as sources and upstreams.
func Join(fakes map[string]*Fake) {
	for _, f := range fakes {
		f.mu.Lock()
		for name, peer := range fakes {
			f.peers[name] = peer
		}
		f.mu.Unlock()
	}
}

// Update changes the state.
func (f *Fake) Update(change func(*FakeState)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.state)
}

// State returns a copy of the state.
func (f *Fake) State() FakeState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Write moves a running primary's position on by n bytes, as writes do. It reports false when no primary runs.
func (f *Fake) Write(n uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.answers() || f.state.Role != postgres.RolePrimary {
		return false
	}
	f.state.LSN += wal.LSN(n)
	return true
}

// Fail makes every later call of a method return err, or, for Observe, not be answered because of err; nil ends it.
func (f *Fake) Fail(method string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails[method] = err
}

// Delay makes every later call of a method take that long, or until its context ends.
func (f *Fake) Delay(method string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delays[method] = d
}

// Calls returns the calls so far, without Observe.
func (f *Fake) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.calls...)
}

// Settings returns what the last Configure was given.
func (f *Fake) Settings() postgres.Settings {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.settings
}

// Closed says whether Close was called.
func (f *Fake) Closed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// FakeProcess is the postmaster of a Fake.
type FakeProcess struct {
	f       *Fake
	ready   time.Time
	started time.Time
	pid     int
	exited  chan struct{}
}

// Launch starts the server of a Command that this Fake made. It fails when a server runs, as a second postmaster would.
func (f *Fake) Launch(command postgres.Command) (*FakeProcess, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case command.Path != "fake":
		return nil, fmt.Errorf("fake: %q is not a Command of a Fake", command.Path)
	case f.process != nil:
		return nil, errors.New("fake: lock file \"postmaster.pid\" already exists")
	case f.state.Data != postgres.DataReady:
		return nil, errors.New("fake: the data directory has no cluster")
	}
	now := time.Now()
	f.process = &FakeProcess{f: f, started: now, ready: now.Add(f.state.StartTime), pid: 10000 + len(f.calls), exited: make(chan struct{})}
	f.state.Role, f.state.Control = postgres.RolePrimary, postgres.ControlInProduction
	if f.state.Signal {
		f.state.Role, f.state.Control = postgres.RoleReplica, postgres.ControlInArchiveRecovery
	}
	f.stale = false
	return f.process, nil
}

// Process returns the running postmaster, or nil.
func (f *Fake) Process() *FakeProcess {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.process
}

// PID is a number that no other launch of this Fake has.
func (p *FakeProcess) PID() int { return p.pid }

// Exited is closed when the postmaster has ended.
func (p *FakeProcess) Exited() <-chan struct{} { return p.exited }

// Signal does to the postmaster what the signal would: SIGINT and SIGTERM shut it down cleanly, SIGQUIT and SIGKILL end
// it as a crash. Others do nothing. All of it takes no time.
func (p *FakeProcess) Signal(sig syscall.Signal) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if p.f.process != p {
		return
	}
	st := &p.f.state
	switch sig {
	case syscall.SIGINT, syscall.SIGTERM:
		if st.Hung {
			return
		}
		p.f.follow()
		st.Control = postgres.ControlShutDown
		if st.Role == postgres.RoleReplica {
			st.Control = postgres.ControlShutDownInRecovery
		}
	case syscall.SIGQUIT:
		if st.Hung {
			return
		}
	case syscall.SIGKILL:
	default:
		return
	}
	st.Role, st.Hung = postgres.RoleUnknown, false
	p.f.process = nil
	close(p.exited)
}

// answers says that SQL is answered. The caller holds the lock.
func (f *Fake) answers() bool {
	return f.process != nil && !f.state.Hung && !time.Now().Before(f.process.ready)
}

// line is what the server says of itself to others.
func (f *Fake) line() (postgres.Line, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.answers() {
		return postgres.Line{}, postgres.ErrNotRunning
	}
	return postgres.Line{
		SystemID: f.state.SystemID, Position: wal.Position{Timeline: f.state.Timeline, LSN: f.state.LSN},
		History: f.state.History, Replica: f.state.Role == postgres.RoleReplica,
	}, nil
}

// follow brings a streaming replica to where its upstream is. The caller holds the lock; it is given up meanwhile,
// because the upstream has a lock of its own.
func (f *Fake) follow() (streaming bool) {
	if !f.answers() || f.state.Role != postgres.RoleReplica || f.state.Cut {
		return false
	}
	peer := f.peers[f.state.Upstream.Name]
	if peer == nil || peer == f || f.stale {
		return false
	}
	f.mu.Unlock()
	up, err := peer.line()
	f.mu.Lock()
	if err != nil || up.SystemID != f.state.SystemID || up.Position.Timeline < f.state.Timeline || up.Position.LSN < f.state.LSN {
		return false
	}
	for _, sw := range up.History.Switches {
		if sw.Timeline == f.state.Timeline && sw.LSN < f.state.LSN {
			return false // it has more than its upstream's history
		}
	}
	f.state.Timeline, f.state.LSN, f.state.History = up.Position.Timeline, up.Position.LSN, up.History
	return true
}

// enter notes the call, waits as Delay says, and returns the error that Fail set.
func (f *Fake) enter(ctx context.Context, method, detail string) error {
	f.mu.Lock()
	if method != "Observe" {
		f.calls = append(f.calls, Call{Method: method, Detail: detail, At: time.Since(f.begin)})
	}
	d := f.delays[method]
	f.mu.Unlock()
	if err := wait(ctx, d); err != nil {
		return fmt.Errorf("fake: %s: %w", method, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fails[method]
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
