package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// TestOperate: what operators ask of nodes over the REST API, on real daemons.
func TestOperate(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 2, DCS: fastConfig})
	c.StartAll()
	w := c.StartWriter()

	t.Run("RestartLeader", func(t *testing.T) {
		l := c.Leader()
		before, began := l.Postmaster(), time.Now()
		code, text := l.Post("/restart", `{"role":"primary"}`)
		require.Equal(t, http.StatusOK, code, text)
		require.Equal(t, "restarted successfully", text)
		outage := w.Outage(began, 20*time.Second)
		t.Logf("restart of the leader: outage %v", outage)
		require.Less(t, outage, 2*time.Second)
		require.NotEqual(t, before, l.Postmaster())
		rig.Eventually(t, 5*time.Second, "it kept its lease", l.Primary)
		c.AwaitHealthy(20 * time.Second)
		require.Zero(t, w.Lost())
	})

	t.Run("RestartRefused", func(t *testing.T) {
		l := c.Leader()
		before := l.Postmaster()
		for body, want := range map[string]string{
			`{"role":"replica"}`:          "restart conditions are not satisfied",
			`{"restart_pending":true}`:    "restart conditions are not satisfied",
			`{"postgres_version":"15.0"}`: "restart conditions are not satisfied",
		} {
			code, text := l.Post("/restart", body)
			require.Equal(t, http.StatusServiceUnavailable, code, "%s: %s", body, text)
			require.Equal(t, want, text, body)
		}
		require.Equal(t, before, l.Postmaster())
	})

	t.Run("PendingRestart", func(t *testing.T) {
		l := c.Leader()
		patch(t, l, `{"postgresql":{"parameters":{"max_connections":60}}}`)
		for _, n := range c.Nodes {
			rig.Eventually(t, 20*time.Second, "a restart is pending", func() bool { return pending(n, "max_connections") == "50->60" })
		}
		// The primary first would be refused by the standby: it must not have less (reference section 4.6).
		replica := c.Others(l)[0]
		for _, n := range []*rig.Node{replica, l} {
			code, text := n.Post("/restart", `{"restart_pending":true}`)
			require.Equal(t, http.StatusOK, code, text)
			rig.Eventually(t, 20*time.Second, "no restart is pending", func() bool { return pending(n, "max_connections") == "" })
		}
		require.Equal(t, "60", show(t, l, "max_connections"))
		c.AwaitHealthy(20 * time.Second)
	})

	t.Run("ByRole", func(t *testing.T) {
		l := c.Leader()
		r := c.Others(l)[0]
		patch(t, l, `{"postgresql":{"parameters_primary":{"work_mem":"5MB"},"parameters_replica":{"work_mem":"6MB"}}}`)
		role := func(primary, replica *rig.Node) func() bool {
			return func() bool { return show(t, primary, "work_mem") == "5MB" && show(t, replica, "work_mem") == "6MB" }
		}
		rig.Eventually(t, 20*time.Second, "each has the value of its role", role(l, r))
		code, text := l.Post("/switchover", fmt.Sprintf(`{"leader":%q}`, l.Name))
		require.Equal(t, http.StatusOK, code, text)
		c.AwaitHealthy(20 * time.Second)
		rig.Eventually(t, 20*time.Second, "after a switchover, too", role(r, l))
		for _, n := range c.Nodes {
			rig.Eventually(t, 10*time.Second, "there is a copy of the configuration", func() bool {
				b, err := os.ReadFile(filepath.Join(n.Data, "patroni.dynamic.json"))
				return err == nil && strings.Contains(string(b), `"parameters_replica":{"work_mem":"6MB"}`)
			})
		}
	})

	t.Run("Scheduled", func(t *testing.T) {
		r := c.Others(c.Leader())[0]
		before := r.Postmaster()
		at := time.Now().Add(2 * time.Second)
		code, text := r.Post("/restart", fmt.Sprintf(`{"schedule":%q}`, at.Format(time.RFC3339Nano)))
		require.Equal(t, http.StatusAccepted, code, text)
		code, text = r.Post("/restart", fmt.Sprintf(`{"schedule":%q}`, at.Format(time.RFC3339Nano)))
		require.Equal(t, http.StatusConflict, code, text)
		_, body := r.Get("/patroni")
		require.Contains(t, body, "scheduled_restart")
		key, err := c.Store.Get("members/" + r.Name)
		require.NoError(t, err)
		require.Contains(t, key.Value, "scheduled_restart")
		took := rig.Eventually(t, 10*time.Second, "it is restarted", func() bool { p := r.Postmaster(); return p != 0 && p != before })
		t.Logf("restarted %v after it was asked for, due after 2 s", took)
		rig.Eventually(t, 10*time.Second, "it streams", r.Streaming)
		_, body = r.Get("/patroni")
		require.NotContains(t, body, "scheduled_restart")
	})

	t.Run("Reinitialize", func(t *testing.T) {
		l := c.Leader()
		r := c.Others(l)[0]
		mark := filepath.Join(r.Data, "old.mark")
		require.NoError(t, os.WriteFile(mark, nil, 0o600))
		code, text := l.Post("/reinitialize", "{}")
		require.Equal(t, http.StatusServiceUnavailable, code, text)
		require.Equal(t, "I am the leader, can not reinitialize", text)
		code, text = r.Post("/reinitialize", `{"force":true,"from_leader":true}`)
		require.Equal(t, http.StatusOK, code, text)
		rig.Eventually(t, 30*time.Second, "it is copied anew", func() bool {
			_, err := os.Stat(mark)
			return os.IsNotExist(err) && r.Streaming()
		})
		aside, err := filepath.Glob(r.Data + "*/old.mark")
		require.NoError(t, err)
		require.Len(t, aside, 1, "what it had was set aside")
	})

	t.Run("AgentKilledInRestart", func(t *testing.T) {
		r := c.Others(c.Leader())[0]
		go r.Post("/restart", "")
		rig.Eventually(t, 10*time.Second, "it restarts", func() bool { return !r.Streaming() })
		r.Kill()
		r.Start()
		c.AwaitHealthy(30 * time.Second)
	})
}

// patch changes the dynamic configuration.
func patch(t *testing.T, d *rig.Node, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, fmt.Sprintf("http://127.0.0.1:%d/config", d.APIPort), strings.NewReader(body))
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	_ = res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
}

// pending is why a parameter waits for a restart, "old->new"; empty: it does not.
func pending(d *rig.Node, name string) string {
	_, body := d.Get("/patroni")
	reasons, _ := body["pending_restart_reason"].(map[string]any)
	r, _ := reasons[name].(map[string]any)
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%v->%v", r["old_value"], r["new_value"])
}

// show is a parameter in force.
func show(t *testing.T, d *rig.Node, name string) (value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn := session(ctx, t, d)
	defer func() { _ = conn.Close(ctx) }()
	require.NoError(t, conn.QueryRow(ctx, "select current_setting($1)", name).Scan(&value))
	return value
}
