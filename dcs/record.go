package dcs

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Keys of the lease protocol, relative to the prefix. KeyLeader is kept exactly as Patroni keeps it: the plain name of
// the leader, bound to its session.
const (
	KeyLease  = "lease"
	KeyLeader = "leader"
)

// Lease states of a Record.
const (
	Held     = "held"
	Released = "released"
)

// Proofs that nothing of an epoch can acknowledge a write any more (lease rule R8).
const (
	ProofEmpty    = "empty"    // no process is left
	ProofShutdown = "shutdown" // pg_control reads "shut down", written after the last client backend was gone
)

// Seconds is a duration that JSON holds as a number of seconds.
type Seconds time.Duration

// MarshalJSON writes seconds, with as many decimals as needed.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', -1, 64), nil
}

// UnmarshalJSON reads a number of seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	*s = Seconds(f * float64(time.Second))
	return nil
}

// Record is the value of the key `lease`. It is moved only by compare-and-swap and never deleted.
type Record struct {
	Epoch    uint64  `json:"epoch"`              // grows by one with every take
	Holder   string  `json:"holder"`             // member name
	Instance string  `json:"instance,omitempty"` // the process that wrote it, for people
	Nonce    string  `json:"nonce"`              // the holder's guard: the identity that counts (hazard A15)
	Counter  uint64  `json:"counter"`            // grows by one with every renewal of the epoch
	TTL      Seconds `json:"ttl"`                // what a taker waits out on its own clock
	Session  string  `json:"session"`            // the session that `leader` was bound to by this write
	// Endless says that the holder's guard may hold no deadline (the cluster is paused): waiting out the ttl proves nothing.
	Endless bool     `json:"endless,omitempty"`
	Members []string `json:"members,omitempty"` // the failsafe list (rule R12), ascending
	// Unanimous says that the list holds a member of another kind, so that every one of it must promise (rule R12). It
	// stands in the record, because holder and taker must count by the same numbers.
	Unanimous bool            `json:"unanimous,omitempty"`
	State     string          `json:"state"`
	Proof     string          `json:"proof,omitempty"` // with Released
	Note      json.RawMessage `json:"note,omitempty"`  // the holder's own
}

// ParseRecord reads a lease record. An unreadable one is an error; the caller treats the key as held by nobody knows
// whom (rule R4d's waiting time applies).
func ParseRecord(b []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("dcs: key %q holds no lease record: %w", KeyLease, err)
	}
	switch {
	case r.Epoch == 0:
		return Record{}, fmt.Errorf("dcs: key %q: epoch is missing", KeyLease)
	case r.State != Held && r.State != Released:
		return Record{}, fmt.Errorf("dcs: key %q: state %q is neither %q nor %q", KeyLease, r.State, Held, Released)
	case r.State == Held && (r.Nonce == "" || r.TTL <= 0):
		return Record{}, errors.New(`dcs: key "lease": a held record needs a nonce and a ttl`)
	case r.State == Released && r.Proof != ProofEmpty && r.Proof != ProofShutdown:
		return Record{}, fmt.Errorf("dcs: key %q: released without a proof that is known (%q)", KeyLease, r.Proof)
	}
	return r, nil
}

// Value is the record as it is stored.
func (r Record) Value() ([]byte, error) { return json.Marshal(r) }

// Rho is the assumed bound on clock rate errors: every clock runs within 1-Rho and 1+Rho of real time.
const Rho = 0.1

// FenceBound is F: the time within which the guard's SIGKILL is pending on everything after the deadline (design
// section 7; 0.5 s gives D = 6.1 s at ttl 8).
const FenceBound = 500 * time.Millisecond

// Validity is D(ttl): how long after the moment before its first request a counted renewal lets the holder serve,
// D = (1-rho) * (ttl/(1+rho) - F). A taker that waits ttl on its own clock starts after the holder's fence is done, for
// all clocks within Rho (model-checked as tight: one tick more is unsafe). It is not positive for ttl below F*(1+rho).
func Validity(ttl time.Duration) time.Duration {
	return time.Duration((1 - Rho) * (float64(ttl)/(1+Rho) - float64(FenceBound)))
}

// FenceHeadStart is g: how long before the deadline the guard begins with a fast shutdown, min(1 s, D/5).
func FenceHeadStart(ttl time.Duration) time.Duration {
	return min(time.Second, Validity(ttl)/5)
}

// RenewEvery is how often a renewal must start at the latest: min(loopWait, (D-g)/2) (lease rule R1).
func RenewEvery(ttl, loopWait time.Duration) time.Duration {
	return min(loopWait, (Validity(ttl)-FenceHeadStart(ttl))/2)
}
