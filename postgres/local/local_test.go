package local_test

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/local"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// testLog sends the controller's log to the test's.
func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// config is the configuration of a server for the suite.
func config(t *testing.T, bin string, s postgrestest.Setup) local.Config {
	t.Helper()
	return local.Config{
		Name: s.Name, Scope: s.Scope, DataDir: s.DataDir, BinDir: bin, PGPass: filepath.Join(s.Home, "pgpass"),
		Listen:        net.JoinHostPort(s.Host, strconv.Itoa(s.Port)),
		Superuser:     local.Credentials{Username: s.Superuser, Password: s.SuperuserPassword},
		Replication:   local.Credentials{Username: s.Replication, Password: s.ReplicationPassword},
		Rewind:        local.Credentials{Username: "rewinder", Password: "rewind it"},
		InitdbOptions: []string{"auth=scram-sha-256", "encoding=UTF8", "locale=C"},
		Log:           testLog(t),
	}
}

// TestController runs the conformance suite on every PostgreSQL version that is there.
func TestController(t *testing.T) {
	for _, major := range postgrestest.Versions() {
		t.Run("postgresql"+major, func(t *testing.T) {
			t.Parallel()
			bin := postgrestest.Binaries(t, major)
			postgrestest.RunController(t, postgrestest.Harness{
				Open: func(t *testing.T, s postgrestest.Setup) postgres.Controller {
					t.Helper()
					server, err := local.Open(config(t, bin, s))
					if err != nil {
						t.Fatal(err)
					}
					return server
				},
			})
		})
	}
}
