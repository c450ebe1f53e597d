package operate

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// connect connects to a node itself.
//
// Without TLS: refused, it would be asked for on a connection of its own, and a balancer that takes turns between two
// servers would give every second one, which is the one that counts, to the same.
func connect(ctx context.Context, port int) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=super-secret dbname=postgres connect_timeout=2 sslmode=disable", port))
}

// sql runs statements on a node.
func sql(t testing.TB, d *rig.Node, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := connect(ctx, d.PGPort)
	require.NoError(t, err)
	defer func() { _ = conn.Close(ctx) }()
	for _, s := range statements {
		_, err := conn.Exec(ctx, s)
		require.NoError(t, err, s)
	}
}

// value is what a query returns as text; empty when it fails.
func value(d *rig.Node, query string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := connect(ctx, d.PGPort)
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close(ctx) }()
	var v string
	_ = conn.QueryRow(ctx, query).Scan(&v)
	return v
}
