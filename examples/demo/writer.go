package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// writer inserts all the time on one session that follows the primary, and remembers what was acknowledged and when.
type writer struct {
	dsn    string
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu    sync.Mutex
	acks  []time.Time
	acked []int
}

// dsn names all nodes; libpq's rule picks the one that takes writes.
func (c *cluster) dsn() string {
	var hosts, ports []string
	for _, n := range c.nodes {
		hosts, ports = append(hosts, "127.0.0.1"), append(ports, fmt.Sprint(n.port))
	}
	return fmt.Sprintf("host=%s port=%s user=postgres password=demo-superuser dbname=postgres target_session_attrs=read-write connect_timeout=1",
		strings.Join(hosts, ","), strings.Join(ports, ","))
}

// startWriter makes the table and begins to write.
func (c *cluster) startWriter(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.dsn())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "create table if not exists demo(id bigint primary key, at timestamptz default now())"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &writer{dsn: c.dsn(), cancel: cancel}
	w.done.Go(func() { w.run(ctx) })
	c.writer = w
	return nil
}

func (w *writer) run(ctx context.Context) {
	var conn *pgx.Conn
	for id := 1; ctx.Err() == nil; id++ {
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		var err error
		if conn == nil {
			conn, err = pgx.Connect(call, w.dsn)
		}
		if err == nil {
			_, err = conn.Exec(call, fmt.Sprintf("insert into demo(id) values (%d)", id))
		}
		cancel()
		if err != nil {
			if conn != nil {
				_ = conn.Close(context.Background())
				conn = nil
			}
			wait(ctx, 5*time.Millisecond)
			continue
		}
		w.mu.Lock()
		w.acks, w.acked = append(w.acks, time.Now()), append(w.acked, id)
		w.mu.Unlock()
		wait(ctx, 2*time.Millisecond)
	}
	if conn != nil {
		_ = conn.Close(context.Background())
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (w *writer) stop() {
	w.cancel()
	w.done.Wait()
}

// flowing says whether writes have been acknowledged again since a moment, several of them.
func (w *writer) flowing(since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.acks)
	return n > 20 && w.acks[n-20].After(since)
}

// outage is the longest time without an acknowledgement since a moment, the running one included.
func (w *writer) outage(since time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, longest := since, time.Duration(0)
	for i := len(w.acks) - 1; i > 0 && w.acks[i].After(since); i-- {
		longest = max(longest, w.acks[i].Sub(w.acks[i-1]))
	}
	if n := len(w.acks); n > 0 {
		last = w.acks[n-1]
	}
	return max(longest, time.Since(last))
}

// rate is the number of writes acknowledged in the last second.
func (w *writer) rate() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for i := len(w.acks) - 1; i >= 0 && time.Since(w.acks[i]) < time.Second; i-- {
		n++
	}
	return n
}

// missing counts acknowledged writes that the primary does not have.
func (w *writer) missing(ctx context.Context) (int, error) {
	w.mu.Lock()
	acked := append([]int(nil), w.acked...)
	w.mu.Unlock()
	conn, err := pgx.Connect(ctx, w.dsn)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "select id from demo")
	if err != nil {
		return 0, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return 0, err
	}
	have := make(map[int]bool, len(ids))
	for _, id := range ids {
		have[id] = true
	}
	n := 0
	for _, id := range acked {
		if !have[id] {
			n++
		}
	}
	return n, nil
}
