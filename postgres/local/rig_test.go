package local

import (
	"net"
	"strconv"
	"testing"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// rig is one server of these tests.
type rig struct {
	*Server
	t    *testing.T
	proc *postgrestest.Server
}

// newRig opens a server with a data directory of its own. change may bend the configuration.
func newRig(t *testing.T, major string, change func(*Config)) *rig {
	t.Helper()
	cfg := valid(t)
	cfg.BinDir = postgrestest.Binaries(t, major)
	cfg.Listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(postgrestest.FreePort(t)))
	cfg.Superuser.Password, cfg.Replication.Password = "canary-4711", "canary-4712"
	cfg.InitdbOptions = []string{"auth=scram-sha-256", "locale=C", "no-instructions"}
	cfg.BootstrapHBA = []string{"host replication all 127.0.0.1/32 scram-sha-256"}
	if change != nil {
		change(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Server: s, t: t}
	t.Cleanup(func() { s.Close() })
	return r
}

func (r *rig) settings() postgres.Settings {
	return postgres.Settings{UseSlots: true, Parameters: map[string]string{"unix_socket_directories": "", "shared_buffers": "16MB"}}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) start(role postgres.Role, s postgres.Settings, up postgres.Upstream) {
	r.t.Helper()
	ctx := r.t.Context()
	_, err := r.Configure(ctx, s, role, up)
	r.must(err)
	command, err := r.Command(ctx, role)
	r.must(err)
	r.proc = postgrestest.Start(r.t, command)
	r.must(r.WaitAccepting(ctx))
}

// primary makes a cluster.
func (r *rig) primary() *rig {
	r.t.Helper()
	r.must(r.Initdb(r.t.Context()))
	r.start(postgres.RolePrimary, r.settings(), postgres.Upstream{})
	r.must(r.PrepareCluster(r.t.Context()))
	return r
}

func (r *rig) source() postgres.Source {
	return postgres.Source{Name: "source", Host: "127.0.0.1", Port: r.port}
}

func (r *rig) sql(statement string) string {
	r.t.Helper()
	conn, err := r.connectLocal(r.t.Context(), nil)
	r.must(err)
	defer closeConn(conn)
	value, err := queryText(r.t.Context(), conn, statement)
	r.must(err)
	return value
}
