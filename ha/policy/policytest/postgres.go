package policytest

import (
	"errors"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres/wal"
)

type pgState int

const (
	pgStopped pgState = iota
	pgStarting
	pgRunning
	pgStopping
)

// postgres is a running server: a postmaster and its sessions; disk is what survives it.
type postgres struct {
	state     pgState
	master    *process // the postmaster: while it stands still it takes no signal in, and its sessions go on
	parent    *guard   // whose child it is; nil: started by hand, or by Patroni
	asPrimary bool     // how the guard started or promoted it
	primary   bool     // out of recovery: it accepts writes
	epoch     uint64   // the epoch it was started or promoted under; 0 beside a Patroni agent
	life      int      // changes whenever the postmaster begins or ends
	frozen    time.Duration
	promoting bool
	marking   bool // standby.signal is about to be written
	unmarked  bool // started by hand without it, and the model's named exception: see disk.window

	upstream  string // primary_conninfo in force
	streaming bool
	source    *Node        // where the receiver is connected to
	pending   bool         // WAL is on its way
	busy      []*statement // in flight
	task      func(error)  // whoever waits for the start or the promotion
	onExit    []func()
}

// disk is a data directory.
type disk struct {
	data       policy.Data
	tip        *record // the end of the flushed WAL
	wasPrimary bool    // pg_control was last written by a primary
	clean      bool    // shut down cleanly
	atRest     bool    // it holds standby.signal: whoever starts it gets a replica (hazard A17)
	window     bool    // it ended between a start or promotion as primary and the writing of standby.signal
	upstream   string  // primary_conninfo in its configuration
	measured   bool    // the end of the WAL of a stopped server was read
	newest     wal.Timeline
	control    wal.Timeline        // timeline of the latest checkpoint in pg_control
	promotions []cluster.Promotion // what the node knows of the promotions its WAL came through; ascending
	intent     *intent             // a promotion that was ordered and whose timeline is not known yet
	tainted    bool                // mixed through a promotion by a Patroni member, which leaves no identity
	mixed      bool                // it holds WAL or blocks of two branches: what must never happen
}

type intent struct {
	id   string
	from wal.Position
}

// writable says that the server serves clients who write at this instant.
func (n *Node) writable() bool {
	return n.pg.state == pgRunning && n.pg.primary && n.pg.frozen <= n.w.now
}

// accepts says that the server takes a new connection: sessions go on without their postmaster, new ones need it.
func (n *Node) accepts() bool {
	return n.pg.state == pgRunning && n.pg.frozen <= n.w.now && !n.pg.master.still()
}

var (
	errPortInUse   = errors.New("a postmaster runs already")
	errNoData      = errors.New("the data directory cannot be started")
	errGone        = errors.New("the postmaster exited")
	errInjected    = errors.New("failed as the story says")
	errUnclean     = errors.New("PostgreSQL was not shut down cleanly")
	errUnreachable = errors.New("the member cannot be reached")
	errOrphans     = errors.New("processes of the last postmaster are left")
)

// start is how a postmaster is started.
type start struct {
	parent   *guard // nil: by hand, or by Patroni
	primary  bool
	upstream string
	epoch    uint64
}

// pgStart starts a postmaster; done is called when it accepts connections or failed. PostgreSQL itself refuses while
// anything of an earlier postmaster is attached to its shared memory.
func (n *Node) pgStart(s start, done func(error)) {
	w := n.w
	switch {
	case n.pg.state != pgStopped:
		done(errPortInUse)
		return
	case len(n.orphans) > 0:
		done(errOrphans)
		return
	case n.disk.data != policy.DataReady:
		done(errNoData)
		return
	case n.take("start"):
		done(errInjected)
		return
	}
	if s.primary {
		w.checkStartPrimary(n, s)
	}
	life := n.pg.life + 1
	n.pg = postgres{
		state: pgStarting, parent: s.parent, asPrimary: s.primary, epoch: s.epoch, life: life, upstream: s.upstream, task: done,
		master: &process{n: n}, marking: s.primary && s.parent != nil && !w.broken(MistakeNoSignal),
		unmarked: s.primary && n.disk.window && s.parent == nil,
	}
	d := w.span(100*time.Millisecond, 200*time.Millisecond, 600*time.Millisecond)
	if !n.disk.clean {
		d += w.span(100*time.Millisecond, 300*time.Millisecond, 3*time.Second) // crash recovery
	}
	n.disk.clean, n.disk.measured, n.disk.atRest, n.disk.upstream = false, false, !s.primary, s.upstream
	if s.parent != nil && s.primary {
		s.parent.arm()
	}
	n.pg.master.post(d, func() { n.started(life) })
}

// started is when recovery ends, or a replica has reached consistency.
func (n *Node) started(life int) {
	w := n.w
	if n.pg.life != life || n.pg.state != pgStarting {
		return
	}
	n.pg.state = pgRunning
	n.pendingRestart, n.tooLow = false, false
	if n.pg.asPrimary {
		n.disk.control = n.disk.tip.branch.tli // recovery ends with a checkpoint
		n.opened()
		w.logf(n, "postgres: primary %s", position(n.disk.tip))
	} else {
		n.disk.wasPrimary = false
		w.logf(n, "postgres: replica %s%s", position(n.disk.tip), of(n.pg.upstream))
		n.connect()
	}
	n.settled(nil)
}

// settled tells whoever waits for a start or a promotion what came of it.
func (n *Node) settled(err error) {
	if done := n.pg.task; done != nil {
		n.pg.task = nil
		done(err)
	}
}

