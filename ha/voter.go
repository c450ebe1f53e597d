package ha

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres/wal"
)

// voter answers promises, votes and Patroni leaders (lease rules R12 to R14) from any goroutine, without the loop: it may
// be waiting for a silent store. What it needs to know of the loop are flags that the loop sets; in doubt they say no.
//
// The mutex is held while the state is written, so the loop never takes it: it must not wait for a disk (invariant I21).
// The loop reads the snapshot, and has the rest done beside it.
type voter struct {
	path  string
	clock dcs.Clock
	log   *slog.Logger
	ttl   func() time.Duration // of the configuration in force: how long an accepted Patroni leader is left alone

	mu    sync.Mutex
	voter *dcs.Voter
	scope string // the system identifier that the state belongs to; empty: not known yet

	snapshot  atomic.Pointer[dcs.Voter] // what was last saved; never changed
	scopeSeen atomic.Pointer[string]

	// Set by the loop.
	enabled atomic.Bool // failsafe mode is on, as last read
	closed  atomic.Bool // the guard's epoch is certainly closed
	primary atomic.Bool // PostgreSQL runs as primary here
	lsn     atomic.Uint64
	taking  atomic.Bool // a take is under way
	joining atomic.Bool

	accepting atomic.Int32 // requests that may be accepting a leader right now
}

// voterFile is the voter's state as it is stored.
type voterFile struct {
	Version  int            `json:"version"`
	SystemID string         `json:"system_id,omitempty"`
	State    dcs.VoterState `json:"state"`
}

var errSaveVoter = errors.New("the promise could not be written")

// openVoter loads what the member remembers. A memory that is gone or damaged is lost: no promises and no votes before
// the leader has taken this member into the list anew (R14).
func openVoter(dir, boot string, clock dcs.Clock, log *slog.Logger, ttl func() time.Duration) *voter {
	v := &voter{path: filepath.Join(dir, "voter.json"), clock: clock, log: log, ttl: ttl, voter: dcs.NewVoter(boot)}
	v.enabled.Store(true) // until it is known: a promise too many harms nobody
	b, err := os.ReadFile(v.path)
	var f voterFile
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err == nil:
		if err = json.Unmarshal(b, &f); err == nil && f.Version != 1 {
			err = fmt.Errorf("version %d is not known", f.Version)
		}
		if err == nil {
			v.voter, v.scope = dcs.LoadVoter(f.State, boot, 0, clock.Now()), f.SystemID
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("the memory of promises is lost; this member neither promises nor votes before the leader has taken it into the failsafe list anew",
			"file", v.path, "error", err)
	}
	v.publish()
	return v
}

func (v *voter) publish() {
	c, scope := *v.voter, v.scope
	v.snapshot.Store(&c)
	v.scopeSeen.Store(&scope)
}

// save makes the state durable, and then visible. mu is held.
func (v *voter) save() error {
	b, err := json.Marshal(voterFile{Version: 1, SystemID: v.scope, State: v.voter.State()})
	if err == nil {
		err = writeDurably(v.path, append(b, '\n'))
	}
	v.publish() // also when it failed: what it forbids is forbidden, and nobody was told of a yes
	if err != nil {
		v.log.Error("the memory of promises cannot be saved", "error", err)
		return errSaveVoter
	}
	return nil
}

func (v *voter) answer(f func(now time.Duration) dcs.VoterAnswer) dcs.VoterAnswer {
	if !v.enabled.Load() {
		return dcs.VoterAnswer{Why: rest.ErrFailsafeOff.Error()}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	a := f(v.clock.Now())
	if a.Yes {
		if err := v.save(); err != nil {
			a.Yes, a.Why = false, err.Error()
		}
	}
	return a
}

// Promise is rule R12. The time is read before the state is written: writing takes from the promise, never adds to what the
// holder believes, who counts from before it asked.
func (v *voter) Promise(q dcs.PromiseRequest) dcs.VoterAnswer {
	return v.answer(func(now time.Duration) dcs.VoterAnswer {
		return v.voter.Promise(now, v.closed.Load() && !v.primary.Load(), q)
	})
}

// Vote is rule R13.
func (v *voter) Vote(q dcs.VoteRequest) dcs.VoterAnswer {
	return v.answer(func(now time.Duration) dcs.VoterAnswer { return v.voter.Vote(now, v.closed.Load(), q) })
}

// Accept leaves a Patroni leader alone for a ttl. It and beginTake exclude each other without a lock: each says what it is
// about to do before it looks whether the other does.
func (v *voter) Accept(leader string) (wal.LSN, error) {
	v.accepting.Add(1)
	defer v.accepting.Add(-1)
	switch {
	case !v.enabled.Load():
		return 0, rest.ErrFailsafeOff
	case v.primary.Load():
		return 0, rest.ErrPrimary
	case v.taking.Load():
		return 0, errors.New("this member is taking the lease")
	}
	a := v.answer(func(now time.Duration) dcs.VoterAnswer { return v.voter.Accept(now, v.closed.Load(), leader, v.ttl()) })
	if !a.Yes {
		return 0, errors.New(a.Why)
	}
	return wal.LSN(v.lsn.Load()), nil
}

// beginTake says that a take is under way (R13); it is refused while a Patroni leader is left alone.
func (v *voter) beginTake() error {
	v.taking.Store(true)
	s := v.snapshot.Load()
	if v.accepting.Load() > 0 || s.Accepted(v.clock.Now()) {
		v.taking.Store(false)
		return errors.New("a Patroni leader goes on without the store, and this member has accepted that")
	}
	return nil
}

func (v *voter) endTake() { v.taking.Store(false) }

// seen tells the voter of a record that was read: the cluster that it belongs to, and whether its list holds this member.
// What has to be written is written beside the loop. Another cluster's memory says nothing about this one.
func (v *voter) seen(systemID string, stamp dcs.Stamp, listed bool) {
	other := systemID != "" && *v.scopeSeen.Load() != systemID
	if (!other && (listed || v.snapshot.Load().Joined())) || !v.joining.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer v.joining.Store(false)
		v.mu.Lock()
		defer v.mu.Unlock()
		if other {
			if v.scope != "" {
				v.voter = dcs.NewVoter(v.voter.State().Boot)
			}
			v.scope = systemID
		}
		if !listed {
			v.voter.Join(stamp)
		}
		_ = v.save() // said in the log; the next look tries again
	}()
}
