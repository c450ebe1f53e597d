package cluster

import (
	"slices"
	"testing"

	"github.com/pgregent/pgregent/postgres/wal"
)

// The model: a line of WAL is a list of records, each with an identity of its own; a promotion is a record too, the first
// on its timeline. Two servers share the records of a trunk and part after it. What Compare says from histories, ends
// and the promotion identities that each side happens to know is held against the records themselves, for every small
// pair of lines and every distribution of that knowledge.

// rec is one record: it ends at its index + 1.
type rec struct {
	id    int          // unique in the world
	tl    wal.Timeline // the timeline that it is on
	begin bool         // it begins that timeline
}

// step is 0 for a record written, k for a promotion to the tip's number + k.
type step int

// grow writes the steps to the end of a line. ids keeps identities apart.
func grow(line []rec, steps []step, ids *int) []rec {
	line = slices.Clone(line)
	for _, s := range steps {
		tl := wal.Timeline(1)
		if k := len(line); k > 0 {
			tl = line[k-1].tl
		}
		*ids++
		line = append(line, rec{id: *ids, tl: tl + wal.Timeline(s), begin: s > 0})
	}
	return line
}

// branchOf is what Compare sees of a line whose WAL ends after its first n records; known is a bit for each of its
// promotions, in order.
func branchOf(line []rec, n int, known int) Branch {
	b := Branch{History: wal.History{Tip: line[len(line)-1].tl}, End: wal.Position{Timeline: line[n-1].tl, LSN: wal.LSN(n)}}
	nth := 0
	for i, r := range line {
		if !r.begin {
			continue
		}
		b.History.Switches = append(b.History.Switches, wal.Switch{Timeline: line[i-1].tl, LSN: wal.LSN(i)})
		if known&(1<<nth) != 0 {
			b.Promotions = append(b.Promotions, Promotion{Timeline: r.tl, LSN: wal.LSN(i), ID: string(rune('A' + r.id))})
		}
		nth++
	}
	return b
}

// promotions are the indexes of the records that begin a timeline.
func promotions(line []rec) []int {
	var out []int
	for i, r := range line {
		if r.begin {
			out = append(out, i)
		}
	}
	return out
}

// pair is one situation: my WAL is the first n records of mine; what either side knows of its promotions.
type pair struct {
	mine, theirs            []rec
	n                       int
	knownMine, knownTheirs  int
	common                  int // records that both lines share
	branchMine, branchTheir Branch
}

// fork is the truth: the last of my records that is on their line. Their tip may have grown since they were looked at, so
// that what follows on it in mine is taken for theirs: a leader's own timeline is written by nobody else.
func (p pair) fork() int {
	at := p.common
	if at < len(p.theirs) {
		return min(at, p.n)
	}
	for at < p.n && p.mine[at].tl == p.theirs[len(p.theirs)-1].tl {
		at++
	}
	return min(at, p.n)
}

// behind is the truth: all of my WAL is on their line.
func (p pair) behind() bool { return p.fork() == p.n }

func (p pair) knows(line []rec, known, at int) bool {
	nth := slices.Index(promotions(line), at)
	return nth >= 0 && known&(1<<nth) != 0
}

// way is how a line has come to the timeline that begins at record i, as histories show it.
func way(line []rec, i int) []wal.Position {
	var out []wal.Position
	for _, at := range promotions(line[:i+1]) {
		out = append(out, wal.Position{Timeline: line[at].tl, LSN: wal.LSN(at)})
	}
	return out
}

// sight is what the two sides' knowledge together shows of a timeline number that both lines have, up to where my WAL
// ends: seen to be different promotions (by their identities, or by the ways that led there), identified by one side
// only, or different and seen by nobody.
type sight struct{ seenDifferent, oneSided, hidden bool }

