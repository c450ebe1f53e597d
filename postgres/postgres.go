// Package postgres says what the HA loop needs of a PostgreSQL server: Controller, and Status, what was seen of it.
//
// It runs nothing and decides nothing: postgres/local implements Controller over the PostgreSQL programs and one data
// directory, the loop (package ha) decides, and the guard (package ha/fence) is the parent of the postmaster. A
// Controller therefore never forks a postmaster and never stops one: Command returns what the guard is to start.
package postgres

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/pgregent/pgregent/postgres/wal"
)

// Role is which kind of server a postmaster runs as, seen by SQL or from the files.
type Role int

// Roles. RoleUnknown is a value of its own: an observation that failed is neither primary nor replica.
const (
	RoleUnknown Role = iota
	RolePrimary
	RoleReplica
)

// DataState is what is in the data directory.
type DataState int

// Data directory states.
const (
	DataUnknown     DataState = iota // could not be looked at: see Status.DataErr
	DataEmpty                        // missing or empty
	DataReady                        // a cluster that can be started
	DataInterrupted                  // an initdb, base backup or rewind did not finish (hazards D3, D5); never start it
	DataInvalid                      // not empty and not a cluster this program can read
)

// ControlState is pg_controldata's "Database cluster state".
type ControlState string

// Control states (PostgreSQL source, DBState).
const (
	ControlShutDown           ControlState = "shut down"
	ControlShutDownInRecovery ControlState = "shut down in recovery"
	ControlShuttingDown       ControlState = "shutting down"
	ControlInCrashRecovery    ControlState = "in crash recovery"
	ControlInArchiveRecovery  ControlState = "in archive recovery"
	ControlInProduction       ControlState = "in production"
)

// Control is what pg_control says. It is read from the file, with the server running or not.
type Control struct {
	State            ControlState
	SystemID         string       // decimal, as the key `initialize` holds it
	Checkpoint       wal.Position // latest checkpoint location, and its timeline
	MinRecovery      wal.Position // minimum recovery ending location, and its timeline; zero on a primary
	DataChecksums    bool
	WALLogHints      bool
	CatalogMajor     int            // PostgreSQL major version of the directory (PG_VERSION)
	Settings         map[string]int // max_connections, max_worker_processes, max_wal_senders, max_prepared_xacts, max_locks_per_xact
	SignalStandby    bool           // standby.signal is there
	SignalRecovery   bool
	BackupLabel      bool
	TimelineHistory  wal.History // from <timeline>.history of the timeline in Checkpoint or MinRecovery, whichever is newer
	PostmasterPIDNow int         // from postmaster.pid, 0 when absent; says nothing about whether it lives
}

// Walsender is one row of pg_stat_replication.
type Walsender struct {
	PID                              int
	User, ApplicationName            string
	ClientAddr                       string
	State                            string // "streaming", "catchup", ...
	SyncState                        string
	SyncPriority                     int
	Sent, Written, Flushed, Replayed wal.LSN
}

// Slot is one physical or logical replication slot.
type Slot struct {
	Name       string
	Type       string // "physical" or "logical"
	Active     bool
	RestartLSN wal.LSN
	HasXmin    bool
	WALStatus  string
}

