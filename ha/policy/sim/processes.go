package sim

import (
	"time"

	"github.com/pgregent/pgregent/ha/policy/policytest"
)

// processes plays what befalls several processes of a node at one moment, or one of them with a statement in flight.
func (g *generator) processes(kind string, n *policytest.Node) {
	r := g.r
	if p := g.primary(); p != "" && r.IntN(4) > 0 { // nothing serves on the others
		n = g.story.World().Node(p)
	}
	a := n.Host()
	busy := func() {
		if n.Writable() {
			g.do("busy %s %v", a, between(r, 10*time.Millisecond, 2*time.Second))
		}
	}
	long := func() time.Duration { return between(r, 100*time.Millisecond, time.Duration(g.p.ttl)*2*time.Second) }
	switch kind {
	case "busy":
		busy()
	case "kill-postmaster":
		busy()
		g.do("kill-postmaster %s", a)
		if r.IntN(3) == 0 { // and the epoch ends right away
			g.do("%s", pick(r, "stop ", "switchover ", "kill-guard ")+a)
		}
	case "lose-both": // agent and guard, and perhaps the postmaster
		busy()
		if r.IntN(2) == 0 {
			g.do("%s %s", pick(r, "kill-postmaster", "kill-agent"), a)
		} else {
			g.do("freeze-postmaster %s %v", a, long())
		}
		g.do("kill-agent %s", a)
		g.do("kill-guard %s", a)
	case "still": // any two of the three stand still, or all
		busy()
		not := r.IntN(4)
		for i, what := range [...]string{"freeze", "freeze-guard", "freeze-postmaster"} {
			if i != not {
				g.do("%s %s %v", what, a, long())
			}
		}
	case "start-by-hand": // after a power cycle, by an administrator or a unit of the system
		if !n.Stopped() {
			g.do("kill %s", a)
			g.do("run %v", between(r, 0, time.Duration(g.p.ttl)*2*time.Second))
		}
		g.do("start-by-hand %s", a)
	}
}
