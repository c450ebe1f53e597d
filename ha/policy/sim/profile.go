package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/ha/policy/policytest"
)

// profile is what a seed draws before anything happens.
type profile struct {
	model   string   // the command model
	cluster string   // the command cluster
	kinds   []string // the kinds of faults that this seed plays, with repetitions as weights
	pause   time.Duration
	faults  time.Duration // how long faults are injected
	ttl     int
	names   []string
	early   bool // sessions may end early, operators delete leader
}

// kinds of faults and how often each is drawn when a seed plays it.
type kind struct {
	name   string
	weight int
}

func allKinds() []kind {
	return []kind{
		{"kill", 3}, {"kill-agent", 2}, {"kill-postgres", 2}, {"freeze", 3}, {"pause-node", 1}, {"cut", 2},
		{"cut-store", 3}, {"cut-pair", 2}, {"slow-store", 2}, {"slow-wal", 2}, {"lose-reply", 3}, {"drift", 1},
		{"switchover", 4}, {"failover", 1}, {"schedule", 1}, {"pause", 1}, {"ttl", 2}, {"delete-leader", 1},
		{"delete-lease", 1}, {"delete-initialize", 1}, {"end-session", 1}, {"swap", 2}, {"wipe", 1}, {"stop", 2},
		{"fail", 2}, {"tag", 1}, {"garbage", 1}, {"ttl-lost", 1}, {"slow-cut", 1}, {"kill-new", 1},
		{"kill-guard", 1}, {"freeze-guard", 2}, {"kill-postmaster", 2}, {"freeze-postmaster", 2}, {"busy", 1},
		{"lose-both", 1}, {"still", 1}, {"start-by-hand", 1},
	}
}

// early are the kinds with which a store or an operator lets a Patroni member in beside a pgregent that still holds.
func early(name string) bool {
	switch name {
	case "delete-leader", "end-session", "delete-lease", "garbage":
		return true
	}
	return false
}

func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64(hi-lo)+1)).Truncate(time.Millisecond)
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// draw draws a profile. Options.Focus are kinds that are always among those played.
func draw(r *rand.Rand, seed uint64, o Options) profile {
	p := profile{faults: between(r, 40*time.Second, 100*time.Second), pause: between(r, time.Second, 12*time.Second)}
	p.ttl = pick(r, 4, 8, 8, 8, 10, 20)
	p.kinds = drawKinds(r, o)
	for _, k := range p.kinds {
		p.early = p.early || early(k)
	}
	p.model = drawModel(r, seed, p.ttl, p.early, o.Late)
	if o.Mistake != "" {
		p.model += " mistake=" + strings.ReplaceAll(string(o.Mistake), " ", "_")
	}
	p.drawNodes(r, o)
	p.drawFailsafe(seed, o)
	return p
}

// operatorKinds are what operators ask of single nodes. They are played with Options.Focus alone, so that the seeds of
// the other runs stay what they are.
func operatorKinds() []string {
	return []string{"restart-postgres", "schedule-restart", "reinit", "cancel-reinit", "parameter-too-low"}
}

func drawKinds(r *rand.Rand, o Options) []string {
	var kinds []string
	honest := o.Honest || r.IntN(2) == 0
	for _, k := range allKinds() {
		played := r.IntN(3) == 0 && !o.Only
		for _, f := range o.Focus {
			played = played || f == k.name
		}
		if !played || honest && early(k.name) {
			continue
		}
		for range k.weight {
			kinds = append(kinds, k.name)
		}
	}
	if slices.Contains(kinds, "delete-lease") || slices.Contains(kinds, "garbage") {
		// Without both keys the store says that there is no cluster, which is how one asks for another one.
		kinds = slices.DeleteFunc(kinds, func(k string) bool { return k == "delete-initialize" })
	}
	for _, k := range operatorKinds() {
		if slices.Contains(o.Focus, k) {
			kinds = append(kinds, k, k)
		}
	}
	if len(kinds) == 0 {
		kinds = []string{"kill"}
	}
	return kinds
}

func drawModel(r *rand.Rand, seed uint64, ttl int, dishonest, late bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "model seed=%d writes=%v", seed, between(r, 300*time.Millisecond, 2*time.Second))
	slowest := pick(r, 5*time.Millisecond, 50*time.Millisecond, 200*time.Millisecond)
	if ttl < 8 { // three requests must fit into half of D
		slowest = min(slowest, 50*time.Millisecond)
	}
	fmt.Fprintf(&b, " jitter=%v", between(r, time.Millisecond, slowest))
	if r.IntN(2) == 0 {
		fmt.Fprintf(&b, " fence-lag=%v", between(r, 0, policytest.MaxFenceLag))
	}
	if r.IntN(2) == 0 {
		fmt.Fprintf(&b, " slack=%v", between(r, 0, 3*time.Second))
	}
	for _, fault := range []string{"lose-request", "lose-reply"} {
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, " %s=%.3f", fault, pick(r, 0.002, 0.01, 0.05))
		}
	}
	if late || r.IntN(3) == 0 {
		fmt.Fprintf(&b, " late=%.3f late-by=%v", pick(r, 0.005, 0.02, 0.1), between(r, time.Second, 25*time.Second))
	}
	if dishonest {
		b.WriteString(" dishonest")
	}
	return b.String()
}

func (p *profile) drawNodes(r *rand.Rand, o Options) {
	n := pick(r, 2, 3, 3, 3, 3, 4)
	p.names = []string{"a", "b", "c", "d"}[:n]
	patronis := 0
	if o.Patroni || r.IntN(5) == 0 {
		patronis = 1 + r.IntN(n-1)
	}
	var b strings.Builder
	b.WriteString("cluster")
	for i, name := range p.names {
		b.WriteString(" " + name)
		if i >= n-patronis {
			b.WriteString(":patroni")
		}
	}
	loop := pick(r, 1, 2, 2)
	fmt.Fprintf(&b, " ttl=%d loop_wait=%d retry_timeout=%d", p.ttl, loop, pick(r, 2, 3))
	p.cluster = b.String()
}
