package main

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/pgregent/pgregent/dcs"
)

// pool keeps the connections that nobody uses at the moment. Each call has one to itself.
type pool struct {
	config *pgx.ConnConfig

	mu     sync.Mutex
	idle   []*pgx.Conn
	closed bool
}

func newPool(c *pgx.ConnConfig) *pool { return &pool{config: c} }

// usable returns dcs.ErrClosed after close.
func (p *pool) usable() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dcs.ErrClosed
	}
	return nil
}

// do calls f with a connection, which it keeps when f leaves it open. An error of do itself means that nothing was sent.
func (p *pool) do(ctx context.Context, f func(*pgx.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, err := p.take(ctx)
	if err != nil {
		return err
	}
	err = f(conn)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || conn.IsClosed() {
		drop(conn)
		p.dropIdle() // what ended this connection has probably ended the others, too
		return err
	}
	p.idle = append(p.idle, conn)
	return err
}

func (p *pool) take(ctx context.Context) (*pgx.Conn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, dcs.ErrClosed
	}
	if last := len(p.idle) - 1; last >= 0 {
		conn := p.idle[last]
		p.idle = p.idle[:last]
		p.mu.Unlock()
		return conn, nil
	}
	p.mu.Unlock()
	return pgx.ConnectConfig(ctx, p.config)
}

// close ends all connections: those in use when their call has returned, which its context limits.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.dropIdle()
}

func (p *pool) dropIdle() {
	for _, conn := range p.idle {
		drop(conn)
	}
	p.idle = nil
}

// drop ends a connection without a good-bye, which a server that does not answer would not hear.
func drop(conn *pgx.Conn) {
	_ = conn.PgConn().Conn().Close()
	_ = conn.Close(context.Background()) // which only notes it
}
