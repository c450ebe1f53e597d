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

// postgres is a running postmaster; disk is what survives it.
type postgres struct {
	state     pgState
	asPrimary bool   // how the guard started or promoted it
	primary   bool   // out of recovery: it accepts writes
	epoch     uint64 // the epoch it was started or promoted under; 0 beside a Patroni agent
	life      int    // changes whenever the postmaster begins or ends
	frozen    time.Duration
	promoting bool

	upstream  string // primary_conninfo in force
	streaming bool
	source    *Node // where the receiver is connected to
	pending   bool  // WAL is on its way
	onExit    []func()
}

// disk is a data directory.
type disk struct {
	data       policy.Data
	tip        *record // the end of the flushed WAL
	wasPrimary bool    // pg_control was last written by a primary
	clean      bool    // shut down cleanly
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

// writable says that the server can acknowledge a write at this instant.
func (n *Node) writable() bool {
	return n.pg.state == pgRunning && n.pg.primary && n.pg.frozen <= n.w.now
}

var (
	errPortInUse   = errors.New("a postmaster runs already")
	errNoData      = errors.New("the data directory cannot be started")
	errGone        = errors.New("the postmaster exited")
	errInjected    = errors.New("failed as the story says")
	errUnreachable = errors.New("the member cannot be reached")
)

// pgStart starts a postmaster; done is called when it accepts connections or failed.
func (n *Node) pgStart(asPrimary bool, upstream string, epoch uint64, done func(error)) {
	w := n.w
	switch {
	case n.pg.state != pgStopped:
		done(errPortInUse)
		return
	case n.disk.data != policy.DataReady:
		done(errNoData)
		return
	case n.take("start"):
		done(errInjected)
		return
	}
	if asPrimary {
		w.checkStartPrimary(n, epoch)
	}
	life := n.pg.life + 1
	n.pg = postgres{state: pgStarting, asPrimary: asPrimary, epoch: epoch, life: life, upstream: upstream}
	d := w.span(100*time.Millisecond, 200*time.Millisecond, 600*time.Millisecond)
	if !n.disk.clean {
		d += w.span(100*time.Millisecond, 300*time.Millisecond, 3*time.Second) // crash recovery
	}
	n.disk.clean, n.disk.measured = false, false
	w.after(d, func() {
		if n.pg.life != life || n.pg.state != pgStarting {
			done(errGone)
			return
		}
		n.pg.state = pgRunning
		if asPrimary {
			n.disk.control = n.disk.tip.branch.tli // recovery ends with a checkpoint
			n.opened()
			w.logf(n, "postgres: primary %s", position(n.disk.tip))
		} else {
			n.disk.wasPrimary = false
			w.logf(n, "postgres: replica %s%s", position(n.disk.tip), of(upstream))
			n.connect()
		}
		w.serverUp(n)
		done(nil)
	})
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
	n.pg.asPrimary, n.pg.epoch, n.pg.promoting = true, epoch, true
	n.pg.streaming, n.pg.source, n.pg.pending = false, nil, false
	w.after(w.span(50*time.Millisecond, 100*time.Millisecond, 800*time.Millisecond), func() {
		if n.pg.life != life || n.pg.state != pgRunning {
			done(errGone)
			return
		}
		n.disk.newest = max(n.disk.newest, n.disk.tip.branch.tli) + 1
		w.promotions++
		n.disk.tip = n.disk.tip.fork(n.disk.newest, id, patroni)
		n.pg.promoting = false
		w.mixed = w.mixed || patroni
		w.logf(n, "postgres: promoted, timeline %d from %v", n.disk.newest, n.disk.tip.branch.start)
		n.opened()
		control := n.disk.newest
		w.after(w.span(0, 100*time.Millisecond, 2*time.Second), func() { // the end-of-recovery checkpoint
			if n.pg.life == life && n.pg.state == pgRunning {
				n.disk.control = control
			}
		})
		w.serverUp(n)
		done(nil)
	})
}

// opened is the moment from which clients can write.
func (n *Node) opened() {
	n.pg.primary = true
	n.disk.wasPrimary = true
	if n.disk.control == 0 {
		n.disk.control = n.disk.tip.branch.tli
	}
	n.w.openedPrimary(n)
	n.w.feed(n)
	if n.w.opt.Writes > 0 {
		n.Write(100)
		n.keepWriting(n.pg.life)
	}
}

func (n *Node) keepWriting(life int) {
	w := n.w
	w.after(w.span(w.opt.Writes/4, w.opt.Writes, 2*w.opt.Writes), func() {
		if n.pg.life != life || n.pg.state != pgRunning {
			return
		}
		if n.writable() {
			n.Write(100)
		}
		n.keepWriting(life)
	})
}

// Write is one acknowledged transaction of so many bytes of WAL; the server accepts writes.
func (n *Node) Write(bytes wal.LSN) {
	n.disk.tip = n.disk.tip.append(bytes)
	n.w.written(n)
	n.w.feed(n)
}

// pgStop is a fast shutdown: nobody is served from now on, what the walsenders hold is shipped, and a primary writes
// its shutdown checkpoint. done is called when the postmaster is gone, however that came.
func (n *Node) pgStop(done func()) {
	if n.pg.state == pgStopped {
		done()
		return
	}
	n.pg.onExit = append(n.pg.onExit, done)
	if n.pg.state == pgStopping {
		return
	}
	w := n.w
	starting := n.pg.state == pgStarting
	n.pg.state = pgStopping
	if n.pg.primary {
		n.disk.tip = n.disk.tip.append(shutdownCheckpoint)
		w.lineMoved(n)
		w.feed(n)
	}
	life := n.pg.life
	w.after(w.span(20*time.Millisecond, 100*time.Millisecond, 900*time.Millisecond), func() {
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

// ship gives every replica that is connected and alive what the walsenders of a clean shutdown still hold.
func (w *World) ship(up *Node) {
	for _, n := range w.nodes {
		if n.pg.streaming && n.pg.source == up && n.pg.state == pgRunning && n.pg.frozen <= w.now && w.link(n, up) {
			n.disk.tip = up.disk.tip
			w.feed(n)
		}
	}
}

const shutdownCheckpoint wal.LSN = 0x78

// pgKill ends the postmaster and everything below it at once.
func (n *Node) pgKill(why string) {
	if n.pg.state == pgStopped {
		return
	}
	n.disk.clean = false
	n.exit(why)
}

func (n *Node) exit(why string) {
	w := n.w
	if n.pg.promoting {
		n.pg.promoting = false
	}
	if !n.pg.primary && n.disk.tip != nil {
		n.disk.control = n.disk.tip.branch.tli // the minimum recovery point's timeline
	}
	done := n.pg.onExit
	n.pg = postgres{life: n.pg.life + 1}
	w.logf(n, "postgres: %s", why)
	w.serverDown(n)
	for _, f := range done {
		f()
	}
	if n.agent != nil {
		n.agent.post(0, n.agent.wake) // the guard tells at once
	}
}

// connect is the receiver's attempt to stream from the server named in primary_conninfo.
func (n *Node) connect() {
	w := n.w
	if n.pg.state != pgRunning || n.pg.asPrimary || n.pg.streaming || n.pg.upstream == "" {
		return
	}
	up := w.server(n.pg.upstream)
	if up == nil || up == n || up.pg.state != pgRunning || up.pg.frozen > w.now || !w.link(n, up) {
		n.retry()
		return
	}
	if up.disk.tip.branch.sysid == n.disk.tip.branch.sysid && up.disk.tip.branch.tli >= n.disk.tip.branch.tli {
		n.disk.newest = max(n.disk.newest, up.disk.tip.branch.tli) // the history files come first
	}
	if !numbersAllow(n.disk.tip, up.disk.tip) {
		n.retry()
		return
	}
	w.checkStream(n, up)
	n.pg.streaming, n.pg.source = true, up
	n.received(n.pg.life, up, up.pg.life)
}

// walRetrieveRetry is PostgreSQL's wal_retrieve_retry_interval.
const walRetrieveRetry = 5 * time.Second

func (n *Node) retry() {
	life := n.pg.life
	up := n.pg.upstream
	n.w.after(walRetrieveRetry, func() {
		if n.pg.life == life && n.pg.upstream == up {
			n.connect()
		}
	})
}

// feed sends what the server has to whoever streams from it.
func (w *World) feed(up *Node) {
	for _, n := range w.nodes {
		if n.pg.streaming && n.pg.source == up && !n.pg.pending && n.disk.tip != up.disk.tip {
			n.pg.pending = true
			life, upLife, tip := n.pg.life, up.pg.life, up.disk.tip
			w.after(w.trip()+n.walDelay, func() {
				if n.pg.life != life || n.pg.source != up {
					return
				}
				n.pg.pending = false
				if n.pg.state != pgRunning && n.pg.state != pgStopping || !w.link(n, up) || n.pg.frozen > w.now {
					return
				}
				if tip.n > n.disk.tip.n {
					n.disk.tip = tip
					w.feed(n) // cascading replicas
				}
				n.received(life, up, upLife)
			})
		}
	}
}

func (n *Node) received(life int, up *Node, upLife int) {
	if n.pg.life == life && n.pg.source == up && up.pg.life == upLife {
		n.w.feed(up)
	}
}

// serverUp lets waiting receivers of n connect soon; serverDown ends the connections to it.
func (w *World) serverUp(*Node) {}

func (w *World) serverDown(up *Node) {
	for _, n := range w.nodes {
		if n.pg.source == up {
			n.disconnect()
		}
	}
}

func (n *Node) disconnect() {
	n.pg.streaming, n.pg.source, n.pg.pending = false, nil, false
	n.retry()
}

// follow re-points a running replica.
func (n *Node) follow(upstream string) {
	if n.pg.upstream == upstream {
		if !n.pg.streaming {
			n.connect()
		}
		return
	}
	n.pg.upstream = upstream
	n.pg.streaming, n.pg.source, n.pg.pending = false, nil, false
	n.connect()
}

// server is the node whose PostgreSQL answers under a member's published address.
func (w *World) server(member string) *Node {
	if n := w.nodeOf(member); n != nil {
		return n
	}
	return nil
}

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
