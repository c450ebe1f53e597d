package local

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// PrepareCluster implements postgres.Controller, in the order of reference section 5.3: the superuser's password, the
// script of PostBootstrap, the replication user, and the rewind user with the four functions that pg_rewind calls. Each
// step can be repeated. It returns when all of it is committed.
func (s *Server) PrepareCluster(ctx context.Context) error {
	conn, err := s.connectLocal(ctx, quietSession())
	if err != nil {
		return fmt.Errorf("local: prepare cluster: %w", err)
	}
	defer closeConn(conn)
	if err := s.setRole(ctx, conn, s.cfg.Superuser, "SUPERUSER LOGIN"); err != nil {
		return fmt.Errorf("local: prepare cluster: superuser: %w", err)
	}
	if err := s.runPostBootstrap(ctx); err != nil {
		return fmt.Errorf("local: prepare cluster: %w", err)
	}
	if s.cfg.Replication.Username != s.cfg.Superuser.Username {
		if err := s.setRole(ctx, conn, s.cfg.Replication, "REPLICATION LOGIN"); err != nil {
			return fmt.Errorf("local: prepare cluster: replication user: %w", err)
		}
	}
	if s.cfg.Rewind.Username != s.cfg.Superuser.Username {
		if err := s.prepareRewindUser(ctx, conn); err != nil {
			return fmt.Errorf("local: prepare cluster: rewind user: %w", err)
		}
	}
	if err := s.remember(); err != nil {
		return fmt.Errorf("local: prepare cluster: %w", err)
	}
	return nil
}

// quietSession are settings under which passwords do not get into the server's log or its list of running statements
// (hazard E2). All of them may be set by a superuser only, when the session starts.
func quietSession() map[string]string {
	return map[string]string{
		"log_statement": "none", "log_min_duration_statement": "-1", "log_min_duration_sample": "-1", "log_transaction_sample_rate": "0",
		"log_duration": "off", "log_min_error_statement": "panic", "track_activities": "off", "statement_timeout": "0",
	}
}

// setRole creates a role or sets its password and attributes.
func (s *Server) setRole(ctx context.Context, conn *pgconn.PgConn, a Credentials, attributes string) error {
	found, err := queryText(ctx, conn, "SELECT 1 FROM pg_roles WHERE rolname = $1", a.Username)
	if err != nil {
		return err
	}
	statement := "CREATE ROLE " + quoteIdent(a.Username)
	if found != "" {
		statement = "ALTER ROLE " + quoteIdent(a.Username)
	}
	statement += " WITH " + attributes
	if a.Password != "" {
		statement += " PASSWORD " + quoteLiteral(a.Password)
	}
	// Extensions that log statements have switches of their own; setting an unknown one of these does no harm.
	return execute(ctx, conn, `BEGIN; SET LOCAL "pg_stat_statements.track_utility" = off; SET LOCAL "pgaudit.log" = 'none'; `+statement+`; COMMIT`)
}

// prepareRewindUser makes the user for pg_rewind and lets it call what pg_rewind calls. If it is the replication user
// too, only the grants are added.
func (s *Server) prepareRewindUser(ctx context.Context, conn *pgconn.PgConn) error {
	if s.cfg.Rewind.Username != s.cfg.Replication.Username {
		if err := s.setRole(ctx, conn, s.cfg.Rewind, "LOGIN"); err != nil {
			return err
		}
	}
	var b strings.Builder
	b.WriteString("BEGIN;")
	for _, function := range []string{
		"pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)",
		"pg_read_binary_file(text)", "pg_read_binary_file(text, bigint, bigint, boolean)",
	} {
		fmt.Fprintf(&b, "GRANT EXECUTE ON FUNCTION pg_catalog.%s TO %s;", function, quoteIdent(s.cfg.Rewind.Username))
	}
	b.WriteString("COMMIT")
	return execute(ctx, conn, b.String())
}

// runPostBootstrap runs the operator's script with a connection string, without a password, as its last argument.
func (s *Server) runPostBootstrap(ctx context.Context) error {
	if s.cfg.PostBootstrap == "" {
		return nil
	}
	words, err := splitWords(s.cfg.PostBootstrap)
	if err != nil || len(words) == 0 {
		return fmt.Errorf("PostBootstrap %q is no command line: %w", s.cfg.PostBootstrap, err)
	}
	host, port := s.localAddress(s.cfg.UseUnixSocket)
	env, remove, err := s.toolPass(s.cfg.Superuser, host, port)
	if err != nil {
		return err
	}
	defer remove()
	env = append(env, "PGOPTIONS=-c synchronous_commit=local -c statement_timeout=0")
	args := append(words[1:], s.login(s.cfg.Superuser, host, port, "", s.version).String())
	if limit := s.cfg.PostBootstrapTimeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %v", limit))
		defer cancel()
	}
	if _, err := s.run(ctx, tool{program: words[0], args: args, env: env, locale: true}); err != nil {
		return fmt.Errorf("PostBootstrap: %w", err)
	}
	return nil
}
