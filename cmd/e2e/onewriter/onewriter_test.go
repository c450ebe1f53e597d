package onewriter

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// clusters is how many are used side by side: most of a run is waiting.
const clusters = 2

// tries is how often a run that does not count is made again.
const tries = 3

// TestOneWriter is the proof: no overlap in any scenario, the named exception apart.
func TestOneWriter(t *testing.T) {
	prove(t, formByName(t, os.Getenv("RUNGS")), clusters, wanted(t, scenarios()), counted(t, 20, 1))
}

// TestWithPrivileges proves the scenarios that the optional rungs are there for, with them.
func TestWithPrivileges(t *testing.T) {
	for _, f := range []form{privileged(), pidNamespace()} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			var some []scenario
			for _, s := range wanted(t, scenarios()) {
				switch s.name {
				case "A1-agent-killed", "A1-both-killed", "A2-both-frozen", "A4-postmaster-killed", "A5-postmaster-frozen-and-cut":
					some = append(some, s)
				}
			}
			prove(t, f, 1, some, counted(t, 20, 1))
		})
	}
}

// TestOtherStores proves the same over every store but etcd: in the short form the scenarios in which the store has a part.
func TestOtherStores(t *testing.T) {
	for _, store := range rig.Stores()[1:] {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			f := unprivileged()
			f.name, f.store = store, store
			some := slices.DeleteFunc(wanted(t, scenarios()), func(s scenario) bool { return !full() && !s.store })
			prove(t, f, 1, some, counted(t, 5, 1))
		})
	}
}

// prove makes so many counted runs of each scenario, on so many clusters, prints the table, and fails for every
// scenario with an overlap, an error, or too few runs.
func prove(t *testing.T, f form, clusters int, all []scenario, runs int) {
	t.Helper()
	t.Logf("SEED=%d", seed())
	queue := make(chan int, len(all))
	rows := make([]*row, len(all))
	for i := range all {
		// In a PID namespace nothing outlives the guard: there is no exception.
		all[i].excepted = all[i].excepted && f.name != pidNamespace().name
		rows[i] = &row{name: all[i].name}
		queue <- i
	}
	close(queue)
	t.Run("clusters", func(t *testing.T) {
		for i := range clusters {
			t.Run(fmt.Sprintf("%s-%d", f.name, i+1), func(t *testing.T) {
				t.Parallel()
				field := newField(t, f.options(t), f)
				for i := range queue {
					field.runs(t, all[i], rows[i], runs)
				}
			})
		}
	})
	t.Logf("%s\n%s", f.name, table(rows))
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			require.Zero(t, r.overlap(), "two nodes acknowledged at the same time")
			require.Empty(t, r.errors)
			require.Len(t, r.outcomes, runs, "counted runs")
		})
	}
}

// runs makes the runs of one scenario.
func (f *field) runs(t *testing.T, s scenario, r *row, runs int) {
	t.Helper()
	began := time.Now()
	dice := dice(s.name)
	for len(r.outcomes) < runs && r.repeated < tries*runs && len(r.errors) < tries {
		out, err := f.play(s, dice)
		switch {
		case err != nil:
			r.errors = append(r.errors, err.Error())
		case !out.counted:
			r.repeated++
		}
		if out.counted || out.overlap > 0 {
			r.outcomes = append(r.outcomes, out)
		}
	}
	t.Logf("%s: %d runs, %d repeated, %d errors, overlap %v, in %v", s.name, len(r.outcomes), r.repeated, len(r.errors), r.overlap(), time.Since(began).Round(time.Second))
}

// TestWithoutGuard is the positive control: with a guard that guards nothing, each of these hazards shows an overlap. A
// suite that finds none there could find none anywhere.
func TestWithoutGuard(t *testing.T) {
	t.Logf("SEED=%d", seed())
	var hazards []scenario
	for _, s := range wanted(t, scenarios()) {
		switch s.name {
		case "A1-agent-killed", "A4-postmaster-killed", "A5-postmaster-frozen-and-cut":
			hazards = append(hazards, s)
		case "A2-agent-frozen":
			s.inject = agentFrozenLong
			hazards = append(hazards, s)
		}
	}
	var mu sync.Mutex
	rows := map[string]*row{}
	queue := make(chan scenario, len(hazards))
	for _, s := range hazards {
		queue <- s
	}
	close(queue)
	t.Run("clusters", func(t *testing.T) {
		for i := range clusters {
			t.Run(fmt.Sprintf("unguarded-%d", i+1), func(t *testing.T) {
				t.Parallel()
				f := unguarded()
				field := newField(t, f.options(t), f)
				for s := range queue {
					r := field.untilOverlap(s)
					mu.Lock()
					rows[s.name] = r
					mu.Unlock()
				}
			})
		}
	})
	var list []*row
	for _, s := range hazards {
		list = append(list, rows[s.name])
	}
	t.Logf("without the guard\n%s", table(list))
	for _, r := range list {
		t.Run(r.name, func(t *testing.T) {
			require.NotZero(t, r.overlap(), "no overlap in %d runs, errors: %v", len(r.outcomes)+r.repeated, r.errors)
		})
	}
}

// untilOverlap makes up to ten runs, until one shows an overlap.
func (f *field) untilOverlap(s scenario) *row {
	r := &row{name: s.name}
	dice := dice(s.name)
	for range 10 {
		out, err := f.play(s, dice)
		if err != nil {
			r.errors = append(r.errors, err.Error())
		}
		if !out.counted && out.overlap == 0 {
			r.repeated++
			continue
		}
		r.outcomes = append(r.outcomes, out)
		if out.overlap > 0 {
			break
		}
	}
	return r
}

// agentFrozenLong freezes the agent for two ttl.
func agentFrozenLong(r *run) error {
	r.strike()
	r.freeze(r.agent())
	pause(context.Background(), 2*ttl)
	r.thaw(r.agent())
	return nil
}
