package postgrestest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// Setup is what the suite asks a Harness to make a controller for.
type Setup struct {
	Name    string
	Scope   string
	DataDir string // absolute; missing at first
	Home    string // a private folder for passwords and the like, outside DataDir
	Host    string
	Port    int

	Superuser, SuperuserPassword     string
	Replication, ReplicationPassword string
}

// Harness makes the controllers that the suite tests.
type Harness struct {
	// Open makes a controller for one server. The suite closes it. The controller must let the suite start the server
	// itself, from its Command.
	Open func(t *testing.T, setup Setup) postgres.Controller
	// Settings changes the settings that the suite configures servers with; may be nil.
	Settings func(*postgres.Settings)
}

// limit bounds each call of the suite.
const limit = 60 * time.Second

// node is one server of the suite.
type node struct {
	t     *testing.T
	h     Harness
	setup Setup
	ctl   postgres.Controller
	srv   *Server
}

// newNode makes a controller for a new data directory.
func newNode(t *testing.T, h Harness, name string) *node {
	t.Helper()
	home := t.TempDir()
	n := &node{t: t, h: h, setup: Setup{
		Name: name, Scope: "suite", DataDir: filepath.Join(home, "data"), Home: home, Host: "127.0.0.1", Port: FreePort(t),
		Superuser: "admin", SuperuserPassword: `pa:ss\'wo rd`, Replication: "replicator", ReplicationPassword: "secret",
	}}
	n.open()
	return n
}

// open makes the controller, as a new process would.
func (n *node) open() {
	n.t.Helper()
	if n.ctl != nil {
		_ = n.ctl.Close() // a second Close, at the end, tells its error
	}
	n.ctl = n.h.Open(n.t, n.setup)
	ctl := n.ctl
	n.t.Cleanup(func() {
		if err := ctl.Close(); err != nil {
			n.t.Errorf("close the controller of %s: %v", n.setup.Name, err)
		}
	})
}

func (n *node) source() postgres.Source {
	return postgres.Source{Name: n.setup.Name, Host: n.setup.Host, Port: n.setup.Port}
}

// upstream is this node as another's upstream; the slot is the other's.
func (n *node) upstream(follower *node) postgres.Upstream {
	return postgres.Upstream{Name: n.setup.Name, Host: n.setup.Host, Port: n.setup.Port, Slot: follower.setup.Name}
}

// settings are small servers that let in who knows the password, over TCP only.
func (n *node) settings() postgres.Settings {
	s := postgres.Settings{
		Parameters: map[string]string{
			"unix_socket_directories": "", "shared_buffers": "16MB", "max_connections": "40", "wal_keep_size": "64MB",
			"log_line_prefix": "%m [%p] ", "autovacuum": "off",
		},
		HBA:      []string{"local all all scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256", "host replication all 127.0.0.1/32 scram-sha-256"},
		UseSlots: true, UseRewind: true,
	}
	if n.h.Settings != nil {
		n.h.Settings(&s)
	}
	return s
}

// start configures the server and starts it, and waits until it answers.
func (n *node) start(role postgres.Role, up postgres.Upstream) {
	n.t.Helper()
	n.launch(role, up)
	ctx := n.ctx()
	if err := n.ctl.WaitAccepting(ctx); err != nil {
		n.t.Fatalf("%s: wait: %v\n%s", n.setup.Name, err, n.srv.LogTail())
	}
}

// launch configures the server and starts it.
func (n *node) launch(role postgres.Role, up postgres.Upstream) {
	n.t.Helper()
	ctx := n.ctx()
	if _, err := n.ctl.Configure(ctx, n.settings(), role, up); err != nil {
		n.t.Fatalf("%s: configure: %v", n.setup.Name, err)
	}
	command, err := n.ctl.Command(ctx, role)
	if err != nil {
		n.t.Fatalf("%s: command: %v", n.setup.Name, err)
	}
	n.srv = Start(n.t, command)
}

// ctx is a context for one call.
func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(n.t.Context(), limit)
	n.t.Cleanup(cancel)
	return ctx
}

// must fails the test on an error of a call.
func (n *node) must(what string, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s: %s: %v", n.setup.Name, what, err)
	}
}

// primary makes a new cluster on a new node.
func newPrimary(t *testing.T, h Harness, name string) *node {
	t.Helper()
	n := newNode(t, h, name)
	n.must("initdb", n.ctl.Initdb(n.ctx()))
	n.start(postgres.RolePrimary, postgres.Upstream{})
	n.must("prepare cluster", n.ctl.PrepareCluster(n.ctx()))
	return n
}

// newReplica clones a node and starts the copy, streaming.
func newReplica(t *testing.T, h Harness, name string, from *node) *node {
	t.Helper()
	n := newNode(t, h, name)
	from.must("slots", from.ctl.SyncSlots(from.ctx(), map[string]wal.LSN{name: 0}))
	n.must("clone", n.ctl.Clone(n.ctx(), from.source(), nil))
	n.start(postgres.RoleReplica, from.upstream(n))
	n.waitStreaming(from)
	return n
}

// waitFor looks until the condition holds, for half a minute.
func (n *node) waitFor(what string, condition func(postgres.Status) bool) postgres.Status {
	n.t.Helper()
	deadline := time.Now().Add(limit / 2)
	for {
		st := n.ctl.Observe(n.ctx())
		if condition(st) {
			return st
		}
		if time.Now().After(deadline) {
			log := ""
			if n.srv != nil {
				log = n.srv.LogTail()
			}
			n.t.Fatalf("%s: not %s in time, last seen %+v\n%s", n.setup.Name, what, st, log)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// waitStreaming waits until the node streams from another.
func (n *node) waitStreaming(from *node) postgres.Status {
	n.t.Helper()
	return n.waitFor("streaming from "+from.setup.Name, func(st postgres.Status) bool {
		return st.Answered && st.Streaming && st.UpstreamPort == from.setup.Port
	})
}

// waitReplayed waits until the node has replayed what another has written.
func (n *node) waitReplayed(from *node) {
	n.t.Helper()
	to := from.ctl.Observe(from.ctx())
	n.waitFor(fmt.Sprintf("at %X", uint64(to.Current)), func(st postgres.Status) bool { return st.Replayed >= to.Current })
}

// sql runs a statement as superuser and returns the first column of the last row.
func (n *node) sql(statement string) string {
	n.t.Helper()
	value, err := n.trySQL(statement)
	n.must(statement, err)
	return value
}

func (n *node) trySQL(statement string) (string, error) {
	ctx := n.ctx()
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", n.setup.Host, n.setup.Port, n.setup.Superuser))
	if err != nil {
		return "", err
	}
	cfg.Password = n.setup.SuperuserPassword
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	results, err := conn.Exec(ctx, statement).ReadAll()
	if err != nil {
		return "", err
	}
	value := ""
	for _, r := range results {
		for _, row := range r.Rows {
			value = string(row[0])
		}
	}
	return value, nil
}

// stop shuts the server down cleanly.
func (n *node) stop() {
	n.t.Helper()
	n.srv.Stop(syscall.SIGINT)
}

// exists says whether there is a file in the data directory.
func (n *node) exists(elem ...string) bool {
	_, err := os.Lstat(filepath.Join(append([]string{n.setup.DataDir}, elem...)...))
	return err == nil
}
