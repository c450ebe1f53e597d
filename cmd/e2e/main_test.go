// Package e2e drives whole clusters: real PostgreSQL, real stores, real daemons.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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
	go reapOrphans()
	return postgrestest.Main(m)
}

// reapOrphans waits for servers and guards that became this process's children when their parents ended: this process
// is a child subreaper, and a server that nobody waits for looks alive to Patroni for ever.
func reapOrphans() {
	for range time.Tick(20 * time.Millisecond) {
		tasks, _ := filepath.Glob("/proc/self/task/*/children")
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			for pid := range strings.FieldsSeq(string(b)) {
				stat, _ := os.ReadFile("/proc/" + pid + "/stat")
				if s := string(stat); strings.Contains(s, " (postgres) Z ") || strings.Contains(s, " (pgregent-guard) Z ") {
					n, _ := strconv.Atoi(pid)
					_, _ = syscall.Wait4(n, nil, syscall.WNOHANG, nil)
				}
			}
		}
	}
}
