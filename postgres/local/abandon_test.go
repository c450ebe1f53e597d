package local

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/pgregent/postgres"
)

// TestPostBootstrapTimeout: a script that hangs is killed with its process group, and fails the preparation. What there is
// of the cluster is set aside with its WAL folder, and another one can be made in its place.
func TestPostBootstrapTimeout(t *testing.T) {
	waldir := filepath.Join(t.TempDir(), "wal")
	a := newRig(t, "15", func(c *Config) {
		c.InitdbOptions = append(c.InitdbOptions, "waldir="+waldir)
		c.PostBootstrap, c.PostBootstrapTimeout = `sh -c 'trap "" TERM; sleep 600 & wait; sleep 600'`, 300*time.Millisecond
	})
	a.must(a.Initdb(t.Context()))
	a.start(postgres.RolePrimary, a.settings(), postgres.Upstream{})
	began := time.Now()
	err := a.PrepareCluster(t.Context())
	if err == nil || !strings.Contains(err.Error(), "longer than 300ms") || time.Since(began) > 10*time.Second {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	if _, err := a.AbandonCluster(t.Context()); err == nil {
		t.Fatal("the directory of a running server was moved")
	}
	a.proc.Stop(syscall.SIGQUIT)
	<-a.proc.Exited()
	kept, err := a.AbandonCluster(t.Context())
	a.must(err)
	for _, path := range []string{filepath.Join(kept, "PG_VERSION"), filepath.Join(waldir+".failed", "000000010000000000000001"), filepath.Join(kept, "pg_wal", "000000010000000000000001")} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	a.cfg.PostBootstrap = ""
	a.primary()
	if got := a.sql("SELECT 1"); got != "1" {
		t.Error(got)
	}
}
