package dcs

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Stamp orders the writes of the lease record: the epoch, then the counter within it. Every take and every renewal has
// a higher one than the write before.
type Stamp struct {
	Epoch   uint64 `json:"epoch"`
	Counter uint64 `json:"counter"`
}

// Compare is negative when s is older than o, and positive when it is newer.
func (s Stamp) Compare(o Stamp) int {
	return cmp.Or(cmp.Compare(s.Epoch, o.Epoch), cmp.Compare(s.Counter, o.Counter))
}

func (s Stamp) String() string { return fmt.Sprintf("%d.%d", s.Epoch, s.Counter) }

func newer(a, b Stamp) Stamp {
	if a.Compare(b) >= 0 {
		return a
	}
	return b
}

// Stamp is the record's.
func (r Record) Stamp() Stamp { return Stamp{r.Epoch, r.Counter} }

// List is the record's failsafe list (rule R12).
func (r Record) List() List { return List{r.Members, r.Unanimous} }

// List is a failsafe list: whom a holder without the store asks for promises, and a taker for votes. An empty one is
// failsafe mode switched off: no promises lengthen anything, and no votes are needed.
//
// Safety (R12, R13): for every list that is not empty, Promises + Votes = n + 1. So the promises that keep a holder and
// the votes that let a taker in have a member in common, which says no to the second of the two.
type List struct {
	Members   []string // ascending
	Unanimous bool     // it holds a member that promises in another way than by rule R14 and never votes: all must promise
}

// Promises is Qp, the number of promises that a holder needs, its own included: floor(n/2)+1, or n.
func (l List) Promises() int {
	if l.Unanimous {
		return len(l.Members)
	}
	return len(l.Members)/2 + 1
}

// Votes is Qt, the number of votes that a taker needs, its own included: n-Qp+1, and 0 for an empty list.
func (l List) Votes() int {
	if len(l.Members) == 0 {
		return 0
	}
	return len(l.Members) - l.Promises() + 1
}

// Has says whether the member is in the list.
func (l List) Has(member string) bool { return slices.Contains(l.Members, member) }

// Equal says whether two lists ask the same of the same members.
func (l List) Equal(o List) bool {
	return l.Unanimous == o.Unanimous && slices.Equal(l.Members, o.Members)
}

func (l List) String() string {
	if l.Unanimous {
		return strings.Join(l.Members, ", ") + " (all)"
	}
	return strings.Join(l.Members, ", ")
}

// toward is the list with one member more or less on the way to want (R12: one member at a time): additions first, so
// that a list is never smaller than it must be; self is the first to come and the last to go. Unanimity comes with the
// first step and goes with the last.
func (l List) toward(want List, self string) List {
	missing := func(from, in List) (m string, found bool) {
		for _, m = range from.Members {
			if !in.Has(m) && m != self {
				return m, true
			}
		}
		return self, from.Has(self) && !in.Has(self)
	}
	next := List{Members: slices.Clone(l.Members)}
	add, some := missing(want, l)
	if want.Has(self) && !l.Has(self) {
		add = self
	}
	if some {
		next.Members = append(next.Members, add)
		slices.Sort(next.Members)
	} else if drop, some := missing(l, want); some {
		next.Members = slices.DeleteFunc(next.Members, func(m string) bool { return m == drop })
	}
	next.Unanimous = want.Unanimous || l.Unanimous && !slices.Equal(next.Members, want.Members)
	next.Unanimous = next.Unanimous && len(next.Members) > 0
	return next
}

// sentList is a list, or a ttl, that a renewal may have put into force: it was sent and no answer came.
type sentList struct {
	base Version // the version that the renewal replaces; once that is gone, the renewal was performed or never will be
	list List
	ttl  time.Duration
}

// WantMembers tells the lease which list the holder wants. Every renewal moves one member towards it, and nothing else
// changes the list (R12). Before the first call the list stays as it is.
func (l *Lease) WantMembers(want List) {
	slices.Sort(want.Members)
	want.Members = slices.Compact(want.Members)
	want.Unanimous = want.Unanimous && len(want.Members) > 0
	l.want = &want
}

// ListSettled says that the record's list is the wanted one and no change of it is unanswered.
func (l *Lease) ListSettled() bool {
	return len(l.sent) == 0 && (l.want == nil || l.record.List().Equal(*l.want))
}

// nextList is the list of the next renewal.
func (l *Lease) nextList() List {
	if l.want == nil {
		return l.record.List()
	}
	return l.record.List().toward(*l.want, l.id.Name)
}

// sending notes what a renewal that is about to be sent may put into force.
func (l *Lease) sending(r Record) {
	if !r.List().Equal(l.record.List()) || r.TTL < l.record.TTL {
		l.sent = append(l.sent, sentList{l.item.Version, r.List(), time.Duration(r.TTL)})
	}
}

