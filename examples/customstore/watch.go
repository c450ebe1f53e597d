package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Watch implements dcs.Store. It has a connection of its own, and a goroutine that ends with ctx. It wakes for every
// change of every key.
func (s *Store) Watch(ctx context.Context, _ ...string) (<-chan struct{}, error) {
	if err := s.pool.usable(); err != nil {
		return nil, err
	}
	conn, err := listen(ctx, s.pool.config)
	if err != nil {
		return nil, err
	}
	ch := make(chan struct{}, 1)
	go func() {
		defer close(ch)
		for ctx.Err() == nil {
			if conn != nil {
				follow(ctx, conn, ch)
			}
			if conn, err = listen(ctx, s.pool.config); err != nil {
				pause(ctx, beat/2)
				continue
			}
			wake(ch) // for whatever was missed in between
		}
		if conn != nil {
			drop(conn)
		}
	}()
	return ch, nil
}

// beat is how often a watch asks whether its connection lives, and ends the sessions whose time has come. It waits for
// the answer twice as long.
const beat = 500 * time.Millisecond

// listen makes a connection that hears of changes.
func listen(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*beat)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN pgregent_store"); err != nil {
		drop(conn)
		return nil, err
	}
	return conn, nil
}

// follow passes notifications on until ctx ends or the connection fails, and closes it.
func follow(ctx context.Context, conn *pgx.Conn, ch chan<- struct{}) {
	defer drop(conn)
	for {
		quiet, cancel := context.WithTimeout(ctx, beat)
		_, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			wake(ch)
		case ctx.Err() != nil || conn.IsClosed():
			return
		default: // nothing for a while: is anybody there?
			alive, cancel := context.WithTimeout(ctx, 2*beat)
			_, err := conn.Exec(alive, "SELECT pgregent_store.expire()")
			cancel()
			if err != nil {
				return
			}
		}
	}
}

// wake leaves one value in the channel, also when one is there already.
func wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
