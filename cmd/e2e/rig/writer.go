package rig

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
)

// Writer inserts all the time, on one session that reconnects to whichever node takes writes, and remembers what was
// acknowledged and when.
type Writer struct {
	t      testing.TB
	dsn    string
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	acks   []time.Time
	acked  []int
	failed int
}

// DSN reaches whichever node of the cluster takes writes.
func (c *Cluster) DSN() string { return dsn(c.Nodes) }

func dsn(nodes []*Node) string {
	var hosts, ports []string
	for _, d := range nodes {
		hosts = append(hosts, "127.0.0.1")
		ports = append(ports, fmt.Sprint(d.PGPort))
	}
	return fmt.Sprintf("host=%s port=%s user=postgres password=super-secret dbname=postgres target_session_attrs=read-write connect_timeout=1",
		strings.Join(hosts, ","), strings.Join(ports, ","))
}

// StartWriter starts a writer, which ends with the test, and returns when its writes flow.
func (c *Cluster) StartWriter() *Writer {
	c.T.Helper()
	return c.StartWriterOn(c.Nodes)
}

// StartWriterOn starts a writer that tries some of the nodes only.
func (c *Cluster) StartWriterOn(nodes []*Node) *Writer {
	c.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writer{t: c.T, dsn: dsn(nodes), cancel: cancel}
	conn, err := pgx.Connect(ctx, w.dsn)
	require.NoError(c.T, err)
	_, err = conn.Exec(ctx, "create table if not exists acked(id bigint primary key)")
	require.NoError(c.T, err)
	_ = conn.Close(ctx)
	w.done.Go(func() { w.run(ctx) })
	c.T.Cleanup(w.Stop)
	Eventually(c.T, 10*time.Second, "writes flow", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.acks) > 20
	})
	return w
}

func (w *Writer) run(ctx context.Context) {
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

// Stop ends the writes. It may be called more than once.
func (w *Writer) Stop() {
	w.cancel()
	w.done.Wait()
}

// Failures counts the writes that were sent and not acknowledged.
func (w *Writer) Failures() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// Outage is the longest time without an acknowledgement since a moment. It returns when writes have flowed again after
// the call.
func (w *Writer) Outage(since time.Time, within time.Duration) time.Duration {
	w.t.Helper()
	called := time.Now()
	Eventually(w.t, within, "writes flow again", func() bool {
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

// Lost counts acknowledged writes that the primary does not have.
func (w *Writer) Lost() int {
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

// Gap is a time without an acknowledgement, from the last before it to the first after it.
type Gap struct{ From, To time.Time }

// String is the length.
func (g Gap) String() string { return g.To.Sub(g.From).Round(time.Millisecond).String() }

// Gaps are the times without an acknowledgement that were longer than least.
func (w *Writer) Gaps(least time.Duration) []Gap {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []Gap
	for i := 1; i < len(w.acks); i++ {
		if w.acks[i].Sub(w.acks[i-1]) > least {
			all = append(all, Gap{w.acks[i-1], w.acks[i]})
		}
	}
	return all
}

// Acked counts the acknowledged writes.
func (w *Writer) Acked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acks)
}
