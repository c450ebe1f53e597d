package cluster

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/postgres/wal"
)

// record is one WAL record of the model: where it stands, and which promotion's server wrote it.
type record struct {
	lsn   wal.LSN
	tl    wal.Timeline
	owner string
}

// server is a model server: its records, and what Compare may see of it.
type server struct {
	records []record
	branch  Branch
	primary bool // it was promoted itself, and writes
}

func (s server) clone() server {
	c := server{ // a copy is a standby
		records: append([]record(nil), s.records...), branch: s.branch,
	}
	c.branch.History.Switches = append([]wal.Switch(nil), s.branch.History.Switches...)
	c.branch.Promotions = append([]Promotion(nil), s.branch.Promotions...)
	return c
}

func (s *server) write(n int) {
	for range n {
		owner := "initdb"
		if k := len(s.branch.Promotions); k > 0 {
			owner = s.branch.Promotions[k-1].ID
		}
		s.branch.End.LSN += 10
		s.records = append(s.records, record{s.branch.End.LSN, s.branch.History.Tip, owner})
	}
}

func (s *server) promote(tl wal.Timeline, id string) {
	h := &s.branch.History
	h.Switches = append(h.Switches, wal.Switch{Timeline: h.Tip, LSN: s.branch.End.LSN})
	h.Tip = tl
	s.branch.Promotions = append(s.branch.Promotions, Promotion{Timeline: tl, LSN: s.branch.End.LSN, ID: id})
	s.branch.End.Timeline = tl
	s.primary = true
}

// cut keeps the first records only, as a standby that has received no more, still on the timelines that it has.
func (s server) cut(n int) server {
	c := s.clone()
	c.records = c.records[:n]
	last := wal.Position{Timeline: 1, LSN: 10}
	if n > 0 {
		last = wal.Position{Timeline: c.records[n-1].tl, LSN: c.records[n-1].lsn}
	}
	c.branch.End = last
	for len(c.branch.History.Switches) > 0 && c.branch.History.Tip > last.Timeline {
		k := len(c.branch.History.Switches) - 1
		c.branch.History.Tip = c.branch.History.Switches[k].Timeline
		c.branch.History.Switches = c.branch.History.Switches[:k]
		c.branch.Promotions = c.branch.Promotions[:len(c.branch.Promotions)-1]
	}
	return c
}

func prefix(a, b []record) bool {
	if len(a) > len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestCompareAgainstRecords draws pairs of servers that were promoted apart, cut off and cloned, and checks Compare
// against the records themselves: it must never call a server behind that holds records the other lacks, and with
// every identity known it must never call one diverged that holds none.
func TestCompareAgainstRecords(t *testing.T) {
	counts := map[Relation]int{}
	for seed := range uint64(20000) {
		r := rand.New(rand.NewPCG(seed, 1))
		first := server{branch: Branch{History: wal.History{Tip: 1}, End: wal.Position{Timeline: 1}}}
		first.write(1 + r.IntN(3))
		all := []server{first, first.clone(), first.clone()}
		for step := range 12 {
			i, j := r.IntN(3), r.IntN(3)
			switch r.IntN(4) {
			case 0: // promotion chooses 1 + the highest timeline that this server sees
				all[i].promote(all[i].branch.History.Tip+1, string(rune('A'+step)))
				all[i].write(1 + r.IntN(2)) // a promotion writes an end-of-recovery record
			case 1:
				if all[i].primary {
					all[i].write(r.IntN(3))
				}
			case 2: // i becomes a copy of j, maybe behind
				all[i] = all[j].cut(1 + r.IntN(len(all[j].records)))
			case 3:
				if rel, _ := Compare(all[i].branch, all[j].branch); rel == RelationBehind {
					all[i] = all[j].clone() // it streams to the end
				}
			}
		}
		a, b := all[0], all[1]
		rel, fork := Compare(a.branch, b.branch)
		counts[rel]++
		switch rel {
		case RelationBehind:
			// On one and the same timeline the other may be a shorter copy; it is still one line.
			require.True(t, prefix(a.records, b.records) || (a.branch.End.Timeline == b.branch.End.Timeline && prefix(b.records, a.records)), "seed %d: behind, but it holds records that the other lacks\n%+v\n%+v", seed, a, b)
		case RelationDiverged:
			require.False(t, prefix(a.records, b.records), "seed %d: diverged at %v, but all of it is there\n%+v\n%+v", seed, fork, a, b)
			for _, rec := range a.records {
				if rec.lsn <= min(fork.LSN, b.branch.End.LSN) && rec.tl <= fork.Timeline {
					require.Contains(t, b.records, rec, "seed %d: fork %v is too late", seed, fork)
				}
			}
		case RelationUnknown:
			t.Fatalf("seed %d: everything is known", seed)
		}
	}
	for rel := RelationBehind; rel <= RelationOtherPromotion; rel++ {
		require.Greater(t, counts[rel], 500, "relation %d was hardly drawn: %v", rel, counts)
	}
}

// TestCompareWithoutKnowledge: not enough is known, and so it says; a history that contradicts itself is not believed.
func TestCompareWithoutKnowledge(t *testing.T) {
	one := wal.History{Tip: 1}
	end := wal.Position{Timeline: 1, LSN: 5}
	for _, pair := range [][2]Branch{
		{{}, {History: one}},
		{{History: one, End: end}, {}},
		{{History: one}, {History: one}},
		{{History: one, End: wal.Position{LSN: 5}}, {History: one}},
		{{History: wal.History{Tip: 7}, End: wal.Position{Timeline: 7, LSN: 5}}, {History: one}}, // nothing in common
		{{History: wal.History{Tip: 7}, End: end}, {History: one}},                               // it ends where its history never was
		{{History: wal.History{Tip: 2, Switches: []wal.Switch{{Timeline: 1, LSN: 3}}}, End: end}, {History: one}},
	} {
		rel, at := Compare(pair[0], pair[1])
		require.Equal(t, RelationUnknown, rel, "%+v", pair)
		require.Zero(t, at)
	}
	rel, at := Compare(Branch{History: one, End: end, Promotions: []Promotion{{1, 0, "a"}}}, Branch{History: one, Promotions: []Promotion{{1, 0, "b"}}})
	require.Equal(t, RelationOtherPromotion, rel, "not even the first timeline is shared")
	require.Zero(t, at)
}

// TestCompareAfterCrash: pg_control is older than the last change of timeline.
func TestCompareAfterCrash(t *testing.T) {
	mine := Branch{History: wal.History{Tip: 1}, End: wal.Position{Timeline: 2, LSN: 150}}
	theirs := Branch{History: wal.History{Tip: 3, Switches: []wal.Switch{{Timeline: 1, LSN: 100}, {Timeline: 2, LSN: 200}}}, Promotions: []Promotion{{2, 100, "a"}}}
	rel, _ := Compare(mine, theirs)
	require.Equal(t, RelationOtherPromotion, rel, "nobody can tell whether it is the same timeline 2")
	mine.Promotions = []Promotion{{2, 100, "a"}}
	rel, at := Compare(mine, theirs)
	require.Equal(t, RelationBehind, rel, "its identity is known")
	require.Equal(t, mine.End, at)
	mine.End.LSN = 250
	rel, at = Compare(mine, theirs)
	require.Equal(t, RelationDiverged, rel)
	require.Equal(t, wal.Position{Timeline: 2, LSN: 200}, at)
	rel, _ = Compare(mine, Branch{History: wal.History{Tip: 1}})
	require.Equal(t, RelationDiverged, rel, "they have no timeline 2 at all")
}