func (p pair) sights() sight {
	var s sight
	for _, i := range promotions(p.mine[:p.n]) {
		// The same promotion, known by both, vouches for all before it.
		if i < p.common && p.knows(p.mine, p.knownMine, i) && p.knows(p.theirs, p.knownTheirs, i) {
			s = sight{}
			continue
		}
		for _, j := range promotions(p.theirs) {
			if p.mine[i].tl != p.theirs[j].tl {
				continue
			}
			me, they := p.knows(p.mine, p.knownMine, i), p.knows(p.theirs, p.knownTheirs, j)
			other := p.mine[i].id != p.theirs[j].id
			switch {
			case other && (me && they || !slices.Equal(way(p.mine, i), way(p.theirs, j))):
				s.seenDifferent = true
			case me != they:
				s.oneSided = true
			case other:
				s.hidden = true
			}
		}
	}
	return s
}

// rewindFork is where pg_rewind finds the common ancestor: the last timeline of the two histories, compared number and
// beginning, side by side; ok is false when it says "no rewind required" because both are on the same number.
func rewindFork(mine, theirs Branch) (at wal.LSN, ok bool) {
	if mine.End.Timeline == theirs.History.Tip {
		return 0, false
	}
	ways := func(h wal.History, upTo wal.Timeline) []wal.Switch {
		all := append(slices.Clone(h.Switches), wal.Switch{Timeline: h.Tip, LSN: 1 << 60})
		i := slices.IndexFunc(all, func(s wal.Switch) bool { return s.Timeline == upTo })
		all = all[:i+1]
		all[i].LSN = 1 << 60
		return all
	}
	a, b := ways(mine.History, mine.End.Timeline), ways(theirs.History, theirs.History.Tip)
	beginA, beginB := wal.LSN(0), wal.LSN(0)
	for i := range min(len(a), len(b)) {
		if a[i].Timeline != b[i].Timeline || beginA != beginB {
			break
		}
		at, ok = min(a[i].LSN, b[i].LSN), true
		beginA, beginB = a[i].LSN, b[i].LSN
	}
	return at, ok
}

// judge says what is wrong with an answer; empty: nothing.
func (p pair) judge(rel Relation, at wal.Position) string {
	s := p.sights()
	informed := !s.oneSided && !s.hidden
	switch rel {
	case RelationBehind:
		if !p.behind() && !s.hidden {
			return "behind, but it holds records that the other lacks"
		}
		if s.seenDifferent && !p.behind() {
			return "behind, and a timeline is seen to be another promotion"
		}
		if at != p.branchMine.End {
			return "behind, but not at the end"
		}
	case RelationDiverged:
		if p.behind() {
			return "diverged, but all of it is there"
		}
		if !s.hidden && int(at.LSN) > p.fork() {
			return "the fork is too late"
		}
		if informed && int(at.LSN) != p.fork() {
			return "the fork is too early"
		}
		if found, ok := rewindFork(p.branchMine, p.branchTheir); !s.hidden && (!ok || int(found) > p.fork()) {
			return "pg_rewind would go wrong"
		}
	case RelationOtherPromotion:
		if !s.seenDifferent && !s.oneSided {
			return "another promotion, but none is"
		}
		if !s.hidden && int(at.LSN) > p.fork() {
			return "the fork is too late"
		}
	case RelationUnknown:
		if !s.oneSided {
			return "unknown, but everything is told"
		}
	}
	return ""
}

// suffixes are all step lists up to a length.
func suffixes(length int) [][]step {
	all := [][]step{nil}
	for i := 0; i < len(all); i++ {
		if len(all[i]) < length {
			for s := step(0); s <= 2; s++ {
				all = append(all, append(slices.Clone(all[i]), s))
			}
		}
	}
	return all
}

