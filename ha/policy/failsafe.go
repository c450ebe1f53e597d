package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
)

// Failsafe is what a node knows of failsafe mode (lease rules R12 to R14): a leader without the store goes on with
// promises of the other members, and a taker needs votes.
type Failsafe struct {
	List []string // the list in the lease record; empty: promises count for nothing, and votes are not needed

	// As the holder.
	Unsettled bool          // the list in the record is not yet the wanted one
	Asking    bool          // a round of promises is under way
	Asked     time.Duration // since the last round began; meaningless before the first of this epoch
	Yes, No   []string      // who promised in the last round, and who did not
	Need      int           // how many must promise, the holder included
	Enough    bool          // the last round lengthened the deadline, and no renewal has counted since

	// As a member that was asked.
	PromisedTo  string // whom this node has promised to let go on; empty: nobody
	PromisedFor time.Duration
	Accepted    bool // that was to a Patroni leader: no rule lets anybody take meanwhile
	Voteless    bool // this member lost its memory of promises, so that it neither votes nor promises

	// As a taker; who is missing stands in Lease.TakeWhy.
	Ballot  []string      // the members whose votes a take needs; empty: it needs none
	Voting  bool          // the members are being asked for votes
	Voted   time.Duration // since they were asked last
	Polled  bool          // all of them have been asked about the present version
	Refused []Refusal     // what those who gave no vote said, ascending by name
}

// Refusal is why a member gave no vote or no promise.
type Refusal struct{ Member, Why string }

// votePause is between two times that the members are asked for votes.
const votePause = 500 * time.Millisecond

// promisePause is between two rounds of promises of which the first was not enough.
const promisePause = 200 * time.Millisecond

// voteless says why a member cannot take as long as a take needs votes (R13): its own must be among them. Nobody waits
// for such a member. Empty: it can.
func (f Failsafe) voteless(member string, lost bool) string {
	switch {
	case len(f.Ballot) == 0:
		return ""
	case !slices.Contains(f.Ballot, member):
		return fmt.Sprintf("it is not in the failsafe list (%s), and the last holder may go on without the store", strings.Join(f.Ballot, ", "))
	case lost:
		return "it lost its memory of promises and must be taken into the failsafe list anew"
	}
	return ""
}

// DropAfter is how long the store must have answered before the leader takes a member whose key is gone out of the list:
// a silence ends everybody's session, and the members write their keys again with their next look. A list that shrank to
// the leader alone meanwhile could let nobody in if it died then.
func DropAfter(d cluster.Dynamic) time.Duration { return 2*d.LoopWait + time.Second }

// ListHolder is the leader whose list is to be worked out.
type ListHolder struct {
	Self      string
	Voteless  bool          // it lost its memory of promises
	List      []string      // the list in the record, of which nobody is dropped before DropAfter
	All       bool          // that list is unanimous
	Answering time.Duration // how long the store has answered
}

// FailsafeList is the list that the leader wants (R12): itself, and every member whose key is there and that can be
// asked; without failsafe mode nobody. Whether all of it must promise depends on whether one of it is a Patroni member.
//
// A leader without a memory of promises leaves the list, too: once it has read a record that lacks it, it begins anew (R14).
func FailsafeList(c cluster.Cluster, d cluster.Dynamic, h ListHolder) (members []string, unanimous bool) {
	if !d.FailsafeMode {
		return nil, false
	}
	if !h.Voteless {
		members = []string{h.Self}
	}
	for _, name := range h.List {
		if _, ok := c.Member(name); !ok && name != h.Self && h.Answering < DropAfter(d) {
			members, unanimous = append(members, name), unanimous || h.All
		}
	}
	self := h.Self
	for i := range c.Members {
		m := &c.Members[i]
		if m.Name == self || m.APIURL == "" || m.NoVote {
			continue
		}
		members = append(members, m.Name)
		unanimous = unanimous || m.Pgregent == ""
	}
	slices.Sort(members)
	return members, unanimous
}

// FailsafeURLs is the key `failsafe` for a list: where each member is asked. A member whose own key is gone keeps the
// address that it had.
func FailsafeURLs(c cluster.Cluster, members []string, self, url string) map[string]string {
	urls := map[string]string{}
	for _, name := range members {
		m, ok := c.Member(name)
		switch {
		case name == self:
			urls[name] = url
		case ok:
			urls[name] = m.APIURL
		default:
			urls[name] = c.Failsafe.Members[name]
		}
	}
	return urls
}

