// Package fence keeps the promise that PostgreSQL runs as a primary only while its lease is good: the guard, a tiny
// process that is the parent of the postmaster, outlives the agent, and holds the epoch and its deadline.
//
// What it does by itself, whatever becomes of the agent (design section 7):
//
//   - The ladder: a fast shutdown at deadline minus head start, an immediate one at the deadline, SIGKILL to everything
//     200 ms later, until wait says that nothing is left (hazards A1, A2, A4, A5, A18).
//   - The kernel's timer: a guard that is frozen, or starved, is killed by the kernel 300 ms after the deadline; its
//     death sends SIGQUIT to the postmaster, which ends its sessions with it (hazard A2).
//   - The rules of the epoch: a primary starts or is promoted only under the open epoch before its deadline, epochs only
//     grow, a closed one never opens again (lease rules R7, R8, R10, R11; hazard A17).
//   - At rest a data directory holds standby.signal, so that a server started by hand comes up read-only (hazard A17).
//   - A wall clock that jumps forward shortens the deadline: the machine may have been paused (hazard A3).
//
// Optional rungs, used when the machine allows them: a cgroup of PostgreSQL's own, killed as a whole; admission by
// nftables; a PID namespace; a watchdog device. State names the rungs that are active and what they guarantee.
//
// It contacts no store, runs no SQL, and decides nothing: it only refuses and ends.
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

// Times of the ladder. All of them end within dcs.FenceBound after the deadline, on which the arithmetic of the lease
// relies (hazards 2.2, obligation O5).
const (
	killAfter    = 200 * time.Millisecond // from SIGQUIT to SIGKILL
	kernelAfter  = 300 * time.Millisecond // from the deadline to the end of a guard that did not get that far
	killPause    = 10 * time.Millisecond  // between two rounds of SIGKILL
	idleExit     = 30 * time.Second       // a guard with nothing to guard and nobody to serve ends
	fastPatience = 3 * time.Second        // for a fast shutdown whose lease was renewed after it had begun
	retiredFor   = 30 * time.Second       // for what is left of a server after a proof, archiver and walsenders
	jumpMatters  = 100 * time.Millisecond // a smaller jump of the wall clock is well within the assumed rates
	noDeadline   = 24 * time.Hour         // a deadline further away is none: the cluster is paused (design section 7)
)

// Options are what the agent asks of the guard, once for each connection.
type Options struct {
	// DataDir is the data directory that the guard is for. What an earlier guard left behind in it is ended at once.
	DataDir string `json:"data_dir,omitempty"`
	// Program is the base name of the server's program; empty: postgres.
	Program string `json:"program,omitempty"`
	// Cgroup puts PostgreSQL into a cgroup of its own where that is possible.
	Cgroup bool `json:"cgroup,omitempty"`
	// AdmissionPort is the TCP port that nftables closes at the deadline; 0: none.
	AdmissionPort int `json:"admission_port,omitempty"`
	// PIDNamespace starts PostgreSQL as the first process of a PID namespace, so that the kernel ends all of it with the
	// guard. It needs CAP_SYS_ADMIN, and pg_ctl and backend process ids no longer mean anything outside.
	PIDNamespace bool     `json:"pid_namespace,omitempty"`
	Watchdog     Watchdog `json:"watchdog,omitzero"`
}

// Watchdog is a device that resets the machine when it is not fed (reference section 5.22).
type Watchdog struct {
	Mode   string `json:"mode,omitempty"`   // "off" or empty, "automatic" (used when it can be), "required"
	Device string `json:"device,omitempty"` // empty: /dev/watchdog
	// Margin is taken off the ttl to make the time-out; negative: half of the ttl.
	Margin time.Duration `json:"margin,omitempty"`
	// Testing treats the device as a FIFO that a test reads.
	Testing bool `json:"testing,omitempty"`
}

// Term is an epoch and how long it may last. Deadline is CLOCK_BOOTTIME since boot, as dcs.Boottime gives it.
type Term struct {
	Epoch     uint64        `json:"epoch"`
	Deadline  time.Duration `json:"deadline"`
	HeadStart time.Duration `json:"head_start,omitempty"` // how long before it the fast shutdown begins
	// Sent is when the first request of the renewal was sent that Deadline counts from; 0: unknown.
	Sent     time.Duration `json:"sent,omitempty"`
	TTL      time.Duration `json:"ttl,omitempty"`       // the lease's, for the watchdog
	LoopWait time.Duration `json:"loop_wait,omitempty"` // for the watchdog
}

