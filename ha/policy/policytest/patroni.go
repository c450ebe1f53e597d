package policytest

import (
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
)

// patroni is a Patroni member reduced to what concerns its neighbours (reference sections 5.7 and 5.8): it knows the
// key `leader` only, keeps it by its session, races for it when it is gone, and demotes when its loop notices that it
// lost it. Nothing fences it.
type patroni struct {
	process
	w           *World
	session     string
	busy, again bool
	timer       int
	snap        dcs.Snapshot
	cl          cluster.Cluster
	working     bool
	reason      string
	published   string
	fs          patroniFailsafe
}

func (n *Node) startPatroni() {
	p := &patroni{process: process{n: n}, w: n.w}
	p.held = n.w.wakesHeld
	n.patroni, n.patroniAt = p, n.w.now
	n.w.logf(n, "Patroni starts")
	p.wake()
}

func (p *patroni) wake() {
	if p.busy {
		p.again = true
		return
	}
	p.busy = true
	p.post(0, p.cycle)
}

func (p *patroni) loopWait() time.Duration {
	if d := p.cl.Config.LoopWait; d > 0 {
		return d
	}
	return p.w.defaults().LoopWait
}

func (p *patroni) retryTimeout() time.Duration {
	if d := p.cl.Config.RetryTimeout; d > 0 {
		return d
	}
	return p.w.defaults().RetryTimeout
}

func (p *patroni) say(reason string) {
	if reason != p.reason {
		p.reason = reason
		p.w.logf(p.n, "patroni: %s", reason)
	}
}

// end ends a cycle: the next one comes after loop_wait, or at once when something happened meanwhile.
func (p *patroni) end() {
	p.publish(func() {
		p.busy = false
		p.timer++
		id := p.timer
		p.post(p.n.real(p.loopWait()), func() {
			if p.timer == id {
				p.wake()
			}
		})
		if p.again {
			p.again = false
			p.wake()
		}
	})
}

func (p *patroni) cycle() {
	p.again = false
	p.n.request(&p.process, p.retryTimeout(), func() reply { return reply{snap: p.w.store.snapshot()} }, func(r reply) {
		if r.err != nil {
			p.noStore()
			return
		}
		p.snap, p.cl = r.snap, p.w.decode(r.snap)
		if p.session != "" {
			p.decide()
			return
		}
		p.n.request(&p.process, p.retryTimeout(), p.openSession, func(r reply) {
			if r.err == nil {
				p.session = r.session.id
			}
			p.decide()
		})
	})
}

func (p *patroni) openSession() reply {
	ttl := p.cl.Config.TTL
	if ttl <= 0 {
		ttl = p.w.defaults().TTL
	}
	return reply{session: p.w.store.open(p.n, ttl, true)}
}

// noStore: a primary demotes when the store is not accessible, everybody else goes on.
func (p *patroni) noStore() {
	if p.n.pg.primary && p.n.pg.state == pgRunning {
		p.goOn(p.end)
		return
	}
	p.end()
}

func (p *patroni) decide() {
	key, held := p.snap.Item(dcs.KeyLeader)
	mine := held && key.Session == p.session && string(key.Value) == p.n.name
	switch {
	case p.working:
		if mine {
			p.keep()
			return
		}
		p.end()
	case p.n.disk.data != policy.DataReady:
		p.join(string(key.Value), held && !mine)
		p.end()
	case mine:
		p.lead()
	case held:
		p.follow(string(key.Value))
		p.end()
	case p.pretended() != "":
		p.follow(p.pretended())
		p.end()
	case p.n.pg.state == pgStopped:
		p.work(func(done func()) { p.n.pgStart(start{}, func(error) { done() }) })
		p.end()
	default:
		p.race()
	}
}

// keep renews the session; losing it, or not learning whether it was renewed, demotes a primary.
func (p *patroni) keep() {
	id := p.session
	p.n.request(&p.process, p.retryTimeout(), func() reply { return reply{err: p.w.store.renew(id)} }, func(r reply) {
		if r.err != nil {
			if r.err == dcs.ErrSessionLost {
				p.session = ""
			}
			if p.n.pg.primary {
				p.say("demoted self because failed to update leader lock")
				p.demote("")
			}
		}
		p.end()
	})
}

