package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/pgregent/dcs"
)

//go:embed schema.sql
var schema string

// Store is a dcs.Store in a table of a PostgreSQL server: one prefix of it. It is safe for concurrent use.
type Store struct {
	pool   *pool
	prefix string
}

var _ dcs.Store = (*Store)(nil)

// Open connects to dsn, a connection string as pgx and libpq take it, and makes the tables when they are not there. The
// role needs CREATE on the database, or on the schema pgregent_store when that exists.
func Open(ctx context.Context, dsn, prefix string) (*Store, error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("customstore: %w", err)
	}
	c.RuntimeParams["default_transaction_isolation"] = "read committed" // schema.sql says why
	c.RuntimeParams["synchronous_commit"] = "on"                        // what was acknowledged is on disk
	s := &Store{pool: newPool(c), prefix: prefix + "/"}
	if err := s.pool.do(ctx, func(conn *pgx.Conn) error { return conn.PgConn().Exec(ctx, schema).Close() }); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("customstore: %w", err)
	}
	return s, nil
}

// call runs one statement that changes something, and says which of the three kinds its failure is.
func (s *Store) call(ctx context.Context, result any, sql string, args ...any) error {
	sent := false
	err := s.pool.do(ctx, func(conn *pgx.Conn) error {
		sent = true
		if result == nil {
			_, err := conn.Exec(ctx, sql, args...)
			return err
		}
		return conn.QueryRow(ctx, sql, args...).Scan(result)
	})
	var refusal *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows): // a renewal found nothing
		return dcs.ErrSessionLost
	case errors.As(err, &refusal) && refusal.Code == "DC001":
		return fmt.Errorf("%w: %s", dcs.ErrConflict, refusal.Message)
	case errors.As(err, &refusal) && refusal.Code == "23503": // foreign key: there is no such session
		return fmt.Errorf("%w: %s", dcs.ErrSessionLost, refusal.Detail)
	case errors.As(err, &refusal) && refusal.Code[:2] != "57": // it was rolled back; 57 is a server that shuts down
		return err
	case !sent || pgconn.SafeToRetry(err):
		return err
	}
	return fmt.Errorf("%w: %w", dcs.ErrUnknown, err)
}

// Read implements dcs.Store. The server is one, and shows what it has acknowledged: every read is fresh.
func (s *Store) Read(ctx context.Context) (dcs.Snapshot, error) {
	var snap dcs.Snapshot
	high := s.prefix[:len(s.prefix)-1] + "0" // the byte after '/'
	err := s.pool.do(ctx, func(conn *pgx.Conn) error {
		const sql = "SELECT key, value, version, coalesce(session, 0) FROM pgregent_store.read_items($1, $2)"
		rows, err := conn.Query(ctx, sql, []byte(s.prefix), []byte(high))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var key, value []byte
			var version, session int64
			if err := rows.Scan(&key, &value, &version, &session); err != nil {
				return err
			}
			it := dcs.Item{Key: string(key[len(s.prefix):]), Value: value, Version: dcs.Version(version)}
			if session != 0 {
				it.Session = sessionID(session)
			}
			snap.Items = append(snap.Items, it)
		}
		return rows.Err()
	})
	if err != nil {
		return dcs.Snapshot{}, err
	}
	return snap, nil
}

// Commit implements dcs.Store.
func (s *Store) Commit(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
	if err := errors.Join(txn.Validate(), s.Limits().Check(txn)); err != nil {
		return dcs.Result{}, err
	}
	ifKeys, keys, values := [][]byte{}, [][]byte{}, [][]byte{} // empty, not nil, which would be NULL
	ifVersions, sessions, deletes := []int64{}, []int64{}, []bool{}
	for _, c := range txn.If {
		ifKeys, ifVersions = append(ifKeys, []byte(s.prefix+c.Key)), append(ifVersions, int64(c.Version))
	}
	for _, o := range txn.Then {
		session, err := parseSession(o.Session)
		if err != nil {
			return dcs.Result{}, err
		}
		keys, values = append(keys, []byte(s.prefix+o.Key)), append(values, append([]byte{}, o.Value...))
		sessions, deletes = append(sessions, session), append(deletes, o.Delete)
	}
	var versions []int64
	const sql = "SELECT pgregent_store.commit_txn($1, $2, $3, $4, $5, $6)"
	if err := s.call(ctx, &versions, sql, ifKeys, ifVersions, keys, values, sessions, deletes); err != nil {
		return dcs.Result{}, err
	}
	r := dcs.Result{Versions: make(map[string]dcs.Version)}
	for i, o := range txn.Then {
		if !o.Delete {
			r.Versions[o.Key] = dcs.Version(versions[i])
		}
	}
	return r, nil
}

// Limits implements dcs.Store. Every Read and Commit ends the sessions whose time has come, and every watch does twice a
// second, so that the slack is what that may take on a busy server.
func (s *Store) Limits() dcs.Limits {
	return dcs.Limits{MinTTL: time.Second, MaxValue: 1 << 20, MaxOps: 256, SessionSlack: 2 * time.Second}
}

// Close implements dcs.Store.
func (s *Store) Close() error {
	s.pool.close()
	return nil
}
