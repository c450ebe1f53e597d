// Package policy is the whole of the decision making: Decide maps a View, everything one node can see at one instant,
// to a Decision, the actions it takes and why. It is pure: it reads no clock, no file and no network, keeps nothing
// between calls, and the same View always gives the same Decision. testdata holds the specification as stories.
//
// It does not talk to the store or to PostgreSQL (package ha does), and it does not contain the lease protocol: whether
// a lease may be renewed, taken or released is judged by dcs.Lease and appears in the View as Lease.
package policy

import (
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres/wal"
)

// View is all that a decision may depend on. Unknown is not false: what could not be observed has a value of its own.
type View struct {
	Now      time.Duration // on this node's clock, since an arbitrary start
	Self     Self
	Store    Store
	Cluster  cluster.Cluster // as last read; empty when the store never answered
	Lease    Lease
	Failsafe Failsafe
	Server   Server
	Line     Line   // the leader's own account of its WAL
	Peers    []Peer // the other members, ascending by name
	Task     Task   // the long action that is running
	Last     Outcome
	// ScheduledIn is how long until the failover request's scheduled_at; 0 or less: due. Meaningless without one. The
	// caller does the arithmetic on wall clocks, so that the policy cannot.
	ScheduledIn time.Duration
	// RequestedFor is how long the request in the key failover has been seen here.
	RequestedFor time.Duration
	// What operators asked this node for; nil: nothing. Restart is for now, Scheduled waits for its time.
	Restart, Scheduled *RestartRequest
	Reinit             *ReinitRequest

	Stop    bool          // the process was asked to end: hand the leadership over, stop PostgreSQL
	StopFor time.Duration // since when
}

// Self is what a node knows of itself without looking anywhere.
type Self struct {
	Name      string
	Session   string // the ID of the session that this node's keys hang on; empty: none
	Tags      cluster.Tags
	Bootstrap bool // the file allows this node to create a new cluster
	// BootstrapFailed is why this node does not create a cluster again before it is restarted; empty: it may.
	BootstrapFailed string
	CanRewind       bool          // use_pg_rewind, and the data directory has checksums or wal_log_hints
	Unfit           string        // why this node must not lead whatever happens (an unsupported safety setting); empty: it may
	Unfenced        string        // why a primary must not even go on here (`fence: required` and no bound); empty: it may
	FencePause      time.Duration // g: the fence starts this long before the deadline (design section 7)
}

// Store is whether the store answered.
type Store struct {
	Known  bool          // some read ever succeeded
	Silent time.Duration // since the last successful read was sent; small when the store answers
	Failed bool          // the read of this very look failed
}

// Verdict is what the lease record says of this node's open epoch (lease rule R2).
type Verdict int

// Verdicts.
const (
	VerdictNone          Verdict = iota // no epoch is open here
	VerdictMine                         // the record carries our epoch and nonce, and `leader` is ours or can be made so
	VerdictLost                         // the record is foreign or absent: fence, close the epoch
	VerdictLeaderForeign                // the record is ours, but `leader` is another's: fence, close, release (R2)
)

// Lease is the lease as dcs.Lease judges it.
type Lease struct {
	Open    bool // this node's guard has an open epoch
	Epoch   uint64
	Verdict Verdict
	// Left is the time until the guard's deadline. Renewed is the age of the last renewal that counted. RenewEvery is
	// how often one must start (lease rule R1). All three are meaningful only while Open.
	Left, Renewed, RenewEvery time.Duration

	// Unreleased says that the record is still held under our guard's nonce while the epoch is closed: release it
	// once nothing runs, or take it anew (R4c).
	Unreleased bool
	// Orphan says that `leader` hangs on our session while the record is not ours (R9).
	Orphan bool

	// The record, whoever's it is.
	Present bool
	Holder  string
	Held    bool // false: released
	Note    cluster.Note
	SeenFor time.Duration // how long this very version has been known here
	TTL     time.Duration

	// Takeable says that rule R4 allows a take now; otherwise TakeIn is when it will if nothing changes, and 0 when
	// waiting alone will not help. TakeWhy explains either in words.
	Takeable bool
	TakeIn   time.Duration
	TakeWhy  string
	// TakeAlone says that no other member may take this record by waiting: this node does not leave it to them.
	TakeAlone bool
	// NeedVotes says that only votes of the failsafe list are missing for a take (R13); TakeWhy says which.
	NeedVotes bool
}

// Role is a PostgreSQL server's role, seen or asked for.
type Role int

// Roles.
const (
	RoleUnknown Role = iota
	RolePrimary
	RoleReplica
)

// Process is what the guard says of the postmaster.
type Process int

// Process states.
const (
	ProcessUnknown Process = iota // the guard did not answer
	ProcessNone                   // nothing runs
	ProcessRunning                // a postmaster runs under our guard
	ProcessOrphans                // the postmaster is gone, some of its children are not (hazard A4)
	ProcessForeign                // a postmaster that is not our guard's child runs in the data directory
)

