package rest

import (
	"slices"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres/wal"
)

// MemberView is one member in GET /cluster and in the listing of the command line (reference section 2.6).
type MemberView struct {
	Name                 string                           `json:"name"`
	Role                 string                           `json:"role"`
	State                string                           `json:"state"`
	APIURL               string                           `json:"api_url,omitempty"`
	Host                 string                           `json:"host,omitempty"`
	Port                 int                              `json:"port,omitempty"`
	Timeline             wal.Timeline                     `json:"timeline,omitempty"`
	PendingRestart       bool                             `json:"pending_restart,omitempty"`
	PendingRestartReason map[string]cluster.PendingChange `json:"pending_restart_reason,omitempty"`
	ScheduledRestart     map[string]any                   `json:"scheduled_restart,omitempty"`
	Tags                 cluster.Tags                     `json:"tags,omitempty"`
	ReceiveLag           any                              `json:"receive_lag,omitempty"` // bytes, or "unknown"; leaders have none
	ReceiveLSN           string                           `json:"receive_lsn,omitempty"`
	ReplayLag            any                              `json:"replay_lag,omitempty"`
	ReplayLSN            string                           `json:"replay_lsn,omitempty"`
	Lag                  any                              `json:"lag,omitempty"`
	LSN                  string                           `json:"lsn,omitempty"`
}

// ScheduledView is a scheduled switchover.
type ScheduledView struct {
	At   string `json:"at"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// ClusterView is the body of GET /cluster.
type ClusterView struct {
	Members   []MemberView   `json:"members"`
	Pause     bool           `json:"pause,omitempty"`
	Scheduled *ScheduledView `json:"scheduled_switchover,omitempty"`
	Scope     string         `json:"scope"`
}

// clusterView lists the members as the store shows them.
func clusterView(c cluster.Cluster, scope string) ClusterView {
	v := ClusterView{Members: []MemberView{}, Scope: scope, Pause: c.Config.Pause}
	if at := c.Failover.ScheduledAt; !at.IsZero() && c.Failover.Requested() {
		v.Scheduled = &ScheduledView{At: at.Format("2006-01-02T15:04:05.999999-07:00"), From: c.Failover.Leader, To: c.Failover.Candidate}
	}
	for _, m := range c.Members {
		v.Members = append(v.Members, memberView(m, c))
	}
	slices.SortFunc(v.Members, func(a, b MemberView) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	return v
}

// ViewCluster lists the members as the store shows them, for the command line.
func ViewCluster(c cluster.Cluster, scope string) ClusterView { return clusterView(c, scope) }

func memberView(m cluster.Member, c cluster.Cluster) MemberView {
	host, port := m.HostPort()
	v := MemberView{
		Name: m.Name, Role: cluster.RoleReplica, State: m.State, APIURL: m.APIURL, Host: host, Port: port,
		Timeline: m.Timeline, PendingRestart: m.PendingRestart, PendingRestartReason: m.PendingRestartReason,
		ScheduledRestart: m.ScheduledRestart, Tags: m.Tags,
	}
	if m.Name == c.Leader.Name {
		v.Role = "leader"
		return v
	}
	if c.Config.SynchronousMode != "" && c.Sync.Votes(m.Name) {
		v.Role = map[bool]string{true: "quorum_standby", false: "sync_standby"}[c.Config.SynchronousMode == "quorum"]
	}
	if m.ReplicationState != "" {
		v.State = m.ReplicationState
	}
	end := c.Status.Optime
	v.ReceiveLSN, v.ReceiveLag = lagOf(m.ReceiveLSN, end)
	v.ReplayLSN, v.ReplayLag = lagOf(m.ReplayLSN, end)
	v.LSN, v.Lag = lagOf(m.Location, end)
	return v
}

// lagOf is a position in words and its distance from the leader's.
func lagOf(at, end wal.LSN) (text string, lag any) {
	if at == 0 {
		return "unknown", "unknown"
	}
	if end <= at {
		return at.String(), 0
	}
	return at.String(), uint64(end - at)
}