// knowledge is every distribution of k identities, or, for many, nothing, all, and all but or only one of them.
func knowledge(k int, every bool) []int {
	all := 1<<k - 1
	if every {
		out := make([]int, all+1)
		for i := range out {
			out[i] = i
		}
		return out
	}
	out := []int{0, all}
	for i := range k {
		out = append(out, 1<<i, all&^(1<<i))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestCompareAgainstModel goes over every pair of lines with a trunk and two continuations of a few steps, every place
// where my WAL can end, and every distribution of the promotions' identities.
func TestCompareAgainstModel(t *testing.T) {
	counts := map[Relation]int{}
	comparePairs(t, counts, 2, 2, true)
	comparePairs(t, counts, 0, 3, false)
	for rel := RelationUnknown; rel <= RelationOtherPromotion; rel++ {
		if counts[rel] < 1_000 {
			t.Errorf("relation %d was hardly seen: %v", rel, counts)
		}
	}
	t.Logf("situations by relation: %v", counts)
}

func comparePairs(t *testing.T, counts map[Relation]int, trunks, length int, every bool) {
	t.Helper()
	for _, trunk := range suffixes(trunks) {
		for _, a := range suffixes(length) {
			for _, b := range suffixes(length) {
				// Two servers cannot both go on writing one timeline: one of them must have been promoted to write.
				if len(a) > 0 && len(b) > 0 && a[0] == 0 && b[0] == 0 {
					continue
				}
				ids := 0
				base := grow([]rec{{tl: 1}}, trunk, &ids)
				comparePair(t, counts, pair{mine: grow(base, a, &ids), theirs: grow(base, b, &ids), common: len(base)}, every)
			}
		}
	}
}

// comparePair compares the two lines at every end of mine and with every distribution of knowledge.
func comparePair(t *testing.T, counts map[Relation]int, p pair, every bool) {
	t.Helper()
	knownTheirs := knowledge(len(promotions(p.theirs)), every)
	theirs := make([]Branch, len(knownTheirs))
	for i, known := range knownTheirs {
		theirs[i] = branchOf(p.theirs, len(p.theirs), known)
	}
	for p.n = 1; p.n <= len(p.mine); p.n++ {
		for _, p.knownMine = range knowledge(len(promotions(p.mine)), every) {
			p.branchMine = branchOf(p.mine, p.n, p.knownMine)
			for i, known := range knownTheirs {
				p.knownTheirs, p.branchTheir = known, theirs[i]
				rel, at := Compare(p.branchMine, p.branchTheir)
				counts[rel]++
				p.fail(t, rel, at, p.judge(rel, at))
				p.compareUnread(t)
			}
		}
	}
}

// compareUnread takes away what my history says of the last timelines: it may cost a clone, never an error.
func (p pair) compareUnread(t *testing.T) {
	t.Helper()
	whole := p.branchMine.History
	rewound, ok := rewindFork(p.branchMine, p.branchTheir)
	for i, s := range whole.Switches {
		if s.Timeline >= p.branchMine.End.Timeline {
			break
		}
		p.branchMine.History = wal.History{Tip: s.Timeline, Switches: whole.Switches[:i]}
		rel, at := Compare(p.branchMine, p.branchTheir)
		switch {
		case rel == RelationUnknown && !p.sights().oneSided:
			p.fail(t, rel, at, "waits for ever")
		case rel == RelationBehind && !p.behind():
			p.fail(t, rel, at, "behind, but it holds records that the other lacks")
		case rel == RelationDiverged && p.behind():
			p.fail(t, rel, at, "diverged, but all of it is there")
		case rel != RelationBehind && int(at.LSN) > p.fork() && !p.sights().hidden:
			p.fail(t, rel, at, "the fork is too late")
		case rel == RelationDiverged && !p.sights().hidden && (!ok || int(rewound) > p.fork()):
			p.fail(t, rel, at, "pg_rewind would go wrong")
		}
	}
}

func (p pair) fail(t *testing.T, rel Relation, at wal.Position, wrong string) {
	t.Helper()
	if wrong != "" {
		t.Fatalf("relation %d at %v: %s; the lines share %d records, mine has %d\nmine   %v\ntheirs %v\nseen of mine   %+v\nseen of theirs %+v",
			rel, at, wrong, p.common, p.n, p.mine, p.theirs, p.branchMine, p.branchTheir)
	}
}
