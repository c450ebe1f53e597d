// Package e2e drives whole clusters: real PostgreSQL, real stores, real daemons.
package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

func TestMain(m *testing.M) {
	fence.Main() // the library's nodes re-execute this binary as their guards
	os.Exit(rig.WithPrograms(func() int {
		remove, err := rig.BuildUnguarded()
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 2
		}
		defer remove()
		return postgrestest.Main(m)
	}))
}