func (p *patroni) lead() {
	n := p.n
	f := p.cl.Failover
	switch {
	case n.pg.state == pgStopped && n.disk.wasPrimary:
		p.say("starting primary after failure")
		p.work(func(done func()) { n.pgStart(start{primary: true}, func(error) { done() }) })
	case n.pg.state == pgStopped:
		p.work(func(done func()) { n.pgStart(start{}, func(error) { done() }) })
	case n.pg.state == pgRunning && !n.pg.primary && !n.pg.promoting:
		p.say("promoted self to leader by acquiring session lock")
		p.work(func(done func()) {
			n.pgPromote(0, "", true, func(error) { done() })
		})
	case n.pg.primary && f.Requested() && f.Candidate != n.name && (f.Leader == "" || f.Leader == n.name):
		p.say("switchover: demote")
		p.release()
	default:
		p.say("no action. I am the leader with the lock")
	}
	p.keep()
}

// release stops PostgreSQL, then deletes `leader` at the version that was read.
func (p *patroni) release() {
	key, _ := p.snap.Item(dcs.KeyLeader)
	p.work(func(done func()) {
		p.n.pgStop(func() {
			p.run(func() {
				txn := dcs.Txn{If: []dcs.Cond{{Key: dcs.KeyLeader, Version: key.Version}}, Then: []dcs.Op{dcs.Delete(dcs.KeyLeader)}}
				p.n.request(&p.process, p.retryTimeout(), func() reply {
					r, err := p.w.store.commit(p.n, txn)
					return reply{result: r, err: err}
				}, func(reply) { done() })
			})
		})
	})
}

// work runs one asynchronous action; the loop goes on meanwhile.
func (p *patroni) work(body func(done func())) {
	p.working = true
	body(func() {
		p.run(func() {
			p.working = false
			p.wake()
		})
	})
}

// demote stops a primary at once and starts it again as a replica.
func (p *patroni) demote(upstream string) {
	if p.working {
		return
	}
	p.work(func(done func()) {
		p.n.pgStop(func() {
			p.run(func() { p.n.pgStart(start{upstream: upstream}, func(error) { done() }) })
		})
	})
}

func (p *patroni) follow(leader string) {
	n := p.n
	src := p.w.nodeOf(leader)
	switch {
	case leader == n.name:
		p.say("waiting for the key under the own name to vanish")
	case n.pg.state == pgRunning && n.pg.primary:
		p.say("demoting self because I do not have the lock and I was a leader")
		p.demote(leader)
	case n.pg.state == pgStopped:
		p.work(func(done func()) { n.pgStart(start{upstream: leader}, func(error) { done() }) })
	case n.pg.state == pgRunning && !n.pg.promoting:
		n.follow(leader)
		p.say("following " + leader)
		if !n.pg.streaming && src != nil && src.pg.state == pgRunning && src.pg.primary && p.w.link(n, src) &&
			!numbersAllow(n.disk.tip, src.disk.tip) {
			p.say("running pg_rewind from " + leader)
			p.work(func(done func()) { p.replace(src, leader, done) })
		}
	}
}

// join makes a base backup of the leader.
func (p *patroni) join(leader string, ok bool) {
	src := p.w.nodeOf(leader)
	if !ok || src == nil || src.pg.state != pgRunning || !src.pg.primary || !p.w.link(p.n, src) {
		p.say("waiting for leader to bootstrap")
		return
	}
	p.say("trying to bootstrap from leader " + leader)
	p.work(func(done func()) { p.replace(src, leader, done) })
}

// replace makes the data directory a copy of src and starts it as a replica.
func (p *patroni) replace(src *Node, leader string, done func()) {
	n := p.n
	n.pgStop(func() {
		p.run(func() {
			n.disk.data = policy.DataInterrupted
			life := src.pg.life
			p.post(p.w.span(500*time.Millisecond, time.Second, 4*time.Second), func() {
				if src.pg.life != life || src.pg.state != pgRunning || !p.w.link(n, src) {
					done()
					return
				}
				n.disk = disk{
					data: policy.DataReady, tip: src.disk.tip, newest: src.disk.newest, control: src.disk.control,
					mixed: src.disk.mixed, tainted: src.disk.tainted, measured: true,
				}
				p.w.copied(n, src)
				n.pgStart(start{upstream: leader}, func(error) { done() })
			})
		})
	})
}

