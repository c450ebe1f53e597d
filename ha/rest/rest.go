// Package rest is the HTTP API of a node: a handler that speaks Patroni 4's REST interface (reference section 2), and
// the client that nodes ask each other with.
//
// Every answer to a question about the node comes from its last Report, without waiting for PostgreSQL or the loop. The
// package decides nothing: requests for a switchover or failover are checked, written into the store, and left to the
// policy. It does not import package ha, which implements Node and uses the client.
package rest

import (
	"context"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// Node is the node that a handler serves. All methods may be called from any goroutine.
type Node interface {
	Voter
	Operator
	// Report is what the node last saw and decided. It never blocks, and the caller may keep but not change it.
	Report() *Report
	// ReadCluster reads the store now.
	ReadCluster(ctx context.Context) (cluster.Cluster, error)
	// WriteFailover writes the key `failover` and wakes the loop. version nil writes unconditionally; otherwise a
	// changed key is an error for which errors.Is(err, dcs.ErrConflict) holds. An empty f clears the request.
	WriteFailover(ctx context.Context, f cluster.Failover, version *uint64) error
	// Ask asks members for their status, all at once, each with a short deadline; an unreachable one has Err.
	Ask(ctx context.Context, members []cluster.Member) []Answer
	// Reload reads the local configuration again, as SIGHUP does. It returns at once.
	Reload()
	// Decisions are the last decision records, oldest first.
	Decisions() []DecisionRecord
}

// Report is what a node last saw and decided: everything that the read-only endpoints need.
type Report struct {
	Name, Scope string
	Version     string // our own version
	Tags        cluster.Tags

	State string // reference section 1.5: member state
	Role  string // primary, replica, ...
	// Server is the last observation of PostgreSQL.
	Server postgres.Status
	// SystemID is the cluster's, or the data directory's while the cluster's is not known.
	SystemID string

	// Cluster is the last successful read of the store; ClusterAt when it was made, zero when never.
	Cluster   cluster.Cluster
	ClusterAt time.Time
	// ClusterFresh says that it is younger than ttl and no read has failed since.
	ClusterFresh bool
	TTL          time.Duration
	LoopWait     time.Duration
	MaxLag       int64 // maximum_lag_on_failover

	// IsLeader says that this node holds the lease and `leader`, with time left. LeaderUntil bounds it: after this
	// moment the answer is no, also when the loop hangs (hazard A6).
	IsLeader    bool
	LeaderUntil time.Time
	// Writable says that PostgreSQL accepts writes here under the lease.
	Writable bool

	Paused          bool
	FailsafeActive  bool
	FailsafeEnabled bool
	Failsafe        *FailsafeStatus // nil: off
	Unlocked        bool            // no leader is known
	PendingRestart  map[string]postgres.Change
	// ScheduledRestart is the restart that waits for its time; nil: none.
	ScheduledRestart *RestartRequest
	// LoopAt is when the loop last began a turn.
	LoopAt time.Time

	Reason, Detail string // of the last decision
	Task           string // the long action that runs; empty: none
	TaskProgress   *postgres.Progress
	Unfit          string // why this node must not lead; empty: it may
	Epoch          uint64
	LeaseLeft      time.Duration
	Promotions     []cluster.Promotion
	End            wal.Position // where the local WAL ends as far as known, also of a stopped server
	WasPrimary     bool         // pg_control was last written by a primary
	Fence          Fence
	// Counters are shown in /metrics, name to value, names without the pgregent_ prefix. A name may bring labels:
	// switchovers_total{reason="request",result="done"}.
	Counters map[string]float64
	// Histograms are shown in /metrics in the same way; their values are seconds.
	Histograms map[string]Histogram
	// Store is what the store's client counted; nil: not known.
	Store *dcs.Stats
}

// Histogram is how long something took.
type Histogram struct {
	Bounds []float64 // inclusive upper bounds of the buckets in seconds, ascending; the last bucket has none
	Counts []uint64  // one more than Bounds, each value in one bucket only
	Sum    float64   // seconds
}

// Fence is what the guard says of itself: the means that are active, and what they give.
type Fence struct {
	Rungs []string `json:"rungs"`
	// Bounded says that a primary ends by its deadline whatever happens to the agent.
	Bounded   bool   `json:"bounded"`
	Guarantee string `json:"guarantee"`
	Problem   string `json:"problem,omitempty"` // why a means that was asked for is not active
	Required  bool   `json:"required,omitempty"`
}

// Status is a node's answer to GET /patroni, as far as peers need it (reference section 2.3).
type Status struct {
	State, Role          string
	InRecovery           bool
	ServerVersion        int
	Location             wal.LSN // of a primary
	Received, Replayed   wal.LSN
	ReplayPaused         bool
	HasPosition          bool // an `xlog` or `wal` object was there: the peer's PostgreSQL answered it
	Timeline             wal.Timeline
	ReplicationState     string
	Tags                 cluster.Tags
	SystemID             string
	WatchdogFailed       bool
	Pause                bool
	ClusterUnlocked      bool
	DCSLastSeen          int64
	Version, Scope, Name string
	Pgregent             *PgregentStatus // nil: a Patroni member
}

// PgregentStatus is our own part of the answer, under the key `pgregent`.
type PgregentStatus struct {
	Version    string              `json:"version"`
	Reason     string              `json:"reason"`
	Detail     string              `json:"detail"`
	Task       string              `json:"task,omitempty"`
	Progress   *TaskProgress       `json:"task_progress,omitempty"`
	Unfit      string              `json:"unfit,omitempty"`
	Epoch      uint64              `json:"epoch,omitempty"`
	StoreAge   float64             `json:"store_age"` // seconds since the store last answered; negative: never
	Writable   bool                `json:"writable"`
	End        wal.Position        `json:"end,omitzero"` // where the WAL ends, also of a stopped server when known
	WasPrimary bool                `json:"was_primary,omitempty"`
	HistoryTip wal.Timeline        `json:"history_tip,omitempty"`
	History    [][2]string         `json:"history,omitempty"` // [timeline, lsn] of each switch
	Promotions []cluster.Promotion `json:"promotions,omitempty"`
	Fence      *Fence              `json:"fence,omitempty"`
	Failsafe   *FailsafeStatus     `json:"failsafe,omitempty"`
}

// TaskProgress is how far the running task has come, in bytes.
type TaskProgress struct {
	Done  uint64 `json:"done"`
	Total uint64 `json:"total,omitempty"` // 0: not known
}

// FailsafeStatus is what a node knows of failsafe mode (lease rules R12 to R14).
type FailsafeStatus struct {
	List       []string `json:"list"`                  // the members that promise and vote
	All        bool     `json:"all,omitempty"`         // a Patroni member is among them, so that all must promise
	Promises   int      `json:"promises"`              // how many a leader without the store needs, itself included
	Votes      int      `json:"votes"`                 // how many a taker needs, itself included
	PromisedTo string   `json:"promised_to,omitempty"` // whom this node leaves alone
	NoVote     bool     `json:"no_vote,omitempty"`     // this node lost its memory of promises
}

// Answer is what asking one member brought.
type Answer struct {
	Member string
	Status Status
	Err    error
}

// DecisionRecord is one turn of the loop, for people and tools.
type DecisionRecord struct {
	At       time.Time     `json:"at"`
	Reason   string        `json:"reason"`
	Detail   string        `json:"detail"`
	Actions  []string      `json:"actions,omitempty"`
	Outcome  string        `json:"outcome,omitempty"` // empty: all done; otherwise the first failure
	Duration time.Duration `json:"duration"`
	View     any           `json:"view,omitempty"`
}
