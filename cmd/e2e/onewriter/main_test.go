// Package onewriter proves, on real PostgreSQL and a real store, that no two nodes ever acknowledge writes at the same
// time, whatever happens to agent, guard, PostgreSQL or store (docs/safety.md). Writers on every node stamp each
// acknowledgement on one clock; for each hazard the acknowledgements of the old and of the new leader must not
// interleave.
//
// PROVE=full makes 20 counted runs of each scenario, PROVE=short (the default) one; RUNS=n says another number, ONLY=regexp
// names scenarios, SEED=n repeats the random choices of an earlier call, STORE=consul or zookeeper takes another store than
// etcd.
package onewriter

import (
	"fmt"
	"os"
	"testing"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

func TestMain(m *testing.M) {
	os.Exit(rig.WithPrograms(func() int {
		remove, err := rig.BuildUnguarded()
		if err != nil {
			fmt.Fprintln(os.Stderr, "onewriter:", err)
			return 2
		}
		defer remove()
		p, err := prepare()
		if err != nil {
			fmt.Fprintln(os.Stderr, "onewriter:", err)
			return 2
		}
		defer p.undo()
		return postgrestest.MainWith(m, p.keep)
	}))
}
