package dcstest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

func raceCases() []testCase {
	return []testCase{
		{name: "OneWinsTheCreation", run: raceCreate},
		{name: "OneWinsTheUpdate", run: raceUpdate},
		{name: "OneWinsTwoKeys", run: raceTwoKeys},
		{name: "OneWinsWithSessions", run: raceSessions},
		{name: "OneOfTwoWinsEachTime", run: raceLong},
		{name: "NoWriteSkew", run: raceSkew},
		{name: "SnapshotsAreConsistentCuts", run: raceCuts},
		{name: "HistoryIsLinearizable", run: historyQuiet},
		{name: "HistoryWithLostRepliesIsLinearizable", run: historyMuted, needs: "Mute"},
	}
}

const (
	racers = 5
	rounds = 20
)

// together calls f once for each of n, all at the same time, and waits for them. f returns what went wrong, or nil: only
// the goroutine of the case may fail it.
func (e *env) together(n int, f func(i int) error) {
	e.Helper()
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		e.Fatal(err)
	}
}

// race lets every store try its transaction at the same time and asserts that one is done and all others are refused.
// It returns the winner and what it got.
func (e *env) race(what string, stores []dcs.Store, txn func(i int) dcs.Txn) (winner int, r dcs.Result) {
	e.Helper()
	results := make([]dcs.Result, len(stores))
	won := make([]bool, len(stores))
	e.together(len(stores), func(i int) error {
		var err error
		results[i], err = e.tryCommit(stores[i], txn(i))
		won[i] = err == nil
		if err != nil && !errors.Is(err, dcs.ErrConflict) {
			return fmt.Errorf("%s: racer %d: %w", what, i+1, err)
		}
		return nil
	})
	winner = -1
	for i := range won {
		switch {
		case !won[i]:
		case winner < 0:
			winner = i
		default:
			e.Fatalf("%s: racers %d and %d both won", what, winner+1, i+1)
		}
	}
	if winner < 0 {
		e.Fatalf("%s: all %d were refused", what, len(stores))
	}
	return winner, results[winner]
}

func raceCreate(e *env) {
	stores := e.openMany(racers)
	for round := range rounds {
		what := fmt.Sprintf("round %d", round+1)
		winner, _ := e.race(what, stores, func(i int) dcs.Txn {
			return dcs.Txn{If: []dcs.Cond{{Key: "k"}}, Then: []dcs.Op{dcs.Put("k", fmt.Appendf(nil, "racer %d", i))}}
		})
		e.wantValue(stores[round%racers], "k", fmt.Sprintf("racer %d", winner))
		e.remove(stores[winner], "k")
	}
}

func raceUpdate(e *env) {
	stores := e.openMany(racers)
	version := e.put(stores[0], "k", "begin")
	seen := map[dcs.Version]bool{version: true}
	for round := range rounds {
		what := fmt.Sprintf("round %d", round+1)
		winner, r := e.race(what, stores, func(i int) dcs.Txn {
			return dcs.Txn{If: []dcs.Cond{{Key: "k", Version: version}}, Then: []dcs.Op{dcs.Put("k", fmt.Appendf(nil, "racer %d", i))}}
		})
		version = r.Versions["k"]
		if seen[version] {
			e.Fatalf("%s: version %d was there before", what, version)
		}
		seen[version] = true
		e.wantValue(stores[round%racers], "k", fmt.Sprintf("racer %d", winner))
	}
}

func raceTwoKeys(e *env) {
	stores := e.openMany(racers)
	var lease, leader dcs.Version
	for round := range rounds {
		what := fmt.Sprintf("round %d", round+1)
		_, r := e.race(what, stores, func(i int) dcs.Txn {
			value := fmt.Appendf(nil, "racer %d", i)
			conds := []dcs.Cond{{Key: "lease", Version: lease}, {Key: "leader", Version: leader}}
			ops := []dcs.Op{dcs.Put("lease", value), dcs.Put("leader", value)}
			if i%2 == 1 { // the order of keys must not matter, for a deadlock neither
				conds[0], conds[1], ops[0], ops[1] = conds[1], conds[0], ops[1], ops[0]
			}
			return dcs.Txn{If: conds, Then: ops}
		})
		lease, leader = r.Versions["lease"], r.Versions["leader"]
	}
}

