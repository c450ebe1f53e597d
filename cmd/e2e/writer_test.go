package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// writer inserts all the time, on one session that reconnects to whichever node takes writes, and remembers what was
// acknowledged and when.
type writer struct {
	t      testing.TB
	dsn    string
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	acks   []time.Time
	acked  []int
	failed int
}

func dsn(nodes []*rig.Node) string {
	var hosts, ports []string
	for _, d := range nodes {
		hosts = append(hosts, "127.0.0.1")
		ports = append(ports, fmt.Sprint(d.PGPort))
	}
	return fmt.Sprintf("host=%s port=%s user=postgres password=super-secret dbname=postgres target_session_attrs=read-write connect_timeout=1",
		strings.Join(hosts, ","), strings.Join(ports, ","))
}

func startWriter(c *rig.Cluster) *writer {
	c.T.Helper()
	return startWriterOn(c, c.Nodes)
}

// startWriterOn starts a writer that tries some of the nodes only.
func startWriterOn(c *rig.Cluster, nodes []*rig.Node) *writer {
	c.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{t: c.T, dsn: dsn(nodes), cancel: cancel}
	conn, err := pgx.Connect(ctx, w.dsn)
	require.NoError(c.T, err)
	_, err = conn.Exec(ctx, "create table if not exists acked(id bigint primary key)")
	require.NoError(c.T, err)
	_ = conn.Close(ctx)
	w.done.Go(func() { w.run(ctx) })
	c.T.Cleanup(w.stop)
	rig.Eventually(c.T, 10*time.Second, "writes flow", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.acks) > 20
	})
	return w
}

func (w *writer) run(ctx context.Context) {
	var conn *pgx.Conn
	for id := int(time.Now().UnixNano()); ctx.Err() == nil; id++ { // unlike those of a writer before it
		if conn == nil {
			call, cancel := context.WithTimeout(ctx, 2*time.Second)
			c, err := pgx.Connect(call, w.dsn)
			cancel()
			if err != nil {
				pause(ctx, 5*time.Millisecond)
				continue
			}
			conn = c
		}
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := conn.Exec(call, fmt.Sprintf("insert into acked values (%d)", id))
		cancel()
		if err != nil {
			_ = conn.Close(context.Background())
			conn = nil
			w.mu.Lock()
			w.failed++
			w.mu.Unlock()
			continue
		}
		w.mu.Lock()
		w.acks, w.acked = append(w.acks, time.Now()), append(w.acked, id)
		w.mu.Unlock()
		pause(ctx, time.Millisecond)
	}
	if conn != nil {
		_ = conn.Close(context.Background())
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (w *writer) stop() {
	w.cancel()
	w.done.Wait()
}

// failures counts the writes that were sent and not acknowledged.
func (w *writer) failures() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// outage is the longest time without an acknowledgement since a moment. It returns when writes have flowed again after
// the call.
func (w *writer) outage(since time.Time, within time.Duration) time.Duration {
	w.t.Helper()
	called := time.Now()
	rig.Eventually(w.t, within, "writes flow again", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		n := len(w.acks)
		return n > 20 && w.acks[n-20].After(called)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	var longest time.Duration
	for i := 1; i < len(w.acks); i++ {
		if w.acks[i].After(since) {
			longest = max(longest, w.acks[i].Sub(w.acks[i-1]))
		}
	}
	return longest
}

// lost counts acknowledged writes that the primary does not have.
func (w *writer) lost(c *rig.Cluster) int {
	w.t.Helper()
	w.mu.Lock()
	acked := slices.Clone(w.acked)
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.dsn)
	require.NoError(w.t, err)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "select id from acked")
	require.NoError(w.t, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	require.NoError(w.t, err)
	have := map[int]bool{}
	for _, id := range ids {
		have[id] = true
	}
	lost := 0
	for _, id := range acked {
		if !have[id] {
			lost++
		}
	}
	return lost
}