// Status is what was seen of a server in one look. Fields that could not be seen are zero; what a zero means is told by
// Answered (SQL) and Data (files).
type Status struct {
	At time.Duration // when the look began, on the observer's clock

	Data    DataState
	DataErr string // why Data is unknown, invalid or interrupted, in one sentence
	Control Control

	// Answered says that SQL was answered in this look. When false, the SQL fields are zero and Err says why:
	// ErrNotRunning, ErrStarting, or something else.
	Answered bool
	Err      error

	Role            Role
	Version         int // server_version_num, e.g. 150018
	PostmasterStart time.Time
	SystemID        string
	Timeline        wal.Timeline // primary: of the WAL file being written; replica: of the receiver, else of the control file
	Current         wal.LSN      // primary: flushed
	Received        wal.LSN      // replica: flushed by the receiver
	Written         wal.LSN      // replica: written by the receiver
	Replayed        wal.LSN
	ReplayedAt      time.Time
	LatestEnd       wal.LSN // the primary's end as the receiver last heard
	ReplayPaused    bool
	// TooLow says which parameter of a replica is lower than what its WAL demands, in a sentence (reference section 4.6);
	// empty: none. PostgreSQL pauses the replay then.
	TooLow         string
	Streaming      bool   // the receiver is streaming
	RestoreCommand bool   // set
	ConnInfo       string // primary_conninfo as in force, password never included
	UpstreamHost   string // pg_stat_wal_receiver
	UpstreamPort   int
	History        wal.History // from the history file of Timeline; Tip = Timeline

	Walsenders     []Walsender
	Slots          []Slot
	PendingRestart map[string]Change
	SyncNames      string // synchronous_standby_names in force
}

// Change is a parameter that waits for a restart.
type Change struct {
	Old string `json:"old_value"`
	New string `json:"new_value"`
}

// Position is how far the server's WAL reaches as far as it is known: the end of what a primary has flushed, what a
// replica has received or replayed, whichever is more (reference section 5.7.2).
func (s Status) Position() wal.Position {
	p := wal.Position{Timeline: s.Timeline, LSN: max(s.Received, s.Replayed)}
	if s.Role == RolePrimary {
		p.LSN = s.Current
	}
	return p
}

// Command is how a postmaster is started. The guard starts it; nobody else does (design section 7).
type Command struct {
	Path string
	Args []string // without the program name
	Env  []string
	Dir  string
	Log  string // file that standard output and error are appended to; empty: inherited from the guard
}

// Upstream is the server that a replica streams from.
type Upstream struct {
	Name string // member name; empty: no upstream, the replica only replays what it has
	Host string
	Port int
	Slot string // primary_slot_name; empty: none
}

// Source is a server that data is copied from: by base backup, by pg_rewind, or to ask for its history.
type Source struct {
	Name string
	Host string
	Port int
}

// Line is what a server says of its own WAL over the replication protocol (IDENTIFY_SYSTEM, TIMELINE_HISTORY).
type Line struct {
	SystemID string
	Position wal.Position // timeline and flushed end
	History  wal.History
	Replica  bool // it is in recovery itself
}

// Loss is WAL that a data directory holds beyond the point where it leaves the leader's history.
type Loss struct {
	Fork     wal.Position // the last position both have
	End      wal.Position // where the local WAL ends
	Bytes    uint64
	SavedTo  string   // folder that holds the WAL segments and report.json; empty when nothing diverged
	Segments []string // file names
}

// Settings is the part of the configuration that may change while the server runs: the local file merged with the
// dynamic configuration (reference section 4.1).
type Settings struct {
	Parameters   map[string]string // postgresql.parameters, effective
	HBA          []string          // pg_hba.conf lines; nil: leave the file alone
	Ident        []string
	RecoveryConf map[string]string
	UseSlots     bool
	UseRewind    bool
	// Roles is what applies in one role only (reference section 5.20), by the names primary, replica, standby_leader.
	// The loop resolves it with For; a Controller gets Settings without it.
	Roles map[string]RoleSettings
}

// RoleSettings is what differs in one role: `parameters_ROLE`, `pg_hba_ROLE`, `pg_ident_ROLE`.
type RoleSettings struct {
	Parameters map[string]string // over Settings.Parameters; the protected ones have no effect
	HBA, Ident []string          // in the place of Settings.HBA and Settings.Ident; nil: those
}

