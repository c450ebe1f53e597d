package dcs

import (
	"fmt"
	"slices"
	"time"
)

// Take returns the step of rules R4, R5 and R6: the record goes to the next epoch under our nonce, and `leader` to us,
// in one transaction; the key of the replaced holder goes with the same transaction, never before. fresh says that the
// cluster is new: `initialize` is absent or our own claim (R4d).
func (l *Lease) Take(now, sent time.Duration, session string, ttl time.Duration, fresh bool) (Step, error) {
	if t := l.Takeable(now, fresh); !t.Allowed {
		return Step{}, fmt.Errorf("%w: %s", ErrMayNotTake, t.Why)
	}
	r := Record{
		Epoch: max(l.record.Epoch, l.highest) + 1, Holder: l.id.Name, Instance: l.id.Instance, Nonce: l.id.Nonce,
		Counter: 1, TTL: Seconds(ttl), Session: session, State: Held,
		Members: l.record.Members, Unanimous: l.record.Unanimous, Note: l.record.Note,
	}
	step := Step{Sent: sent, kind: stepTake, record: r, session: session, putLeader: true}
	return step, step.fill(l.item.Version, l.leader.Version, l.id.Name)
}

// Takeable is the judgement of rule R4.
type Takeable struct {
	Allowed bool
	// In is how long until it will be allowed if nothing changes; 0 when waiting alone will not help, or Allowed.
	In time.Duration
	// NeedVotes says that rule R4 allows it and only votes of the failsafe list are missing (R13); see Ballot.
	NeedVotes bool
	// Alone says that no other node may wait this record out: its guard was one of this node's, and held no deadline.
	Alone bool
	// Why is the rule's reason, in words.
	Why string
}

// Takeable says whether rule R4 allows a take now. fresh: see Take.
func (l *Lease) Takeable(now time.Duration, fresh bool) Takeable {
	fresh = l.isNew(fresh)
	switch {
	case !l.read:
		return Takeable{Why: "the store was not read yet"}
	case l.open:
		return Takeable{Why: "this node's own epoch is open"}
	case l.leader.Version != Absent && !l.leaderRemovable():
		return Takeable{Why: fmt.Sprintf("the key leader is held by %q", l.leader.Value)}
	case l.item.Version == Absent || l.recordErr != nil:
		if fresh && l.item.Version == Absent {
			return Takeable{Allowed: true, Why: "the cluster is new"}
		}
		if l.longest == 0 {
			return Takeable{Why: "the lease record is absent or unreadable, and no ttl is known to wait for"}
		}
		return l.withVotes(l.waited(now, l.longest, "the lease record is absent or unreadable"), fresh)
	case l.record.State == Released:
		return Takeable{Allowed: true, Why: "released with proof " + l.record.Proof}
	case l.record.Nonce == l.id.Nonce:
		return Takeable{Allowed: true, Why: "held under this node's own guard, whose epoch is closed"}
	case l.record.Endless && !l.takeEndless && !slices.Contains(l.id.Earlier, l.record.Nonce):
		return Takeable{Why: fmt.Sprintf("held by %q, whose guard holds no deadline since a pause: waiting proves nothing; start its agent again, or, if you know that what it ran is gone, name a member in a failover request", l.record.Holder)}
	default:
		t := l.withVotes(l.waited(now, time.Duration(l.record.TTL), fmt.Sprintf("held by %q", l.record.Holder)), fresh)
		t.Alone = l.record.Endless && !l.takeEndless
		return t
	}
}

// isNew doubts that the cluster is new. A store that lost all its keys looks like one, too; who has seen a record knows
// better: its holder may serve to the end of its deadline, or longer by the promises of others.
func (l *Lease) isNew(fresh bool) bool { return fresh && l.highest == 0 }

func (l *Lease) waited(now, ttl time.Duration, what string) Takeable {
	left := l.since + ttl - now
	if left > 0 {
		return Takeable{In: left, Why: fmt.Sprintf("%s, unchanged for %v of %v", what, (now - l.since).Round(time.Millisecond), ttl)}
	}
	return Takeable{Allowed: true, Why: fmt.Sprintf("%s, unchanged for %v", what, ttl)}
}

// leaderRemovable is rule R5: the key is the replaced holder's, and hangs on the very session that its record names.
func (l *Lease) leaderRemovable() bool {
	return l.recordErr == nil && l.item.Version != Absent && l.leader.Session != "" &&
		string(l.leader.Value) == l.record.Holder && l.leader.Session == l.record.Session
}
