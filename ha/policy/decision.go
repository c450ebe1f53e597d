package policy

import (
	"fmt"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres/wal"
)

// Decision is what a node does next, and why.
//
// Actions run in order; the first that fails ends the Decision, and the node looks again. A long action starts a task
// and counts as done when the task has begun; at most one is in a Decision, as its last action, and none while a task
// runs, except Cancel, Fence and Demote-by-lease-loss, which replace it. Release never precedes the end of a Fence or
// Demote: it appears only in a later Decision, whose View shows that nothing runs (invariant I13).
type Decision struct {
	Reason  Reason
	Detail  string // a sentence with the facts, for the log and for people
	Actions []Action
	Wake    time.Duration // look again after this long at the latest
	// Ask asks the peers over HTTP, and looks again as soon as all answered or the short deadline passed.
	Ask bool
	// Promises asks the failsafe list for promises (R12), Votes for votes (R13); both look again when the answers are in.
	Promises, Votes bool
	// Probe names the member whose Line is wanted; empty: none.
	Probe string
}

// Action is one step. The set is sealed.
type Action interface {
	fmt.Stringer
	action()
}

// Store actions: done by the loop itself, in one store transaction each.
type (
	// Take takes the lease by rule R4 and puts `leader`. With Bootstrap it also writes the dynamic configuration if
	// there is none, and the system identifier over our own `initialize`. With ClearFailover it empties `failover`
	// in the same transaction.
	Take struct {
		Bootstrap     bool
		ClearFailover bool
	}
	// Renew renews by rule R1, and puts `leader` again when it is absent. The caller keeps the note: it names the
	// promotion of a primary, and Announce, when that has an ID, before it is made (hazard B10).
	Renew struct{ Announce cluster.Promotion }
	// Release gives the lease back by rule R8. The caller adds the proof, which it has from the guard and pg_control.
	Release struct {
		Target string       // the member that a switchover is for; empty: anybody
		End    wal.Position // where the WAL ends, when known
	}
	// DropOrphan deletes `leader` when it hangs on our session and the record is not ours (R9).
	DropOrphan struct{}
	// RaceInitialize creates `initialize` empty, bound to our session, if it is absent.
	RaceInitialize struct{}
	// DropInitialize deletes our own empty `initialize` after a failed bootstrap.
	DropInitialize struct{}
	// WriteInitialize writes the system identifier into `initialize` when it is absent or invalid, as the leader.
	WriteInitialize struct{ SystemID string }
	// ClearFailover empties `failover` at the version that was read.
	ClearFailover struct{ Why string }
)

// Quick actions on PostgreSQL.
type (
	// Follow re-points a running replica: write the configuration, reload.
	Follow struct{ Member string } // empty: nobody
	// Cancel ends the running task.
	Cancel struct{ Why string }
)

// Tasks: long actions.
type (
	// Initdb creates a new cluster, not yet running.
	Initdb struct{}
	// Clone replaces the data directory by a base backup of Member; what was there is set aside.
	Clone struct{ Member string }
	// Measure reads where the WAL of a stopped server ends.
	Measure struct{}
	// Rewind saves the WAL after Fork, then runs pg_rewind against Member.
	Rewind struct {
		Member string
		Fork   wal.Position
	}
	// StartPrimary starts PostgreSQL as primary on its own timeline, under the open epoch; after a bootstrap it also
	// creates the users.
	StartPrimary struct{}
	// StartReplica starts PostgreSQL as a standby of Member; empty: read-only without upstream.
	StartReplica struct{ Member string }
	// Promote records the intent durably (hazard D4), promotes the running replica under the open epoch, and ends when
	// it accepts writes.
	Promote struct{ Promotion cluster.Promotion }
	// Demote is the planned way down: checkpoint while writes still flow, fast stop, until nothing is left or
	// pg_control says "shut down"; then the guard closes the epoch.
	Demote struct{ Target string }
	// Fence is the forced way down, by the guard's ladder: fast stop, at the deadline immediate, then kill, until
	// nothing is left; then the guard closes the epoch. It needs no store, SQL or disk (invariant I21).
	Fence struct{ Why string }
	// Stop stops a replica (fast).
	Stop struct{}
	// Restart stops PostgreSQL in order and starts it again as what it was: as the primary under the open epoch, on its
	// own timeline, or as a replica of Member (empty: of nobody). It ends when SQL is answered, or after the limit of the
	// request, which fails it and leaves the server starting.
	Restart struct {
		Primary   bool
		Member    string
		Scheduled bool // it carries out View.Scheduled, otherwise View.Restart, if any
	}
)

// Revive notes that PostgreSQL, which is down in pause, is to come back (Server.Due): that is the restart that was asked for.
type Revive struct{}

// Request names what an operator asked a node for.
type Request string

// Requests.
const (
	RequestRestart   Request = "restart"
	RequestScheduled Request = "scheduled restart"
	RequestReinit    Request = "reinitialize"
)

// Refuse ends a request that is not carried out. Why is for the operator.
type Refuse struct {
	Request Request
	Why     string
}

func (Take) action()            {}
func (Renew) action()           {}
func (Release) action()         {}
func (DropOrphan) action()      {}
func (RaceInitialize) action()  {}
func (DropInitialize) action()  {}
func (WriteInitialize) action() {}
func (ClearFailover) action()   {}
func (Follow) action()          {}
func (Cancel) action()          {}
func (Initdb) action()          {}
func (Clone) action()           {}
func (Measure) action()         {}
func (Rewind) action()          {}
func (StartPrimary) action()    {}
func (StartReplica) action()    {}
func (Promote) action()         {}
func (Demote) action()          {}
func (Fence) action()           {}
func (Stop) action()            {}
func (Restart) action()         {}
func (Refuse) action()          {}
func (Revive) action()          {}
