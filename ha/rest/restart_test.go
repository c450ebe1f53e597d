package rest

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRestart(t *testing.T) {
	paused := func(n *fakeNode) { n.report.Paused = true }
	refuse := func(r Refusal) func(*fakeNode) { return func(n *fakeNode) { n.failWith = &r } }
	for _, c := range []struct {
		body   string
		change func(*fakeNode)
		code   int
		text   string
		did    string
	}{
		{``, nil, 200, "restarted successfully", "restart map[]"},
		{`{}`, nil, 200, "restarted successfully", "restart map[]"},
		{`{"restart_pending":true}`, nil, 200, "restarted successfully", "restart map[restart_pending:true]"},
		{`{"restart_pending":false}`, nil, 200, "restarted successfully", "restart map[]"},
		{`{"role":"replica","postgres_version":"15.3","timeout":"2min"}`, nil, 200, "restarted successfully", "restart map[postgres_version:15.3 role:replica timeout:120]"},
		{`{"postgres_version":"9.5.3","timeout":30}`, nil, 200, "restarted successfully", "restart map[postgres_version:9.5.3 timeout:30]"},
		{`{"schedule":"2040-01-02T03:04:05+02:00","restart_pending":true}`, nil, 202, "Restart scheduled", "schedule map[restart_pending:true schedule:2040-01-02T03:04:05+02:00]"},
		{`{"schedule":"2040-01-01T00:00:00+00:00"}`, paused, 500, "Can't schedule restart in the paused state", ""},
		{`{"schedule":"2040-01-01T00:00:00"}`, nil, 400, "Timezone information is mandatory for the scheduled restart", ""},
		{`{"schedule":"2020-01-01T00:00:00Z"}`, nil, 422, "Cannot schedule restart in the past", ""},
		{`{"schedule":"soon"}`, nil, 422, "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601", ""},
		{`{"schedule":7}`, nil, 400, "schedule: must be a text", ""},
		{`{"role":"leader"}`, nil, 400, "PostgreSQL role should be either primary, standby_leader, or replica", ""},
		{`{"postgres_version":"15"}`, nil, 400, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 15", ""},
		{`{"postgres_version":"9.6"}`, nil, 400, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9.6", ""},
		{`{"postgres_version":"a.b"}`, nil, 400, "Invalid PostgreSQL version: a.b", ""},
		{`{"timeout":0}`, nil, 400, "Timeout should be a positive number of seconds", ""},
		{`{"timeout":"1 year"}`, nil, 400, "Timeout should be a positive number of seconds", ""},
		{`{"timeout":true}`, nil, 400, "Timeout should be a positive number of seconds", ""},
		{`{"restart_pending":"yes"}`, nil, 400, "restart_pending: must be true or false", ""},
		{`{"x":1}`, nil, 400, "Unknown filter for the scheduled restart: x", ""},
		{`[]`, nil, 400, "no JSON object", ""},
		{`{`, nil, 400, "no JSON object", ""},
		{`{}`, refuse(Refusal{Text: "restart conditions are not satisfied"}), 503, "restart conditions are not satisfied", ""},
		{`{}`, refuse(Refusal{Text: "reinitialize already in progress"}), 503, "reinitialize already in progress", ""},
		{`{"schedule":"2040-01-01T00:00:00Z"}`, refuse(Refusal{Text: "another", Conflict: true}), 409, "Another restart is already scheduled", ""},
		{`{}`, func(n *fakeNode) { n.failWith = errors.New("x") }, 503, "restart failed", ""},
	} {
		n := primaryNode()
		if c.change != nil {
			c.change(n)
		}
		code, text, _ := call(n, Options{}, "POST", "/restart", c.body)
		require.Equal(t, c.code, code, "%s: %s", c.body, text)
		require.Contains(t, text, c.text, c.body)
		if c.did == "" {
			require.Zero(t, n.changes(), c.body)
		} else {
			require.Equal(t, []string{c.did}, n.operated)
		}
	}
}

func TestReinitialize(t *testing.T) {
	for _, c := range []struct {
		body string
		code int
		text string
		did  string
	}{
		{``, 200, "reinitialize started", "reinitialize {Force:false FromLeader:false}"},
		{`{"force":true,"from_leader":false}`, 200, "reinitialize started", "reinitialize {Force:true FromLeader:false}"},
		{`{"from-leader":true}`, 200, "reinitialize started", "reinitialize {Force:false FromLeader:true}"},
		{`{"force":"yes"}`, 400, "force: must be true or false", ""},
		{`{"forse":true}`, 400, "forse: is no field", ""},
		{`{"force":`, 400, "no JSON object", ""}, // Patroni starts all the same
	} {
		n := primaryNode()
		code, text, _ := call(n, Options{}, "POST", "/reinitialize", c.body)
		require.Equal(t, c.code, code, "%s: %s", c.body, text)
		require.Contains(t, text, c.text)
		require.Equal(t, c.did != "", n.changes() == 1)
		if c.did != "" {
			require.Equal(t, []string{c.did}, n.operated)
		}
	}
	n := primaryNode()
	n.failWith = &Refusal{Text: "I am the leader, can not reinitialize"}
	code, text, _ := call(n, Options{}, "POST", "/reinitialize", "")
	require.Equal(t, 503, code)
	require.Equal(t, "I am the leader, can not reinitialize", text)
}

func TestCancel(t *testing.T) {
	for path, words := range map[string][2]string{"/restart": {"scheduled restart deleted", "no restarts are scheduled"},
		"/reinitialize": {"reinitialization cancelled", "no reinitialization runs"}} {
		n := primaryNode()
		code, text, _ := call(n, Options{}, "DELETE", path, "")
		require.Equal(t, []any{404, words[1]}, []any{code, text})
		n.had = true
		code, text, _ = call(n, Options{}, "DELETE", path, "")
		require.Equal(t, []any{200, words[0]}, []any{code, text})
	}
}

func TestScheduledRestartIsShown(t *testing.T) {
	n := primaryNode()
	n.report.ScheduledRestart = &RestartRequest{At: time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC), Pending: true, Below: 150004}
	_, body, _ := call(n, Options{}, "GET", "/patroni", "")
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &m))
	require.Equal(t, map[string]any{"schedule": "2036-01-01T00:00:00+00:00", "restart_pending": true, "postgres_version": "15.4"}, m["scheduled_restart"])
}

func TestUnits(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "10": 10, " 1MB ": 1 << 20, "0x400": 1024, "1.5MB": 3 << 19, "4097.5kB": 4195840, "-5": -5, "1TB": 1 << 40, "1 GB": 1 << 30, "010": 8, "1e3": 1000} {
		got, ok := parseSize(s)
		require.True(t, ok, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "x", "1mb", "MB", "1 year", "0x", "_1", "1_0", "nan", "inf"} {
		_, ok := parseSize(s)
		require.False(t, ok, s)
	}
	for s, want := range map[string]time.Duration{"30": 30 * time.Second, "2min": 2 * time.Minute, "1000 ms": time.Second, "1h": time.Hour, "1d": 24 * time.Hour} {
		got, ok := parseSeconds(s)
		require.True(t, ok, s)
		require.Equal(t, want, got, s)
	}
}
