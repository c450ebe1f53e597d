package sim_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgregent/pgregent/ha/policy/policytest"
	"github.com/pgregent/pgregent/ha/policy/sim"
)

// full says that the long form was asked for: PROVE=full.
func full() bool { return os.Getenv("PROVE") == "full" }

// TestSeeds plays random schedules and shows every violation as a story. SEED=n plays that seed alone;
// FAILSAFE=1 plays all of them in failsafe mode.
func TestSeeds(t *testing.T) {
	o := sim.Options{Failsafe: os.Getenv("FAILSAFE") != ""}
	if s := os.Getenv("SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("SEED=%q is no number", s)
		}
		show(t, sim.Run(seed, o), true)
		return
	}
	seeds := uint64(300)
	if full() {
		seeds = 20_000
	}
	if s := os.Getenv("SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("SEEDS=%q is no number", s)
		}
		seeds = n
	}
	began := time.Now()
	var events, simulated, failed, stuck atomic.Int64
	var mu sync.Mutex
	kinds := map[string]int{}
	each(seeds, func(seed uint64) bool {
		r := sim.Run(seed, o)
		events.Add(int64(r.Events))
		simulated.Add(int64(r.Time))
		if r.Stuck {
			stuck.Add(1)
		}
		if r.Err != nil {
			t.Errorf("seed %d: %v", seed, r.Err)
		}
		if len(r.Violations) > 0 {
			mu.Lock()
			defer mu.Unlock()
			kinds[r.Violations[0].ID]++
			if failed.Add(1) <= 3 {
				show(t, r, false)
			} else {
				t.Errorf("seed %d: %s", seed, r.Violations[0])
			}
		}
		return failed.Load() < 50
	})
	took := time.Since(began)
	t.Logf("%d seeds, %v simulated, %d events in %v (%.0f seeds per second); failed: %d %v; with Patroni members and not healthy at the end: %d", seeds,
		time.Duration(simulated.Load()).Round(time.Second), events.Load(), took.Round(time.Millisecond),
		float64(seeds)/took.Seconds(), failed.Load(), kinds, stuck.Load())
}

// TestOperators plays what operators ask of single nodes (restart, reinitialize) among the faults.
func TestOperators(t *testing.T) {
	seeds := uint64(150)
	if full() {
		seeds = 5000
	}
	o := sim.Options{Focus: []string{"restart-postgres", "schedule-restart", "reinit", "cancel-reinit", "parameter-too-low"}}
	var shown atomic.Int64
	each(seeds, func(seed uint64) bool {
		r := sim.Run(seed, o)
		if r.Err != nil {
			t.Errorf("seed %d: %v", seed, r.Err)
		}
		if len(r.Violations) > 0 && shown.Add(1) <= 3 {
			show(t, r, false)
		}
		return shown.Load() < 10
	})
}

// each runs do for the seeds 1 to n, on every core, until it says false.
func each(n uint64, do func(seed uint64) bool) {
	var next atomic.Uint64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := next.Add(1); seed <= n && !stop.Load(); seed = next.Add(1) {
				if !do(seed) {
					stop.Store(true)
				}
			}
		})
	}
	wg.Wait()
}

// show prints a seed as a story: shortened, and with what happened.
func show(t *testing.T, r sim.Result, always bool) {
	t.Helper()
	if len(r.Violations) > 0 {
		r.Commands = sim.Shorten(r.Commands, r.Violations[0].ID)
	} else if !always {
		return
	}
	text, violations, err := policytest.Play(sim.Text(r), policytest.Options{})
	if err != nil {
		t.Errorf("seed %d: %v", r.Seed, err)
		return
	}
	if len(violations) > 0 || len(r.Violations) > 0 {
		t.Errorf("seed %d: %v\n%s", r.Seed, r.Violations, text)
		return
	}
	t.Logf("seed %d holds\n%s", r.Seed, text)
}

// TestDeterminism plays seeds twice and compares the digests of all events.
func TestDeterminism(t *testing.T) {
	each(20, func(seed uint64) bool {
		a, b := sim.Run(seed, sim.Options{}), sim.Run(seed, sim.Options{})
		if a.Hash != b.Hash || a.Events != b.Events {
			t.Errorf("seed %d: %d events with digest %x, then %d with %x", seed, a.Events, a.Hash, b.Events, b.Hash)
		}
		return true
	})
}

// TestReplay: a seed printed as a story violates, or not, what the seed did.
func TestReplay(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		r := sim.Run(seed, sim.Options{Mistake: policytest.MistakeNoGuard})
		again := sim.Replay(r.Commands)
		if fmt.Sprint(r.Violations) != fmt.Sprint(again) {
			t.Errorf("seed %d: %v as a seed, %v as a story", seed, r.Violations, again)
		}
	}
}

// TestMistakes plays every seeded mistake until an invariant notices it, and prints the table. The short form starts a rare
// mistake near a seed that is known to show it (Row.From); when a change of the rules moves that seed, PROVE=full finds
// the new one.
func TestMistakes(t *testing.T) {
	limit := uint64(600)
	if full() {
		limit = 5000
	}
	rows := sim.Mistakes()
	lines := make([]string, len(rows))
	var wg sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, row := range rows {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			id, seeds := find(row, limit)
			row.Mistake = ""
			if control := play(row, seeds); id != "" && len(control.Violations) > 0 {
				t.Errorf("seed %d shows %v without the mistake %q, too", seeds, control.Violations, rows[i].Mistake)
			}
			row.Mistake = rows[i].Mistake
			if id == "" {
				t.Errorf("the mistake %q was not noticed in %d seeds; expected: %v", row.Mistake, limit, row.Expect)
				id = "-"
			}
			lines[i] = fmt.Sprintf("| %-62s | %-4s | %5d |", row.Mistake, id, seeds)
		})
	}
	wg.Wait()
	t.Logf("\n| %-62s | %-4s | %5s |\n%s", "mistake", "by", "seed", strings.Join(lines, "\n"))
}

func play(row sim.Row, seed uint64) sim.Result {
	return sim.Run(seed, sim.Options{
		Mistake: row.Mistake, Focus: row.Focus, Only: row.Only, Patroni: row.Patroni, Honest: row.Honest, Late: row.Late, Twin: row.Twin, Failsafe: row.Failsafe, Plain: !row.Failsafe,
	})
}

func find(row sim.Row, limit uint64) (id string, seed uint64) {
	first := uint64(1)
	if !full() {
		first = max(first, row.From)
	}
	for seed := first; seed < first+limit; seed++ {
		r := play(row, seed)
		for _, v := range r.Violations {
			for _, want := range row.Expect {
				if v.ID == want {
					return v.ID, seed
				}
			}
		}
	}
	return "", limit
}
