package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/pgregent/postgres"
)

const (
	promotePoll = 3 * time.Millisecond
	acceptPoll  = 10 * time.Millisecond
	// acceptGrace is how long WaitAccepting waits for a postmaster that was never seen: one that was just started has
	// not written postmaster.pid yet.
	acceptGrace = 5 * time.Second
)

// Promote implements postgres.Controller. Promoting a primary is no error and does nothing.
func (s *Server) Promote(ctx context.Context) error {
	start := time.Now()
	conn, err := s.connectLocal(ctx, map[string]string{"statement_timeout": "0"})
	if err != nil {
		if errors.Is(err, postgres.ErrNotRunning) || ctx.Err() != nil {
			return fmt.Errorf("local: promote: %w", err)
		}
		return s.promoteBySignal(ctx, start)
	}
	defer closeConn(conn)
	inRecovery, err := queryText(ctx, conn, "SELECT pg_is_in_recovery()")
	if err != nil {
		return fmt.Errorf("local: promote: %w", s.classify(err))
	}
	if inRecovery != "t" {
		return nil
	}
	if _, err := queryText(ctx, conn, "SELECT pg_promote(wait => false)"); err != nil {
		return fmt.Errorf("local: promote: %w", s.classify(err))
	}
	if err := s.waitPrimary(ctx, conn); err != nil {
		return fmt.Errorf("local: promote: %w", err)
	}
	s.log.InfoContext(ctx, "promoted", "took", time.Since(start))
	return nil
}

// promoteBySignal promotes a server that lets nobody in (all connections in use, not consistent yet): the file and the
// signal that pg_promote uses.
func (s *Server) promoteBySignal(ctx context.Context, start time.Time) error {
	pid, err := s.postmaster()
	if err != nil {
		return fmt.Errorf("local: promote: %w", err)
	}
	if _, err := writeFile(s.data("promote"), nil, s.fileMode()); err != nil {
		return fmt.Errorf("local: promote: %w", err)
	}
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		_ = os.Remove(s.data("promote"))
		return fmt.Errorf("local: promote: signal process %d: %w", pid, err)
	}
	for {
		conn, err := s.connectLocal(ctx, map[string]string{"statement_timeout": "0"})
		if err == nil {
			err = s.waitPrimary(ctx, conn)
			closeConn(conn)
			if err != nil {
				return fmt.Errorf("local: promote: %w", err)
			}
			s.log.InfoContext(ctx, "promoted by signal", "took", time.Since(start))
			return nil
		}
		if errors.Is(err, postgres.ErrNotRunning) {
			return fmt.Errorf("local: promote: %w", err)
		}
		if err := pause(ctx, acceptPoll); err != nil {
			return fmt.Errorf("local: promote: %w", err)
		}
	}
}

// waitPrimary returns when the server has left recovery: from then on it accepts writes.
func (s *Server) waitPrimary(ctx context.Context, conn *pgconn.PgConn) error {
	for {
		inRecovery, err := queryText(ctx, conn, "SELECT pg_is_in_recovery()")
		if err != nil {
			return s.classify(err)
		}
		if inRecovery == "f" {
			return nil
		}
		if err := pause(ctx, promotePoll); err != nil {
			return err
		}
	}
}

// pause waits for d, or less when ctx ends; then it returns why.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Checkpoint implements postgres.Controller.
func (s *Server) Checkpoint(ctx context.Context) error {
	conn, err := s.connectLocal(ctx, map[string]string{"statement_timeout": "0"})
	if err != nil {
		return fmt.Errorf("local: checkpoint: %w", err)
	}
	defer closeConn(conn)
	if err := execute(ctx, conn, "CHECKPOINT"); err != nil {
		return fmt.Errorf("local: checkpoint: %w", s.classify(err))
	}
	return nil
}

// afterStart keeps what a later clone or an empty data directory will need: copies of the configuration files, and which
// cluster this member holds. The server is up, so a failure is only logged.
func (s *Server) afterStart(ctx context.Context) {
	if err := s.saveConfigs(); err != nil {
		s.log.WarnContext(ctx, "the configuration files could not be copied", "error", err)
	}
	if err := s.remember(); err != nil {
		s.log.WarnContext(ctx, "the system identifier could not be written down", "error", err)
	}
}

// WaitAccepting implements postgres.Controller. It follows the state that the postmaster writes into postmaster.pid, and
// connects only when that says that it would be let in, so that the server's log is not filled with refusals. After it,
// the configuration files are copied to .backup (reference section 7).
func (s *Server) WaitAccepting(ctx context.Context) error {
	begin := time.Now()
	seen := false
	for {
		p, _ := readPID(s.cfg.DataDir)
		lives := ownerOfPID(p.pid, s.cfg.DataDir) == ownerOurs
		seen = seen || lives
		if !lives && (seen || time.Since(begin) > acceptGrace) {
			return fmt.Errorf("local: wait: %w", postgres.ErrNotRunning)
		}
		if lives && (p.status == "ready" || p.status == "standby") {
			conn, err := s.connectLocal(ctx, nil)
			if err == nil {
				closeConn(conn)
				s.afterStart(ctx)
				return nil
			}
			if !errors.Is(err, postgres.ErrStarting) && !errors.Is(err, postgres.ErrNotRunning) {
				return fmt.Errorf("local: wait: %w", err)
			}
		}
		if err := pause(ctx, acceptPoll); err != nil {
			return fmt.Errorf("local: wait: %w", err)
		}
	}
}
