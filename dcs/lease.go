package dcs

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Lease is one node's side of the lease protocol: the rules R1 to R11 as a state machine. It does no I/O and reads no
// clock. The caller feeds it what a Read returned (Observe), asks it for a Step (Renew, Take, Release, DropOrphan),
// sends the step's transaction, and tells it how that ended (Settle). Simulation and production run this same code.
//
// Times are on one Clock of this process. Lease is not safe for concurrent use: the deciding loop owns it, and nothing
// else renews (hazard A2).
//
// It does not fence. The deadline that Settle returns is worth something only because a guard enforces it: the caller
// hands it over before it relies on it.
type Lease struct {
	id Identity

	// The epoch of this process's guard. open is false from the moment a release was sent, whatever came of it (R8).
	epoch    uint64
	open     bool
	deadline time.Duration
	renewed  time.Duration // when the last counted renewal was begun
	// made is the version of `leader` that a put of this epoch and this process returned; Absent when there is none.
	// Only that version is OURS (R6).
	made        Version
	madeSession string

	// The record as last read.
	read      bool // some snapshot was observed
	item      Item // zero when absent
	record    Record
	recordErr error
	since     time.Duration // when the first read of this very version, or of its absence, arrived (R4b, R4d)
	sinceOf   Version       // the version that since is about
	leader    Item          // zero when absent

	endless     bool // what the next renewal writes
	takeEndless bool

	longest time.Duration // the longest ttl known (R4d)
	highest uint64        // the highest epoch known (R4d)

	// Failsafe mode (R12, R13); see failsafe.go.
	want      *List      // the list that the holder wants; nil: as it is
	sent      []sentList // renewals without an answer that change the list
	failsafe  bool       // it is on, as last read
	lastList  List       // of the last record that could be read
	listKnown bool
	copied    []string        // the copy of the list
	votes     map[string]bool // for the version last read
}

// Identity is who a Lease acts for.
type Identity struct {
	Name     string // member name, the value of `leader`
	Instance string // anything that helps a person to find the process
	Nonce    string // the guard's nonce: never used by another guard
	// Earlier are the nonces of this node's earlier guards, which are gone with all that they started.
	Earlier []string
}

// NewLease returns the state of a process that holds nothing.
func NewLease(id Identity) *Lease { return &Lease{id: id} }

// Resume tells the lease what the guard of an earlier process of this node still holds (rule R11). epoch and deadline
// come from the guard, never from the record; a deadline that passed must have been reported as not open.
func (l *Lease) Resume(epoch uint64, open bool, deadline time.Duration) {
	l.epoch, l.open, l.deadline = epoch, open, deadline
	l.highest = max(l.highest, epoch)
	l.made, l.madeSession = Absent, "" // what an earlier process put is not OURS (R6)
}

// KnowTTL tells the lease of a ttl that a holder might have used, from the configuration (R4d).
func (l *Lease) KnowTTL(ttl time.Duration) { l.longest = max(l.longest, ttl) }

// Endless says whether renewals from now on let the guard hold no deadline: the cluster is paused (design section 7).
//
// The record says so before the guard does, and the guard has a deadline again before the record says that (the step's
// Shorten, as for a lower ttl in R10). So while a guard may be without a deadline, the newest record says Endless, and who
// reads it does not take the lease by waiting (TakeEndless): the holder's agent may be gone and never see the pause end.
func (l *Lease) Endless(on bool) { l.endless = on }

// TakeEndless allows to wait out a record that says Endless, as any other: somebody who knows that the holder is gone
// named this node.
func (l *Lease) TakeEndless(on bool) { l.takeEndless = on }

// Remember carries over what this process learned under its last guard and R4d asks for: the highest epoch and the longest
// ttl known. A new guard is a new identity (R11); it is no reason to forget.
func (l *Lease) Remember(last *Lease) {
	l.highest, l.longest = max(l.highest, last.highest), max(l.longest, last.longest)
}

// Observe tells the lease what a Read returned, and when the reply arrived. Snapshots must be given in the order in
// which their reads began; reads do not overlap.
func (l *Lease) Observe(snap Snapshot, arrived time.Duration) {
	item, _ := snap.Item(KeyLease)
	if !l.read || item.Version != l.sinceOf {
		l.since, l.sinceOf = arrived, item.Version
		l.votes = nil
	}
	// A renewal whose base is gone was performed, and is what was read or went by, or it never will be.
	l.sent = slices.DeleteFunc(l.sent, func(s sentList) bool { return s.base != item.Version })
	l.read = true
	l.setRecord(item)
	l.leader, _ = snap.Item(KeyLeader)
}

func (l *Lease) setRecord(item Item) {
	l.item, l.record, l.recordErr = item, Record{}, nil
	if item.Version == Absent {
		return
	}
	l.record, l.recordErr = ParseRecord(item.Value)
	l.highest = max(l.highest, l.record.Epoch)
	if l.recordErr == nil {
		l.longest = max(l.longest, time.Duration(l.record.TTL))
		l.lastList, l.listKnown = l.record.List(), true
	}
}

