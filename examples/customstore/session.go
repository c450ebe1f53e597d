package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// session is a row of the table of sessions.
type session struct {
	store *Store
	id    int64
	ttl   time.Duration
}

// sessionID is how a session is named outside.
func sessionID(id int64) string { return "session-" + strconv.FormatInt(id, 10) }

// parseSession is the way back. Nothing is 0.
func parseSession(id string) (int64, error) {
	if id == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(strings.TrimPrefix(id, "session-"), 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%w: there is no session %q", dcs.ErrSessionLost, id)
	}
	return n, nil
}

// OpenSession implements dcs.Store.
func (s *Store) OpenSession(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
	ttl = (max(ttl, s.Limits().MinTTL) + time.Millisecond - 1).Truncate(time.Millisecond) // the server counts in microseconds
	ses := &session{store: s, ttl: ttl}
	const sql = "INSERT INTO pgregent_store.session (ttl, ends) VALUES ($1, clock_timestamp() + $1) RETURNING id"
	if err := s.call(ctx, &ses.id, sql, ttl); err != nil {
		return nil, err
	}
	return ses, nil
}

// ID implements dcs.Session.
func (s *session) ID() string { return sessionID(s.id) }

// TTL implements dcs.Session.
func (s *session) TTL() time.Duration { return s.ttl }

// Renew implements dcs.Session. It finds no row when the time was over, whether or not somebody has ended the session.
func (s *session) Renew(ctx context.Context) error {
	const sql = "UPDATE pgregent_store.session SET ends = clock_timestamp() + ttl WHERE id = $1 AND ends > clock_timestamp() RETURNING id"
	var id int64
	return s.store.call(ctx, &id, sql, s.id)
}

// Close implements dcs.Session.
func (s *session) Close(ctx context.Context) error {
	return s.store.call(ctx, nil, "SELECT pgregent_store.end_session($1)", s.id)
}