// For returns the settings as they are in the role (reference section 5.20), without Roles.
func (s Settings) For(role string) Settings {
	r, ok := s.Roles[role]
	s.Roles = nil
	if !ok {
		return s
	}
	s.Parameters = maps.Clone(s.Parameters)
	if s.Parameters == nil {
		s.Parameters = map[string]string{}
	}
	for name, value := range r.Parameters {
		if p, fixed := ProtectedParameter(name); !fixed || p.FileOnly {
			s.Parameters[name] = value
		}
	}
	if r.HBA != nil {
		s.HBA = r.HBA
	}
	if r.Ident != nil {
		s.Ident = r.Ident
	}
	return s
}

// Progress is how far a base backup or another copy has come.
type Progress struct {
	DoneBytes  uint64
	TotalBytes uint64 // 0 when unknown
}

// Controller is one PostgreSQL server and its data directory. Observe and Identify may be called at any time from any
// goroutine; the other methods are called one at a time. Every method obeys its context. A Controller never retries on its own.
type Controller interface {
	// Observe looks at the server once: SQL on a kept connection with a statement time-out, and pg_control. It returns
	// what could be seen; a server that does not answer is a Status with Answered false, not an error.
	Observe(ctx context.Context) Status

	// WALEnd finds where the WAL of a server that is not running ends, reading the WAL from the last checkpoint on. It
	// is how far a crashed primary's directory really reaches.
	WALEnd(ctx context.Context) (wal.Position, error)

	// Identify asks another server for its system identifier, position and history. Like Observe it may be called at
	// any time from any goroutine.
	Identify(ctx context.Context, from Source) (Line, error)

	// Configure writes the configuration files for the settings and the role, and says whether a running server must
	// reload or be restarted to take them up. up is ignored for a primary. Unchanged files are not written.
	Configure(ctx context.Context, s Settings, role Role, up Upstream) (reload bool, err error)

	// Command returns how to start the server in the role; Configure was called before. It writes or removes
	// standby.signal as the role asks.
	Command(ctx context.Context, role Role) (Command, error)

	// Initdb makes a new cluster in an empty data directory. An interrupted one is cleaned up by the next call.
	Initdb(ctx context.Context) error

	// PrepareCluster creates users and runs what the file asks for after initdb, on the running primary; once.
	PrepareCluster(ctx context.Context) error

	// Clone replaces the data directory by a base backup of from. A directory with data is renamed aside first, never
	// deleted; one earlier copy is kept (hazard C10). progress may be nil.
	Clone(ctx context.Context, from Source, progress func(Progress)) error

	// SetAside copies the WAL after fork into a folder beside the data directory, with a report (design promise 4).
	SetAside(ctx context.Context, fork, end wal.Position) (Loss, error)

	// Rewind runs pg_rewind against from. The server is stopped. ErrRewindImpossible means: clone instead.
	Rewind(ctx context.Context, from Source) error

	// Promote makes a running replica a primary and returns when it accepts writes, or with ctx.
	Promote(ctx context.Context) error

	// Reload makes a running server read its configuration again.
	Reload(ctx context.Context) error

	// Checkpoint runs CHECKPOINT.
	Checkpoint(ctx context.Context) error

	// SyncSlots makes the physical replication slots exist, and drops other inactive ones that it made. The value is
	// how far the slot's owner is known to have received, from `status`: an inactive slot is advanced there, so that a
	// slot kept for a later promotion retains no more WAL than needed (reference section 5.14.3); 0 leaves it.
	SyncSlots(ctx context.Context, slots map[string]wal.LSN) error

	// WaitAccepting returns when the server answers SQL, or with ctx, or with ErrNotRunning when it is gone. It does
	// not poll slower than every 50 ms.
	WaitAccepting(ctx context.Context) error

	// Close closes the kept connections.
	Close() error
}

// Errors.
var (
	ErrNotRunning       = errors.New("postgresql is not running")
	ErrStarting         = errors.New("postgresql is starting up")
	ErrRewindImpossible = errors.New("pg_rewind cannot help")
	ErrSystemID         = errors.New("the data directory belongs to another cluster")
	ErrDataDir          = errors.New("the data directory cannot be used")
)
