package rest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// statusJSON is the body of GET /patroni and of every health check (reference section 2.3). Field order is the
// reference's.
type statusJSON struct {
	State           string                     `json:"state"`
	PostmasterStart string                     `json:"postmaster_start_time,omitempty"`
	Role            string                     `json:"role"`
	ServerVersion   int                        `json:"server_version,omitempty"`
	XLog            any                        `json:"xlog,omitempty"` // primaryXLog or replicaXLog
	SyncStandby     bool                       `json:"sync_standby,omitempty"`
	QuorumStandby   bool                       `json:"quorum_standby,omitempty"`
	Timeline        wal.Timeline               `json:"timeline,omitempty"`
	Replication     []replicationJSON          `json:"replication,omitempty"`
	ReplState       string                     `json:"replication_state,omitempty"`
	Pause           bool                       `json:"pause,omitempty"`
	Unlocked        bool                       `json:"cluster_unlocked,omitempty"`
	FailsafeActive  bool                       `json:"failsafe_mode_is_active,omitempty"`
	DCSLastSeen     int64                      `json:"dcs_last_seen"`
	Tags            cluster.Tags               `json:"tags,omitempty"`
	SystemID        string                     `json:"database_system_identifier,omitempty"`
	PendingRestart  bool                       `json:"pending_restart,omitempty"`
	PendingReason   map[string]postgres.Change `json:"pending_restart_reason,omitempty"`
	Patroni         patroniJSON                `json:"patroni"`
	Scheduled       map[string]any             `json:"scheduled_restart,omitempty"`
	WatchdogFailed  bool                       `json:"watchdog_failed,omitempty"`
	Pgregent        *PgregentStatus            `json:"pgregent,omitempty"`
}

type primaryXLog struct {
	Location uint64 `json:"location"`
}

type replicaXLog struct {
	Received  uint64  `json:"received_location"`
	Replayed  uint64  `json:"replayed_location"`
	Timestamp *string `json:"replayed_timestamp"` // null: nothing was replayed yet
	Paused    bool    `json:"paused"`
}

type replicationJSON struct {
	User     string  `json:"usename"`
	Name     string  `json:"application_name"`
	Addr     *string `json:"client_addr"` // null: a Unix socket
	State    string  `json:"state"`
	Sync     string  `json:"sync_state"`
	Priority int     `json:"sync_priority"`
}

type patroniJSON struct {
	Version string `json:"version"`
	Scope   string `json:"scope"`
	Name    string `json:"name"`
}

// pythonTime is how Patroni prints a moment: 2026-11-22 19:55:24.909680+00:00, without a fraction that is 0.
func pythonTime(t time.Time) string { return strings.Replace(pythonISO(t.UTC()), "T", " ", 1) }

func ptr[T any](v T) *T { return &v }

// status makes the body from a report. It is the same for a health check and for /patroni.
func status(r *Report, now time.Time) statusJSON {
	s := r.Server
	b := statusJSON{
		State: r.State, Role: r.Role, DCSLastSeen: unixOr0(r.ClusterAt), Tags: r.Tags.Published(), SystemID: r.SystemID,
		Pause: r.Paused, Unlocked: r.Unlocked || !r.ClusterFresh, FailsafeActive: r.FailsafeActive,
		PendingRestart: len(r.PendingRestart) > 0, PendingReason: r.PendingRestart,
		// An unfit member must not win a Patroni member's race against us either, nor be waited for: Patroni's word
		// for "alive, but cannot lead" is this flag.
		WatchdogFailed: r.Unfit != "",
		Patroni:        patroniJSON{cluster.ProtocolVersion, r.Scope, r.Name},
		Pgregent:       pgregentStatus(r, now),
	}
	if r.ScheduledRestart != nil {
		b.Scheduled = restartView(*r.ScheduledRestart)
	}
	if !s.Answered {
		if r.State == cluster.StateRunning {
			b.State = cluster.StateUnknown
		}
		return b
	}
	b.PostmasterStart = pythonTime(s.PostmasterStart)
	b.ServerVersion, b.Timeline = s.Version, s.Timeline
	switch s.Role {
	case postgres.RolePrimary:
		b.Role = cluster.RolePrimary
		b.XLog = primaryXLog{uint64(s.Current)}
	case postgres.RoleReplica:
		b.Role = cluster.RoleReplica
		if r.Cluster.Config.StandbyCluster && r.Role != "" {
			b.Role = r.Role
		}
		x := replicaXLog{Received: uint64(max(s.Received, s.Written, s.Replayed)), Replayed: uint64(s.Replayed), Paused: s.ReplayPaused}
		if !s.ReplayedAt.IsZero() {
			x.Timestamp = ptr(pythonTime(s.ReplayedAt))
		}
		b.XLog = x
		b.ReplState = replicationState(s)
		b.SyncStandby, b.QuorumStandby = syncRole(r)
	}
	for _, w := range s.Walsenders {
		row := replicationJSON{User: w.User, Name: w.ApplicationName, State: w.State, Sync: w.SyncState, Priority: w.SyncPriority}
		if w.ClientAddr != "" {
			row.Addr = ptr(w.ClientAddr)
		}
		b.Replication = append(b.Replication, row)
	}
	return b
}