// inForce are the lists that may be in force as far as the holder can tell (R12: Qp in the old AND in the new list),
// and the shortest ttl.
func (l *Lease) inForce() (lists []List, ttl time.Duration) {
	lists, ttl = []List{l.record.List()}, time.Duration(l.record.TTL)
	for _, s := range l.sent {
		lists, ttl = append(lists, s.list), min(ttl, s.ttl)
	}
	return lists, ttl
}

// PromiseRequest asks a member for a promise (R12).
type PromiseRequest struct {
	Holder string  // for people
	Nonce  string  // the holder's guard
	Stamp  Stamp   // of the newest write of this epoch that is known to have been performed
	TTL    Seconds // how long the promise is to last, on the member's clock
}

// VoteRequest asks a member for a vote (R13).
type VoteRequest struct {
	Taker string
	Stamp Stamp // of the version that will be replaced
}

// Round is one round of promises. It belongs to the caller until SettleRound, and is not safe for concurrent use.
type Round struct {
	Sent    time.Duration // the moment before the first question
	Request PromiseRequest
	// Members are those to be asked: of every list that may be in force, without the holder itself.
	Members []string

	lists    []List
	promised map[string]bool
	accepted map[string]bool
}

// ErrNotRenewed says that no write of this process has counted in the epoch yet.
var ErrNotRenewed = errors.New("no renewal of this process has counted yet")

// ErrNoList says that the record has no failsafe list, so that no promises count.
var ErrNoList = errors.New("the lease record has no failsafe list")

// Round begins a round of promises (R12): sent is the moment just now, before anybody is asked, and ttl is the longest
// that a promise may be for. The epoch must be open, the record last known this node's, and the take or a renewal of this
// very process must have counted: an earlier process of the node may have sent a renewal with another list that is still
// under way, and only a later version makes that one harmless (R11: what an earlier process knew starts at nothing).
func (l *Lease) Round(sent, ttl time.Duration) (*Round, error) {
	if !l.read {
		return nil, ErrNotObserved
	}
	if !l.open || !l.recordMine() {
		return nil, ErrNotHeld
	}
	if l.made == Absent { // the first renewal of a process puts `leader` anew (R6)
		return nil, ErrNotRenewed
	}
	lists, least := l.inForce()
	r := &Round{
		Sent: sent, lists: lists, promised: map[string]bool{l.id.Name: true}, accepted: map[string]bool{},
		Request: PromiseRequest{Holder: l.id.Name, Nonce: l.id.Nonce, Stamp: l.record.Stamp(), TTL: Seconds(min(ttl, least))},
	}
	for _, list := range lists {
		if len(list.Members) == 0 {
			return nil, ErrNoList
		}
		for _, m := range list.Members {
			if m != l.id.Name && !slices.Contains(r.Members, m) {
				r.Members = append(r.Members, m)
			}
		}
	}
	slices.Sort(r.Members)
	return r, nil
}

// Promised notes a member's promise by rule R14.
func (r *Round) Promised(member string) { r.promised[member] = true }

// Accepted notes the consent of a member that keeps no promises by rule R14: it counts in unanimous lists only.
func (r *Round) Accepted(member string) { r.accepted[member] = true }

// Enough says that the round has the promises it needs in every list that may be in force.
func (r *Round) Enough() bool { return r.enough(r.lists) }

func (r *Round) enough(lists []List) bool {
	for _, list := range lists {
		if len(list.Members) == 0 || r.count(list) < list.Promises() {
			return false
		}
	}
	return true
}

func (r *Round) count(list List) int {
	n := 0
	for _, m := range list.Members {
		if r.promised[m] || list.Unanimous && r.accepted[m] {
			n++
		}
	}
	return n
}

// Yes are the members that consented, the holder included; No are the others of the lists.
func (r *Round) Yes() []string { return r.split(true) }

// No are the members that were asked and did not consent, or not yet.
func (r *Round) No() []string { return r.split(false) }

func (r *Round) split(yes bool) []string {
	var out []string
	for _, list := range r.lists {
		for _, m := range list.Members {
			if (r.promised[m] || r.accepted[m]) == yes && !slices.Contains(out, m) {
				out = append(out, m)
			}
		}
	}
	slices.Sort(out)
	return out
}

// SettleRound lengthens the deadline when the round has promises enough: to Sent + D(ttl), never less than it was. It
// returns the deadline to hand to the guard, or 0 when the round gives none.
//
// Safety (R12): Sent is before the first question, so every promise lasts longer on its member's clock than the deadline
// on this one; whoever takes needs votes from members without one (R13). The lists are those in force when the round
// began and now: a list that was sent meanwhile may be in the record already.
func (l *Lease) SettleRound(r *Round) (deadline time.Duration) {
	if !l.open || !l.recordMine() || r.Request.Stamp.Epoch != l.epoch || r.Request.Nonce != l.id.Nonce {
		return 0
	}
	lists, ttl := l.inForce()
	if !r.enough(r.lists) || !r.enough(lists) {
		return 0
	}
	until := r.Sent + Validity(min(ttl, time.Duration(r.Request.TTL)))
	if until <= l.deadline {
		return 0
	}
	l.deadline = until
	return until
}