// Data is what is in the data directory.
type Data int

// Data states.
const (
	DataUnknown     Data = iota
	DataEmpty            // missing or empty
	DataReady            // can be started
	DataInterrupted      // an initdb, base backup or rewind did not finish
	DataInvalid          // not a cluster this program can read
)

// Server is this node's own PostgreSQL.
type Server struct {
	Process   Process
	StartedAs Role // how the guard started or promoted what runs
	Answers   bool // SQL was answered in this look
	Starting  bool // it runs and rejects connections because it is starting up
	Role      Role // by SQL; RoleUnknown when not answered
	Data      Data
	Problem   string // why Data is unknown or invalid, a sentence
	SystemID  string // from pg_control; empty when unknown

	// Branch is this node's WAL: its history, its end, the identities of its promotions. End is 0 when unknown, as it
	// is for a crashed server whose WAL was not read yet.
	Branch cluster.Branch
	// WasPrimary says that pg_control was last written by a primary; CleanStop that it was shut down cleanly.
	WasPrimary, CleanStop bool

	Upstream     string // the member it is configured to stream from; empty: none, "?": a host that is no member
	Streaming    bool
	ReplayPaused bool
	// DownFor is how long PostgreSQL has not been running or answering while this node leads; 0 when it is well.
	DownFor time.Duration
	Crashes int // unexpected exits in the last five minutes

	Version        int  // server_version_num; 0: unknown
	PendingRestart bool // a parameter waits for a restart
	// TooLow says which parameter of this standby is lower than its primary's, so that PostgreSQL has paused the replay
	// and waits for a restart (reference section 4.6); empty: none.
	TooLow string
	// Due says that an operator's request stopped it and that it has not come back since: it is started again, in pause
	// and after a restart of the agent too.
	Due bool
	// StartLimit is how long the operator's restart gives it to start; 0: primary_start_timeout.
	StartLimit time.Duration
}

// RestartRequest is an operator's request to restart PostgreSQL, and its conditions (reference sections 2.8, 5.21).
type RestartRequest struct {
	In      time.Duration // until it is due, by the wall clock; 0: now
	Role    string        // primary, replica, standby_leader; empty: any
	Below   int           // only while server_version_num is lower; 0: any
	Pending bool          // only while a parameter waits for a restart
	// Happened says that PostgreSQL was started anew since a scheduled restart was asked for.
	Happened bool
}

// ReinitRequest is an operator's request to make the replica anew (reference section 5.5).
type ReinitRequest struct {
	Force      bool // a task that runs is cancelled
	FromLeader bool // the leader is copied, whoever else offers itself
	Copying    bool // its copy was begun
}

// Line is what the leading member says of its WAL over the replication protocol.
type Line struct {
	Member   string // who was asked; empty: nobody
	Known    bool
	Problem  string // why not
	Age      time.Duration
	SystemID string
	Replica  bool // it is in recovery: not promoted yet
	Branch   cluster.Branch
}

// Peer is what another member said when it was asked over HTTP (GET of its api_url).
type Peer struct {
	Name       string
	Asked      bool          // an answer was waited for at all
	Answered   bool          // false with Asked: unreachable
	Age        time.Duration // since the question was sent
	InRecovery bool
	Running    bool // its PostgreSQL answered it
	End        wal.Position
	Tags       cluster.Tags
	Unfit      bool          // it says that it cannot lead (watchdog_failed, an unsupported setting)
	StoreAge   time.Duration // since it last heard from the store; only pgregent members say; 0 otherwise
	Patroni    bool          // not a pgregent member
	Voteless   bool          // it lost its memory of promises (lease rule R14)
	Connected  bool          // it streams from this node's PostgreSQL right now
	Promotions []cluster.Promotion
	History    wal.History
}

// TaskKind names a long action.
type TaskKind string

// Tasks. Each is started by the action of the same name.
const (
	TaskNone         TaskKind = ""
	TaskInitdb       TaskKind = "initdb"
	TaskClone        TaskKind = "clone"
	TaskRewind       TaskKind = "rewind"
	TaskStartPrimary TaskKind = "start primary"
	TaskStartReplica TaskKind = "start replica"
	TaskPromote      TaskKind = "promote"
	TaskDemote       TaskKind = "demote"
	TaskFence        TaskKind = "fence"
	TaskStop         TaskKind = "stop"
	TaskMeasure      TaskKind = "measure wal"
	TaskRestart      TaskKind = "restart"
)

// Task is the long action that runs beside the loop.
type Task struct {
	Kind   TaskKind
	Member string // clone, rewind, start replica: the other side; demote: the target
	For    time.Duration
}

// Outcome is how the last task ended; it stays until another one ends.
type Outcome struct {
	Kind   TaskKind
	Member string
	Ago    time.Duration
	Failed string // empty: it succeeded
	// Impossible says that repeating it cannot help (pg_rewind that needs a clone instead, a promotion that pre_promote
	// refused).
	Impossible bool
	Times      int // how often in a row this kind of task has failed
}
