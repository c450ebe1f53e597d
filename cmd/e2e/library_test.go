package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/local"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// libNode is a node embedded in this process.
type libNode struct {
	name   string
	node   *ha.Node
	port   int
	cancel context.CancelFunc
	done   chan error
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(string(b[:len(b)-1]))
	return len(b), nil
}

func startLib(t *testing.T, store dcs.Store, name, root, bin string) *libNode {
	n := &libNode{name: name, port: postgrestest.FreePort(t), done: make(chan error, 1)}
	log := slog.New(slog.NewTextHandler(testLog{t}, nil))
	server, err := local.Open(local.Config{
		Name: name, Scope: "demo", DataDir: filepath.Join(root, name), BinDir: bin, Listen: fmt.Sprintf("127.0.0.1:%d", n.port),
		Superuser: local.Credentials{Username: "postgres", Password: "secret"}, Replication: local.Credentials{Username: "replicator", Password: "secret"},
		PGPass: filepath.Join(root, name+".pgpass"), ServerLog: filepath.Join(root, name+".log"), Log: log, InitdbOptions: []string{"data-checksums"},
	})
	require.NoError(t, err)
	api, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n.node, err = ha.New(ha.Config{
		Name: name, Scope: "demo", APIURL: "http://" + api.Addr().String() + "/patroni", Store: store, Postgres: server, Log: log,
		Local: postgres.Settings{UseRewind: true, Parameters: map[string]string{"shared_buffers": "16MB", "unix_socket_directories": root}, HBA: []string{
			"local all all trust", "host all all 127.0.0.1/32 scram-sha-256", "host replication all 127.0.0.1/32 scram-sha-256"}},
	})
	require.NoError(t, err)
	web := &http.Server{Handler: rest.Handler(n.node), ReadHeaderTimeout: time.Second}
	go func() { _ = web.Serve(api) }()
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() { n.done <- n.node.Run(ctx) }()
	t.Cleanup(func() {
		n.stop(t)
		_ = web.Close()
	})
	return n
}

func (n *libNode) stop(t *testing.T) {
	if n.cancel == nil {
		return
	}
	n.cancel()
	n.cancel = nil
	select {
	case err := <-n.done:
		require.NoError(t, err)
	case <-time.After(90 * time.Second):
		t.Errorf("%s does not end", n.name)
	}
}

func healthy(nodes []*libNode) bool {
	leaders, replicas := 0, 0
	for _, n := range nodes {
		r := n.node.Report()
		switch {
		case r.Writable:
			leaders++
		case r.Server.Streaming:
			replicas++
		}
	}
	return leaders == 1 && replicas == len(nodes)-1
}

func leaderOf(nodes []*libNode) *libNode {
	for _, n := range nodes {
		if n.node.Report().Writable {
			return n
		}
	}
	return nil
}

func (n *libNode) exec(t *testing.T, sql string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://postgres:secret@127.0.0.1:%d/postgres", n.port))
	require.NoError(t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	require.NoError(t, err)
}

// TestLibrary runs three embedded nodes on the in-memory store: bootstrap, switchover, orderly end.
func TestLibrary(t *testing.T) {
	bin := postgrestest.Binaries(t, "15")
	root := t.TempDir()
	srv := memory.NewServer(dcs.Boottime())
	began := time.Now()
	var nodes []*libNode
	for i := range 3 {
		nodes = append(nodes, startLib(t, srv.Open("/service/demo"), fmt.Sprintf("pg%d", i+1), root, bin))
	}
	rig.Eventually(t, 30*time.Second, "healthy from empty", func() bool { return healthy(nodes) })
	t.Logf("healthy after %v", time.Since(began))
	old := leaderOf(nodes)
	old.exec(t, "create table t(id int)")

	began = time.Now()
	ctx := context.Background()
	c, err := old.node.ReadCluster(ctx)
	require.NoError(t, err)
	require.Equal(t, old.name, c.Leader.Name)
	f := c.Failover
	f.Leader = old.name
	require.NoError(t, old.node.WriteFailover(ctx, f, nil))
	rig.Eventually(t, 20*time.Second, "switched over", func() bool {
		l := leaderOf(nodes)
		return l != nil && l != old
	})
	t.Logf("switched over after %v", time.Since(began))
	leaderOf(nodes).exec(t, "insert into t values (1)")
	rig.Eventually(t, 20*time.Second, "healthy again", func() bool { return healthy(nodes) })
	t.Logf("healthy again after %v", time.Since(began))
}