// pgPromote promotes the running replica; id is what was recorded durably before.
func (n *Node) pgPromote(epoch uint64, id string, patroni bool, done func(error)) {
	w := n.w
	if n.pg.state != pgRunning || n.pg.primary {
		done(errGone)
		return
	}
	if n.take("promote") {
		done(errInjected)
		return
	}
	life := n.pg.life
	n.pg.asPrimary, n.pg.epoch, n.pg.promoting, n.pg.task = true, epoch, true, done
	n.pg.streaming, n.pg.source, n.pg.pending = false, nil, false
	if n.pg.parent != nil {
		n.pg.parent.arm()
	}
	n.pg.master.post(w.span(50*time.Millisecond, 100*time.Millisecond, 800*time.Millisecond), func() {
		if n.pg.life != life || n.pg.state != pgRunning {
			return
		}
		n.disk.newest = max(n.disk.newest, n.disk.tip.branch.tli) + 1
		w.promotions++
		n.disk.tip = n.disk.tip.fork(n.disk.newest, id, patroni)
		n.pg.promoting = false
		w.mixed = w.mixed || patroni
		w.logf(n, "postgres: promoted, timeline %d from %v", n.disk.newest, n.disk.tip.branch.start)
		n.disk.atRest = false // PostgreSQL removes it
		n.pg.marking = !patroni && !w.broken(MistakeNoSignal)
		n.opened()
		control := n.disk.newest
		w.after(w.span(0, 100*time.Millisecond, 2*time.Second), func() { // the end-of-recovery checkpoint
			if n.pg.life == life && n.pg.state == pgRunning {
				n.disk.control = control
			}
		})
		n.settled(nil)
	})
}

// opened is the moment from which clients can write. From then on the guard may write standby.signal: a server that
// starts would read it.
func (n *Node) opened() {
	n.pg.primary = true
	n.disk.wasPrimary = true
	if n.disk.control == 0 {
		n.disk.control = n.disk.tip.branch.tli
	}
	n.w.openedPrimary(n)
	n.w.feed(n)
	if n.pg.marking {
		life := n.pg.life
		n.pg.parent.post(n.w.span(0, 20*time.Millisecond, 300*time.Millisecond), func() {
			if n.pg.life == life {
				n.disk.mark(n.w)
				n.pg.marking = false
			}
		})
	}
	if n.w.opt.Writes > 0 {
		n.Write(100)
		n.keepWriting(n.pg.life)
	}
}

// mark writes standby.signal: the directory is at rest, whatever becomes of its server.
func (d *disk) mark(w *World) {
	if d.data == policy.DataReady && !w.broken(MistakeNoSignal) {
		d.atRest, d.window = true, false
	}
}

// pgStop sends SIGINT, a fast shutdown; done is called when nothing is left, however that came.
func (n *Node) pgStop(done func()) {
	if n.pg.state == pgStopped {
		done()
		return
	}
	n.pg.onExit = append(n.pg.onExit, done)
	life := n.pg.life
	n.pg.master.run(func() { n.shutdown(life) })
}

// shutdown is the fast shutdown: nobody is served from now on, what the walsenders hold is shipped, and a primary writes
// its shutdown checkpoint.
func (n *Node) shutdown(life int) {
	if n.pg.life != life || n.pg.state == pgStopping {
		return
	}
	w := n.w
	starting := n.pg.state == pgStarting
	n.pg.state = pgStopping
	endStatements(n.pg.busy)
	n.pg.busy = nil
	if n.pg.primary {
		n.disk.tip = n.disk.tip.append(shutdownCheckpoint)
		w.lineMoved(n)
		w.feed(n)
	}
	n.pg.master.post(w.span(20*time.Millisecond, 100*time.Millisecond, 900*time.Millisecond), func() {
		if n.pg.life != life || n.pg.state != pgStopping {
			return
		}
		n.disk.clean = !starting
		if n.pg.primary {
			n.disk.control = n.disk.tip.branch.tli
			w.ship(n)
		}
		n.exit("stopped")
	})
}

const shutdownCheckpoint wal.LSN = 0x78

// pgQuit sends SIGQUIT: the postmaster ends, and every session with it, a busy one too.
func (n *Node) pgQuit(life int, why string) {
	if n.pg.life != life || n.pg.state == pgStopped {
		return
	}
	n.pg.master.run(func() {
		n.w.after(n.w.lag(), func() {
			if n.pg.life == life && n.pg.state != pgStopped {
				n.pgCrash(why)
			}
		})
	})
}

// pgKill sends SIGKILL to everything.
func (n *Node) pgKill(why string) {
	n.endOrphans()
	if n.pg.state != pgStopped {
		n.pgCrash(why)
	}
}

// pgCrash is the end of the postmaster and everything below it, at once.
func (n *Node) pgCrash(why string) {
	endStatements(n.pg.busy)
	n.disk.clean = false
	n.exit(why)
}

// exit is the end of the postmaster. Its guard sees it; without one the agent does.
func (n *Node) exit(why string) {
	w := n.w
	if !n.pg.primary && n.disk.tip != nil {
		n.disk.control = n.disk.tip.branch.tli // the minimum recovery point's timeline
	}
	n.disk.window = n.disk.window || n.pg.marking
	old := n.pg
	old.master.dead = true
	n.pg = postgres{life: old.life + 1}
	w.logf(n, "postgres: %s", why)
	w.serverDown(n)
	if old.task != nil {
		old.task(errGone)
	}
	if old.parent != nil {
		old.parent.run(func() { old.parent.reap(old.onExit) })
		return
	}
	for _, f := range old.onExit {
		f()
	}
	n.tell()
}

// server is the node whose PostgreSQL answers under a member's published address.
func (w *World) server(member string) *Node { return w.nodeOf(member) }

func position(r *record) string {
	if r == nil {
		return "without data"
	}
	return r.position().String()
}

func of(upstream string) string {
	if upstream == "" {
		return ", following nobody"
	}
	return ", following " + upstream
}