// State is what the guard says of itself.
type State struct {
	Version int    `json:"version"` // of the protocol
	PID     int    `json:"pid"`
	Nonce   string `json:"nonce"` // made at the guard's start, never used by another guard
	// Earlier are the nonces of the last guards of this folder, which are gone, and what they started with them.
	Earlier    []string      `json:"earlier,omitempty"`
	BootID     string        `json:"boot_id"`
	Epoch      uint64        `json:"epoch"` // the last one opened; 0: none yet
	Open       bool          `json:"open"`
	Deadline   time.Duration `json:"deadline"`
	Postmaster Postmaster    `json:"postmaster"`
	Orphans    int           `json:"orphans"` // processes left of a postmaster that is gone (hazard A4)
	LastExit   Exit          `json:"last_exit"`
	// Rungs are the means that are active; see Rung.
	Rungs []Rung `json:"rungs,omitempty"`
	// Bounded says that a primary ends by the deadline whatever happens to the agent.
	Bounded bool `json:"bounded"`
	// Guarantee says in words what the rungs give.
	Guarantee string `json:"guarantee,omitempty"`
	// Problem is why a rung that was asked for is not active.
	Problem string `json:"problem,omitempty"`
}

// Rung is one means by which the guard fences.
type Rung string

// Rungs, from the one that acts first to the surest.
const (
	RungDeadline     Rung = "deadline"      // the ladder of the guard
	RungKernelTimer  Rung = "kernel-timer"  // the kernel ends a guard that is frozen past the deadline, and PostgreSQL with it
	RungCgroup       Rung = "cgroup-kill"   // all of PostgreSQL is killed by one write
	RungAdmission    Rung = "admission"     // the kernel drops the packets of TCP clients
	RungPIDNamespace Rung = "pid-namespace" // the kernel kills all of PostgreSQL with its guard
	RungWatchdog     Rung = "watchdog"      // the machine is reset
)

// Postmaster is the guard's child.
type Postmaster struct {
	Running bool   `json:"running"`
	PID     int    `json:"pid"`
	Primary bool   `json:"primary"` // started as primary, or allowed to be promoted
	Epoch   uint64 `json:"epoch"`   // under which it is primary
	// Foreign says that the guard did not start it but was told to take charge of it: the weaker rung.
	Foreign bool `json:"foreign,omitempty"`
	// AtRest says that standby.signal was written after the server had come up as primary: from then on the directory
	// starts read-only, whoever starts it (hazard A17).
	AtRest bool `json:"at_rest,omitempty"`
}

// Exit is how a postmaster ended.
type Exit struct {
	PID    int `json:"pid"`
	Code   int `json:"code"`
	Signal int `json:"signal"`
}

// StartRequest is a postmaster to start.
type StartRequest struct {
	Path string   `json:"path"`
	Args []string `json:"args"` // without the program name
	Env  []string `json:"env"`
	Dir  string   `json:"dir"` // the data directory
	Log  string   `json:"log"` // file that output is appended to; empty: the guard's own output
	// Primary is allowed only under the open epoch, before its deadline. The guard removes standby.signal just before.
	Primary bool   `json:"primary"`
	Epoch   uint64 `json:"epoch"`
}

// Proof is why nothing of an epoch can acknowledge a write any more (lease rule R8).
type Proof string

// Proofs.
const (
	// ProofEmpty: nothing of PostgreSQL is left.
	ProofEmpty Proof = "empty"
	// ProofShutdown: pg_control says "shut down". The checkpointer writes that after the last client backend is gone, and
	// a postmaster that is shutting down lets nobody in, while its archiver and its walsenders may take seconds more.
	ProofShutdown Proof = "shutdown"
)

// EventKind says what the guard noticed.
type EventKind string

// Events.
const (
	EventExit      EventKind = "exit"       // the postmaster ended; Code, Signal
	EventEmpty     EventKind = "empty"      // nothing of it is left
	EventFenced    EventKind = "fenced"     // the deadline passed: the epoch is closed
	EventJump      EventKind = "jump"       // the wall clock jumped forward by By, and the deadline was shortened by it
	EventGuardLost EventKind = "guard_lost" // the guard itself is gone
)

// Event is pushed by the guard at once.
type Event struct {
	Kind   EventKind     `json:"kind"`
	PID    int           `json:"pid,omitempty"`
	Code   int           `json:"code,omitempty"`
	Signal int           `json:"signal,omitempty"`
	Epoch  uint64        `json:"epoch,omitempty"`
	By     time.Duration `json:"by,omitempty"`
}

// Errors that callers branch on.
var (
	ErrRunning   = errors.New("a postmaster is running, or not all of the last one is gone")
	ErrNoEpoch   = errors.New("the epoch is not open, or its deadline has passed")
	ErrGuardLost = errors.New("the guard is gone")
	ErrInUse     = errors.New("another agent is connected to the guard")
	ErrVersion   = errors.New("the guard speaks another version of the protocol")
	ErrWatchdog  = errors.New("the watchdog is required and cannot be used")
)
