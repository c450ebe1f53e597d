// Package cluster holds the records that members share through the store: Patroni 4's keys and JSON, byte for byte
// (reference section 1), and the note in our own lease record.
//
// Decoding is tolerant where the reference says so, and never panics: a key that holds garbage becomes an error value
// beside an empty record, so that a decision can tell "absent" from "unreadable". The package does no I/O, knows no
// store client, and decides nothing.
package cluster

import (
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/postgres/wal"
)

// Keys below /<namespace>/<scope>/ (reference section 1.2), and our own lease record.
const (
	KeyLeader       = "leader"
	KeyLease        = "lease"
	KeyInitialize   = "initialize"
	KeyConfig       = "config"
	KeyFailover     = "failover"
	KeySync         = "sync"
	KeyStatus       = "status"
	KeyOptime       = "optime/leader"
	KeyHistory      = "history"
	KeyFailsafe     = "failsafe"
	MembersPrefix   = "members/"
	ProtocolVersion = "4.1.0" // the Patroni protocol level that we speak, as `version` of a member
)

// Key is what every decoded record carries of the key it came from.
type Key struct {
	Present bool
	Version uint64 // the store's version of the value; 0 when absent
	Session string // the session the key is bound to
	Err     error  // why the value could not be read; the record is then empty
}

// Cluster is everything the members share, decoded from one consistent cut of the store.
type Cluster struct {
	Leader     Leader
	Initialize Initialize
	Config     Config
	Failover   Failover
	Sync       Sync
	Status     LeaderStatus
	History    History
	Failsafe   Failsafe
	Members    []Member // ascending by name
}

// Member returns the member called name, and whether it is there.
func (c *Cluster) Member(name string) (Member, bool) {
	for i := range c.Members {
		if c.Members[i].Name == name {
			return c.Members[i], true
		}
	}
	return Member{}, false
}

