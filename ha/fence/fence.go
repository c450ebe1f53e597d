// Package fence keeps the promise that PostgreSQL runs as a primary only while its lease is good: the guard, a tiny
// process that is the parent of the postmaster, outlives the agent, and holds the epoch and its deadline.
//
// This is the guard's first form. It starts, signals, waits for and reports the postmaster, keeps the epoch's rules
// (lease rules R7, R8, R10, R11), and enforces the deadline with its own timer: a fast shutdown at deadline minus head
// start, an immediate one at the deadline, SIGKILL to everything 200 ms later. It does not yet survive being frozen
// itself (that needs the kernel timer), and has none of the optional rungs of design section 7. It contacts no store and
// runs no SQL.
package fence

import (
	"errors"
	"syscall"
	"time"
)

// Mode is how a postmaster is stopped (PostgreSQL documentation, "Shutting Down the Server").
type Mode string

// Modes.
const (
	ModeFast      Mode = "fast"      // SIGINT: sessions end, a shutdown checkpoint is written
	ModeImmediate Mode = "immediate" // SIGQUIT: everything ends at once; the next start recovers
	ModeKill      Mode = "kill"      // SIGKILL to the postmaster and every descendant until none is left
)

func (m Mode) signal() (syscall.Signal, bool) {
	switch m {
	case ModeFast:
		return syscall.SIGINT, true
	case ModeImmediate:
		return syscall.SIGQUIT, true
	case ModeKill:
		return syscall.SIGKILL, true
	}
	return 0, false
}

// State is what the guard says of itself. Times of Deadline are CLOCK_BOOTTIME since boot, as dcs.Boottime gives them.
type State struct {
	Version    int           `json:"version"` // of the protocol
	PID        int           `json:"pid"`
	Nonce      string        `json:"nonce"` // made at the guard's start, never used by another guard
	BootID     string        `json:"boot_id"`
	Epoch      uint64        `json:"epoch"` // the last one opened; 0: none yet
	Open       bool          `json:"open"`
	Deadline   time.Duration `json:"deadline"`
	Postmaster Postmaster    `json:"postmaster"`
	Orphans    int           `json:"orphans"` // processes left of a postmaster that is gone (hazard A4)
	LastExit   Exit          `json:"last_exit"`
}

// Postmaster is the guard's child.
type Postmaster struct {
	Running bool   `json:"running"`
	PID     int    `json:"pid"`
	Primary bool   `json:"primary"` // started as primary, or allowed to be promoted
	Epoch   uint64 `json:"epoch"`   // under which it is primary
}

// Exit is how a postmaster ended.
type Exit struct {
	PID    int `json:"pid"`
	Code   int `json:"code"`
	Signal int `json:"signal"`
}

// StartRequest is a postmaster to start.
type StartRequest struct {
	Path    string   `json:"path"`
	Args    []string `json:"args"` // without the program name
	Env     []string `json:"env"`
	Dir     string   `json:"dir"`
	Log     string   `json:"log"`     // file that output is appended to; empty: the guard's own output
	Primary bool     `json:"primary"` // allowed only under the open epoch, before its deadline
	Epoch   uint64   `json:"epoch"`
}

// EventKind says what the guard noticed.
type EventKind string

// Events.
const (
	EventExit      EventKind = "exit"       // the postmaster ended; Code, Signal
	EventEmpty     EventKind = "empty"      // nothing of it is left
	EventFenced    EventKind = "fenced"     // the deadline passed: the epoch is closed
	EventGuardLost EventKind = "guard_lost" // the guard itself is gone
)

// Event is pushed by the guard at once.
type Event struct {
	Kind   EventKind `json:"kind"`
	PID    int       `json:"pid,omitempty"`
	Code   int       `json:"code,omitempty"`
	Signal int       `json:"signal,omitempty"`
	Epoch  uint64    `json:"epoch,omitempty"`
}

// Errors that callers branch on.
var (
	ErrRunning   = errors.New("a postmaster is running, or not all of the last one is gone")
	ErrNoEpoch   = errors.New("the epoch is not open, or its deadline has passed")
	ErrGuardLost = errors.New("the guard is gone")
	ErrInUse     = errors.New("another agent is connected to the guard")
)

// errorCodes are the errors that cross the socket by name.
func errorCodes() map[string]error {
	return map[string]error{"running": ErrRunning, "no_epoch": ErrNoEpoch, "in_use": ErrInUse}
}

const (
	protocolVersion = 1
	maxMessage      = 1 << 20
	killAfter       = 200 * time.Millisecond // from SIGQUIT to SIGKILL
	idleExit        = 30 * time.Second       // a guard with nothing to guard and nobody to serve ends
)

// request is what the agent sends: one JSON object a line.
type request struct {
	ID       uint64        `json:"id"`
	Op       string        `json:"op"`
	Start    *StartRequest `json:"start,omitempty"`
	Mode     Mode          `json:"mode,omitempty"`
	Epoch    uint64        `json:"epoch,omitempty"`
	Deadline time.Duration `json:"deadline,omitempty"`
	Head     time.Duration `json:"head,omitempty"`
	Enforce  bool          `json:"enforce,omitempty"`
}

// reply is what the guard sends: the answer to a request, or an event.
type reply struct {
	ID    uint64 `json:"id,omitempty"`
	Code  string `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
	PID   int    `json:"pid,omitempty"`
	State *State `json:"state,omitempty"`
	Event *Event `json:"event,omitempty"`
}
