package ha

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// Node is one member of a cluster. New makes it, Run runs it; the other exported methods may be called from any
// goroutine at any time.
type Node struct {
	cfg   Config
	log   *slog.Logger
	clock dcs.Clock
	store dcs.Store
	calls *callbacks.Runner
	// held is the guard that this node is connected to. The loop replaces one that is gone while tasks still talk to it.
	held atomic.Pointer[guardRef]

	// inbox carries what observers, tasks and requests have found out into the loop. Everything below is the loop's
	// own: only functions that it takes from the inbox touch it.
	inbox chan func()

	state   *state
	lease   *dcs.Lease
	session dcs.Session
	kept    time.Duration // when the session was last renewed

	snap     dcs.Snapshot
	cluster  cluster.Cluster
	dynamic  cluster.Dynamic
	merged   bool // the store's dynamic configuration is in settings
	settings postgres.Settings
	known    bool          // some read succeeded
	readSent time.Duration // when the last successful read was sent
	readWall time.Time
	readErr  error

	guardState fence.State
	guardErr   error

	voter atomic.Pointer[voter] // nil before Run has loaded it
	fs    failsafe

	server  postgres.Status // last observation
	walEnd  wal.Position    // measured on the stopped server; zero when not
	line    line
	answers map[string]answer
	asking  bool
	asked   time.Duration // when the members were asked last
	probing string

	task     *task
	last     outcome
	exits    []time.Duration // unexpected ends of the postmaster
	expected bool            // an end of the postmaster is expected
	ending   int             // the postmaster that a restart stops: its end is expected, its successor's is not
	down     time.Duration   // since when PostgreSQL is not well while this node leads; 0: it is well

	wishes     wishes
	startLimit time.Duration // of the restart that PostgreSQL has not come back from; 0: primary_start_timeout
	gone       chan struct{} // closed when Run returns

	published published
	slotSeen  map[string]time.Duration // when a member's slot was last wanted by a member that is here
	// The checkpoint after a promotion: done, and running.
	checkpointed, checkpointing bool

	noBootstrap string // why this node creates no cluster any more; empty: it may
	seeded      bool   // the key config was written by this node's bootstrap

	stopping  bool
	stopAt    time.Duration // when it was asked to end
	requestAt time.Duration // when the present request in the key failover was seen first
	decision  policy.Decision
	hot       int // turns in a row that did not wait

	ctl      sync.Mutex // one Controller call at a time, Observe and Identify apart
	observer *observer
	report   atomic.Pointer[rest.Report]
	ring     ring
	reload   atomic.Bool
	// detaching asks Run to return and to leave everything as it is.
	detaching atomic.Bool
	ttl       atomic.Int64 // of the configuration in force, for the voter
	// told says that the callbacks know of this server; wasPrimary that they know this server as the primary, or as demoted.
	told, wasPrimary atomic.Bool
	primaryTold      atomic.Bool // what they heard last is that it is the primary
	// unapplied says that settings did not reach the configuration, unread that the server has not read what did.
	unapplied, unread atomic.Bool

	counters counters
	trace    *tracer
}

func newNode(c Config) *Node {
	n := &Node{
		cfg: c, clock: c.Clock, store: c.Store,
		log:      c.Log.With("member", c.Name),
		inbox:    make(chan func(), 64),
		gone:     make(chan struct{}),
		answers:  map[string]answer{},
		dynamic:  cluster.ParseDynamic(bootstrapConfig(c.Bootstrap)),
		settings: mergeSettings(c.Local, nil),
	}
	n.trace = &tracer{clock: c.Clock.Now}
	n.ttl.Store(int64(n.dynamic.TTL))
	n.configureScripts()
	n.fs.voted = -time.Hour
	n.calls = callbacks.NewRunner(c.Callbacks, n.log)
	n.report.Store(&rest.Report{Name: c.Name, Scope: c.Scope, Version: c.Version, Tags: c.Tags,
		State: cluster.StateStopped, Role: cluster.RoleUninitialized, Reason: "starting", LoopAt: time.Now()})
	return n
}

// bootstrapConfig is the dynamic configuration that a new cluster gets: what the file says, with our defaults.
func bootstrapConfig(file map[string]any) map[string]any {
	merged := cluster.DefaultDynamic()
	if file["ttl"] != nil || file["loop_wait"] != nil || file["retry_timeout"] != nil {
		// A file that names one of the three was written with Patroni's others in mind (design section 4).
		delete(merged, "ttl")
		delete(merged, "loop_wait")
		delete(merged, "retry_timeout")
	}
	for k, v := range file {
		merged[k] = v
	}
	return merged
}

// Run runs the member until ctx ends, then hands the leadership over, stops PostgreSQL (unless the cluster is paused),
// and returns nil. It returns an error when the node cannot go on at all: another member runs under this name, the
// state folder or the guard cannot be used. Run may be called once.
func (n *Node) Run(ctx context.Context) error {
	defer close(n.gone)
	if err := n.open(ctx); err != nil {
		return err
	}
	defer n.calls.Close(callbackGrace)
	defer func() { _ = n.guard().Close() }()
	// The loop outlives ctx: the orderly end needs the store and PostgreSQL.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var done sync.WaitGroup
	defer done.Wait()
	defer end()

	n.observer = newObserver(n)
	done.Go(func() { n.observer.run(life) })
	done.Go(func() { n.watch(life) })
	done.Go(func() { n.guardEvents(life, n.guard()) })
	stop := context.AfterFunc(ctx, func() {
		n.post(life, func() { n.stopping, n.stopAt = true, n.clock.Now() })
	})
	defer stop()

	var deadline <-chan time.Time
	for turn := 0; ; turn++ {
		d, again := n.turn(life)
		if turn == 0 && n.cfg.Ready != nil {
			n.cfg.Ready()
		}
		if n.detaching.Load() && n.task == nil {
			n.log.Info("detached: the guard and PostgreSQL go on, a primary until its deadline if no agent comes back")
			return nil
		}
		if n.stopping && d.Reason == policy.ReasonStopped {
			if !n.dynamic.Pause {
				n.endGuard(life)
			}
			return nil
		}
		if n.stopping && deadline == nil {
			deadline = time.After(n.cfg.StopTimeout)
		}
		if !n.wait(life, d.Wake, again, deadline) {
			return fmt.Errorf("ha: %s did not stop in order within %v (%s: %s); the guard fences what is left at its deadline",
				n.cfg.Name, n.cfg.StopTimeout, d.Reason, d.Detail)
		}
	}
}

