package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

func (n *libNode) show(t *testing.T, name string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://postgres:secret@127.0.0.1:%d/postgres", n.port))
	if err != nil {
		return ""
	}
	defer conn.Close(ctx)
	var value string
	require.NoError(t, conn.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value))
	return value
}

// configure merges a patch into the dynamic configuration.
func (n *libNode) configure(t *testing.T, patch map[string]any) {
	_, err := n.node.ChangeConfig(t.Context(), false, func(current json.RawMessage) (json.RawMessage, error) {
		var config map[string]any
		if err := json.Unmarshal(current, &config); err != nil {
			return nil, err
		}
		cluster.Patch(config, patch)
		return json.Marshal(config)
	})
	require.NoError(t, err)
}

func maxConnections(n int) map[string]any {
	return map[string]any{"postgresql": map[string]any{"parameters": map[string]any{"max_connections": n}}}
}

// TestOperateNodes: what operators ask of nodes, with real PostgreSQL: no second primary and no new timeline by a
// restart, the rules for max_connections on standbys, old data set aside, the rules in pause.
func TestOperateNodes(t *testing.T) {
	bin := postgrestest.Binaries(t, "15")
	root := t.TempDir()
	srv := memory.NewServer(dcs.Boottime())
	var nodes []*libNode
	for i := range 3 {
		nodes = append(nodes, startLib(t, srv.Open("/service/demo"), fmt.Sprintf("pg%d", i+1), root, bin))
	}
	await := func(what string, ok func() bool) { t.Helper(); rig.Eventually(t, 40*time.Second, what, ok) }
	all := func(ok func(*libNode) bool) func() bool {
		return func() bool {
			for _, n := range nodes {
				if !ok(n) {
					return false
				}
			}
			return healthy(nodes)
		}
	}
	await("healthy from empty", func() bool { return healthy(nodes) })
	l := leaderOf(nodes)
	var replicas []*libNode
	for _, n := range nodes {
		if n != l {
			replicas = append(replicas, n)
		}
	}
	r := replicas[0]

	t.Run("RestartPrimary", func(t *testing.T) {
		before := l.node.Report()
		done := make(chan error, 1)
		began := time.Now()
		go func() { done <- l.node.Restart(context.Background(), rest.RestartRequest{Role: "primary"}) }()
		for restarted := false; !restarted; {
			select {
			case err := <-done:
				require.NoError(t, err)
				restarted = true
			case <-time.After(5 * time.Millisecond):
			}
			require.True(t, l.node.Report().IsLeader)
			for _, n := range replicas {
				require.False(t, n.node.Report().IsLeader || n.node.Report().Writable)
			}
		}
		t.Logf("restarted in %v", time.Since(began))
		await("healthy", func() bool { return healthy(nodes) })
		after := l.node.Report()
		require.Equal(t, before.Epoch, after.Epoch)
		require.Equal(t, before.Server.Timeline, after.Server.Timeline)
		require.NotEqual(t, before.Server.PostmasterStart, after.Server.PostmasterStart)
	})

	t.Run("Raised", func(t *testing.T) {
		r.configure(t, maxConnections(130))
		await("a restart is pending", all(func(n *libNode) bool { return n.node.Report().PendingRestart["max_connections"].New == "130" }))
		require.NoError(t, l.node.Restart(t.Context(), rest.RestartRequest{Pending: true}))
		// The replay of the replicas is paused now, and they restart by themselves (reference section 4.6).
		await("all have it", all(func(n *libNode) bool {
			return len(n.node.Report().PendingRestart) == 0 && n.show(t, "max_connections") == "130"
		}))
	})

	t.Run("Lowered", func(t *testing.T) {
		r.configure(t, maxConnections(90))
		await("a restart is pending", all(func(n *libNode) bool { return n.node.Report().PendingRestart["max_connections"].New == "90" }))
		require.NoError(t, r.node.Restart(t.Context(), rest.RestartRequest{}))
		await("it has its primary's value, and still waits", all(func(n *libNode) bool {
			return n.node.Report().PendingRestart["max_connections"].New == "90" && n.show(t, "max_connections") == "130"
		}))
		require.NoError(t, l.node.Restart(t.Context(), rest.RestartRequest{}))
		for _, n := range replicas {
			await("the primary's value has arrived", func() bool { return n.node.Report().Server.Control.Settings["max_connections"] == 90 })
			require.NoError(t, n.node.Restart(t.Context(), rest.RestartRequest{Role: "replica", Pending: true}))
		}
		await("all have it", all(func(n *libNode) bool {
			return len(n.node.Report().PendingRestart) == 0 && n.show(t, "max_connections") == "90"
		}))
	})

	t.Run("Reinitialize", func(t *testing.T) {
		mark := filepath.Join(root, r.name, "old.mark")
		require.NoError(t, os.WriteFile(mark, nil, 0o600))
		require.NoError(t, r.node.Reinitialize(rest.ReinitializeRequest{FromLeader: true}))
		var refusal *rest.Refusal
		require.ErrorAs(t, r.node.Reinitialize(rest.ReinitializeRequest{}), &refusal)
		require.Equal(t, "reinitialize already in progress", refusal.Text)
		await("it is copied anew", func() bool {
			_, err := os.Stat(mark)
			return errors.Is(err, os.ErrNotExist) && healthy(nodes)
		})
		_, err := os.Stat(filepath.Join(root, r.name+".old", "old.mark"))
		require.NoError(t, err, "what it had was set aside")
		await("there is a copy of the configuration", func() bool {
			b, err := os.ReadFile(filepath.Join(root, r.name, "patroni.dynamic.json"))
			return err == nil && strings.Contains(string(b), `"max_connections":90`)
		})
	})

	t.Run("Paused", func(t *testing.T) {
		l.configure(t, map[string]any{"pause": true})
		await("all are paused", all(func(n *libNode) bool { return n.node.Report().Paused }))
		for _, n := range []*libNode{r, l} {
			require.NoError(t, n.node.Restart(t.Context(), rest.RestartRequest{}))
			await("healthy", func() bool { return healthy(nodes) })
		}
		before := r.node.Report().Server.PostmasterStart
		require.NoError(t, r.node.Reinitialize(rest.ReinitializeRequest{}))
		await("it is copied anew", func() bool {
			s := r.node.Report().Server
			return s.Answered && !s.PostmasterStart.Equal(before) && r.node.Report().Task == "" && healthy(nodes)
		})
		pid := r.node.Report().Server.Control.PostmasterPIDNow
		require.NotZero(t, pid)
		require.NoError(t, syscall.Kill(pid, syscall.SIGQUIT))
		await("it is seen", func() bool { return r.node.Report().Reason == "paused" })
		<-time.After(3 * time.Second)
		require.False(t, r.node.Report().Server.Answered, "a server that crashes in pause stays down")
		require.NoError(t, r.node.Restart(t.Context(), rest.RestartRequest{}), "until somebody asks for it")
		await("healthy", func() bool { return healthy(nodes) })
		l.configure(t, map[string]any{"pause": nil})
		await("healthy", func() bool { return healthy(nodes) })
		require.True(t, l.node.Report().IsLeader)
	})
}
