package policytest

import (
	"errors"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// reply is what a request to the store brings back.
type reply struct {
	snap    dcs.Snapshot
	result  dcs.Result
	session *session
	err     error
}

// link says whether a and b can talk to each other.
func (w *World) link(a, b *Node) bool {
	if a == b {
		return true
	}
	return !a.alone && !b.alone && a.cut&(1<<b.index) == 0
}

func (n *Node) storeLink() bool { return !n.cutStore && !n.alone }

// trip is one way through the network.
func (w *World) trip() time.Duration {
	d := w.opt.Net.Latency
	if w.opt.Rand != nil && w.opt.Net.Jitter > 0 {
		d += time.Duration(w.opt.Rand.Int64N(int64(w.opt.Net.Jitter)))
	}
	return d
}

var errNoTime = errors.New("no time is left before the fence")

// request sends one request of node n to the store: perform runs when it arrives, perhaps late, also after the sender
// is gone; done runs at the sender, once, with the reply or with ErrUnknown when limit has passed on n's clock.
func (n *Node) request(p *process, limit time.Duration, perform func() reply, done func(reply)) {
	w := n.w
	if limit <= 0 {
		p.post(0, func() { done(reply{err: errNoTime}) })
		return
	}
	giveUp := w.now + n.real(limit)
	fail := func() { p.postAt(giveUp, func() { done(reply{err: dcs.ErrUnknown}) }) }
	arrive := w.now + w.trip() + n.slowStore/2
	late := w.chance(w.opt.Net.Late)
	if late {
		arrive += w.span(0, 0, w.opt.Net.LateBy)
	}
	if !n.storeLink() || w.chance(w.opt.Net.LoseRequest) {
		fail()
		return
	}
	given := arrive >= giveUp
	if given {
		fail()
	}
	w.at(arrive, func() {
		if !late && !n.storeLink() { // a late one was under way before the link was cut
			if !given {
				fail()
			}
			return
		}
		r := perform()
		if given {
			return
		}
		back := w.now + w.trip() + n.slowStore/2
		if n.loseReply > 0 && r.result.Versions != nil {
			n.loseReply--
			w.logf(n, "the store's reply is lost")
			fail()
			return
		}
		if !n.storeLink() || back >= giveUp || w.chance(w.opt.Net.LoseReply) {
			fail()
			return
		}
		p.postAt(back, func() { done(r) })
	})
}

// process is one life of a program on a node: what was begun in it ends with it, and stands still while it is frozen.
type process struct {
	n        *Node
	dead     bool
	frozen   time.Duration // until then, in real time
	deferred []func()
	held     bool // the story holds it: see the command advance
}

// postAt runs do at time t in this process, later when it is frozen, never when it is dead.
func (p *process) postAt(t time.Duration, do func()) {
	p.n.w.at(t, func() { p.run(do) })
}

func (p *process) run(do func()) {
	switch {
	case p.dead:
	case p.held || p.still():
		p.deferred = append(p.deferred, do)
	default:
		do()
	}
}

func (p *process) post(d time.Duration, do func()) { p.postAt(p.n.w.now+d, do) }

// still says that the process stands still.
func (p *process) still() bool { return !p.dead && p.n.w.now < p.frozen }

// freeze stops the process for d of real time.
func (p *process) freeze(d time.Duration) {
	p.frozen = max(p.frozen, p.n.w.now+d)
	p.n.w.at(p.frozen, p.thaw)
}

// thaw runs what came in while the process stood still.
func (p *process) thaw() {
	if p.dead || p.held || p.still() {
		return
	}
	todo := p.deferred
	p.deferred = nil
	for _, do := range todo {
		p.run(do)
	}
}

// peerTimeout is how long a node waits for another member's HTTP answer.
const peerTimeout = time.Second

// ask sends a question to another node: answer runs there, done here, with ok false when nothing came back in time.
func (n *Node) ask(p *process, to *Node, answer func() bool, done func(ok bool)) {
	w := n.w
	giveUp := w.now + n.real(peerTimeout)
	fail := func() { p.postAt(giveUp, func() { done(false) }) }
	if to == nil || !w.link(n, to) {
		fail()
		return
	}
	w.after(w.trip(), func() {
		back := w.now + w.trip()
		if !w.link(n, to) || back >= giveUp || !answer() {
			fail()
			return
		}
		p.postAt(back, func() { done(true) })
	})
}
