package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
)

// refusal is an answer that changes nothing.
type refusal struct {
	code int
	text string
}

// failover is POST /switchover and POST /failover (reference section 2.8): check, write the key `failover`, and wait
// until the store shows how it went.
func (h *handler) failover(w http.ResponseWriter, req *http.Request, r *Report, action string) {
	m, err := body(req)
	if err != nil {
		writeText(w, http.StatusBadRequest, err.Error())
		return
	}
	f, action, no := h.parseFailover(m, r, action)
	if no != nil {
		writeText(w, no.code, no.text)
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), storeTimeout)
	c, err := h.node.ReadCluster(ctx)
	cancel()
	if err != nil {
		writeText(w, http.StatusServiceUnavailable, "the store does not answer: "+err.Error())
		return
	}
	if f.ScheduledAt.IsZero() {
		if text := h.possible(req.Context(), c, f, action); text != "" {
			writeText(w, http.StatusPreconditionFailed, text)
			return
		}
	}
	ctx, cancel = context.WithTimeout(req.Context(), storeTimeout)
	err = h.node.WriteFailover(ctx, f, nil)
	cancel()
	if err != nil {
		writeText(w, http.StatusServiceUnavailable, "failed to write failover key into DCS")
		return
	}
	if !f.ScheduledAt.IsZero() {
		writeText(w, http.StatusAccepted, capital(action)+" scheduled")
		return
	}
	code, text := h.awaitFailover(req.Context(), r, c.Leader.Name, f.Candidate, action)
	writeText(w, code, text)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// parseFailover reads the request, in the order of checks of the reference.
func (h *handler) parseFailover(m map[string]any, r *Report, action string) (cluster.Failover, string, *refusal) {
	text := func(keys ...string) (string, *refusal) {
		for _, k := range keys {
			switch v := m[k].(type) {
			case nil:
			case string:
				if v != "" {
					return v, nil
				}
			default:
				return "", &refusal{http.StatusBadRequest, fmt.Sprintf("%s must be a text, not %v", k, v)}
			}
		}
		return "", nil
	}
	leader, no := text("leader")
	candidate, no2 := text("candidate", "member")
	at, no3 := text("scheduled_at")
	for _, n := range []*refusal{no, no2, no3} {
		if n != nil {
			return cluster.Failover{}, action, n
		}
	}
	f := cluster.Failover{Leader: leader, Candidate: candidate}
	refuse := func(code int, text string) (cluster.Failover, string, *refusal) {
		return cluster.Failover{}, action, &refusal{code, text}
	}
	if action == "failover" && candidate == "" {
		return refuse(http.StatusBadRequest, "Failover could be performed only to a specific candidate")
	}
	if action == "switchover" && leader == "" {
		return refuse(http.StatusBadRequest, "Switchover could be performed only from a specific leader")
	}
	if at != "" {
		if action == "failover" {
			return refuse(http.StatusBadRequest, "Failover can't be scheduled")
		}
		if r.Paused {
			return refuse(http.StatusBadRequest, "Can't schedule switchover in the paused state")
		}
		when, no := parseSchedule(at, time.Now())
		if no != nil {
			return cluster.Failover{}, action, no
		}
		f.ScheduledAt = when
	}
	if r.Paused && candidate == "" {
		return refuse(http.StatusBadRequest, "Switchover is possible only to a specific candidate in a paused state")
	}
	if action == "failover" && leader != "" {
		action = "switchover"
	}
	if leader != "" && leader == candidate {
		return refuse(http.StatusBadRequest, "Switchover target and source are the same")
	}
	return f, action, nil
}

