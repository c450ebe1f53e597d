package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/ha/policy/policytest"
)

// Options narrow what seeds play. The zero value is the whole range, with no mistake.
type Options struct {
	Mistake policytest.Mistake
	Focus   []string // kinds of faults that every seed plays
	Only    bool     // and no others
	Patroni bool     // every seed has a Patroni member
	Honest  bool     // no early ends of sessions, no operators who delete keys
	Late    bool     // requests may be performed late in every seed
	Twin    bool     // a second machine runs under the name of another (hazard A15)
	// Failsafe switches failsafe mode on in every seed, and plays its faults; otherwise in a third of them.
	Failsafe bool
	Plain    bool // no seed is in failsafe mode
}

// Result is what one seed came to.
type Result struct {
	Seed       uint64
	Violations []policytest.Violation
	Hash       uint64        // of every event
	Events     uint64        //
	Time       time.Duration // simulated
	Commands   []string      // the schedule: the story without its outputs
	Stuck      bool          // a cluster with Patroni members that did not become healthy: not promised, but counted
	Err        error         // a command of the schedule was not understood: a mistake in this package
}

// scheduleStream keeps the schedule's draws apart from the model's.
const scheduleStream = 0x7363686564

// settle is how long the cluster may take to become healthy after the last fault, beside three ttl (invariant L1): two
// elections, a crash recovery, and a base backup that fails once.
const settle = 60 * time.Second

// Run plays one seed.
func Run(seed uint64, o Options) Result {
	r := rand.New(rand.NewPCG(seed, scheduleStream))
	p := draw(r, seed, o)
	g := &generator{r: r, p: p, o: o, story: policytest.NewStory(policytest.Options{}, true)}
	g.do("%s", p.model)
	g.do("%s", p.cluster)
	if o.Twin {
		g.do("twin z %s", pick(r, p.names...))
	}
	if g.err == nil {
		g.play()
	}
	w := g.story.World()
	if w == nil {
		return Result{Seed: seed, Commands: g.commands, Err: g.err}
	}
	return Result{
		Seed: seed, Violations: w.Violations(), Hash: w.Hash(), Events: w.Events(), Time: w.Now(),
		Commands: g.commands, Err: g.err, Stuck: w.Mixed() && !w.Healthy() && !o.Twin,
	}
}

// Replay plays a schedule and returns what was violated.
func Replay(commands []string) []policytest.Violation {
	s := policytest.NewStory(policytest.Options{}, true)
	for _, c := range commands {
		if err := s.Do(c); err != nil {
			return nil
		}
		if s.World() != nil && len(s.World().Violations()) > 0 {
			break
		}
	}
	if s.World() == nil {
		return nil
	}
	return s.World().Violations()
}

// generator draws commands and plays them.
type generator struct {
	r        *rand.Rand
	p        profile
	o        Options
	story    *policytest.Story
	commands []string
	err      error
	forgot   bool
}

func (g *generator) do(format string, args ...any) {
	c := format
	if len(args) > 0 {
		c = fmt.Sprintf(format, args...)
	}
	g.commands = append(g.commands, c)
	if err := g.story.Do(c); err != nil && g.err == nil {
		g.err = err
	}
}

// bad says that playing on is of no use.
func (g *generator) bad() bool { return g.err != nil || len(g.story.World().Violations()) > 0 }

func (g *generator) play() {
	w := g.story.World()
	for !g.bad() && w.Now() < g.p.faults+20*time.Second {
		g.do("run %v", between(g.r, 0, g.p.pause))
		if g.bad() {
			return
		}
		g.fault()
	}
	if g.bad() {
		return
	}
	if o := g.o; o.Twin {
		return // two machines under one name never come to rest
	}
	g.do("calm")
	g.do("settle %v", settle+3*time.Duration(g.p.ttl)*time.Second)
	if !g.bad() {
		g.do("run 5s")
	}
}

// fault draws one fault and plays it; nodes that are down come back now and then.
func (g *generator) fault() {
	nodes := g.story.World().Nodes()
	for _, n := range nodes {
		if !n.Up() && g.r.IntN(3) == 0 {
			g.do("restart %s", n.Host())
		}
	}
	if g.r.IntN(4) == 0 {
		g.do("heal")
	}
	g.kind(pick(g.r, g.p.kinds...), pick(g.r, nodes...), pick(g.r, nodes...))
}

// kind plays one kind of fault on node n; m is another node.
func (g *generator) kind(kind string, n, m *policytest.Node) {
	r := g.r
	a, b := n.Host(), m.Host()
	if g.failsafe(kind, n) {
		return
	}
	switch kind {
	case "kill", "kill-agent", "kill-guard", "kill-postgres", "stop", "lose-reply", "end-session":
		g.do("%s %s", kind, a)
	case "freeze", "freeze-guard", "freeze-postmaster", "pause-node":
		g.do("%s %s %v", kind, a, between(r, 100*time.Millisecond, time.Duration(g.p.ttl)*2*time.Second))
	case "kill-postmaster", "busy", "lose-both", "still", "start-by-hand":
		g.processes(kind, n)
	case "cut":
		g.do("cut %s", a)
	case "cut-store":
		g.do("cut %s store", a)
	case "cut-pair":
		if a != b {
			g.do("cut %s %s", a, b)
		}
	case "slow-store", "slow-wal":
		g.do("%s %s %v", kind, a, between(r, 100*time.Millisecond, 4*time.Second))
	case "drift":
		g.do("drift %s %.3f", a, 0.9+0.2*r.Float64())
	case "swap":
		g.swap(n)
	case "wipe":
		g.wipe(n)
	case "fail":
		g.do("fail %s %s", a, pick(r, "promote", "start", "stop", "clone", "rewind"))
	case "tag":
		g.do("tag %s %s", a, pick(r, "nofailover=true", "nofailover=false", "failover_priority=2", "failover_priority=0"))
	default:
		g.operate(kind, a, b)
	}
}

