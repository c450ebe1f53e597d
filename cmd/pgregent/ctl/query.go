package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgregent/pgregent/ha/cluster"
)

func (a *app) dsn() *cobra.Command {
	var r role
	var member string
	c := &cobra.Command{Use: "dsn [CLUSTER]", Short: "Print how to connect to a member, the leader when none is named", Args: cobra.MaximumNArgs(1)}
	r.flag(c, "a member with this role")
	c.Flags().StringVarP(&member, "member", "m", "", "this `member`")
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.eachCluster(c.Context(), args, func(s *session) error {
			m, ok, err := s.anyMember(r, member)
			if err != nil {
				return err
			}
			host, port := m.HostPort()
			if !ok || host == "" {
				return errors.New("Can not find a suitable member") //lint:ignore ST1005 patronictl's words
			}
			a.say("host=%s port=%d", host, port)
			return nil
		})
	}
	return c
}

// queryOptions are those of query.
type queryOptions struct {
	watch
	role                                    role
	member, command, file, user, db, format string
	delimiter                               string
	ask                                     bool
}

func (a *app) query() *cobra.Command {
	var q queryOptions
	c := &cobra.Command{Use: "query [CLUSTER]", Short: "Run SQL on a member", Args: cobra.MaximumNArgs(1)}
	q.role.flag(c, "a member with this role")
	f := c.Flags()
	f.StringVarP(&q.member, "member", "m", "", "this `member`")
	f.StringVarP(&q.command, "command", "c", "", "the `SQL`")
	f.StringVarP(&q.file, "file", "f", "", "a `file` with the SQL; - is the input")
	f.StringVarP(&q.user, "username", "U", "", "database `user`")
	f.StringVarP(&q.db, "dbname", "d", "", "`database`")
	f.BoolVar(&q.ask, "password", false, "ask for the password")
	f.StringVar(&q.format, "format", "tsv", "output `format`: "+formats)
	f.StringVar(&q.delimiter, "delimiter", "\t", "what separates the columns of tsv")
	q.flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.eachCluster(c.Context(), args, func(s *session) error { return s.query(c.Context(), q) })
	}
	return c
}

func (s *session) query(ctx context.Context, q queryOptions) error {
	a := s.app
	switch {
	case q.file != "" && q.command != "":
		return errors.New("--file and --command are mutually exclusive options")
	case q.file == "" && q.command == "":
		return errors.New("You need to specify either --command or --file") //lint:ignore ST1005 patronictl's words
	case q.file == "-":
		b, err := io.ReadAll(a.In)
		if err != nil {
			return err
		}
		q.command = string(b)
	case q.file != "":
		b, err := os.ReadFile(q.file)
		if err != nil {
			return err
		}
		q.command = string(b)
	}
	password := ""
	if q.ask {
		var err error
		if password, err = a.secret("Password: "); err != nil {
			return err
		}
	}
	return a.repeat(ctx, q.watch, false, func() error {
		t, err := s.queryOnce(ctx, q, password)
		if err != nil { // as a row, which is how it looks in a watched file
			t = table{rows: [][]any{{time.Now().Format("2006-01-02 15:04:05"), err.Error()}}}
			if q.format != "tsv" && q.format != "pretty" {
				return err
			}
		}
		return t.print(a.Out, q.format, q.delimiter)
	})
}

// secret asks for what is not shown.
func (a *app) secret(question string) (string, error) {
	fmt.Fprint(a.Err, question)
	defer fmt.Fprintln(a.Err)
	if f, ok := a.In.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b, err := term.ReadPassword(int(f.Fd()))
		return string(b), err
	}
	line, err := a.answers.ReadString('\n')
	if err != nil && line == "" {
		return "", errNoAnswer
	}
	return strings.TrimRight(line, "\r\n"), nil
}

func (s *session) queryOnce(ctx context.Context, q queryOptions, password string) (t table, err error) {
	m, ok, err := s.anyMember(q.role, q.member)
	if err != nil {
		return t, err
	}
	none := errors.New("No connection is available") //lint:ignore ST1005 patronictl's words
	switch {
	case q.member != "":
		none = fmt.Errorf("No connection to member %s is available", q.member) //lint:ignore ST1005 patronictl's words
	case q.role != "":
		none = fmt.Errorf("No connection to role %s is available", q.role) //lint:ignore ST1005 patronictl's words
	}
	if !ok {
		return t, none
	}
	dial, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := s.connect(dial, m, q.user, password, q.db)
	if err != nil {
		return t, sqlError(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if q.role != "" && q.role != "any" && q.role != "leader" {
		var recovery bool
		if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_is_in_recovery()").Scan(&recovery); err != nil {
			return t, sqlError(err)
		}
		if recovery == (q.role == "primary") {
			return t, none
		}
	}
	return run(ctx, conn, q.command)
}

// run runs SQL of any number of statements, and returns what the last one that has rows returned.
func run(ctx context.Context, conn *pgx.Conn, command string) (t table, err error) {
	results := conn.PgConn().Exec(ctx, command)
	for results.NextResult() {
		r := results.ResultReader()
		var now table
		for _, f := range r.FieldDescriptions() {
			now.columns = append(now.columns, f.Name)
		}
		for r.NextRow() {
			var row []any
			for i, v := range r.Values() {
				row = append(row, value(v, r.FieldDescriptions()[i].DataTypeOID))
			}
			now.rows = append(now.rows, row)
		}
		if _, err := r.Close(); err != nil {
			_ = results.Close()
			return table{}, sqlError(err)
		}
		if len(now.columns) > 0 {
			t = now
		}
	}
	if err := results.Close(); err != nil {
		return table{}, sqlError(err)
	}
	return t, nil
}

// sqlError is an error as patronictl shows it.
func sqlError(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return fmt.Errorf("ERROR, SQLSTATE: %s", e.Code)
	}
	return fmt.Errorf("ERROR, SQLSTATE: %s", strings.ReplaceAll(err.Error(), "\n", " "))
}

// connect connects to a member's server at its conn_url. What is not given comes from libpq's environment (PGUSER,
// PGPASSWORD, PGPASSFILE, ...), so that no password is on a command line.
func (s *session) connect(ctx context.Context, m cluster.Member, user, password, database string) (*pgx.Conn, error) {
	host, port := m.HostPort()
	if host == "" {
		return nil, fmt.Errorf("member %s publishes no conn_url", m.Name)
	}
	u := url.URL{Scheme: "postgres", Host: fmt.Sprintf("%s:%d", host, port), Path: "/" + database}
	if strings.Contains(host, ":") {
		u.Host = fmt.Sprintf("[%s]:%d", host, port)
	}
	if user != "" {
		u.User = url.User(user)
	}
	c, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, err
	}
	if password != "" {
		c.Password = password
	}
	if _, ok := c.RuntimeParams["application_name"]; !ok {
		c.RuntimeParams["application_name"] = "Patroni ctl"
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return pgx.ConnectConfig(ctx, c)
}