// parseSchedule reads an unambiguous moment in the future.
func parseSchedule(s string, now time.Time) (time.Time, *refusal) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02 15:04:05.999999999Z07:00",
		"2006-01-02 15:04:05.999999999Z0700", "2006-01-02T15:04Z07:00", "2006-01-02 15:04Z07:00", "2006-01-02 15:04:05 MST"} {
		if t, err := time.Parse(layout, s); err == nil {
			if t.Before(now) {
				return time.Time{}, &refusal{http.StatusUnprocessableEntity, "Cannot schedule switchover in the past"}
			}
			return t, nil
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04"} {
		if _, err := time.Parse(layout, s); err == nil {
			return time.Time{}, &refusal{http.StatusBadRequest, "Timezone information is mandatory for the scheduled switchover"}
		}
	}
	return time.Time{}, &refusal{http.StatusUnprocessableEntity,
		"Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601"}
}

// possible says why the request cannot succeed now; empty: it may.
func (h *handler) possible(ctx context.Context, c cluster.Cluster, f cluster.Failover, action string) string {
	if f.Leader != "" && f.Leader != c.Leader.Name {
		return "leader name does not match"
	}
	var ask []cluster.Member
	known := false
	for _, m := range c.Members {
		if m.Name == c.Leader.Name {
			continue
		}
		if f.Candidate != "" {
			if m.Name != f.Candidate {
				continue
			}
			known = true
		}
		if m.APIURL != "" && !m.Tags.NoFailover() {
			ask = append(ask, m)
		}
	}
	switch {
	case f.Candidate != "" && !known:
		return "candidate does not exists"
	case len(c.Members) == 0 || (len(c.Members) == 1 && c.Members[0].Name == c.Leader.Name):
		return action + " is not possible: cluster does not have members except leader"
	}
	for _, a := range h.node.Ask(ctx, ask) {
		if a.Err == nil && a.Status.HasPosition && !a.Status.WatchdogFailed && !a.Status.Tags.NoFailover() {
			return ""
		}
	}
	return action + " is not possible: no good candidates have been found"
}

// awaitFailover waits until the store shows another leader that is primary, or that the request was dropped.
func (h *handler) awaitFailover(ctx context.Context, r *Report, old, candidate, action string) (int, string) {
	limit := 2 * max(10*time.Second, r.LoopWait)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	did := map[string]string{"switchover": "switched over", "failover": "failed over"}[action]
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := h.node.ReadCluster(ctx)
		switch {
		case err == nil && c.Leader.Name != "" && c.Leader.Name != old:
			if candidate == "" || c.Leader.Name == candidate {
				return http.StatusOK, fmt.Sprintf("Successfully %s to %q", did, c.Leader.Name)
			}
			return http.StatusOK, fmt.Sprintf("%s to %q instead of %q", capital(did), c.Leader.Name, candidate)
		case err == nil && !c.Failover.Requested() && c.Leader.Name == old:
			return http.StatusServiceUnavailable, capital(action) + " failed"
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return http.StatusServiceUnavailable, fmt.Sprintf("%s status unknown after %d seconds; operation may still be in progress",
				capital(action), int(limit.Seconds()))
		}
	}
}

// deleteSwitchover is DELETE /switchover.
func (h *handler) deleteSwitchover(w http.ResponseWriter, req *http.Request, _ *Report) {
	ctx, cancel := context.WithTimeout(req.Context(), storeTimeout)
	defer cancel()
	c, err := h.node.ReadCluster(ctx)
	if err != nil {
		writeText(w, http.StatusServiceUnavailable, "the store does not answer: "+err.Error())
		return
	}
	if !c.Failover.Requested() || c.Failover.ScheduledAt.IsZero() {
		writeText(w, http.StatusNotFound, "no switchover is scheduled")
		return
	}
	version := c.Failover.Version
	switch err := h.node.WriteFailover(ctx, cluster.Failover{}, &version); {
	case err == nil:
		writeText(w, http.StatusOK, "scheduled switchover deleted")
	case errors.Is(err, dcs.ErrConflict):
		writeText(w, http.StatusConflict, "the switchover was changed by somebody else")
	default:
		writeText(w, http.StatusServiceUnavailable, "failed to write failover key into DCS")
	}
}
