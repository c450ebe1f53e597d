package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// role is what a probe sees of a server from outside, whoever runs it.
type role string

const (
	roleDown      role = "down"      // no SQL: it does not run, starts, or shuts down
	roleReplica   role = "replica"   // in recovery, and receives nothing
	roleStreaming role = "streaming" // in recovery, with a receiver that streams
	rolePrimary   role = "primary"
)

// seen is a change that a probe saw.
type seen struct {
	at       time.Time
	role     role
	timeline int
}

// probe asks one server again and again, and remembers the changes.
type probe struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	changes []seen
}

// probeEvery is the resolution of what probes say.
const probeEvery = 4 * time.Millisecond

const probeQuery = `select case when not pg_is_in_recovery() then 'primary'
  when exists (select from pg_stat_wal_receiver where status = 'streaming') then 'streaming' else 'replica' end,
  case when not pg_is_in_recovery() then ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
  else coalesce((select received_tli from pg_stat_wal_receiver), 0) end`

// watchServer begins to watch the server with its socket in dir.
func watchServer(dir string, port int) *probe {
	ctx, cancel := context.WithCancel(context.Background())
	p := &probe{cancel: cancel, changes: []seen{{at: time.Now(), role: roleDown}}}
	p.done.Go(func() {
		p.run(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres application_name=probe", dir, port))
	})
	return p
}

func (p *probe) run(ctx context.Context, dsn string) {
	var conn *pgx.Conn
	for ; ctx.Err() == nil; pause(ctx, probeEvery) {
		call, cancel := context.WithTimeout(ctx, time.Second)
		var err error
		if conn == nil {
			conn, err = pgx.Connect(call, dsn)
		}
		s := seen{role: roleDown}
		if err == nil {
			err = conn.QueryRow(call, probeQuery).Scan(&s.role, &s.timeline)
		}
		cancel()
		if err != nil {
			s = seen{role: roleDown}
			if conn != nil {
				_ = conn.Close(context.Background())
				conn = nil
			}
		}
		if ctx.Err() == nil {
			p.note(s)
		}
	}
	if conn != nil {
		_ = conn.Close(context.Background())
	}
}

func (p *probe) note(s seen) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := p.changes[len(p.changes)-1]; last.role == s.role && last.timeline == s.timeline {
		return
	}
	s.at = time.Now()
	p.changes = append(p.changes, s)
}

func (p *probe) stop() {
	p.cancel()
	p.done.Wait()
}

// now is what the server is at the moment, and since when.
func (p *probe) now() seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changes[len(p.changes)-1]
}

// first is when the server became so after a moment; zero: it did not.
func (p *probe) first(after time.Time, r role) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.changes {
		if s.role == r && s.at.After(after) {
			return s.at
		}
	}
	return time.Time{}
}