func raceSessions(e *env) {
	stores := e.openMany(racers)
	for round := range rounds / 4 {
		sessions := make([]dcs.Session, racers)
		for i, s := range stores {
			sessions[i] = e.lasting(s)
		}
		what := fmt.Sprintf("round %d", round+1)
		winner, _ := e.race(what, stores, func(i int) dcs.Txn {
			return dcs.Txn{If: []dcs.Cond{{Key: "k"}}, Then: []dcs.Op{dcs.PutSession("k", nil, sessions[i].ID())}}
		})
		if it, _ := e.read(stores[round%racers]).Item("k"); it.Session != sessions[winner].ID() {
			e.Errorf("%s: the key is bound to %q, want the winner's %q", what, it.Session, sessions[winner].ID())
		}
		for i, ses := range sessions {
			if err := e.closeSession(ses); err != nil {
				e.Fatalf("%s: Close of session %d: %v", what, i+1, err)
			}
		}
	}
}

// raceLong: two racers, a thousand rounds or as many as the effort allows.
func raceLong(e *env) {
	stores := e.openMany(2)
	version := e.put(stores[0], "k", "begin")
	end := time.Now().Add(e.h.Effort)
	for round := 0; round < 1000 && (round < 50 || time.Now().Before(end)); round++ {
		winner, r := e.race(fmt.Sprintf("round %d", round+1), stores, func(i int) dcs.Txn {
			return dcs.Txn{If: []dcs.Cond{{Key: "k", Version: version}}, Then: []dcs.Op{dcs.Put("k", fmt.Appendf(nil, "%d %d", round, i))}}
		})
		version = r.Versions["k"]
		if round%10 == 0 {
			e.wantValue(stores[1-winner], "k", fmt.Sprintf("%d %d", round, winner))
		}
	}
}

// raceSkew: each of two transactions changes a key that the other only has a condition on. After one of them, the other's
// condition fails, so both may not be done: snapshot isolation is not enough.
func raceSkew(e *env) {
	stores := e.openMany(2)
	keys := []string{"a", "b"}
	for round := range rounds {
		var versions [2]dcs.Version
		for what, prepare := range map[string]func(string) dcs.Version{
			"absent": func(key string) dcs.Version { e.remove(stores[0], key); return dcs.Absent },
			"there":  func(key string) dcs.Version { return e.put(stores[0], key, "begin") },
		} {
			for i, key := range keys {
				versions[i] = prepare(key)
			}
			e.race(fmt.Sprintf("round %d, keys that are %s", round+1, what), stores, func(i int) dcs.Txn {
				return dcs.Txn{
					If:   []dcs.Cond{{Key: keys[1-i], Version: versions[1-i]}},
					Then: []dcs.Op{dcs.Put(keys[i], []byte("mine"))},
				}
			})
		}
	}
}

// raceCuts: writers keep two keys equal and move them together; a reader never sees them differ, nor go back.
func raceCuts(e *env) {
	stores := e.openMany(4)
	txn := func(n byte) dcs.Txn {
		value := []byte{n}
		return dcs.Txn{Then: []dcs.Op{dcs.Put("z", value), dcs.Put("a", value), dcs.Put("members/b", value)}}
	}
	e.commit(stores[0], txn(0))
	done := make(chan struct{})
	e.together(len(stores), func(i int) error {
		if i == 0 {
			defer close(done)
			for n := range byte(60) {
				if _, err := e.tryCommit(stores[0], txn(n+1)); err != nil {
					return fmt.Errorf("write %d: %w", n, err)
				}
			}
			return nil
		}
		for last := byte(0); ; {
			select {
			case <-done:
				return nil
			default:
			}
			snap, err := e.tryRead(stores[i])
			if err != nil {
				return fmt.Errorf("reader %d: %w", i, err)
			}
			if len(snap.Items) != 3 {
				return fmt.Errorf("reader %d: %d keys, want 3", i, len(snap.Items))
			}
			now := snap.Items[0].Value[0]
			for _, it := range snap.Items {
				if it.Value[0] != now {
					return fmt.Errorf("reader %d: keys that are always put together have the values %d and %d", i, now, it.Value[0])
				}
			}
			if now < last {
				return fmt.Errorf("reader %d: first read %d, then %d", i, last, now)
			}
			last = now
		}
	})
}
