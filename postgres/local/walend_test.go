package local

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
	"github.com/pgregent/pgregent/postgres/wal"
)

// TestWALEndTruth kills servers whose WAL ends in awkward places, and compares with what they had flushed.
func TestWALEndTruth(t *testing.T) {
	for _, major := range postgrestest.Versions() {
		t.Run(major, func(t *testing.T) {
			r := newRig(t, major, func(c *Config) { c.InitdbOptions = append(c.InitdbOptions, "wal-segsize=1") }).primary()
			cases := map[string]func() wal.LSN{
				"a commit":         func() wal.LSN { return r.flushed("CREATE TABLE public.t AS SELECT generate_series(1, 1000) AS i") },
				"a checkpoint":     func() wal.LSN { return r.flushed("CHECKPOINT") },
				"a switch of file": func() wal.LSN { r.sql("SELECT pg_switch_wal()"); return r.flushed("SELECT 1") },
				"a switch at last": func() wal.LSN {
					r.flushed("SELECT 1")
					at, err := wal.ParseLSN(r.sql("SELECT pg_switch_wal()"))
					r.must(err)
					return at - at%(1<<20) + 1<<20
				},
				"a full page":    func() wal.LSN { return r.fillTo(pageSize) },
				"a full segment": func() wal.LSN { return r.fillTo(1 << 20) },
				"many segments": func() wal.LSN {
					return r.flushed("CREATE TABLE public.u AS SELECT generate_series(1, 100000) AS i")
				},
			}
			for name, write := range cases {
				want := write()
				r.proc.Kill()
				end, err := r.WALEnd(t.Context())
				if err != nil || end != (wal.Position{Timeline: 1, LSN: want}) {
					t.Errorf("after %s: the WAL ends at %v (%v), flushed was %v", name, end, err, want)
				}
				r.start(postgres.RolePrimary, r.settings(), postgres.Upstream{})
			}
		})
	}
}

// flushed runs a statement and waits until all WAL is flushed; it returns the end.
func (r *rig) flushed(statement string) wal.LSN {
	r.t.Helper()
	r.sql(statement)
	r.sql("CREATE TABLE IF NOT EXISTS public.flush (i int)") // a commit flushes what was before it
	r.sql("INSERT INTO public.flush VALUES (1)")
	for {
		text := r.sql("SELECT CASE WHEN pg_current_wal_flush_lsn() = pg_current_wal_insert_lsn() THEN pg_current_wal_flush_lsn()::text END")
		if text != "" {
			lsn, err := wal.ParseLSN(text)
			r.must(err)
			return lsn
		}
		<-time.After(20 * time.Millisecond)
	}
}

// fillTo writes until the WAL ends exactly at a multiple of size.
func (r *rig) fillTo(size int) wal.LSN {
	r.t.Helper()
	at := r.flushed("SELECT 1")
	overhead := 150 // of a message and its commit; measured as it goes
	conn, err := r.connectLocal(r.t.Context(), nil)
	r.must(err)
	defer closeConn(conn)
	for range 1000 {
		left, inPage := size-int(at)%size, pageSize-int(at)%pageSize
		if left == size {
			return at
		}
		length := inPage - overhead
		if length < 400 { // shorter messages have another overhead: over to the next page
			length = inPage + 400
		}
		r.must(execute(r.t.Context(), conn, fmt.Sprintf("SELECT pg_logical_emit_message(true, 'x', repeat('x', %d))", length)))
		text, err := queryText(r.t.Context(), conn, "SELECT pg_current_wal_flush_lsn()")
		r.must(err)
		now, err := wal.ParseLSN(text)
		r.must(err)
		if length+overhead <= inPage && int(now-at)-length < 300 {
			overhead = int(now-at) - length
			if now%pageSize < 1024 && now%pageSize > 0 {
				overhead -= pageHeader // it went over
			}
		}
		at = now
	}
	r.t.Fatalf("no record ended at a multiple of %d", size)
	return 0
}
