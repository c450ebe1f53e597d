package wal

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// mark is one step of a line of WAL in the dumb model: where a timeline begins, or one byte on it.
type mark struct {
	tl   Timeline
	lsn  LSN
	byte bool
}

// horizon is the last byte that the model writes on a tip.
const horizon = 6

// line writes a history out, step by step.
func line(h History) []mark {
	var out []mark
	at := LSN(0)
	for _, s := range append(append([]Switch(nil), h.Switches...), Switch{Timeline: h.Tip, LSN: horizon}) {
		out = append(out, mark{tl: s.Timeline, lsn: at})
		for ; at < s.LSN; at++ {
			out = append(out, mark{tl: s.Timeline, lsn: at + 1, byte: true})
		}
	}
	return out
}

// histories are all of them with timelines up to 4 that begin with 1 and switch at 1 to 4, each switch at or after the
// one before.
func histories() []History {
	all := []History{{Tip: 1}}
	for i := 0; i < len(all); i++ {
		h := all[i]
		from := LSN(1)
		if k := len(h.Switches); k > 0 {
			from = h.Switches[k-1].LSN
		}
		for tl := h.Tip + 1; tl <= 4; tl++ {
			for at := from; at <= 4; at++ {
				next := History{Tip: tl, Switches: append(append([]Switch(nil), h.Switches...), Switch{Timeline: h.Tip, LSN: at})}
				all = append(all, next)
			}
		}
	}
	return all
}

// ends are the places where WAL on h can end in the model, a timeline's own beginning among them.
func ends(h History) []Position {
	var out []Position
	for _, m := range line(h) {
		out = append(out, Position{m.tl, m.lsn})
	}
	return out
}

func dumbContains(h History, p Position) bool {
	begin, on := LSN(0), false
	for _, m := range line(h) {
		if m.tl != p.Timeline {
			continue
		}
		if !m.byte {
			begin, on = m.lsn, true
		}
		if m.lsn == p.LSN {
			return true
		}
	}
	return on && p.LSN < begin // said of timeline 2 and a byte written before it began: the byte is on the way to it
}

// dumbFork walks both lines step by step.
func dumbFork(mine, theirs History, end Position) (at Position, ok bool) {
	other := line(theirs)
	for i, m := range line(mine) {
		if i >= len(other) || other[i] != m {
			break
		}
		at, ok = Position{m.tl, m.lsn}, true
		if at == end {
			break
		}
	}
	return at, ok
}

func TestContainsAgainstModel(t *testing.T) {
	for _, h := range histories() {
		for tl := Timeline(0); tl <= 5; tl++ {
			for at := LSN(1); at <= horizon; at++ {
				p := Position{tl, at}
				require.Equal(t, dumbContains(h, p), h.Contains(p), "%v on timeline %d after\n%v", p, h.Tip, h)
			}
		}
	}
}

// TestForkAgainstModel compares every pair of small histories, at every place where the first one's WAL can end.
func TestForkAgainstModel(t *testing.T) {
	all := histories()
	pairs := 0
	for _, mine := range all {
		for _, theirs := range all {
			for _, end := range ends(mine) {
				want, wantOK := dumbFork(mine, theirs, end)
				got, ok := mine.Fork(theirs, end)
				if wantOK != ok || want != got {
					t.Fatalf("fork of timeline %d ending at %v from timeline %d: %v %v, the model says %v %v\nmine:\n%vtheirs:\n%v",
						mine.Tip, end, theirs.Tip, got, ok, want, wantOK, mine, theirs)
				}
				pairs++
			}
		}
	}
	require.Greater(t, pairs, 10_000, "the model has shrunk")
}

func TestForkOfCutHistories(t *testing.T) {
	full := History{Tip: 3, Switches: []Switch{{1, 100, ""}, {2, 200, ""}}}
	cut := History{Tip: 2} // its history file is gone
	got, ok := cut.Fork(full, Position{2, 250})
	require.True(t, ok)
	require.Equal(t, Position{2, 200}, got)

	_, ok = full.Fork(cut, Position{3, 250})
	require.False(t, ok, "what came before timeline 2 is not known to be the same")
	for _, end := range []Position{{4, 10}, {1, 101}, {}} {
		_, ok = full.Fork(full, end)
		require.False(t, ok, "%v is not on the history itself", end)
	}
	_, ok = full.Fork(History{}, Position{3, 250})
	require.False(t, ok)
	_, ok = History{}.Fork(full, Position{})
	require.False(t, ok)
}

// TestHistoryRoundTrip prints and reads random histories with the noise that a real file has.
func TestHistoryRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		h := History{}
		tl, at := Timeline(0), LSN(0)
		for range r.IntN(6) {
			tl, at = tl+1+Timeline(r.IntN(3)), at+LSN(r.Uint64N(1<<40))
			h.Switches = append(h.Switches, Switch{tl, at, fmt.Sprintf("before transaction %d", r.IntN(1000))})
		}
		h.Tip = tl + 1
		text := h.String()
		got, err := ParseHistory(h.Tip, []byte("# comment\n\n"+text+"\r\n"))
		require.NoError(t, err)
		require.Equal(t, h, got)
	}
}