// endGuard ends the guard, which has nothing to guard any more. One that stays ends by itself after a while.
func (n *Node) endGuard(ctx context.Context) {
	if g, ok := n.guard().(interface{ Shutdown(context.Context) error }); ok {
		call, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := g.Shutdown(call); err != nil {
			n.log.Warn("the guard stays for a while", "error", err)
		}
	}
}

// open connects to the guard, and loads what survived.
func (n *Node) open(ctx context.Context) error {
	if err := os.MkdirAll(n.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("ha: the state folder cannot be made: %w", err)
	}
	s, err := loadState(n.cfg.StateDir)
	if err != nil {
		return err
	}
	n.state = s
	n.readDynamicFile()
	if g := n.cfg.Guard; g != nil {
		n.held.Store(&guardRef{g})
	} else {
		g, err := fence.Open(ctx, n.fenceConfig())
		if err != nil {
			return fmt.Errorf("ha: the guard: %w", err)
		}
		n.held.Store(&guardRef{g})
	}
	st, err := n.guard().State(ctx)
	if err != nil {
		return fmt.Errorf("ha: the guard: %w", err)
	}
	n.guardState = st
	n.sayFence(st)
	n.voter.Store(openVoter(n.cfg.StateDir, st.BootID, n.clock, n.log, func() time.Duration { return time.Duration(n.ttl.Load()) }))
	n.newLease(st)
	return nil
}

// newLease starts the lease under the nonce of the guard (rule R11): a new guard is a new identity.
func (n *Node) newLease(st fence.State) {
	last := n.lease
	n.lease = dcs.NewLease(dcs.Identity{
		Name: n.cfg.Name, Nonce: st.Nonce,
		Instance: fmt.Sprintf("%s/%d", st.BootID, os.Getpid()), Earlier: st.Earlier,
	})
	n.lease.KnowTTL(n.dynamic.TTL)
	if last != nil {
		n.lease.Remember(last)
	}
	n.lease.Resume(st.Epoch, st.Open && st.Deadline > n.clock.Now(), st.Deadline)
}

// post hands f to the loop and wakes it.
func (n *Node) post(ctx context.Context, f func()) {
	select {
	case n.inbox <- f:
	case <-ctx.Done():
	}
}

// wait waits for news, or until wake has passed. It returns false when the time for an orderly end is over.
func (n *Node) wait(ctx context.Context, wake time.Duration, again bool, deadline <-chan time.Time) bool {
	if again {
		n.hot++
		// A turn that changed something is followed by another at once; a row of them is slowed down, so that
		// nothing loops hot whatever the store answers.
		wake = 0
		if n.hot > 4 {
			wake = min(time.Duration(n.hot)*10*time.Millisecond, 500*time.Millisecond)
		}
	} else {
		n.hot = 0
	}
	if wake > 0 || !again {
		timer := n.clock.Timer(max(wake, 5*time.Millisecond))
		defer timer.Stop()
		select {
		case f := <-n.inbox:
			f()
		case <-timer.C():
		case <-deadline:
			return false
		}
	}
	for {
		select {
		case f := <-n.inbox:
			f()
		case <-deadline:
			return false
		default:
			return true
		}
	}
}

// watch wakes the loop when a key changed that decides something. Positions (members, status) do not: every write
// would wake every node (design section 6).
func (n *Node) watch(ctx context.Context) {
	keys := []string{dcs.KeyLease, dcs.KeyLeader, cluster.KeyFailover, cluster.KeyConfig, cluster.KeySync, cluster.KeyInitialize}
	for ctx.Err() == nil {
		events, err := n.store.Watch(ctx, keys...)
		if err != nil {
			// The loop's own reads report what is wrong with the store.
			if !sleep(ctx, n.clock, time.Second) {
				return
			}
			continue
		}
		for range events {
			n.post(ctx, func() {})
		}
	}
}

// sleep waits for d; it returns false when ctx ended first.
func sleep(ctx context.Context, clock dcs.Clock, d time.Duration) bool {
	t := clock.Timer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// turn is one turn of the loop: look, decide, act. again says that the world has just been changed, so that the next
// turn should not wait.
func (n *Node) turn(ctx context.Context) (d policy.Decision, again bool) {
	began := time.Now()
	if n.reload.Swap(false) {
		n.doReload()
	}
	v := n.look(ctx)
	d = policy.Decide(v, n.policyConfig())
	n.announce(v, d)
	ended := n.traced(v, d)
	outcome, again := n.act(ctx, v, d)
	n.expireWishes(d)
	n.publish(ctx)
	n.sendReport(v, d)
	n.remember(v, d, outcome, began, ended)
	return d, again
}
