package rest

import (
	"context"
	"encoding/json"
	"time"
)

// Operator is what a node does when an operator asks. All methods may be called from any goroutine; what takes time is a
// task of the loop, never of the caller, and goes on when the caller has gone.
type Operator interface {
	// Restart restarts PostgreSQL and returns when it runs again, with ctx, or with a *Refusal.
	Restart(ctx context.Context, r RestartRequest) error
	// ScheduleRestart keeps a request for r.At in memory and in the member's key: it is lost with the agent
	// (reference section 5.21). A *Refusal with Conflict: another one is scheduled already.
	ScheduleRestart(r RestartRequest) error
	// CancelRestart forgets the scheduled restart, and says whether there was one.
	CancelRestart() bool
	// Reinitialize sets the data directory aside and copies another member's. It returns as soon as the request is
	// taken, or a *Refusal.
	Reinitialize(r ReinitializeRequest) error
	// CancelReinitialize ends a running or waiting reinitialization; the member then makes its replica in the ordinary
	// way. It says whether there was one.
	CancelReinitialize() bool
	// ChangeConfig changes the key `config` by compare-and-swap and wakes the loop. change gets the value as stored, nil
	// when absent, and returns the new one; its error is returned as it is. It is called again when somebody else wrote
	// in between, unless once is set: then the error is dcs.ErrConflict.
	ChangeConfig(ctx context.Context, once bool, change func(current json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error)
}

// RestartRequest says when and under which conditions PostgreSQL is restarted (reference sections 2.8 and 5.21).
type RestartRequest struct {
	At      time.Time // zero: now
	Role    string    // only in this role: primary, replica or standby_leader; empty: any
	Below   int       // only while server_version_num is lower; 0: any
	Pending bool      // only when a parameter waits for a restart
	// Timeout bounds the start; 0: primary_start_timeout.
	Timeout time.Duration
}

// ReinitializeRequest says how a replica is made anew (reference section 5.5).
type ReinitializeRequest struct {
	Force      bool // cancel the task that runs
	FromLeader bool // copy from the leader, by base backup
}

// Refusal is a request that was not carried out, in the words that Patroni's clients know.
type Refusal struct {
	Text     string
	Conflict bool // the state of things is against it, not this node: 409
}

// Error is the text.
func (r *Refusal) Error() string { return r.Text }