// Errors of the methods that make a Step. They are refusals by the rules, before anything is sent.
var (
	ErrNotHeld     = errors.New("the lease is not held here")
	ErrMayNotTake  = errors.New("the lease may not be taken")
	ErrForeignKey  = errors.New("the key leader is another's")
	ErrNotClosed   = errors.New("the epoch is still open")
	ErrNotObserved = errors.New("the store was not read yet")
)

// stepKind is what a Step does.
type stepKind int

const (
	stepRenew stepKind = iota
	stepTake
	stepRelease
	stepDropOrphan
)

// Step is one transaction of the protocol. The caller may add conditions and operations on other keys to Txn.
type Step struct {
	Txn Txn
	// Sent is the moment before the first request of the sequence, session renewal included: the deadline counts from
	// it (hazard A6).
	Sent time.Duration
	// Shorten, when not 0, is a deadline that the guard must have acknowledged before the transaction is sent (R10).
	Shorten time.Duration

	kind      stepKind
	record    Record
	session   string
	putLeader bool
}

// Renew returns the step of rule R1. sent is the moment before the session was renewed, which the caller did just now
// for session, whose ttl is not shorter than ttl. note becomes the record's; nil keeps it.
//
// The transaction asks for both keys at once, so success proves that `leader` is OURS: at the version that this epoch
// and process put, or put anew by it when the key was absent or an own one of an earlier life (R6, R11).
func (l *Lease) Renew(sent time.Duration, session string, ttl time.Duration, note json.RawMessage) (Step, error) {
	if !l.read {
		return Step{}, ErrNotObserved
	}
	if !l.open || !l.recordMine() {
		return Step{}, ErrNotHeld
	}
	r := l.record
	old := time.Duration(r.TTL)
	ends := r.Endless && !l.endless // see Endless
	r.Endless = l.endless
	r.Counter++
	r.TTL, r.Session, r.Instance = Seconds(ttl), session, l.id.Instance
	if note != nil {
		r.Note = note
	}
	next := l.nextList()
	r.Members, r.Unanimous = next.Members, next.Unanimous
	step := Step{Sent: sent, kind: stepRenew, record: r, session: session}
	if ttl < old || ends {
		step.Shorten = min(l.deadline, sent+Validity(min(ttl, old)))
	}
	if !l.leaderOurs(session) {
		if l.leader.Version != Absent && !l.leaderOwn(session) {
			return Step{}, ErrForeignKey
		}
		step.putLeader = true
	}
	l.sending(r)
	return step, step.fill(l.item.Version, l.leader.Version, l.id.Name)
}

// Members is the failsafe list that the step writes, so that its copy can go with it.
func (s Step) Members() []string { return s.record.Members }

// fill completes the transaction: both keys, as read, and their new values.
func (s *Step) fill(lease, leader Version, name string) error {
	value, err := s.record.Value()
	if err != nil {
		return fmt.Errorf("dcs: lease record: %w", err)
	}
	s.Txn.If = []Cond{{KeyLease, lease}, {KeyLeader, leader}}
	s.Txn.Then = []Op{Put(KeyLease, value)}
	if s.putLeader {
		s.Txn.Then = append(s.Txn.Then, PutSession(KeyLeader, []byte(name), s.session))
	}
	return nil
}

// Close tells the lease that the guard closed the epoch: nothing of it runs any more, and it never opens again.
func (l *Lease) Close() { l.open = false }

// Release returns the step of rule R8. The epoch is closed: Close was called after the guard said so. After the step
// was sent, whatever its outcome, the epoch is dead: release again or take anew.
func (l *Lease) Release(proof string, note json.RawMessage) (Step, error) {
	if l.open {
		return Step{}, ErrNotClosed
	}
	if !l.read {
		return Step{}, ErrNotObserved
	}
	if !l.Unreleased() {
		return Step{}, ErrNotHeld
	}
	r := l.record
	r.Counter++
	r.State, r.Proof = Released, proof
	if note != nil {
		r.Note = note
	}
	step := Step{kind: stepRelease, record: r}
	value, err := r.Value()
	if err != nil {
		return Step{}, fmt.Errorf("dcs: lease record: %w", err)
	}
	step.Txn.If = []Cond{{KeyLease, l.item.Version}}
	step.Txn.Then = []Op{Put(KeyLease, value)}
	if l.made != Absent && l.leader.Version == l.made {
		step.Txn.If = append(step.Txn.If, Cond{KeyLeader, l.made})
		step.Txn.Then = append(step.Txn.Then, Delete(KeyLeader))
	}
	return step, nil
}

// DropOrphan returns the step of rule R9: `leader` hangs on our own live session while the record is not our own.
func (l *Lease) DropOrphan(session string) (Step, error) {
	if !l.Orphan(session) {
		return Step{}, ErrForeignKey
	}
	return Step{kind: stepDropOrphan, Txn: Txn{
		If:   []Cond{{KeyLeader, l.leader.Version}},
		Then: []Op{Delete(KeyLeader)},
	}}, nil
}

