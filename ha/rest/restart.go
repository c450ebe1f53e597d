package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
)

// restart is POST /restart (reference section 2.8): now, waiting for the end, or at a time.
func (a *API) restart(x *exchange) {
	m, no := x.object(true)
	if no != nil {
		x.text(no.code, no.text)
		return
	}
	if m["schedule"] != nil && x.report.Paused {
		x.text(http.StatusInternalServerError, "Can't schedule restart in the paused state")
		return
	}
	r, no := parseRestart(m, x.now)
	if no != nil {
		x.text(no.code, no.text)
		return
	}
	x.with = r.Published()
	if !r.At.IsZero() {
		a.scheduleRestart(x, r)
		return
	}
	err := a.node.Restart(x.req.Context(), r)
	x.late()
	var refusal *Refusal
	switch {
	case err == nil:
		x.text(http.StatusOK, "restarted successfully")
	case errors.As(err, &refusal) && refusal.Conflict:
		x.text(http.StatusConflict, refusal.Text)
	case errors.As(err, &refusal):
		x.text(http.StatusServiceUnavailable, refusal.Text)
	case x.req.Context().Err() != nil:
		x.text(http.StatusServiceUnavailable, "restart status unknown: nobody waits for it any more, and it goes on")
	default:
		x.text(http.StatusServiceUnavailable, "restart failed: "+err.Error())
	}
}

func (a *API) scheduleRestart(x *exchange, r RestartRequest) {
	err := a.node.ScheduleRestart(r)
	var refusal *Refusal
	switch {
	case err == nil:
		x.text(http.StatusAccepted, "Restart scheduled")
	case errors.As(err, &refusal) && refusal.Conflict:
		x.text(http.StatusConflict, "Another restart is already scheduled")
	default:
		x.text(http.StatusServiceUnavailable, err.Error())
	}
}

// parseRestart reads the conditions of a restart.
func parseRestart(m map[string]any, now time.Time) (RestartRequest, *refusal) {
	var r RestartRequest
	for _, k := range sortedKeys(m) {
		if !slices.Contains([]string{"schedule", "role", "postgres_version", "timeout", "restart_pending"}, k) {
			return r, bad("Unknown filter for the scheduled restart: %s", name(k))
		}
	}
	at, no := textField(m, "schedule")
	if no != nil {
		return r, no
	}
	if m["schedule"] != nil {
		if r.At, no = parseSchedule(at, "restart", now); no != nil {
			return r, no
		}
	}
	if r.Role, no = textField(m, "role"); no != nil {
		return r, no
	}
	if m["role"] != nil && !slices.Contains([]string{cluster.RolePrimary, cluster.RoleStandbyLeader, cluster.RoleReplica}, r.Role) {
		return r, bad("PostgreSQL role should be either primary, standby_leader, or replica")
	}
	version, no := textField(m, "postgres_version")
	if no != nil {
		return r, no
	}
	if m["postgres_version"] != nil {
		if r.Below, no = parseVersion(version); no != nil {
			return r, no
		}
	}
	if r.Timeout, no = parseTimeout(m["timeout"]); no != nil {
		return r, no
	}
	r.Pending, no = boolField(m, "restart_pending")
	return r, no
}

// parseVersion turns X.Y or X.Y.Z into PostgreSQL's number: 9.5.3 is 90503, 10.1 is 100001.
func parseVersion(s string) (int, *refusal) {
	parts := strings.Split(s, ".")
	var n []int
	for _, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil || v < 0 || v > 99 {
			return 0, bad("Invalid PostgreSQL version: %s", name(s))
		}
		n = append(n, v)
	}
	if len(n) < 2 || len(n) == 2 && n[0] < 10 || len(n) > 3 {
		return 0, bad("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: %s", name(s))
	}
	if len(n) == 2 {
		n = []int{n[0], 0, n[1]}
	}
	return n[0]*10000 + n[1]*100 + n[2], nil
}

// versionText is the inverse of parseVersion.
func versionText(v int) string {
	if v >= 100000 {
		return fmt.Sprintf("%d.%d", v/10000, v%10000)
	}
	return fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100)
}

func parseTimeout(v any) (time.Duration, *refusal) {
	if v == nil {
		return 0, nil
	}
	text, ok := v.(string)
	if n, isNumber := v.(json.Number); isNumber {
		text, ok = n.String(), true
	}
	d, valid := parseSeconds(text)
	if !ok || !valid || d <= 0 {
		return 0, bad("Timeout should be a positive number of seconds")
	}
	return d, nil
}

// Published is the request as members publish it and answers show it: its time and its filters, by the reference's names
// (section 1.4).
func (r RestartRequest) Published() map[string]any {
	m := map[string]any{}
	if !r.At.IsZero() {
		m["schedule"] = pythonISO(r.At)
	}
	if r.Role != "" {
		m["role"] = r.Role
	}
	if r.Below != 0 {
		m["postgres_version"] = versionText(r.Below)
	}
	if r.Timeout != 0 {
		m["timeout"] = int64(r.Timeout / time.Second)
	}
	if r.Pending {
		m["restart_pending"] = true
	}
	return m
}

func (a *API) deleteRestart(x *exchange) {
	if !a.node.CancelRestart() {
		x.text(http.StatusNotFound, "no restarts are scheduled")
		return
	}
	x.text(http.StatusOK, "scheduled restart deleted")
}

// reinitialize is POST /reinitialize. Patroni's documentation says from-leader, its code reads from_leader: both count.
func (a *API) reinitialize(x *exchange) {
	m, no := x.object(true)
	if no == nil {
		no = only(m, "force", "from_leader", "from-leader")
	}
	var r ReinitializeRequest
	if no == nil {
		r.Force, no = boolField(m, "force")
	}
	if no == nil {
		r.FromLeader, no = boolField(m, "from_leader", "from-leader")
	}
	if no != nil {
		x.text(no.code, no.text)
		return
	}
	x.with = map[string]any{"force": r.Force, "from_leader": r.FromLeader}
	if err := a.node.Reinitialize(r); err != nil {
		x.text(http.StatusServiceUnavailable, err.Error())
		return
	}
	x.text(http.StatusOK, "reinitialize started")
}

func (a *API) cancelReinitialize(x *exchange) {
	if !a.node.CancelReinitialize() {
		x.text(http.StatusNotFound, "no reinitialization runs")
		return
	}
	x.text(http.StatusOK, "reinitialization cancelled")
}
