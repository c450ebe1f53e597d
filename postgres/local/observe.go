package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// lookTimeout bounds a look whose context has no earlier deadline.
const lookTimeout = 5 * time.Second

// looker is the kept connections, used by one look at a time.
type looker struct {
	turn    chan struct{} // holds one value while a look is under way
	closed  chan struct{}
	conn    *pgconn.PgConn
	repl    *pgconn.PgConn
	line    lineMemory
	history wal.History // of the last timeline seen; histories do not change
}

// lineMemory is the highest timeline that a replica was seen on since it was started. pg_control learns of a
// new timeline only with the next restart point.
type lineMemory struct {
	started  int64
	timeline wal.Timeline
}

func (l *looker) init() {
	l.turn = make(chan struct{}, 1)
	l.closed = make(chan struct{})
}

func (l *looker) close() {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	l.drop()
}

func (l *looker) drop() {
	closeConn(l.conn)
	closeConn(l.repl)
	l.conn, l.repl = nil, nil
}

// Observe implements postgres.Controller. The look at the files and the one by SQL run side by side.
func (s *Server) Observe(ctx context.Context) postgres.Status {
	st := postgres.Status{At: s.cfg.Now()}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	files := make(chan filesSeen, 1)
	go func() { files <- s.files.see(ctx) }()
	inForce, err := s.look.sql(ctx, s, &st)
	seen := <-files
	st.Data, st.DataErr, st.Control = seen.data, seen.problem, seen.control.Control
	if err != nil {
		st = postgres.Status{At: st.At, Data: st.Data, DataErr: st.DataErr, Control: st.Control, Err: err}
		return st
	}
	st.Answered = true
	if st.Role == postgres.RoleReplica {
		st.TooLow = tooLow(inForce, st.Control.Settings)
	}
	if st.Role == postgres.RoleReplica && st.Timeline == 0 {
		st.Timeline = max(st.Control.Checkpoint.Timeline, st.Control.MinRecovery.Timeline)
	}
	if seen.data != postgres.DataUnknown {
		st.History = s.look.historyOf(ctx, s, st.Timeline)
	}
	return st
}

// sql asks the server, with one attempt to connect anew when the kept connection turns out to be dead. It
// also returns the parameters in force that a standby must not have too low.
func (l *looker) sql(ctx context.Context, s *Server, st *postgres.Status) (inForce map[string]int, err error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("an earlier look has not come back: %w", context.Cause(ctx))
	}
	defer func() { <-l.turn }()
	select {
	case <-l.closed:
		return nil, errors.New("the controller is closed")
	default:
	}
	kept := l.conn != nil
	row, err := l.ask(ctx, s)
	if err != nil && ctx.Err() == nil && (kept || isRace(err)) {
		row, err = l.ask(ctx, s)
	}
	if err != nil {
		return nil, err
	}
	if err := row.status(st); err != nil {
		return nil, err
	}
	if st.Role == postgres.RoleReplica {
		l.replicaTimeline(ctx, s, st)
	} else {
		closeConn(l.repl)
		l.repl = nil
	}
	if err := l.pending(ctx, row.Pending, st); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.configured != nil {
		st.PendingRestart = raised(st.PendingRestart, row.Standby, s.configured.parameters)
	}
	return row.Standby, nil
}

// isRace says that the server was promoted between two parts of the statement.
func isRace(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "55000"
}

// ask connects if need be, and runs the statement.
func (l *looker) ask(ctx context.Context, s *Server) (lookRow, error) {
	if l.conn == nil || l.conn.IsClosed() {
		l.drop()
		conn, err := s.connectLocal(ctx, map[string]string{"statement_timeout": "2000"})
		if err != nil {
			return lookRow{}, err
		}
		if _, err := conn.Prepare(ctx, "look", lookSQL, nil); err != nil {
			closeConn(conn)
			return lookRow{}, s.classify(err)
		}
		l.conn = conn
	}
	result := l.conn.ExecPrepared(ctx, "look", nil, nil, nil).Read()
	if result.Err != nil {
		if l.conn.IsClosed() {
			l.conn = nil
		}
		return lookRow{}, s.classify(result.Err)
	}
	var row lookRow
	if len(result.Rows) != 1 || len(result.Rows[0]) != 1 {
		return lookRow{}, fmt.Errorf("the server answered %d rows in the place of one", len(result.Rows))
	}
	if err := json.Unmarshal(result.Rows[0][0], &row); err != nil {
		return lookRow{}, fmt.Errorf("the server's answer is not understood: %w", err)
	}
	return row, nil
}

