// Package operate proves that an operator who knows Patroni finds every lever where they expect it: the same requests at
// both programs, Patroni's own command line, HAProxy, mixed clusters, and clusters that change hands. Real PostgreSQL,
// real etcd, real Patroni.
package operate

import (
	"os"
	"testing"
	"time"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

func TestMain(m *testing.M) {
	os.Exit(rig.WithPrograms(func() int { return postgrestest.Main(m) }))
}

const (
	// patroniTimes has the shortest ttl that Patroni takes, so that both programs use the same times.
	patroniTimes = `
    ttl: 20
    loop_wait: 1
    retry_timeout: 5`
	// fastTimes are what pgregent writes by itself, but for the loop.
	fastTimes = `
    ttl: 8
    loop_wait: 1
    retry_timeout: 3`
	// fastCopy keeps Patroni's copies from waiting for a spread checkpoint. It goes on below postgresql.
	fastCopy = `  basebackup:
  - checkpoint: fast
`
	// steady is what the state of a cluster may need to come about.
	steady = 60 * time.Second
)

// full says that the proof is to be run at length.
func full() bool { return os.Getenv("PROVE") == "full" }
