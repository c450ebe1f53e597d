// Package e2e drives whole clusters: real PostgreSQL, real stores, real daemons.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// programsEnv names the folder with the programs pgregent and pgregent-guard; without it they are built here.
const programsEnv = "PGREGENT_BIN"

func TestMain(m *testing.M) {
	fence.Main() // the library's nodes re-execute this binary as their guards
	os.Exit(withPrograms(m))
}

// withPrograms builds the daemon before postgrestest.Main changes the user, who may have no Go.
func withPrograms(m *testing.M) int {
	if os.Getenv(programsEnv) == "" {
		dir, err := os.MkdirTemp("", "pgregent-bin")
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 2
		}
		defer os.RemoveAll(dir)
		for _, p := range []string{"pgregent", "pgregent-guard"} {
			build := exec.Command("go", "build", "-o", filepath.Join(dir, p), "../"+p)
			build.Stderr = os.Stderr
			if err := build.Run(); err != nil {
				fmt.Fprintln(os.Stderr, "e2e: build", p+":", err)
				return 2
			}
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			return 2
		}
		_ = os.Setenv(programsEnv, dir)
	}
	return postgrestest.Main(m)
}
