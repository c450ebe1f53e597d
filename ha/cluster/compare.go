package cluster

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgregent/pgregent/postgres/wal"
)

// Compare says how my WAL stands to theirs, and where they part (or, when mine is all on theirs, where mine ends).
//
// It is the rule that keeps a node from streaming from, or rewinding onto, a server that is on another promotion of the
// same timeline number (hazards B9, B10): PostgreSQL itself chooses 1 + the highest history file that a server sees, so
// two servers that were promoted apart from each other get the same number, often at the same LSN, and pg_rewind then
// says "no rewind required".
//
// The latest timeline on which both identities are known and agree vouches for everything before it. After it, a
// timeline counts as the same only when it begins at the same LSN, after the same timeline, and
//   - both identities are known and agree, or
//   - neither is known, as for promotions by Patroni members: then the switch point alone decides, as it does there.
//
// One known and the other not is no agreement: a node may have its timeline from a primary that died before it told
// anybody. It is RelationUnknown while that can change, because a leader that was promoted just now names the promotion
// of its tip with its next renewal, and RelationOtherPromotion otherwise.
func Compare(mine, theirs Branch) (Relation, wal.Position) {
	if !mine.History.Known() || !theirs.History.Known() || mine.End.LSN == 0 || mine.End.Timeline == 0 {
		return RelationUnknown, wal.Position{}
	}
	if _, on := mine.History.Begin(mine.End.Timeline); !on {
		return compareUnread(mine, theirs)
	}
	// The first of my timelines, in order, that is another promotion than theirs of that number.
	vouched := vouchedFor(mine, theirs)
	for _, tl := range written(mine) {
		if _, on := theirs.History.Begin(tl); !on {
			break
		}
		if tl <= vouched {
			continue
		}
		switch samePromotion(mine, theirs, tl) {
		case different:
			return RelationOtherPromotion, forkBefore(mine.History, theirs.History, tl)
		case untold:
			return RelationUnknown, wal.Position{}
		}
	}
	fork, ok := mine.History.Fork(theirs.History, mine.End)
	if !ok {
		return RelationUnknown, wal.Position{} // no timeline in common: not even the same cluster, as far as this goes
	}
	if fork != mine.End && mine.End.Timeline == theirs.History.Tip {
		return RelationOtherPromotion, fork // they came to the number on different ways
	}
	if fork != mine.End {
		return RelationDiverged, fork
	}
	// On their tip no end is compared: theirs was looked at before mine and has grown since, and a primary sends only
	// what it has flushed, so nothing on its own timeline can be ahead of it.
	return RelationBehind, mine.End
}

// compareUnread compares WAL that ends on a timeline which the own history does not reach: pg_control is older than the
// last change of timeline, as after a crash soon after it. Where that timeline begins is not known, so only its identity
// can say that it is theirs; the fork that is returned otherwise is a lower bound.
func compareUnread(mine, theirs Branch) (Relation, wal.Position) {
	tip, end := mine.History.Tip, mine.End.Timeline
	if end < tip {
		return RelationUnknown, wal.Position{} // the own history contradicts where the WAL ends
	}
	_, on := theirs.History.Begin(end)
	x, known := identity(mine, end)
	y, told := identity(theirs, end)
	if on && known && told && x == y { // their history is mine too, as far as it goes to that timeline
		if theirs.History.Contains(mine.End) {
			return RelationBehind, mine.End
		}
		i := slices.IndexFunc(theirs.History.Switches, func(s wal.Switch) bool { return s.Timeline == end })
		return RelationDiverged, wal.Position{Timeline: end, LSN: theirs.History.Switches[i].LSN}
	}
	// What is known of my way ends where my tip begins.
	var fork wal.Position
	if begin, _ := mine.History.Begin(tip); begin != 0 {
		var rel Relation
		rel, fork = Compare(Branch{mine.History, wal.Position{Timeline: tip, LSN: begin}, mine.Promotions}, theirs)
		if rel == RelationUnknown || rel == RelationOtherPromotion {
			return rel, fork
		}
	}
	// Any of their later numbers, up to mine, may be one that my way has come along too.
	for _, tl := range timelines(theirs) {
		if tl > tip && tl <= end {
			return RelationOtherPromotion, fork
		}
	}
	return RelationDiverged, fork
}

// timelines are those of a branch in order.
func timelines(b Branch) []wal.Timeline {
	var out []wal.Timeline
	for _, s := range b.History.Switches {
		out = append(out, s.Timeline)
	}
	return append(out, b.History.Tip)
}

// written are the timelines of a branch in order, up to the one that its WAL ends on.
func written(b Branch) []wal.Timeline {
	out := timelines(b)
	if i := slices.Index(out, b.End.Timeline); i >= 0 {
		out = out[:i+1]
	}
	return out
}