// race: nobody holds the key. A member with at least as much WAL as every other that answers takes it.
func (p *patroni) race() {
	n := p.n
	f := p.cl.Failover
	var others []string
	for i := range p.cl.Members {
		if name := p.cl.Members[i].Name; name != n.name {
			others = append(others, name)
		}
	}
	left, healthiest := len(others), true
	judge := func() {
		if !healthiest || p.excluded() || p.session == "" || p.behindHistory() {
			p.say("following a different leader because I am not the healthiest node")
			if n.pg.primary && p.session != "" {
				p.demote("")
			}
			p.end()
			return
		}
		p.acquire()
	}
	if left == 0 {
		judge()
		return
	}
	for _, name := range others {
		var got policy.Peer
		to := p.w.nodeOf(name)
		n.ask(&p.process, to, func() bool { return to.answer(&got) }, func(ok bool) {
			if ok && to.agent != nil && to.agent.reason == policy.ReasonNotEligible {
				ok = false // its REST API says watchdog_failed: it cannot lead, so nobody waits for it
			}
			if ok && got.Running && (!got.InRecovery || n.disk.tip == nil || got.End.LSN > n.disk.tip.lsn) {
				healthiest = false
			}
			if ok && got.Running && f.Candidate == name {
				healthiest = false
			}
			if left--; left == 0 {
				judge()
			}
		})
	}
}

// behindHistory: a running primary takes the key only when the key history knows of no later timeline.
func (p *patroni) behindHistory() bool {
	lines := p.cl.History.Lines
	return p.n.pg.primary && len(lines) > 0 && p.n.disk.tip.branch.tli < lines[len(lines)-1].Timeline+1
}

func (p *patroni) acquire() {
	session := p.session
	txn := dcs.Txn{If: []dcs.Cond{{Key: dcs.KeyLeader}}, Then: []dcs.Op{dcs.PutSession(dcs.KeyLeader, []byte(p.n.name), session)}}
	if p.cl.Failover.Requested() {
		txn.Then = append(txn.Then, dcs.Put(cluster.KeyFailover, []byte("{}")))
	}
	p.n.request(&p.process, p.retryTimeout(), func() reply {
		r, err := p.w.store.commit(p.n, txn)
		return reply{result: r, err: err}
	}, func(r reply) {
		if r.err == dcs.ErrSessionLost {
			p.session = ""
		}
		if r.err == nil {
			p.say("acquired session lock as a leader")
			if p.n.pg.primary {
				p.w.openedPrimary(p.n)
			}
			if !p.working && p.n.pg.state == pgRunning && !p.n.pg.primary && !p.n.pg.promoting {
				p.work(func(done func()) {
					p.n.pgPromote(0, "", true, func(error) { done() })
				})
			}
		}
		p.again = true
		p.end()
	})
}

// publish keeps the session and the member record.
func (p *patroni) publish(done func()) {
	if p.session == "" {
		done()
		return
	}
	id := p.session
	p.n.request(&p.process, p.retryTimeout(), func() reply { return reply{err: p.w.store.renew(id)} }, func(r reply) {
		if r.err == dcs.ErrSessionLost {
			p.session = ""
		}
		value := string(p.n.memberValue(true, policy.TaskNone))
		if r.err != nil || value == p.published {
			done()
			return
		}
		txn := dcs.Txn{Then: []dcs.Op{dcs.PutSession(cluster.MembersPrefix+p.n.name, []byte(value), id)}}
		if n := p.n; n.pg.state == pgRunning && n.pg.primary && string(p.cl.Leader.Name) == n.name {
			txn.Then = append(txn.Then, p.failsafeKey()...)
			txn.Then = append(txn.Then, dcs.Put(cluster.KeyStatus, cluster.EncodeStatus(cluster.LeaderStatus{Optime: n.disk.tip.lsn})))
			if h := n.disk.tip.branch.history; len(h.Switches) > 0 && !sameHistory(p.cl.History.Lines, h) {
				txn.Then = append(txn.Then, dcs.Put(cluster.KeyHistory, n.historyValue(p.cl.History.Lines)))
			}
		}
		p.n.request(&p.process, p.retryTimeout(), func() reply {
			r, err := p.w.store.commit(p.n, txn)
			return reply{result: r, err: err}
		}, func(r reply) {
			if r.err == nil {
				p.published = value
			}
			done()
		})
	})
}
