package dcs

import (
	"fmt"
	"strings"
	"time"
)

// Voter is one member's part in failsafe mode: the promises it gives to a holder without the store (R12), and the votes
// it gives to a taker (R13). It does no I/O and reads no clock. The caller writes State durably before it passes a yes
// on (R14), and serialises the calls.
type Voter struct{ s VoterState }

// VoterState is what a Voter must remember over restarts (R14). Times are on the Clock of the boot that Boot names.
type VoterState struct {
	Boot string `json:"boot"`
	// Joined says that this memory is whole since the member was last outside of every list: what it had promised
	// before cannot matter any more. Without it there are no votes and no promises.
	Joined  bool    `json:"joined"`
	Closed  Stamp   `json:"closed,omitzero"` // voted against every holder whose newest write is not above this one
	Known   Stamp   `json:"known,omitzero"`  // the newest stamp that a promise was asked for
	Promise Promise `json:"promise,omitzero"`
}

// Promise is the last promise that was given.
type Promise struct {
	To    string        `json:"to"`    // member name, for people
	Nonce string        `json:"nonce"` // whose it is; empty: none was given
	TTL   Seconds       `json:"ttl"`
	Given time.Duration `json:"given"`
	Until time.Duration `json:"until"`
}

// VoterAnswer is what a Voter says.
type VoterAnswer struct {
	Yes   bool
	Why   string        // of a no
	Left  time.Duration // of the promise that stands against it; 0: none does
	Known Stamp         // the newest stamp that the voter knows of
}

// NewVoter returns a voter that remembers nothing: a new member, or one that lost its memory, which nobody can tell
// apart. It neither votes nor promises before Join.
func NewVoter(boot string) *Voter { return &Voter{VoterState{Boot: boot}} }

// LoadVoter returns a voter as it was saved. In another boot the clock on which a promise was given is gone: a promise
// counts again from bootAt, the reading of the present clock at boot, in full (R14). The same goes, from now, for a
// clock that is behind the one it was given on.
func LoadVoter(s VoterState, boot string, bootAt, now time.Duration) *Voter {
	v := &Voter{s}
	switch {
	case s.Boot != boot:
		v.again(bootAt)
	case now < s.Promise.Given:
		v.again(now)
	}
	v.s.Boot = boot
	return v
}

func (v *Voter) again(from time.Duration) {
	if p := &v.s.Promise; p.Nonce != "" {
		p.Given, p.Until = from, from+time.Duration(p.TTL)
	}
}

// State is what to save.
func (v *Voter) State() VoterState { return v.s }

// Joined says that this voter may vote and promise.
func (v *Voter) Joined() bool { return v.s.Joined }

// Join tells a voter without memory that a record was read whose list does not hold this member (R14). It says whether
// anything changed, so that the state must be saved.
//
// Safety: a list that holds this member again is committed by a later write. Whoever holds or takes by an earlier list
// has a stamp that is not above this one, gets no promise, and its compare-and-swap is refused.
func (v *Voter) Join(stamp Stamp) bool {
	if v.s.Joined {
		return false
	}
	v.s.Joined, v.s.Closed = true, newer(v.s.Closed, stamp)
	return true
}

// Promised says to whom a promise stands, and for how much longer.
func (v *Voter) Promised(now time.Duration) (to string, left time.Duration) {
	if p := v.s.Promise; p.Nonce != "" && now < p.Until {
		return p.To, p.Until - now
	}
	return "", 0
}

// Accepted says that the promise that stands is one of Accept.
func (v *Voter) Accepted(now time.Duration) bool {
	_, left := v.Promised(now)
	return left > 0 && strings.HasPrefix(v.s.Promise.Nonce, acceptedNonce)
}

// acceptedNonce begins what stands for a nonce in an accepted promise; no guard's nonce has a colon.
const acceptedNonce = "accepted:"

// Promise answers a holder (R12, R13: only for stamps above the closed one). closed says that this member's own guard
// has no open epoch.
func (v *Voter) Promise(now time.Duration, closed bool, q PromiseRequest) VoterAnswer {
	switch to, left := v.Promised(now); {
	case q.TTL <= 0 || q.Nonce == "":
		return v.no(0, "the request has no nonce or no ttl")
	case !v.s.Joined:
		return v.no(0, "this member lost its memory of promises and must be taken into the list anew")
	case !closed:
		return v.no(0, "this member's own epoch is open")
	case q.Stamp.Compare(v.s.Closed) <= 0:
		return v.no(0, fmt.Sprintf("this member voted for a taker of %v, and the holder knows no later write of its own than %v", v.s.Closed, q.Stamp))
	case left > 0 && v.s.Promise.Nonce != q.Nonce:
		return v.no(left, fmt.Sprintf("a promise to %s stands", to))
	case q.Stamp.Epoch < v.s.Known.Epoch:
		return v.no(0, fmt.Sprintf("a later epoch is known (%v)", v.s.Known))
	}
	v.s.Known = newer(v.s.Known, q.Stamp)
	v.give(now, q.Holder, q.Nonce, time.Duration(q.TTL))
	return VoterAnswer{Yes: true, Known: v.s.Known}
}

// give sets the promise; one to the same holder never gets shorter.
func (v *Voter) give(now time.Duration, to, nonce string, ttl time.Duration) {
	p := Promise{To: to, Nonce: nonce, TTL: Seconds(ttl), Given: now, Until: now + ttl}
	if old := v.s.Promise; old.Nonce == nonce && old.Until > p.Until {
		p.TTL, p.Given, p.Until = old.TTL, old.Given, old.Until
	}
	v.s.Promise = p
}

// Accept answers a leader that keeps to another protocol, without epochs: while it stands, this member neither votes nor
// promises. The caller refuses it itself while a take is under way (R13).
func (v *Voter) Accept(now time.Duration, closed bool, leader string, ttl time.Duration) VoterAnswer {
	nonce := acceptedNonce + leader
	switch to, left := v.Promised(now); {
	case !closed:
		return v.no(0, "this member's own epoch is open")
	case left > 0 && v.s.Promise.Nonce != nonce:
		return v.no(left, fmt.Sprintf("a promise to %s stands", to))
	}
	v.give(now, leader, nonce, ttl)
	return VoterAnswer{Yes: true, Known: v.s.Known}
}

// Vote answers a taker (R13). A yes binds: no holder whose newest write is not above the stamp gets a promise any more.
// A vote for a stamp below one that a promise was asked for is refused: that version is gone.
func (v *Voter) Vote(now time.Duration, closed bool, q VoteRequest) VoterAnswer {
	switch to, left := v.Promised(now); {
	case !v.s.Joined:
		return v.no(0, "this member lost its memory of promises and must be taken into the list anew")
	case !closed:
		return v.no(0, "this member's own epoch is open")
	case left > 0:
		return v.no(left, fmt.Sprintf("a promise to %s stands", to))
	case q.Stamp.Compare(v.s.Known) < 0:
		return v.no(0, fmt.Sprintf("a later write is known (%v)", v.s.Known))
	}
	v.s.Closed = newer(v.s.Closed, q.Stamp)
	return VoterAnswer{Yes: true, Known: v.s.Known}
}

func (v *Voter) no(left time.Duration, why string) VoterAnswer {
	return VoterAnswer{Why: why, Left: left, Known: v.s.Known}
}