// SetFailsafe tells the lease whether failsafe mode is on in the configuration as read. Switched off, a taker needs no
// votes: that is how an operator says that the holder is gone for certain. The members stop promising then, and the
// waiting time of R4 starts anew, so that those who hear of it have stopped before anybody takes.
func (l *Lease) SetFailsafe(on bool, now time.Duration) {
	if l.failsafe && !on {
		l.since = now
	}
	l.failsafe = on
}

// KnowMembers tells the lease the members of the copy of the list, for a take of an absent or unreadable record
// (R4d with R13).
func (l *Lease) KnowMembers(members []string) {
	l.copied = slices.Sorted(slices.Values(members))
}

// KnowEpoch tells the lease of an epoch that another member knows of (R4d).
func (l *Lease) KnowEpoch(epoch uint64) { l.highest = max(l.highest, epoch) }

// Ballot is what rule R13 asks of a taker of the version last read.
type Ballot struct {
	Version Version
	Request VoteRequest
	Members []string // to be asked, this node included
	Have    []string // who voted yes for this version, ascending
	Need    int      // votes needed; of several lists the most
	Missing string   // why the votes do not suffice, in words; empty: they do
}

// Ballot returns the ballot, and whether the take needs one: not for a released record, for one under this node's own
// guard, for a new cluster, without a list, or with failsafe mode off.
func (l *Lease) Ballot(fresh bool) (Ballot, bool) {
	fresh = l.isNew(fresh)
	b := Ballot{Version: l.item.Version, Request: VoteRequest{Taker: l.id.Name, Stamp: l.record.Stamp()}}
	lists := []List{l.record.List()}
	switch {
	case !l.failsafe || !l.read || fresh && l.item.Version == Absent:
		return Ballot{}, false
	case l.item.Version == Absent || l.recordErr != nil:
		// R4d with R13. The list in force is not to be seen: every list that it may be must be satisfied, by the larger
		// of the two numbers, which suffices for both. The stamp closes every epoch that is known; a member that knows
		// of a later one says no.
		b.Request.Stamp = Stamp{l.highest, math.MaxUint64}
		lists = nil
		for _, members := range [][]string{l.copied, l.lastList.Members} {
			if len(members) > 0 {
				lists = append(lists, List{Members: members})
			}
		}
		if len(lists) == 0 && l.listKnown {
			return Ballot{}, false // the last record that was read here had no list
		}
	case l.record.State == Released || l.record.Nonce == l.id.Nonce || len(l.record.Members) == 0:
		return Ballot{}, false
	}
	l.count(&b, lists)
	return b, true
}

func (l *Lease) count(b *Ballot, lists []List) {
	for m := range l.votes {
		b.Have = append(b.Have, m)
	}
	slices.Sort(b.Have)
	if len(lists) == 0 {
		b.Missing = "no failsafe list is known that could vote"
	}
	for _, list := range lists {
		have := 0
		for _, m := range list.Members {
			if l.votes[m] {
				have++
			}
			if !slices.Contains(b.Members, m) {
				b.Members = append(b.Members, m)
			}
		}
		b.Need = max(b.Need, list.Votes())
		if have < list.Votes() || list.Has(l.id.Name) && !l.votes[l.id.Name] {
			b.Missing = fmt.Sprintf("%d of %d votes of the failsafe list (%v)", have, list.Votes(), list)
		}
	}
	slices.Sort(b.Members)
	if len(lists) > 0 && !slices.Contains(b.Members, l.id.Name) {
		b.Missing = fmt.Sprintf("this node is not in the failsafe list (%s)", strings.Join(b.Members, ", "))
	}
}

// Voted notes votes for the version, which is the one last read, or they are worth nothing.
func (l *Lease) Voted(version Version, members ...string) {
	if !l.read || version != l.item.Version {
		return
	}
	for _, m := range members {
		if l.votes == nil {
			l.votes = map[string]bool{}
		}
		l.votes[m] = true
	}
}

// withVotes adds rule R13 to a take that rules R4b and R4d allow.
func (l *Lease) withVotes(t Takeable, fresh bool) Takeable {
	b, needed := l.Ballot(fresh)
	if !t.Allowed || !needed {
		return t
	}
	if b.Missing != "" {
		return Takeable{NeedVotes: true, Why: fmt.Sprintf("%s; %s", t.Why, b.Missing)}
	}
	t.Why = fmt.Sprintf("%s; votes of %s", t.Why, strings.Join(b.Have, ", "))
	return t
}