// mayTake says that rule R4 allows a take now, apart from the votes of R13.
func (l Lease) mayTake() bool { return l.Takeable || l.NeedVotes }

// silentLeader decides for a leader while the store is silent: it asks for promises and goes on while a round of them
// reaches further than the fence; without enough of them it serves to its deadline.
//
// Safety (R12): the deadline is lengthened by dcs.Lease alone, from a moment before anybody was asked; whoever takes
// needs votes, and a member with a promise gives none (R13).
func silentLeader(v View, c Config) Decision {
	f := v.Failsafe
	left := v.Lease.Left - v.Self.FencePause
	d := Decision{Reason: ReasonStoreSilent, Wake: min(storePause, max(left, 0)/3)}
	d.Detail = fmt.Sprintf("the store has been silent for %v: still leading for %v", round(v.Store.Silent), round(left))
	if !askPromises(v, c, &d) || len(f.Yes) == 0 {
		return d
	}
	if f.Enough {
		d.Reason = ReasonFailsafe
		d.Detail = fmt.Sprintf("the store has been silent for %v: going on with the promises of %s", round(v.Store.Silent), strings.Join(f.Yes, ", "))
		return d
	}
	d.Detail += fmt.Sprintf("; failsafe mode: %d promises of %d needed (%s), none of %s", len(f.Yes), f.Need, strings.Join(f.Yes, ", "), strings.Join(f.No, ", "))
	return d
}

// askPromises asks for promises when that is due. It says whether they can count at all.
func askPromises(v View, c Config, d *Decision) bool {
	f := v.Failsafe
	if !v.Lease.Open || v.Lease.Verdict != VerdictMine || !c.Dynamic.FailsafeMode || len(f.List) == 0 || c.Dynamic.Pause {
		return false
	}
	pause := v.Lease.RenewEvery / 2
	if !f.Enough {
		pause = min(pause, promisePause)
	}
	d.Promises = !f.Asking && (len(f.Yes) == 0 || f.Asked >= pause)
	return true
}

// promised follows the leader to whom this node has promised not to vote: it leads without the store, and its key may be
// gone. A release ends the matter, unless it is a Patroni leader, who knows of no release.
func promised(v View, c Config) (Decision, bool) {
	f := v.Failsafe
	if f.PromisedTo == "" || f.PromisedTo == v.Self.Name || v.Lease.Takeable && !f.Accepted {
		return Decision{}, false
	}
	leader := f.PromisedTo
	v.Cluster.Leader.Name = leader
	d := follower(v, c)
	if d.Reason == ReasonFollower {
		d.Reason = ReasonPromised
	}
	d.Detail = fmt.Sprintf("%s leads without the store, and this node has promised to leave it alone for another %v: %s", leader, round(f.PromisedFor), d.Detail)
	d.Wake = shorter(d.Wake, max(f.PromisedFor, 5*time.Millisecond))
	return d, true
}

// askVotes asks the failsafe list for votes (R13) on behalf of the best candidate, and says what an operator can do when
// they do not come.
func askVotes(v View, why string) Decision {
	f := v.Failsafe
	d := Decision{Reason: ReasonNoLeader, Detail: "asking the failsafe list for votes", Wake: votePause}
	d.Votes = !f.Voting && (!f.Polled || f.Voted >= votePause)
	if !f.Polled {
		return d
	}
	d.Reason, d.Detail = ReasonWaitVotes, why+"; "+v.Lease.TakeWhy
	holder := v.Lease.Holder
	if holder == "" {
		holder = "the last holder"
	}
	var no []string
	for _, r := range f.Refused {
		no = append(no, r.Member+": "+r.Why)
	}
	if len(no) > 0 {
		d.Detail += fmt.Sprintf(" (%s)", strings.Join(no, "; "))
	}
	d.Detail += fmt.Sprintf("; a member that is missing has to come back, or the operator states that %s is gone for certain, by setting failsafe_mode to false:"+
		" if it is not, both take writes, and those of one are lost", holder)
	return d
}
