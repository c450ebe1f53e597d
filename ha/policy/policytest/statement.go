package policytest

import (
	"slices"
	"time"

	"github.com/pgregent/pgregent/postgres/wal"
)

// statement is one in flight: a backend that is busy and acknowledges when it is done. It ends with its postmaster when
// that ends in order or by SIGQUIT, and outlives one that is killed (hazard A4): then it is an orphan.
type statement struct {
	n      *Node
	parent *guard // of the postmaster that it was started under
	epoch  uint64
	ends   time.Duration
	frozen time.Duration
	ended  bool
	// unmarked says that it runs on a server that was started by hand without standby.signal: see postgres.unmarked.
	unmarked bool
}

// Busy begins a statement that acknowledges after d; it says whether the server takes it.
func (n *Node) Busy(d time.Duration) bool {
	if !n.writable() {
		return false
	}
	s := &statement{n: n, parent: n.pg.parent, epoch: n.pg.epoch, ends: n.w.now + d, unmarked: n.pg.unmarked}
	n.pg.busy = append(n.pg.busy, s)
	n.w.at(s.ends, s.finish)
	return true
}

func (s *statement) finish() {
	n := s.n
	switch {
	case s.ended:
		return
	case n.w.now < s.ends: // it stood still meanwhile
		n.w.at(s.ends, s.finish)
		return
	}
	s.ended = true
	is := func(o *statement) bool { return o == s }
	n.pg.busy = slices.DeleteFunc(n.pg.busy, is)
	n.acknowledge(100, s.epoch)
	n.orphans = slices.DeleteFunc(n.orphans, is)
	if n.w.opt.Out != nil {
		n.w.logf(n, "postgres: a busy backend acknowledges %s", position(n.disk.tip))
	}
}

// stand keeps the backend still until then.
func (s *statement) stand(until time.Duration) {
	s.ends += max(until-max(s.frozen, s.n.w.now), 0)
	s.frozen = max(s.frozen, until)
}

func endStatements(list []*statement) {
	for _, s := range list {
		s.ended = true
	}
}

// endOrphans is SIGKILL to what a postmaster left.
func (n *Node) endOrphans() {
	endStatements(n.orphans)
	n.orphans = nil
}

// orphansOf counts what is left of a postmaster of that guard.
func (n *Node) orphansOf(g *guard) int {
	left := 0
	for _, s := range n.orphans {
		if s.parent == g {
			left++
		}
	}
	return left
}

// mayAcknowledge says that some client could be told at this instant that its write is done: sessions are served, or an
// orphan is busy.
func (n *Node) mayAcknowledge() bool {
	if n.writable() {
		return true
	}
	for _, s := range n.orphans {
		if s.frozen <= n.w.now {
			return true
		}
	}
	return false
}

// serving is the epoch of what may acknowledge, and the guard it was started under.
func (n *Node) serving() (uint64, *guard) {
	if n.pg.state == pgStopped && len(n.orphans) > 0 {
		return n.orphans[0].epoch, n.orphans[0].parent
	}
	return n.pg.epoch, n.pg.parent
}

// keepWriting lets clients write; some statements take their time.
func (n *Node) keepWriting(life int) {
	w := n.w
	w.after(w.span(w.opt.Writes/4, w.opt.Writes, 2*w.opt.Writes), func() {
		if n.pg.life != life || n.pg.state != pgRunning {
			return
		}
		switch {
		case !n.writable():
		case w.chance(busyShare):
			n.Busy(w.span(0, 0, longestStatement))
		default:
			n.Write(100)
		}
		n.keepWriting(life)
	})
}

const (
	busyShare        = 0.2
	longestStatement = 2 * time.Second
)

// Write is one transaction of so many bytes of WAL that is acknowledged at once; the server serves clients.
func (n *Node) Write(bytes wal.LSN) { n.acknowledge(bytes, n.pg.epoch) }

// acknowledge is the end of a transaction under an epoch: its WAL is flushed, and its client is told.
func (n *Node) acknowledge(bytes wal.LSN, epoch uint64) {
	n.disk.tip = n.disk.tip.append(bytes)
	n.w.acknowledged(n, epoch)
	n.w.lineMoved(n)
	n.w.feed(n)
}