// replicaTimeline finds the timeline of a replica that has no receiver: the server knows it, and tells it over the
// replication protocol only. When that is not possible, what was seen since the server's start counts.
func (l *looker) replicaTimeline(ctx context.Context, s *Server, st *postgres.Status) {
	started := st.PostmasterStart.UnixMicro()
	if l.line.started != started {
		l.line = lineMemory{started: started}
	}
	if st.Timeline == 0 {
		line, err := l.identify(ctx, s)
		if err != nil {
			s.log.DebugContext(ctx, "a replica without a receiver does not tell its timeline", "error", err)
		}
		st.Timeline = max(line, l.line.timeline)
	}
	l.line.timeline = max(l.line.timeline, st.Timeline)
}

func (l *looker) identify(ctx context.Context, s *Server) (wal.Timeline, error) {
	if l.repl == nil || l.repl.IsClosed() {
		host, port := s.localAddress(s.cfg.UseUnixSocketRepl)
		conn, err := s.connect(ctx, target{host: host, port: port, account: s.cfg.Replication, replication: true})
		if err != nil {
			return 0, err
		}
		l.repl = conn
	}
	line, err := identifySystem(ctx, l.repl)
	return line.Position.Timeline, err
}

// pending fills in what waits for a restart, with the new values as the configuration files have them.
func (l *looker) pending(ctx context.Context, names map[string]string, st *postgres.Status) error {
	if len(names) == 0 {
		return nil
	}
	text, err := queryText(ctx, l.conn, `SELECT json_object_agg(s.name, COALESCE(f.setting, s.boot_val)) FROM pg_settings s
		LEFT JOIN (SELECT DISTINCT ON (name) name, setting FROM pg_file_settings ORDER BY name, seqno DESC) f ON lower(f.name) = lower(s.name)
		WHERE s.pending_restart`)
	if err != nil {
		return err
	}
	var values map[string]*string
	if text != "" {
		if err := json.Unmarshal([]byte(text), &values); err != nil {
			return fmt.Errorf("the settings that wait for a restart are not understood: %w", err)
		}
	}
	st.PendingRestart = map[string]postgres.Change{}
	for name, old := range names {
		// A primary that was promoted does without its recovery parameters, and PostgreSQL counts those that were taken out of
		// the file as changed (reference section 4.6: they are skipped).
		if isRecoveryParameter(name) || name == "hot_standby" {
			continue
		}
		change := postgres.Change{Old: old}
		if v := values[name]; v != nil {
			change.New = *v
		}
		st.PendingRestart[name] = change
	}
	return nil
}

// historyOf reads the history of a timeline, once for each timeline.
func (l *looker) historyOf(ctx context.Context, s *Server, tip wal.Timeline) wal.History {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return wal.History{}
	}
	defer func() { <-l.turn }()
	if tip == 0 || l.history.Tip == tip {
		if tip == 0 {
			return wal.History{}
		}
		return l.history
	}
	found := make(chan wal.History, 1)
	go func() { // storage that hangs must not hold the look
		h, err := readHistory(s.cfg.DataDir, tip)
		if err != nil {
			s.log.WarnContext(ctx, "a timeline history cannot be read", "timeline", uint32(tip), "error", err)
		}
		found <- h
	}()
	select {
	case h := <-found:
		l.history = h
		return h
	case <-ctx.Done():
		return wal.History{}
	}
}

// microseconds since 1970, as the statement returns times.
func fromMicro(text *int64) time.Time {
	if text == nil {
		return time.Time{}
	}
	return time.UnixMicro(*text)
}
