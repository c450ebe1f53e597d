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

// failover is POST /switchover and POST /failover (reference section 2.8): check, write the key `failover`, and wait
// until the store shows how it went.
func (a *API) failover(x *exchange, action string) {
	m, no := x.object(false)
	if no != nil {
		x.text(no.code, no.text)
		return
	}
	f, action, no := parseFailover(m, x.report, action, x.now)
	if no != nil {
		x.text(no.code, no.text)
		return
	}
	x.with = failoverView(f)
	ctx, cancel := context.WithTimeout(x.req.Context(), storeTimeout)
	c, err := a.node.ReadCluster(ctx)
	cancel()
	if err != nil {
		x.text(http.StatusServiceUnavailable, "the store does not answer: "+err.Error())
		return
	}
	if f.ScheduledAt.IsZero() {
		if text := a.possible(x.req.Context(), c, f, action); text != "" {
			x.text(http.StatusPreconditionFailed, text)
			return
		}
	}
	ctx, cancel = context.WithTimeout(x.req.Context(), storeTimeout)
	err = a.node.WriteFailover(ctx, f, nil)
	cancel()
	switch {
	case err != nil:
		x.text(http.StatusServiceUnavailable, "failed to write failover key into DCS")
	case !f.ScheduledAt.IsZero():
		x.text(http.StatusAccepted, capital(action)+" scheduled")
	default:
		code, text := a.awaitFailover(x.req.Context(), x.report, c.Leader.Name, f.Candidate, action)
		x.late()
		x.text(code, text)
	}
}

func failoverView(f cluster.Failover) map[string]any {
	m := map[string]any{}
	if f.Leader != "" {
		m["leader"] = f.Leader
	}
	if f.Candidate != "" {
		m["candidate"] = f.Candidate
	}
	if !f.ScheduledAt.IsZero() {
		m["scheduled_at"] = pythonISO(f.ScheduledAt)
	}
	return m
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// parseFailover reads the request, in the order of checks of the reference.
func parseFailover(m map[string]any, r *Report, action string, now time.Time) (cluster.Failover, string, *refusal) {
	no := only(m, "leader", "candidate", "member", "scheduled_at")
	text := func(keys ...string) (s string) {
		if no == nil {
			s, no = textField(m, keys...)
		}
		return s
	}
	leader, candidate, at := text("leader"), text("candidate", "member"), text("scheduled_at")
	if no != nil {
		return cluster.Failover{}, action, no
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
		when, no := parseSchedule(at, "switchover", now)
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

// possible says why the request cannot succeed now; empty: it may.
func (a *API) possible(ctx context.Context, c cluster.Cluster, f cluster.Failover, action string) string {
	if f.Leader != "" && f.Leader != c.Leader.Name {
		return "leader name does not match"
	}
	priority := c.Config.SynchronousMode == "on"
	if f.Candidate != "" && action == "switchover" && priority && !c.Sync.Votes(f.Candidate) {
		return "candidate name does not match with sync_standby"
	}
	var ask []cluster.Member
	for _, m := range c.Members {
		switch {
		case f.Candidate != "":
			if m.Name != f.Candidate {
				continue
			}
		case priority:
			if !c.Sync.Votes(m.Name) {
				continue
			}
		case m.Name == c.Leader.Name || m.APIURL == "":
			continue
		}
		ask = append(ask, m)
	}
	switch {
	case len(ask) > 0:
	case f.Candidate != "":
		return "candidate does not exists"
	case priority:
		return action + " is not possible: can not find sync_standby"
	default:
		return action + " is not possible: cluster does not have members except leader"
	}
	for _, m := range a.node.Ask(ctx, ask) {
		if m.Err == nil && m.Status.HasPosition && !m.Status.WatchdogFailed && !m.Status.Tags.NoFailover() {
			return ""
		}
	}
	return action + " is not possible: no good candidates have been found"
}

// awaitFailover waits until the store shows another leader that is primary, or that the request was dropped.
func (a *API) awaitFailover(ctx context.Context, r *Report, old, candidate, action string) (int, string) {
	limit := 2 * max(10*time.Second, r.LoopWait)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	did := map[string]string{"switchover": "switched over", "failover": "failed over"}[action]
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := a.node.ReadCluster(ctx)
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
func (a *API) deleteSwitchover(x *exchange) {
	ctx, cancel := context.WithTimeout(x.req.Context(), storeTimeout)
	defer cancel()
	c, err := a.node.ReadCluster(ctx)
	if err != nil {
		x.text(http.StatusServiceUnavailable, "the store does not answer: "+err.Error())
		return
	}
	if !c.Failover.Requested() || c.Failover.ScheduledAt.IsZero() {
		x.text(http.StatusNotFound, "no switchover is scheduled")
		return
	}
	x.with = failoverView(c.Failover)
	version := c.Failover.Version
	switch err := a.node.WriteFailover(ctx, cluster.Failover{}, &version); {
	case err == nil:
		x.text(http.StatusOK, "scheduled switchover deleted")
	case errors.Is(err, dcs.ErrConflict):
		x.text(http.StatusConflict, "the switchover was changed by somebody else")
	default:
		x.text(http.StatusServiceUnavailable, "failed to write failover key into DCS")
	}
}