// Known are the members, ascending by name, and with failsafe mode those that only the key failsafe names any more:
// their own keys went with their sessions, and their WAL counts in an election all the same (reference section 5.7.2).
func (c *Cluster) Known(failsafe bool) []Member {
	known := c.Members
	for name, url := range c.Failsafe.Members {
		if _, ok := c.Member(name); !ok && failsafe {
			known = append(known[:len(known):len(known)], Member{Name: name, APIURL: url})
		}
	}
	if len(known) > len(c.Members) {
		slices.SortFunc(known, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	}
	return known
}

// Leader is the key `leader`: the plain name of the leading member.
type Leader struct {
	Key
	Name string
}

// Initialize is the key `initialize`: empty while somebody bootstraps, the system identifier afterwards.
type Initialize struct {
	Key
	SystemID string
}

// Valid says that the key holds a system identifier: all digits, at least ten (reference section 1.3).
func (i Initialize) Valid() bool {
	if len(i.SystemID) < 10 {
		return false
	}
	for _, r := range i.SystemID {
		if r < '0' || r > '9' {
			return false
		}
	}
	return true
}

// Member state and role values (reference section 1.5).
const (
	StateInitializing     = "initializing new cluster"
	StateInitdbFailed     = "initdb failed"
	StateCreatingReplica  = "creating replica"
	StateRunning          = "running"
	StateStarting         = "starting"
	StateStartFailed      = "start failed"
	StateRestarting       = "restarting"
	StateStopping         = "stopping"
	StateStopped          = "stopped"
	StateCrashed          = "crashed"
	StateUnknown          = "unknown" // REST only
	RolePrimary           = "primary"
	RoleReplica           = "replica"
	RoleStandbyLeader     = "standby_leader"
	RoleDemoted           = "demoted"
	RoleUninitialized     = "uninitialized"
	RolePromoted          = "promoted"
	ReplicationStreaming  = "streaming"
	ReplicationFromArchve = "in archive recovery"
)

// Member is one key `members/<name>` (reference section 1.4). Fields that the JSON lacks are zero.
type Member struct {
	Key
	Name                  string
	ConnURL, APIURL       string
	ProxyURL              string
	State, Role           string
	Version               string // Patroni protocol level
	Pgregent              string // our own version; empty: a Patroni member
	NoVote                bool   // `no_vote`: it lost its memory of promises and must be taken into the failsafe list anew
	CheckpointAfterPromo  bool   // `checkpoint_after_promote: false` is absent: rewinding from this primary is safe
	Tags                  Tags
	PendingRestart        bool
	PendingRestartReason  map[string]PendingChange
	Location              wal.LSN // xlog_location; 0 unknown
	ReplayLSN, ReceiveLSN wal.LSN
	ReplicationState      string
	Timeline              wal.Timeline
	ScheduledRestart      map[string]any
	Pause                 bool
}

// PendingChange is one entry of pending_restart_reason.
type PendingChange struct {
	Old string `json:"old_value"`
	New string `json:"new_value"`
}

// Failover is the key `failover` (reference section 1.3). An empty object is no request.
type Failover struct {
	Key
	Leader      string    // present: a switchover from this leader
	Candidate   string    // JSON field `member`
	ScheduledAt time.Time // zero: now
}

// Requested says whether there is a request at all: a leader or a candidate is named.
func (f Failover) Requested() bool { return f.Leader != "" || f.Candidate != "" }

// Sync is the key `sync`.
type Sync struct {
	Key
	Leader   string
	Standbys []string // voters, sorted
	Quorum   int
}

// LeaderStatus is the key `status`.
type LeaderStatus struct {
	Key
	Optime      wal.LSN
	Slots       map[string]wal.LSN
	RetainSlots []string
}

// HistoryLine is one switch in the key `history`.
type HistoryLine struct {
	Timeline  wal.Timeline // the timeline that ended
	LSN       wal.LSN
	Reason    string
	At        string // ISO 8601 as written; kept verbatim
	NewLeader string
}

// History is the key `history`.
type History struct {
	Key
	Lines []HistoryLine
}

// Failsafe is the key `failsafe`: member name to API URL.
type Failsafe struct {
	Key
	Members map[string]string
}

// Note is what a pgregent holder writes into the opaque note of the lease record (design section 4; hazard B10).
type Note struct {
	// Promotion is the last promotion that this cluster knows. The holder announces it before it promotes, with the
	// lowest number that PostgreSQL can choose, and corrects it once it is primary on its own timeline.
	Promotion Promotion `json:"promotion,omitzero"`
	// Promotions are the earlier ones, newest last, at most MaxPromotions.
	Promotions []Promotion `json:"promotions,omitempty"`
	// End is where the WAL ended when the lease was released after a clean shutdown.
	End wal.Position `json:"end,omitzero"`
	// Target is the member a switchover was made for: only it takes this release, for a while.
	Target string `json:"target,omitempty"`
}

// MaxPromotions bounds Note.Promotions.
const MaxPromotions = 32

// Promotion is one change of timeline with an identity of its own: two promotions that chose the same timeline number
// have different IDs (hazards B9, B10).
type Promotion struct {
	Timeline wal.Timeline `json:"timeline"`
	LSN      wal.LSN      `json:"lsn"` // where Timeline begins
	ID       string       `json:"id"`
}

// Tags are a member's tags as configured (reference section 4.8); values keep their YAML or JSON type.
type Tags map[string]any

// Config is the key `config`: the dynamic configuration (reference section 4.4). Raw keeps every key as it came.
type Config struct {
	Key
	Raw map[string]any
	Dynamic
}

// Dynamic is the part of the dynamic configuration that the loop uses, after defaults and clamps.
type Dynamic struct {
	TTL, LoopWait, RetryTimeout time.Duration
	MaximumLagOnFailover        int64 // bytes
	MaxTimelinesHistory         int   // 0: unlimited
	PrimaryStartTimeout         time.Duration
	PrimaryStopTimeout          time.Duration
	SynchronousMode             string // "", "on", "quorum"
	SynchronousModeStrict       bool
	SynchronousNodeCount        int
	FailsafeMode                bool
	CheckTimeline               bool
	Pause                       bool
	MemberSlotsTTL              time.Duration
	StandbyCluster              bool // a standby_cluster section is active
	PostgreSQL                  map[string]any
	// Warnings are clamps and values that were not understood, one sentence each.
	Warnings []string
	// Unsupported are settings that change safety and are not implemented: the node does not take the lease
	// (design section 2), and says why; one sentence each, naming the key.
	Unsupported []string
}
