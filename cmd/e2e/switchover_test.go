package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// hindered tells a switchover that waits for what is slow from one that does not, on a machine under load, too. The budget
// is 500 ms (design section 9, hazard A19); the benchmark measures it.
const hindered = 1500 * time.Millisecond

// TestSwitchoverHindered: what is slow and has no part in a switchover does not hold it up.
func TestSwitchoverHindered(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 3, DCS: fastConfig, Parameters: []string{"archive_mode: on", `archive_command: "test ! -e ../slow || sleep 5"`}})
	c.StartAll()
	switchover := func(t *testing.T, w *rig.Writer, old, target *rig.Node) {
		t.Helper()
		began := time.Now()
		code, text := old.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, old.Name, target.Name))
		require.Equal(t, http.StatusOK, code, text)
		outage := w.Outage(began, 20*time.Second)
		t.Logf("outage %v, answered after %v: %s", outage, time.Since(began), text)
		require.LessOrEqual(t, outage, hindered)
		rig.Eventually(t, 5*time.Second, "the target leads", target.Primary)
		require.Zero(t, w.Lost(), "acknowledged writes lost in a planned switchover")
	}

	t.Run("ReplicaFrozen", func(t *testing.T) {
		old := c.Leader()
		target, frozen := c.Others(old)[0], c.Others(old)[1]
		for _, pid := range frozen.Servers() {
			require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
		}
		w := c.StartWriterOn([]*rig.Node{old, target}) // a client that tries the frozen one waits for its own time-out
		defer w.Stop()
		switchover(t, w, old, target)
		for _, pid := range frozen.Servers() {
			require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
		}
		c.AwaitHealthy(30 * time.Second)
	})

	t.Run("SlowArchiving", func(t *testing.T) {
		old := c.Leader()
		require.NoError(t, os.WriteFile(filepath.Join(c.Root, "slow"), nil, 0o600))
		archive(t, old)
		w := c.StartWriter()
		defer w.Stop()
		switchover(t, w, old, c.Others(old)[0])
	})
}

// archive makes a segment that waits for its archive_command when the server stops.
func archive(t *testing.T, d *rig.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn := session(ctx, t, d)
	defer func() { _ = conn.Close(ctx) }()
	_, err := conn.Exec(ctx, "select pg_switch_wal()")
	require.NoError(t, err)
}

// session is a connection to one node's server.
func session(ctx context.Context, t *testing.T, d *rig.Node) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=super-secret dbname=postgres", d.PGPort))
	require.NoError(t, err)
	return conn
}

// TestSwitchoverGivenUp: a backend that does not end when it is told to holds the shutdown up. After primary_stop_timeout
// PostgreSQL is stopped the hard way, and leads again in place: what it has not sent must not be lost. The request is
// answered as failed.
func TestSwitchoverGivenUp(t *testing.T) {
	const limit = 2 * time.Second
	c := rig.New(t, rig.Options{PG: "15", Nodes: 2, DCS: fastConfig + "\n    primary_stop_timeout: 2"})
	c.StartAll()
	w := c.StartWriter()
	old := c.Leader()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	conn := session(ctx, t, old)
	defer func() { _ = conn.Close(ctx) }()
	require.NoError(t, syscall.Kill(int(conn.PgConn().PID()), syscall.SIGSTOP))

	began := time.Now()
	code, text := old.Post("/switchover", fmt.Sprintf(`{"leader":%q}`, old.Name))
	t.Logf("answered %d after %v: %s", code, time.Since(began), text)
	require.Equal(t, http.StatusServiceUnavailable, code, text)
	require.Contains(t, text, "Switchover failed")
	outage := w.Outage(began, 40*time.Second)
	t.Logf("outage %v", outage)
	require.GreaterOrEqual(t, outage, limit)
	require.Less(t, outage, limit+3*time.Second)
	rig.Eventually(t, 5*time.Second, "it leads again in place", old.Primary)
	c.AwaitHealthy(30 * time.Second)
	require.Zero(t, w.Lost())
}
