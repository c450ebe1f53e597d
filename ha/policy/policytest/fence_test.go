package policytest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// state is how a process fares.
type state int

const (
	well state = iota
	dead
	still
)

func (s state) String() string { return [...]string{"well", "dead", "still"}[s] }

// TestFenceBound lets agent, guard and postmaster of a primary be well, dead or stand still, in every combination and at
// moments around the deadline, while a statement is in flight. Whoever of them is able to act ends everything within F after
// the deadline; where nobody is, and nowhere else, the named exception begins. Without any one of the means it is not so.
func TestFenceBound(t *testing.T) {
	for _, p := range fenceProblems(t, NoMistake) {
		t.Error(p)
	}
	for _, m := range []Mistake{MistakeNoGuard, MistakeNoKernelTimer, MistakeNoDeathSignal, MistakeLeftovers, MistakeOrphans} {
		if len(fenceProblems(t, m)) == 0 {
			t.Errorf("nothing shows the mistake %q", m)
		}
	}
}

func fenceProblems(t *testing.T, m Mistake) []string {
	t.Helper()
	before := []time.Duration{4 * time.Second, 1100 * time.Millisecond, 500 * time.Millisecond, 20 * time.Millisecond, 0,
		-100 * time.Millisecond, -190 * time.Millisecond, -290 * time.Millisecond}
	var problems []string
	for what := range state(27) {
		for i, left := range before {
			o := Options{Rand: rand.New(rand.NewPCG(uint64(what), uint64(i))), FenceLag: MaxFenceLag, Mistake: m}
			problems = append(problems, fenceOnce(t, o, [3]state{what % 3, what / 3 % 3, what / 9}, left)...)
		}
	}
	return problems
}

// fenceOnce cuts a primary from the store, does that to agent, guard and postmaster some time before the deadline, and
// says what is wrong F after it and later.
func fenceOnce(t *testing.T, o Options, states [3]state, left time.Duration) []string {
	t.Helper()
	s := NewStory(o, true)
	do := func(format string, args ...any) {
		if err := s.Do(fmt.Sprintf(format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	do("cluster a b")
	do("cut a store")
	w := s.World()
	n := w.node("a")
	deadline := n.believed.until
	do("run %v", n.realAt(deadline-left)-w.now)
	do("busy a 30s")
	helpless := true
	for i, commands := range [...][2]string{
		{"kill-agent", "freeze"}, {"kill-guard", "freeze-guard"}, {"kill-postmaster", "freeze-postmaster"},
	} {
		switch states[i] {
		case well:
			helpless = false
		case dead:
			do("%s a", commands[0])
		case still:
			do("%s a 1m", commands[1])
		}
	}
	do("run %v", n.realAt(deadline+dcs.FenceBound)-w.now)
	what := fmt.Sprintf("agent %v, guard %v, postmaster %v, %v before the deadline", states[0], states[1], states[2], left)
	var problems []string
	if n.mayAcknowledge() && !helpless {
		problems = append(problems, what+": it can still acknowledge writes F after the deadline")
	}
	do("run 31s")
	for _, v := range w.Violations() {
		problems = append(problems, what+": "+v.String())
	}
	return problems
}
