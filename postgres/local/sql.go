package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/pgregent/postgres"
)

// connectTimeout bounds each attempt to connect, beside the caller's context.
const connectTimeout = 3 * time.Second

// target is one server to connect to, and as whom.
type target struct {
	host        string // a folder of unix sockets when it begins with a slash
	port        int
	account     Credentials
	params      map[string]string // settings of the session
	replication bool
}

// connect opens a connection. Passwords are handed over in memory; nothing of libpq's environment counts but the
// default folder of unix sockets.
func (s *Server) connect(ctx context.Context, t target) (*pgconn.PgConn, error) {
	a := t.account
	info := conninfo{
		{"dbname", s.cfg.Database}, {"user", a.Username}, {"host", t.host}, {"port", fmt.Sprint(t.port)},
		{"sslmode", cmpOr(a.SSLMode, "prefer")}, {"sslcert", a.SSLCert}, {"sslkey", a.SSLKey},
		{"sslpassword", a.SSLPassword}, {"sslrootcert", a.SSLRootCert}, {"krbsrvname", s.cfg.KerberosService},
		{"channel_binding", cmpOr(a.ChannelBinding, "prefer")}, {"target_session_attrs", "any"}, {"passfile", "/dev/null"},
	}
	cfg, err := pgconn.ParseConfig(info.String())
	if err != nil {
		return nil, fmt.Errorf("connection settings of %s: %w", a, err)
	}
	cfg.Password = a.Password
	cfg.ConnectTimeout = connectTimeout
	cfg.RuntimeParams = map[string]string{"application_name": "pgregent", "client_encoding": "UTF8"}
	if t.replication {
		cfg.RuntimeParams["replication"] = "true"
	}
	for name, value := range t.params {
		cfg.RuntimeParams[name] = value
	}
	return pgconn.ConnectConfig(ctx, cfg)
}

// localAddress is where this program reaches its own server. What the running server says of itself in postmaster.pid
// comes first, because it may still use the port of an older configuration.
func (s *Server) localAddress(unixSocket bool) (host string, port int) {
	host, port = localHost(s.hosts), s.port
	data, err := os.ReadFile(s.data("postmaster.pid"))
	lines := strings.Split(string(data), "\n")
	if err == nil && len(lines) > 4 {
		var n int
		if _, err := fmt.Sscanf(lines[3], "%d", &n); err == nil && n > 0 && n < 65536 {
			port = n
		}
	}
	if !unixSocket {
		return host, port
	}
	if err == nil && len(lines) > 4 && filepath.IsAbs(lines[4]) {
		return lines[4], port
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.configured != nil {
		for dir := range strings.SplitSeq(s.configured.parameters["unix_socket_directories"], ",") {
			if dir = strings.TrimSpace(dir); filepath.IsAbs(dir) {
				return dir, port
			}
		}
	}
	return "", port // the default folder
}

// errWrongServer says that another server has this one's address.
var errWrongServer = errors.New("another server answers at this server's address")

// connectLocal opens a connection to the own server as superuser, and makes sure that it is the one of this data
// directory. Commits on it wait for no standby.
func (s *Server) connectLocal(ctx context.Context, params map[string]string) (*pgconn.PgConn, error) {
	host, port := s.localAddress(s.cfg.UseUnixSocket)
	session := map[string]string{"synchronous_commit": "local", "search_path": "pg_catalog"}
	for name, value := range params {
		session[name] = value
	}
	conn, err := s.connect(ctx, target{host: host, port: port, account: s.cfg.Superuser, params: session})
	if err != nil {
		return nil, s.classify(err)
	}
	dir, err := queryText(ctx, conn, "SELECT pg_catalog.current_setting('data_directory')")
	if err != nil {
		closeConn(conn)
		return nil, s.classify(err)
	}
	if !sameFile(dir, s.cfg.DataDir) {
		closeConn(conn)
		return nil, fmt.Errorf("%w: %s port %d is the server of %s and not of %s", errWrongServer, host, port, dir, s.cfg.DataDir)
	}
	return conn, nil
}

// classify gives an error of connecting or asking the meaning that the caller branches on: ErrNotRunning, ErrStarting,
// or neither.
func (s *Server) classify(err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		text := strings.ToLower(pgErr.Message)
		if pgErr.Code == "57P03" && !strings.Contains(text, "shutting down") {
			return fmt.Errorf("%w: %s", postgres.ErrStarting, pgErr.Message)
		}
		return err
	}
	p, _ := readPID(s.cfg.DataDir)
	if ownerOfPID(p.pid, s.cfg.DataDir) != ownerOurs {
		return fmt.Errorf("%w: %w", postgres.ErrNotRunning, err)
	}
	refused := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
	if p.status == "starting" || refused && p.status == "" {
		return fmt.Errorf("%w: %w", postgres.ErrStarting, err)
	}
	return err
}

// closeConn says good-bye without waiting long.
func closeConn(conn *pgconn.PgConn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) //nolint:forbidigo // also after the caller's has ended
	defer cancel()
	_ = conn.Close(ctx) // nothing is lost when the server does not hear it
}

// queryText runs a statement and returns the first column of its first row; empty without a row or for NULL.
func queryText(ctx context.Context, conn *pgconn.PgConn, sql string, args ...string) (string, error) {
	values := make([][]byte, len(args))
	for i, arg := range args {
		values[i] = []byte(arg)
	}
	result := conn.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	if result.Err != nil {
		return "", result.Err
	}
	if len(result.Rows) == 0 || len(result.Rows[0]) == 0 {
		return "", nil
	}
	return string(result.Rows[0][0]), nil
}

// execute runs statements of the simple protocol; the caller has quoted what is in them.
func execute(ctx context.Context, conn *pgconn.PgConn, sql string) error {
	return conn.Exec(ctx, sql).Close()
}

// quoteIdent quotes a name for SQL.
func quoteIdent(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// quoteLiteral quotes a text for SQL, whatever standard_conforming_strings is.
func quoteLiteral(text string) string {
	if strings.ContainsRune(text, '\\') {
		return ` E'` + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(text) + `'`
	}
	return `'` + strings.ReplaceAll(text, `'`, `''`) + `'`
}
