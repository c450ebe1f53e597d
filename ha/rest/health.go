package rest

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// health answers a health check path (reference section 2.4): the first test on the path that matches decides.
//
// One intended difference: /primary, / and /read-write answer 200 only once PostgreSQL accepts writes, not from the
// moment the lock is held (reference section 9.2), so that a proxy never routes writes to a read-only server.
func health(r *Report, path string, query url.Values, now time.Time) int {
	h := judge(r, query, now)
	code := func(ok bool) int {
		if ok {
			return http.StatusOK
		}
		return http.StatusServiceUnavailable
	}
	tagged := func(ok bool) int { return code(ok && tagsMatch(r.Tags, query)) }
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(path, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("standby_leader", "standby-leader"):
		return code(h.standbyLeader)
	case has("leader"):
		return code(h.leader)
	case has("master", "primary", "read-write") || path == "/" || path == "":
		return code(h.primary)
	case has("replica"):
		return tagged(h.replica)
	case has("read-only") && !has("sync", "quorum"):
		return tagged(h.primary || h.standbyLeader || h.replica)
	case has("health"):
		return tagged(r.State == cluster.StateRunning && r.Server.Answered)
	case !r.ClusterFresh:
		return code(false)
	}
	switch path {
	case "/sync", "/synchronous":
		return tagged(h.replica && h.sync)
	case "/quorum":
		return tagged(h.replica && h.quorum)
	case "/async", "/asynchronous":
		return tagged(h.replica && !h.sync && !h.quorum)
	case "/read-only-quorum":
		return tagged(h.primary || h.standbyLeader || h.replica && h.quorum)
	case "/read-only-sync", "/read-only-synchronous":
		return tagged(h.primary || h.standbyLeader || h.replica && h.sync)
	}
	return code(false)
}

type judgement struct{ leader, primary, standbyLeader, replica, sync, quorum bool }

func judge(r *Report, query url.Values, now time.Time) judgement {
	var j judgement
	s := r.Server
	j.sync, j.quorum = syncRole(r)
	standby := r.Cluster.Config.StandbyCluster
	leads := r.IsLeader && now.Before(r.LeaderUntil)
	isPrimary := s.Answered && s.Role == postgres.RolePrimary
	isReplica := s.Answered && s.Role == postgres.RoleReplica
	switch {
	case !r.ClusterFresh && r.Paused:
		// The store is silent and nobody may move the leadership: what runs as primary is the primary.
		j.primary = isPrimary
		j.standbyLeader = isReplica && standby && r.Role == cluster.RoleStandbyLeader
		leads = j.primary || j.standbyLeader
	case standby:
		j.standbyLeader = leads && isReplica
	default:
		j.primary = leads && isPrimary
	}
	j.leader = leads
	want := query.Get("replication_state")
	j.replica = !leads && isReplica && r.State == cluster.StateRunning && !(standby && r.Role == cluster.RoleStandbyLeader) &&
		!r.Tags.NoLoadBalance() && !lagging(r, query.Get("lag")) && (want == "" || want == replicationState(s))
	return j
}

// leaderEnd is how far the leader is known to have written; what the store said before it fell silent does not count.
func leaderEnd(r *Report) wal.LSN {
	if !r.ClusterFresh {
		return r.Server.LatestEnd
	}
	return max(r.Cluster.Status.Optime, r.Server.LatestEnd)
}

func lagging(r *Report, lag string) bool {
	if lag == "" {
		return false
	}
	limit, ok := parseSize(lag)
	end := leaderEnd(r)
	return ok && end > 0 && behind(end, r.Server.Replayed) > limit
}

// behind is how many bytes a position is behind the end; negative when it is ahead.
func behind(end, at wal.LSN) int64 {
	if end >= at {
		return int64(min(uint64(end-at), math.MaxInt64))
	}
	return -int64(min(uint64(at-end), math.MaxInt64))
}

// tagsMatch checks tag_<key>=<value> parameters against the tags as published: a switch that is off is not there.
func tagsMatch(tags cluster.Tags, query url.Values) bool {
	var published cluster.Tags
	for k, want := range query {
		name, ok := strings.CutPrefix(k, "tag_")
		if !ok || len(want) == 0 || want[0] == "" { // Patroni's parser drops a parameter without a value
			continue
		}
		if published == nil {
			published = tags.Published()
		}
		have, ok := published[name]
		if !ok || have == nil || tagText(have) != want[0] {
			return false
		}
	}
	return true
}

// tagText is a tag's value as Patroni compares it: what is no text is put into lower case.
func tagText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case float64:
		s := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	}
	return strings.ToLower(fmt.Sprint(v))
}

// liveness says whether the loop turns (reference section 2.5).
func liveness(r *Report, now time.Time) int {
	limit := 2 * r.TTL
	if r.Server.Answered && r.Server.Role == postgres.RolePrimary {
		limit = r.TTL
	}
	if r.Paused || limit == 0 || now.Sub(r.LoopAt) < limit+r.LoopWait {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

// readiness says whether the node may be counted on, during a rolling update for example (reference section 2.5).
func readiness(r *Report, query url.Values, now time.Time) int {
	s := r.Server
	if judge(r, nil, now).leader {
		return http.StatusOK
	}
	if !s.Answered || r.State != cluster.StateRunning || !s.Streaming {
		return http.StatusServiceUnavailable
	}
	end := leaderEnd(r)
	if !r.ClusterFresh && end == 0 {
		if r.FailsafeActive {
			return http.StatusOK
		}
		return http.StatusServiceUnavailable
	}
	limit, ok := parseSize(query.Get("lag"))
	if !ok {
		limit = r.MaxLag
	}
	have := s.Replayed
	if query.Get("mode") == "write" {
		have = max(s.Received, s.Written, s.Replayed)
	}
	if behind(end, have) > limit {
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}
