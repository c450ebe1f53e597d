package policytest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
)

// Options are what a World is made with. The zero value is a calm world: fixed durations, no faults, no output.
type Options struct {
	// Rand draws durations and delays; nil: every duration has its nominal value, so that stories read evenly.
	Rand *rand.Rand
	// Out receives one line for everything that happens; nil: nothing is formatted.
	Out func(line string)
	// Decide replaces policy.Decide; nil: policy.Decide itself.
	Decide func(policy.View, policy.Config) policy.Decision
	// Mistake breaks one rule; see Mistakes.
	Mistake Mistake
	// Net is how the network treats requests to the store and between members.
	Net Net
	// FenceLag is how late the signals of guard and kernel take effect, at most MaxFenceLag: with it the ladder, the kernel's
	// timer and a new guard's clearing up all end within FenceBound of package dcs.
	FenceLag time.Duration
	// Dishonest says that the store may end sessions early or that operators delete `leader`: what a Patroni member
	// does meanwhile is not held against anybody (lease rules, end of section 1).
	Dishonest bool
	// SessionSlack is how long after its ttl the store ends a session.
	SessionSlack time.Duration
	// Writes makes clients write to every primary about this often; 0: only the command `write` writes.
	Writes time.Duration
}

// Net is how requests fare. Probabilities are per request and need Options.Rand.
type Net struct {
	Latency     time.Duration // one way; 0: a millisecond
	Jitter      time.Duration // added at random
	LoseRequest float64       // the request never arrives
	LoseReply   float64       // it is performed, the reply is lost
	Late        float64       // it is performed late, up to LateBy, perhaps after its sender gave up or died
	LateBy      time.Duration
}

// World is a model cluster: a store, nodes with agent, guard and PostgreSQL, a network, and real time, which jumps from
// event to event. One World is used by one goroutine; the same Options and the same calls give the same events.
type World struct {
	opt    Options
	now    time.Duration
	seq    uint64
	queue  []event
	store  *store
	nodes  []*Node // in the order of their creation; never a map, so that the order is always the same
	hash   uint64
	events uint64

	violations []Violation
	truth      truth
	sysids     uint64
	promotions int
	wakesHeld  bool
	mixed      bool // a Patroni member was promoted
	instant    int  // events at this instant so far
	settings   []string
	cache      []*decoded // by key, ascending
	parsed     [2]parsedRecord
	lastNote   []byte // the note that note was read from
	note       cluster.Note
	zero       time.Duration // what printed times count from
	quiet      time.Duration // when something was last printed
}

type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

// NewWorld returns a world without nodes.
func NewWorld(opt Options) *World {
	if opt.Decide == nil {
		opt.Decide = policy.Decide
	}
	if opt.Net.Latency == 0 {
		opt.Net.Latency = time.Millisecond
	}
	w := &World{opt: opt, hash: 14695981039346656037}
	w.store = newStore(w)
	w.store.slack = opt.SessionSlack
	w.truth.init()
	return w
}

// Now is the real time since the world began.
func (w *World) Now() time.Duration { return w.now }

// Hash is a digest of everything that happened so far.
func (w *World) Hash() uint64 { return w.hash }

// at schedules do; events of one instant happen in the order in which they were scheduled.
func (w *World) at(t time.Duration, do func()) {
	w.seq++
	w.queue = append(w.queue, event{max(t, w.now), w.seq, do})
	for i := len(w.queue) - 1; i > 0; {
		p := (i - 1) / 2
		if !w.queue[i].before(w.queue[p]) {
			break
		}
		w.queue[i], w.queue[p] = w.queue[p], w.queue[i]
		i = p
	}
}

func (w *World) after(d time.Duration, do func()) { w.at(w.now+d, do) }

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

func (w *World) pop() event {
	e := w.queue[0]
	last := len(w.queue) - 1
	w.queue[0] = w.queue[last]
	w.queue[last] = event{}
	w.queue = w.queue[:last]
	for i := 0; ; {
		c := 2*i + 1
		if c >= last {
			break
		}
		if c+1 < last && w.queue[c+1].before(w.queue[c]) {
			c++
		}
		if !w.queue[c].before(w.queue[i]) {
			break
		}
		w.queue[i], w.queue[c] = w.queue[c], w.queue[i]
		i = c
	}
	return e
}

// Run lets d pass.
func (w *World) Run(d time.Duration) { w.RunUntil(d, func() bool { return false }) }

// RunUntil lets up to d pass, until done says so after some event; it says whether done did.
func (w *World) RunUntil(d time.Duration, done func() bool) bool {
	end := w.now + d
	for len(w.queue) > 0 && w.queue[0].at <= end {
		w.step()
		if done() {
			return true
		}
		if len(w.violations) > maxViolations {
			break
		}
	}
	w.now = max(w.now, end)
	return false
}

// instantEvents is how many events at one instant are taken for a loop that time does not get out of.
const instantEvents = 20_000

func (w *World) step() {
	e := w.pop()
	if w.now != e.at {
		w.instant = 0
	}
	w.now = e.at
	if w.instant++; w.instant == instantEvents {
		w.violate("HOT", "more than %d events at one instant", instantEvents)
		w.queue = nil // nothing more happens
		return
	}
	w.events++
	w.mix(uint64(e.at))
	w.mix(e.seq)
	e.do()
	w.check()
}

func (w *World) mix(x uint64) { w.hash = (w.hash ^ x) * 1099511628211 }

// logf reports that something happened at node n; nil: to the cluster as a whole.
func (w *World) logf(n *Node, format string, args ...any) {
	w.mix(uint64(len(format)))
	if n != nil {
		w.mix(uint64(n.index))
	}
	w.quiet = w.now
	if w.opt.Out == nil {
		return
	}
	who := "-"
	if n != nil {
		who = n.host
	}
	w.opt.Out(fmt.Sprintf("%7.2fs %s %s", (w.now - w.zero).Seconds(), who, fmt.Sprintf(format, args...)))
}

// span draws a duration between lo and hi; without Rand it is nominal.
func (w *World) span(lo, nominal, hi time.Duration) time.Duration {
	if w.opt.Rand == nil {
		return nominal
	}
	return lo + time.Duration(w.opt.Rand.Int64N(int64(hi-lo)+1))
}

func (w *World) chance(p float64) bool {
	return p > 0 && w.opt.Rand != nil && w.opt.Rand.Float64() < p
}

// storeChanged wakes whoever watches, after it was checked that the change was allowed.
func (w *World) storeChanged(by *Node, before []dcs.Item) {
	w.checkStore(by, before)
	for _, n := range w.nodes {
		n.watched(before)
	}
}

func (w *World) node(host string) *Node {
	for _, n := range w.nodes {
		if n.host == host {
			return n
		}
	}
	return nil
}

// Node is the node with that machine name; nil when there is none.
func (w *World) Node(host string) *Node { return w.node(host) }

// Nodes are the nodes in the order of their creation.
func (w *World) Nodes() []*Node { return w.nodes }

// Events is how many events happened.
func (w *World) Events() uint64 { return w.events }

// Mixed says that a healthy cluster is not promised: a Patroni member was promoted at some time, or only such are left, and
// they wait for each other.
func (w *World) Mixed() bool { return w.mixed || w.deferring() }
