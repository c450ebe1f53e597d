package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// writer inserts all the time on one session that reconnects to whichever server takes writes, and remembers what was
// acknowledged and when.
type writer struct {
	dsn    string
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu    sync.Mutex
	acks  []time.Time
	acked []int
}

// writerDSN names several servers by their sockets; libpq's rule picks the one that takes writes.
func writerDSN(dir string, ports ...int) string {
	var hosts, names []string
	for _, p := range ports {
		hosts, names = append(hosts, dir), append(names, fmt.Sprint(p))
	}
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres target_session_attrs=read-write connect_timeout=1 application_name=writer",
		strings.Join(hosts, ","), strings.Join(names, ","))
}

// startWriter begins to write, and returns when writes flow.
func startWriter(ctx context.Context, dsn string) (*writer, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, "create table if not exists bench (id bigint primary key)")
	next := 0
	if err == nil {
		err = conn.QueryRow(ctx, "select coalesce(max(id), 0) from bench").Scan(&next)
	}
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	w := &writer{dsn: dsn, cancel: cancel}
	w.done.Go(func() { w.run(run, next) })
	return w, await(ctx, 10*time.Second, "writes flow", func() bool { return w.count() > 50 })
}

func (c *cluster) startWriter(ctx context.Context) (err error) {
	var ports []int
	for _, n := range c.nodes {
		ports = append(ports, n.port)
	}
	c.writer, err = startWriter(ctx, writerDSN(c.dir, ports...))
	return err
}

func (w *writer) run(ctx context.Context, id int) {
	var conn *pgx.Conn
	for ctx.Err() == nil {
		id++
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		var err error
		if conn == nil {
			conn, err = pgx.Connect(call, w.dsn)
		}
		if err == nil {
			_, err = conn.Exec(call, fmt.Sprintf("insert into bench values (%d)", id))
		}
		cancel()
		if err != nil {
			if conn != nil {
				_ = conn.Close(context.Background())
				conn = nil
			}
			pause(ctx, 2*time.Millisecond)
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

func (w *writer) stop() {
	w.cancel()
	w.done.Wait()
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acks)
}

// gap is the longest time without an acknowledgement that ended after a moment: from the last before it to the first
// after it.
func (w *writer) gap(since time.Time) (from, to time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := 1; i < len(w.acks); i++ {
		if w.acks[i].After(since) && w.acks[i].Sub(w.acks[i-1]) > to.Sub(from) {
			from, to = w.acks[i-1], w.acks[i]
		}
	}
	return from, to
}

// flowing waits until many writes have been acknowledged after a moment, so that no gap that it began is still open.
func (w *writer) flowing(ctx context.Context, since time.Time, within time.Duration) error {
	return await(ctx, within, "writes flow again", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		n := len(w.acks)
		return n > 20 && w.acks[n-20].After(since)
	})
}

// lost counts acknowledged writes that the primary does not have.
func (w *writer) lost(ctx context.Context) (int, error) {
	w.mu.Lock()
	acked := append([]int(nil), w.acked...)
	w.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(call, w.dsn)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(call, "select id from bench")
	if err != nil {
		return 0, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	have := make(map[int]bool, len(ids))
	for _, id := range ids {
		have[id] = true
	}
	lost := 0
	for _, id := range acked {
		if !have[id] {
			lost++
		}
	}
	return lost, err
}
