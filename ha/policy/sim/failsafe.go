package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pgregent/pgregent/ha/policy/policytest"
)

// failsafeStream keeps the draw of failsafe mode apart, so that a seed without it plays what it always did.
const failsafeStream = 0x6661696c73616665

// drawFailsafe switches failsafe mode on in a third of the seeds, and adds the faults that concern it.
func (p *profile) drawFailsafe(seed uint64, o Options) {
	r := rand.New(rand.NewPCG(seed, failsafeStream))
	if o.Plain || !o.Failsafe && r.IntN(3) != 0 || o.Twin {
		return // which of two machines under one name has promised is beyond the rules (hazard A15)
	}
	p.cluster += " failsafe=on"
	if len(p.names) == 3 && (r.IntN(4) == 0 || o.Only) {
		p.cluster += " d e" // five members: two hold the leader up, and two others can vote
		p.names = append(p.names, "d", "e")
	}
	for _, k := range []kind{
		{"store-silent", 4}, {"holder-cut", 3}, {"voter-restart", 3}, {"voter-flip", 2}, {"list-lost", 2}, {"forget", 1},
	} {
		played := o.Failsafe || r.IntN(2) == 0
		if o.Only && !slices.Contains(o.Focus, k.name) {
			continue
		}
		for range k.weight {
			if played {
				p.kinds = append(p.kinds, k.name)
			}
		}
	}
}

// failsafe plays a fault of failsafe mode; it says whether kind is one.
func (g *generator) failsafe(kind string, n *policytest.Node) bool {
	r := g.r
	ttl := time.Duration(g.p.ttl) * time.Second
	var p, q, s string
	switch kind {
	case "holder-cut", "voter-restart", "voter-flip", "list-lost":
		if p, q, s = g.three(); p == "" {
			return true
		}
	}
	switch kind {
	case "store-silent": // for everybody, and something else happens meanwhile
		for _, m := range g.story.World().Nodes() {
			g.do("cut %s store", m.Host())
		}
		g.do("run %v", between(r, time.Second, 3*ttl))
		switch r.IntN(4) {
		case 0:
			g.do("kill %s", n.Host())
		case 1:
			g.do("cut %s", n.Host())
		}
		g.do("run %v", between(r, time.Second, 2*ttl))
		if r.IntN(2) == 0 {
			g.do("heal")
		}
	case "holder-cut":
		g.do("cut %s store", p)
		g.do("run %v", between(r, ttl/2, 3*ttl))
		if r.IntN(2) == 0 {
			g.do("cut %s %s", p, q)
		}
	case "voter-restart": // a member that has promised forgets what it only had in memory
		g.do("cut %s store", p)
		g.do("cut %s %s", p, s)
		g.do("run %v", between(r, ttl, 3*ttl))
		g.do("%s %s", pick(r, "kill-agent", "kill-agent", "kill"), q)
		if r.IntN(2) == 0 {
			g.do("cut %s %s", p, q)
		}
		g.do("run %v", between(r, 0, ttl/4))
		g.do("restart %s", q)
	case "voter-flip": // the holder has the promises of some members, then of others instead
		g.flip(p)
	case "list-lost": // the renewal that drops a member, or takes one back, is performed and its reply lost
		g.do("cut %s store", s)
		g.do("run %v", between(r, ttl/2, ttl*3/2))
		if r.IntN(3) == 0 {
			g.do("run %v", ttl)
			g.do("heal %s", s)
		}
		g.do("lose-reply %s", p)
		g.do("run %v", between(r, 0, 3*time.Second))
		g.do("cut %s store", p)
		g.do("cut %s %s", p, q)
		g.do("run %v", between(r, ttl, 3*ttl))
	case "forget": // once, and not the leader: a list of which half lost its memory cannot let anybody in
		if !g.forgot && g.story.World().Healthy() && !n.RunsPatroni() && !n.Writable() {
			g.forgot = true
			g.do("kill %s", n.Host())
			g.do("forget %s", n.Host())
			g.do("restart %s", n.Host())
		}
	default:
		return false
	}
	return true
}

// flip cuts the primary from the store, and leaves it links to just as many members as must promise; then one of those
// links is cut and another healed.
func (g *generator) flip(p string) {
	ttl := time.Duration(g.p.ttl) * time.Second
	others := g.others(p)
	most := (len(others)+1)/2 - 1 // links that stay
	if g.r.IntN(2) == 0 {
		g.do("tag %s nofailover=true", others[most]) // it will vote, and not stand against those who were cut off longer
	}
	for _, lost := range [][]string{others[most+1:], append([]string{others[most]}, others[min(most+2, len(others)):]...)} {
		g.do("heal %s", p)
		g.do("cut %s store", p)
		for _, o := range lost {
			g.do("cut %s %s", p, o)
		}
		g.do("run %v", between(g.r, ttl, 3*ttl))
	}
}

func (g *generator) others(p string) []string {
	var others []string
	for _, n := range g.story.World().Nodes() {
		if n.Host() != p {
			others = append(others, n.Host())
		}
	}
	g.r.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	return others
}

// three are a primary under the lease and two other nodes in a random order; empty without.
func (g *generator) three() (p, q, s string) {
	p = g.primary()
	others := g.others(p)
	if p == "" || len(others) < 2 {
		return "", "", ""
	}
	return p, others[0], others[1]
}
