package rest

import (
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
		return code(false) // standby clusters are not supported yet, so nobody is one
	case has("leader"):
		return code(h.leader)
	case has("master", "primary", "read-write") || path == "/":
		return code(h.primary)
	case has("replica"):
		return tagged(h.replica)
	case has("read-only") && !has("sync", "quorum"):
		return tagged(h.primary || h.replica)
	case has("health"):
		return tagged(r.State == cluster.StateRunning && r.Server.Answered)
	case !r.ClusterFresh:
		return code(false)
	case has("/read-only-quorum"):
		return tagged(h.primary || (h.replica && h.quorum))
	case has("/read-only-sync"):
		return tagged(h.primary || (h.replica && h.sync))
	case has("/sync"):
		return tagged(h.replica && h.sync)
	case has("/quorum"):
		return tagged(h.replica && h.quorum)
	case has("/async"):
		return tagged(h.replica && !h.sync && !h.quorum)
	}
	return code(false)
}

type judgement struct{ leader, primary, replica, sync, quorum bool }

func judge(r *Report, query url.Values, now time.Time) judgement {
	var j judgement
	s := r.Server
	j.sync, j.quorum = syncRole(r)
	leads := r.IsLeader && now.Before(r.LeaderUntil)
	if !r.ClusterFresh && r.Paused {
		// The store is silent and nobody may move the leadership: what runs as primary is the primary.
		leads = s.Answered && s.Role == postgres.RolePrimary
	}
	j.leader = leads
	j.primary = leads && s.Answered && s.Role == postgres.RolePrimary
	running := s.Answered && s.Role == postgres.RoleReplica && r.State == cluster.StateRunning
	want := query.Get("replication_state")
	j.replica = !leads && running && !r.Tags.NoLoadBalance() && !lagging(r, query.Get("lag")) &&
		(want == "" || want == replicationState(s))
	return j
}

// leaderEnd is how far the leader is known to have written.
func leaderEnd(r *Report) wal.LSN { return max(r.Cluster.Status.Optime, r.Server.LatestEnd) }

func lagging(r *Report, lag string) bool {
	limit, ok := parseSize(lag)
	end := leaderEnd(r)
	return ok && end > 0 && end > r.Server.Replayed+wal.LSN(limit)
}

// parseSize reads bytes or a number with B, kB, MB, GB, TB. Anything else is no limit.
func parseSize(s string) (uint64, bool) {
	s = strings.TrimSpace(s)
	digits := strings.TrimRight(s, "BkKMGTb ")
	v, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64)
	if err != nil {
		return 0, false
	}
	shift := map[string]uint{"": 0, "B": 0, "kB": 10, "MB": 20, "GB": 30, "TB": 40}
	by, ok := shift[strings.TrimSpace(s[len(digits):])]
	if !ok || v > 1<<(63-by) {
		return 0, false
	}
	return v << by, true
}

// tagsMatch checks tag_<key>=<value> parameters against the configured tags.
func tagsMatch(tags cluster.Tags, query url.Values) bool {
	for k, want := range query {
		name, ok := strings.CutPrefix(k, "tag_")
		if !ok || len(want) == 0 {
			continue
		}
		have, ok := tags[name]
		if !ok || tagText(have) != want[0] {
			return false
		}
	}
	return true
}

func tagText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case int:
		return strconv.Itoa(v)
	case nil:
		return "none"
	}
	return ""
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
	j := judge(r, nil, now)
	s := r.Server
	if j.leader {
		return http.StatusOK
	}
	if !s.Answered || r.State != cluster.StateRunning || !s.Streaming || leaderEnd(r) == 0 {
		return http.StatusServiceUnavailable
	}
	limit, ok := parseSize(query.Get("lag"))
	if !ok {
		limit = uint64(max(r.MaxLag, 0))
	}
	have := s.Replayed
	if query.Get("mode") == "write" {
		have = max(s.Received, s.Replayed)
	}
	if leaderEnd(r) > have && uint64(leaderEnd(r)-have) > limit {
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}