// forkBefore is the last position that two histories share before timeline tl of mine; zero when that is the first one.
func forkBefore(mine, theirs wal.History, tl wal.Timeline) wal.Position {
	i := slices.IndexFunc(mine.Switches, func(s wal.Switch) bool { return s.Timeline >= tl })
	if i < 0 {
		i = len(mine.Switches)
	}
	if i == 0 {
		return wal.Position{}
	}
	last := mine.Switches[i-1]
	way := wal.History{Tip: last.Timeline, Switches: mine.Switches[:i-1]}
	at, _ := way.Fork(theirs, wal.Position{Timeline: last.Timeline, LSN: last.LSN})
	return at
}

// vouchedFor is the latest timeline that both branches know to be the same promotion; 0: none.
func vouchedFor(a, b Branch) wal.Timeline {
	for _, tl := range slices.Backward(written(a)) {
		x, ok1 := identity(a, tl)
		y, ok2 := identity(b, tl)
		if _, on := b.History.Begin(tl); on && ok1 && ok2 && x == y && from(a.History, tl) == from(b.History, tl) {
			return tl
		}
	}
	return 0
}

type sameness int

const (
	same sameness = iota
	different
	untold // the other side has not said it yet
)

// samePromotion says whether timeline tl of mine is theirs of that number; every earlier one of mine is.
func samePromotion(mine, theirs Branch, tl wal.Timeline) sameness {
	x, known := identity(mine, tl)
	y, told := identity(theirs, tl)
	sameWay := from(mine.History, tl) == from(theirs.History, tl)
	switch {
	case sameWay && known == told && x == y:
		return same
	case sameWay && known && !told && tl == theirs.History.Tip:
		return untold
	}
	return different
}

// from is where a timeline of the history comes from: the timeline before it, and where that ended.
func from(h wal.History, tl wal.Timeline) wal.Position {
	var at wal.Position
	for _, s := range h.Switches {
		if s.Timeline < tl {
			at = wal.Position{Timeline: s.Timeline, LSN: s.LSN}
		}
	}
	return at
}

func identity(b Branch, tl wal.Timeline) (string, bool) {
	for _, p := range slices.Backward(b.Promotions) {
		if p.Timeline == tl && p.ID != "" {
			return p.ID, true
		}
	}
	return "", false
}

// Line is the promotions that the cluster's line of WAL has come along, ascending by timeline. A promotion that a later
// one replaced, because it was made from WAL that does not contain it, is not among them: it is on a dead branch.
func (n Note) Line() []Promotion {
	var line []Promotion
	for _, p := range append(slices.Clip(n.Promotions), n.Promotion) {
		if p.ID == "" || p.Timeline == 0 {
			continue
		}
		for len(line) > 0 && (line[len(line)-1].Timeline >= p.Timeline || line[len(line)-1].LSN > p.LSN) {
			line = line[:len(line)-1]
		}
		line = append(line, p)
	}
	return line
}

// With returns the note after promotion p was made, or announced, by a server whose WAL is mine: p is its Promotion, and
// Promotions are those before it that mine has come along. Whatever else the note named is on a dead branch, and what the
// note forgot, because somebody deleted the record, is added as far as mine knows it.
func (n Note) With(p Promotion, mine Branch) Note {
	var line []Promotion
	add := func(old Promotion) {
		at, on := mine.History.Begin(old.Timeline)
		id, known := identity(mine, old.Timeline)
		known = known && id != old.ID || slices.ContainsFunc(line, func(l Promotion) bool { return l.Timeline == old.Timeline })
		if on && at == old.LSN && old.Timeline < p.Timeline && old.ID != p.ID && !known {
			line = append(line, old)
		}
	}
	for _, old := range n.Line() {
		add(old)
	}
	for _, own := range mine.Promotions {
		add(own)
	}
	slices.SortFunc(line, func(a, b Promotion) int { return cmp.Compare(a.Timeline, b.Timeline) })
	if k := len(line); k > MaxPromotions {
		line = line[k-MaxPromotions:]
	}
	n.Promotions, n.Promotion = line, p
	return n
}

// Maker is the member that made the promotion; empty when its ID does not say.
func (p Promotion) Maker() string {
	_, rest, _ := strings.Cut(p.ID, "-")
	name, _, ok := strings.Cut(rest, "/")
	if !ok {
		return ""
	}
	return name
}

// PromotionID is the identity of the promotion that a member makes in an epoch. The session makes it unique even when an
// operator deleted the lease record, so that epochs begin anew; a member's name contains no slash.
func PromotionID(epoch uint64, member, session string) string {
	return strconv.FormatUint(epoch, 10) + "-" + member + "/" + session
}