// Settle tells the lease how a step ended: err is nil when Commit returned result. It returns the deadline up to which
// the guard may now let PostgreSQL run as primary, or 0 when there is none (more) to hand over.
//
// A refused or unknown outcome changes nothing but the need to Read before the next step (R2, R3): the old deadline
// stands, and no later read ever yields one.
func (l *Lease) Settle(step Step, result Result, err error) (deadline time.Duration) {
	if step.kind == stepRelease {
		l.open = false // the epoch is dead, whatever the outcome
	}
	if step.Shorten != 0 {
		l.deadline = min(l.deadline, step.Shorten) // the guard acknowledged it before the step was sent (R10)
	}
	if err != nil {
		return 0
	}
	if step.kind == stepDropOrphan {
		l.leader, l.made = Item{}, Absent
		return 0
	}
	value, _ := step.record.Value()
	l.item = Item{Key: KeyLease, Value: value, Version: result.Versions[KeyLease]}
	l.record, l.recordErr = step.record, nil
	l.highest = max(l.highest, step.record.Epoch)
	l.longest = max(l.longest, time.Duration(step.record.TTL))
	l.lastList, l.listKnown = step.record.List(), true
	l.sent, l.votes = nil, nil // the base of every other renewal, and what was voted on, is gone
	if step.putLeader {
		l.made, l.madeSession = result.Versions[KeyLeader], step.session
		l.leader = Item{Key: KeyLeader, Value: []byte(l.id.Name), Version: l.made, Session: step.session}
	}
	switch step.kind {
	case stepRelease:
		if l.made != Absent && l.leader.Version == l.made {
			l.leader = Item{}
		}
		l.made = Absent
		return 0
	case stepTake:
		l.epoch, l.open, l.deadline = step.record.Epoch, true, 0
	}
	l.renewed = step.Sent
	// Never less than what an earlier renewal or round of promises gave: that was sent before, and a lower ttl was
	// shortened for already. What a resumed guard held for a pause is more than any renewal gives, and ends here.
	l.deadline = step.Sent + Validity(time.Duration(step.record.TTL))
	return l.deadline
}

// Standing is what the record says of this node's open epoch (rule R2).
type Standing int

// Standings.
const (
	StandingNone    Standing = iota // no epoch is open here
	StandingMine                    // record ours; `leader` ours, absent, or an own one to be written anew
	StandingLost                    // record foreign or absent: fence, close
	StandingForeign                 // record ours, `leader` another's: fence, close, release
)

// Standing judges the last observation.
func (l *Lease) Standing(session string) Standing {
	switch {
	case !l.open || !l.read:
		return StandingNone
	case !l.recordMine():
		return StandingLost
	case l.leader.Version != Absent && !l.leaderOurs(session) && !l.leaderOwn(session):
		return StandingForeign
	default:
		return StandingMine
	}
}

// recordMine: held, by our guard, in the epoch that is (or was last) open here.
func (l *Lease) recordMine() bool {
	return l.recordErr == nil && l.item.Version != Absent && l.record.State == Held &&
		l.record.Nonce == l.id.Nonce && l.record.Epoch == l.epoch
}

// leaderOurs: the version is the one a put of this epoch and process returned, on the session that is renewed (R6).
func (l *Lease) leaderOurs(session string) bool {
	return l.made != Absent && l.leader.Version == l.made && l.madeSession == session
}

// leaderOwn: an own key of an earlier put or life, to be written anew: our name, on our session or on the one that our
// own record names. The name alone proves nothing: another program may run under it (R5, world Y4).
func (l *Lease) leaderOwn(session string) bool {
	return string(l.leader.Value) == l.id.Name && l.leader.Session != "" &&
		(l.leader.Session == session || (l.recordErr == nil && l.record.Nonce == l.id.Nonce && l.leader.Session == l.record.Session))
}

// Unreleased says that the record is held under our guard's nonce while the epoch is closed.
func (l *Lease) Unreleased() bool {
	return !l.open && l.read && l.item.Version != Absent && l.recordErr == nil &&
		l.record.State == Held && l.record.Nonce == l.id.Nonce
}

// Orphan says that `leader` hangs on our session while the record is not our own (R9).
func (l *Lease) Orphan(session string) bool {
	if !l.read || session == "" || l.leader.Version == Absent || l.leader.Session != session {
		return false
	}
	mine := l.recordErr == nil && l.item.Version != Absent && l.record.State == Held && l.record.Nonce == l.id.Nonce
	return !mine
}

// Open says whether this node's epoch is open, and which it is; the epoch stays known after it closed.
func (l *Lease) Open() (epoch uint64, open bool) { return l.epoch, l.open }

// Deadline is what the last counted renewal gave; meaningful while Open.
func (l *Lease) Deadline() time.Duration { return l.deadline }

// Renewed is when the last counted renewal began; meaningful while Open.
func (l *Lease) Renewed() time.Duration { return l.renewed }

// Record is the record as last read, and since when this version is known. ok is false when it is absent or
// unreadable; err says why it is unreadable.
func (l *Lease) Record() (r Record, since time.Duration, ok bool, err error) {
	return l.record, l.since, l.item.Version != Absent && l.recordErr == nil, l.recordErr
}
