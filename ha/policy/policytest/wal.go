package policytest

import (
	"github.com/pgregent/pgregent/postgres/wal"
)

// record is one record of the model's write-ahead log. Records form a tree: a server's WAL is the way from the root to
// its tip, so that copying WAL is copying a pointer and "the same content" is "the same record".
type record struct {
	parent *record
	branch *branch
	lsn    wal.LSN // where the record ends
	n      int     // distance from the root
}

// branch is one timeline as one promotion made it. Two branches may share a number: that is hazard B10.
type branch struct {
	tli     wal.Timeline
	start   wal.LSN
	parent  *branch
	sysid   string
	id      string // the promotion; empty for the first timeline, and for a promotion made by a Patroni member
	patroni bool
	history wal.History
}

// firstLSN is where the WAL of a new cluster ends.
const firstLSN wal.LSN = 0x3000000

// newCluster returns the first record of a cluster that initdb made.
func newCluster(sysid string) *record {
	b := &branch{tli: 1, start: firstLSN, sysid: sysid, history: wal.History{Tip: 1}}
	return &record{branch: b, lsn: firstLSN}
}

func (r *record) position() wal.Position { return wal.Position{Timeline: r.branch.tli, LSN: r.lsn} }

// append returns the record that follows r on the same timeline.
func (r *record) append(bytes wal.LSN) *record {
	return &record{parent: r, branch: r.branch, lsn: r.lsn + bytes, n: r.n + 1}
}

// fork returns the end-of-recovery record of a promotion at r.
func (r *record) fork(tli wal.Timeline, id string, patroni bool) *record {
	old := r.branch.history
	h := wal.History{Tip: tli, Switches: make([]wal.Switch, 0, len(old.Switches)+1)}
	h.Switches = append(h.Switches, old.Switches...)
	h.Switches = append(h.Switches, wal.Switch{Timeline: old.Tip, LSN: r.lsn, Reason: "no recovery target specified"})
	b := &branch{tli: tli, start: r.lsn, parent: r.branch, sysid: r.branch.sysid, id: id, patroni: patroni, history: h}
	return &record{parent: r, branch: b, lsn: r.lsn + endOfRecovery, n: r.n + 1}
}

const endOfRecovery wal.LSN = 0x60

// holds says that r's WAL contains x.
func (r *record) holds(x *record) bool {
	for r != nil && r.n > x.n {
		r = r.parent
	}
	return r == x
}

// common returns the last record that both contain, nil when there is none.
func (r *record) common(x *record) *record {
	for r != x {
		switch {
		case r == nil || x == nil:
			return nil
		case r.n > x.n:
			r = r.parent
		case x.n > r.n:
			x = x.parent
		default:
			r, x = r.parent, x.parent
		}
	}
	return r
}

// numbersAllow is PostgreSQL's own check before it streams from a server whose WAL ends at up: it compares timeline
// numbers and positions only, never content.
func numbersAllow(mine, up *record) bool {
	if mine.branch.sysid != up.branch.sysid {
		return false
	}
	if mine.branch.tli == up.branch.tli {
		return mine.lsn <= up.lsn
	}
	for _, s := range up.branch.history.Switches {
		if s.Timeline == mine.branch.tli {
			return mine.lsn <= s.LSN
		}
	}
	return false
}

// rewindTarget is what pg_rewind concludes from the two histories: needed is false when it says that no rewind is
// required; safe tells, from content, whether what it would copy makes the two the same.
func rewindTarget(mine, source *record, mineControl, sourceControl wal.Timeline) (needed, safe bool) {
	if mineControl == sourceControl {
		return false, source.holds(mine) || mine.holds(source)
	}
	fork := forkByNumbers(mine.branch, source.branch)
	if mine.lsn <= fork { // a direct ancestor, it says
		return false, source.holds(mine)
	}
	if c := mine.common(source); c == nil || c.lsn < fork {
		return true, false
	}
	return true, true
}

// forkByNumbers is where two histories part as far as numbers tell.
func forkByNumbers(a, b *branch) wal.LSN {
	ha, hb := a.history, b.history
	for i := 0; ; i++ {
		ta, ea := entry(ha, i)
		tb, eb := entry(hb, i)
		if ta == 0 || tb == 0 || ta != tb {
			if i == 0 {
				return 0
			}
			_, pa := entry(ha, i-1)
			_, pb := entry(hb, i-1)
			return min(pa, pb)
		}
		if ea != eb {
			return min(ea, eb)
		}
	}
}

// entry is the i-th timeline of a history and where it ended; the tip has no end.
func entry(h wal.History, i int) (wal.Timeline, wal.LSN) {
	switch {
	case i < len(h.Switches):
		return h.Switches[i].Timeline, h.Switches[i].LSN
	case i == len(h.Switches):
		return h.Tip, ^wal.LSN(0)
	default:
		return 0, 0
	}
}
