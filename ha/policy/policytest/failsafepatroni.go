package policytest

import (
	"maps"
	"slices"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres/wal"
)

// patroniFailsafe is failsafe mode of a Patroni member (reference section 5.17); its memory ends with the process.
type patroniFailsafe struct {
	leader string
	until  time.Duration
}

// accept is POST /failsafe: it remembers the leader for ttl.
func (p *patroni) accept(leader string) bool {
	if !p.cl.Config.FailsafeMode || p.n.pg.primary && p.n.pg.state == pgRunning {
		return false
	}
	p.fs.leader, p.fs.until = leader, p.n.clock()+p.cl.Config.TTL
	return true
}

// pretended is the leader that it pretends to see while the store shows none.
func (p *patroni) pretended() string {
	if p.n.clock() < p.fs.until {
		return p.fs.leader
	}
	return ""
}

// excluded: a member that a failsafe key does not list cannot win an election.
func (p *patroni) excluded() bool {
	m := p.cl.Failsafe.Members
	_, listed := m[p.n.name]
	return p.cl.Config.FailsafeMode && len(m) > 0 && !listed
}

// goOn asks every member of the failsafe key, and demotes unless all accept.
func (p *patroni) goOn(done func()) {
	n := p.n
	demote := func() {
		p.say("demoting self because DCS is not accessible and I was a leader")
		p.demote("")
		done()
	}
	listed := slices.Sorted(maps.Keys(p.cl.Failsafe.Members))
	if !p.cl.Config.FailsafeMode || !slices.Contains(listed, n.name) {
		demote()
		return
	}
	left, all := len(listed), true
	end := func(ok bool) {
		all = all && ok
		if left--; left > 0 {
			return
		}
		if !all {
			demote()
			return
		}
		p.say("continue to run as a leader because failsafe mode is enabled and all members are accessible")
		done()
	}
	for _, m := range listed {
		if m == n.name {
			p.post(0, func() { end(true) })
			continue
		}
		to := p.w.nodeOf(m)
		var yes bool
		n.call(&p.process, to, 2*time.Second, func() {
			if to.patroni != nil {
				yes = to.patroni.accept(n.name)
			} else {
				yes = to.agent.accept(n.name)
			}
		}, func(ok bool) { end(ok && yes) })
	}
}

// failsafeKey is the key `failsafe` as a Patroni leader writes it: every member with an address, and itself.
func (p *patroni) failsafeKey() []dcs.Op {
	if !p.cl.Config.FailsafeMode {
		return nil
	}
	urls := map[string]string{p.n.name: "http://" + p.n.host + ":8008/patroni"}
	for _, m := range p.cl.Members {
		if m.APIURL != "" {
			urls[m.Name] = m.APIURL
		}
	}
	value := cluster.EncodeFailsafe(urls)
	if it, ok := p.snap.Item(cluster.KeyFailsafe); ok && string(it.Value) == string(value) {
		return nil
	}
	return []dcs.Op{dcs.Put(cluster.KeyFailsafe, value)}
}

// deferring says that every node runs Patroni, and that those whom the key `failsafe` lists wait for one that it does not
// list and that has more WAL. They do so for ever, whoever wrote the key (reference sections 5.7.1 and 5.7.2).
func (w *World) deferring() bool {
	var listed, others wal.LSN
	for _, n := range w.nodes {
		switch {
		case n.patroni == nil:
			return false
		case n.pg.state != pgRunning || n.pg.primary || n.disk.tip == nil:
		case n.patroni.excluded():
			others = max(others, n.disk.tip.lsn)
		default:
			listed = max(listed, n.disk.tip.lsn)
		}
	}
	return w.store.item(dcs.KeyLeader).Version == dcs.Absent && listed > 0 && others > listed
}