// operate plays what an operator does.
func (g *generator) operate(kind, a, b string) {
	r := g.r
	switch kind {
	case "switchover":
		if p := g.primary(); p != "" {
			a = p
		}
		if r.IntN(3) == 0 || a == b {
			g.do("switchover %s", a)
		} else {
			g.do("switchover %s %s", a, b)
		}
	case "failover":
		g.do("failover %s", b)
	case "restart-postgres":
		if p := g.primary(); p != "" && r.IntN(3) > 0 {
			a = p
		}
		g.do("restart-postgres %s", a)
	case "schedule-restart":
		g.do("schedule-restart %v %s", between(r, 0, 10*time.Second), a)
	case "parameter-too-low", "cancel-reinit":
		g.do("%s %s", kind, a)
	case "reinit":
		g.do("reinit %s %s", a, pick(r, "force", "from-leader"))
	case "schedule":
		g.do("schedule %v %s %s", between(r, time.Second, 20*time.Second), a, b)
	case "pause":
		g.do("pause on")
		g.do("run %v", between(r, time.Second, 20*time.Second))
		g.do("pause off")
	case "ttl":
		g.do("set ttl=%d", pick(r, 4, 8, 10, 20))
	case "ttl-lost": // the reply to the renewal that lowers the ttl is lost, and the holder hears nothing more
		g.do("set ttl=20")
		g.do("run %v", between(r, 3*time.Second, 6*time.Second))
		if p := g.primary(); p != "" {
			g.do("set ttl=%d", pick(r, 4, 8))
			g.do("lose-reply %s", p)
			g.do("run %v", between(r, 0, 4*time.Second))
			g.do("cut %s store", p)
			g.do("run %v", between(r, 5*time.Second, 20*time.Second))
		}
	case "slow-cut": // the store answers slowly, then not at all
		if p := g.primary(); p != "" {
			g.do("slow-store %s %v", p, between(r, 500*time.Millisecond, 3*time.Second))
			g.do("run %v", between(r, time.Second, 6*time.Second))
			g.do("cut %s store", p)
		}
	case "kill-new": // a primary dies right after its promotion
		g.killNew()
	case "delete-leader":
		g.do("delete leader")
	case "delete-lease":
		g.do("delete lease")
	case "delete-initialize":
		g.do("delete initialize")
	case "garbage":
		g.do("put %s %s", pick(r, "lease", "failover", "config", "members/a", "history", "status", "sync"),
			pick(r, "{", "[]", "null", "nonsense", `{"epoch":"x"}`, "0", "{}"))
	}
}

// killNew waits for the next server that begins to accept writes, and ends its machine soon.
func (g *generator) killNew() {
	before := g.primary()
	if before != "" {
		g.do("kill %s", before)
	}
	const step = 100 * time.Millisecond
	waited := time.Duration(0)
	w := g.story.World()
	for waited < 3*time.Duration(g.p.ttl)*time.Second && g.primary() == "" && !g.bad() {
		w.Run(step)
		waited += step
	}
	g.commands = append(g.commands, fmt.Sprintf("run %v", waited))
	if p := g.primary(); p != "" && !g.bad() {
		g.do("run %v", between(g.r, 0, 300*time.Millisecond))
		g.do("kill %s", p)
	}
}

// primary is a node that accepts writes.
func (g *generator) primary() string {
	for _, n := range g.story.World().Nodes() {
		if n.Writable() {
			return n.Host()
		}
	}
	return ""
}

// swap changes the program of a node, in clusters that have Patroni members or by chance begin to.
func (g *generator) swap(n *policytest.Node) {
	if n.RunsPatroni() {
		g.do("swap %s pgregent", n.Host())
		return
	}
	g.do("swap %s patroni", n.Host())
}

// wipe loses a data directory, unless that could be the last copy.
func (g *generator) wipe(n *policytest.Node) {
	w := g.story.World()
	if w.Healthy() && !n.Writable() {
		g.do("wipe %s", n.Host())
	}
}

// Text is a schedule as a story.
func Text(r Result) string {
	var b strings.Builder
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "# %s\n", strings.ReplaceAll(strings.TrimSpace(v.String()), "\n", "\n#   "))
	}
	fmt.Fprintf(&b, "# Seed %d.\n\n", r.Seed)
	for _, c := range r.Commands {
		fmt.Fprintf(&b, "%s\n----\n\n", c)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// Shorten drops commands as long as what is left violates the same invariant.
func Shorten(commands []string, id string) []string {
	fails := func(c []string) bool {
		for _, v := range Replay(c) {
			if v.ID == id {
				return true
			}
		}
		return false
	}
	for size := max(1, (len(commands)-2)/2); size >= 1; size /= 2 {
		for i := 2; i+size <= len(commands); {
			if slices.Contains(commands[i:i+size], "calm") {
				i += size
				continue
			}
			shorter := append(append([]string(nil), commands[:i]...), commands[i+size:]...)
			if fails(shorter) {
				commands = shorter
			} else {
				i += size
			}
		}
	}
	return commands
}
