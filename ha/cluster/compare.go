package cluster

import (
	"slices"

	"github.com/pgregent/pgregent/postgres/wal"
)

// Compare says how my WAL stands to theirs, and where they part (or, when mine is all on theirs, where mine ends).
//
// It is the rule that keeps a node from streaming from, or rewinding onto, a server that is on another promotion of the
// same timeline number (hazards B9, B10): PostgreSQL itself chooses 1 + the highest history file that a server sees, so
// two servers that were promoted apart from each other get the same number, and pg_rewind then says "no rewind
// required". A timeline of mine counts as the same as theirs only when it begins at the same LSN and the identities of
// the two promotions, where both are known, agree. Identities are unknown for promotions by Patroni members; then the
// switch point alone decides, as it does there.
func Compare(mine, theirs Branch) (Relation, wal.Position) {
	if !mine.History.Known() || !theirs.History.Known() || mine.End.LSN == 0 || mine.End.Timeline == 0 {
		return RelationUnknown, wal.Position{}
	}
	// The first of my timelines, in order, that is another promotion than theirs of that number.
	for _, tl := range timelines(mine) {
		if _, on := theirs.History.Begin(tl); !on {
			break
		}
		if !samePromotion(mine, theirs, tl) {
			begin, _ := mine.History.Begin(tl)
			fork := wal.Position{Timeline: previous(mine.History, tl), LSN: begin}
			if b, _ := theirs.History.Begin(tl); b < fork.LSN {
				fork.LSN = b
			}
			return RelationOtherPromotion, fork
		}
	}
	fork, ok := mine.History.Fork(theirs.History, mine.End)
	if !ok {
		return RelationUnknown, wal.Position{} // no timeline in common: not even the same cluster, as far as this goes
	}
	if fork != mine.End {
		return RelationDiverged, fork
	}
	// On their tip no end is compared: theirs was looked at before mine and has grown since, and a primary sends only
	// what it has flushed, so nothing on its own timeline can be ahead of it.
	return RelationBehind, mine.End
}

// timelines are mine in order, up to the one that my WAL ends on.
func timelines(b Branch) []wal.Timeline {
	var out []wal.Timeline
	for _, s := range b.History.Switches {
		out = append(out, s.Timeline)
	}
	out = append(out, b.History.Tip)
	if i := slices.Index(out, b.End.Timeline); i >= 0 {
		out = out[:i+1]
	}
	return out
}

func previous(h wal.History, tl wal.Timeline) wal.Timeline {
	var before wal.Timeline
	for _, s := range h.Switches {
		if s.Timeline < tl {
			before = s.Timeline
		}
	}
	return before
}

// samePromotion says whether timeline tl is one promotion on both branches.
func samePromotion(a, b Branch, tl wal.Timeline) bool {
	x, ok1 := identity(a, tl)
	y, ok2 := identity(b, tl)
	if ok1 && ok2 {
		return x == y
	}
	beginA, _ := a.History.Begin(tl)
	beginB, _ := b.History.Begin(tl)
	return beginA == beginB
}

func identity(b Branch, tl wal.Timeline) (string, bool) {
	for _, p := range b.Promotions {
		if p.Timeline == tl && p.ID != "" {
			return p.ID, true
		}
	}
	return "", false
}