func replicationState(s postgres.Status) string {
	switch {
	case s.Streaming:
		return cluster.ReplicationStreaming
	case s.RestoreCommand:
		return cluster.ReplicationFromArchve
	}
	return ""
}

// syncRole says whether this node is a voter in `sync`.
func syncRole(r *Report) (sync, quorum bool) {
	k := r.Cluster.Sync
	if k.Leader == "" || r.Cluster.Config.SynchronousMode == "" || !k.Votes(r.Name) {
		return false, false
	}
	quorum = r.Cluster.Config.SynchronousMode == "quorum"
	return !quorum, quorum
}

func unixOr0(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func pgregentStatus(r *Report, now time.Time) *PgregentStatus {
	p := &PgregentStatus{
		Version: r.Version, Reason: r.Reason, Detail: r.Detail, Task: r.Task, Unfit: r.Unfit, Epoch: r.Epoch,
		StoreAge: -1, Writable: r.Writable && now.Before(r.LeaderUntil), End: r.End, WasPrimary: r.WasPrimary, Promotions: r.Promotions, Fence: &r.Fence,
		Failsafe: r.Failsafe,
	}
	if r.TaskProgress != nil {
		p.Progress = &TaskProgress{r.TaskProgress.DoneBytes, r.TaskProgress.TotalBytes}
	}
	if !r.ClusterAt.IsZero() {
		p.StoreAge = now.Sub(r.ClusterAt).Seconds()
	}
	h := r.Server.History
	if h.Tip == 0 {
		h = r.Server.Control.TimelineHistory
	}
	p.HistoryTip = h.Tip
	for _, sw := range h.Switches {
		p.History = append(p.History, [2]string{strconv.FormatUint(uint64(sw.Timeline), 10), sw.LSN.String()})
	}
	return p
}

// WALHistory is the member's history, empty when it did not say or said nonsense.
func (p *PgregentStatus) WALHistory() wal.History {
	h := wal.History{Tip: p.HistoryTip}
	for _, e := range p.History {
		tl, err := strconv.ParseUint(e[0], 10, 32)
		lsn, err2 := wal.ParseLSN(e[1])
		if err != nil || err2 != nil {
			return wal.History{}
		}
		h.Switches = append(h.Switches, wal.Switch{Timeline: wal.Timeline(tl), LSN: lsn})
	}
	return h
}

// parseStatus reads a member's answer tolerantly: what is missing or of a wrong type is unknown. The HTTP status does
// not matter (reference section 2.3).
func parseStatus(body []byte) (Status, error) {
	var b struct {
		State          string          `json:"state"`
		Role           string          `json:"role"`
		ServerVersion  int             `json:"server_version"`
		XLog           map[string]any  `json:"xlog"`
		WAL            map[string]any  `json:"wal"`
		Timeline       *wal.Timeline   `json:"timeline"`
		ReplState      string          `json:"replication_state"`
		Pause          bool            `json:"pause"`
		Unlocked       bool            `json:"cluster_unlocked"`
		DCSLastSeen    int64           `json:"dcs_last_seen"`
		Tags           cluster.Tags    `json:"tags"`
		SystemID       string          `json:"database_system_identifier"`
		WatchdogFailed bool            `json:"watchdog_failed"`
		Patroni        patroniJSON     `json:"patroni"`
		Pgregent       *PgregentStatus `json:"pgregent"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return Status{}, fmt.Errorf("rest: the answer is no status: %w", err)
	}
	s := Status{
		State: b.State, Role: b.Role, ServerVersion: b.ServerVersion, ReplicationState: b.ReplState, Tags: b.Tags,
		SystemID: b.SystemID, WatchdogFailed: b.WatchdogFailed, Pause: b.Pause, ClusterUnlocked: b.Unlocked,
		DCSLastSeen: b.DCSLastSeen, Version: b.Patroni.Version, Scope: b.Patroni.Scope, Name: b.Patroni.Name, Pgregent: b.Pgregent,
	}
	if s.Role == "master" {
		s.Role = cluster.RolePrimary
	}
	if b.Timeline != nil {
		s.Timeline = *b.Timeline
	}
	x := b.XLog
	if x == nil {
		x = b.WAL
	}
	s.HasPosition = x != nil
	s.Location, s.Received, s.Replayed = lsn(x["location"]), lsn(x["received_location"]), lsn(x["replayed_location"])
	s.ReplayPaused, _ = x["paused"].(bool)
	s.InRecovery = s.Location == 0 && s.Role != cluster.RolePrimary
	return s, nil
}

func lsn(v any) wal.LSN {
	f, _ := v.(float64)
	if f < 0 {
		return 0
	}
	return wal.LSN(f)
}
