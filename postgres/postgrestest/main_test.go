package postgrestest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pgregent/pgregent/postgres/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// TestMainLeavesRoot shows that the tests run unprivileged and own their temporary folders.
func TestMainLeavesRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Fatal("the tests run as root")
	}
	for _, dir := range []string{t.TempDir(), os.TempDir(), os.Getenv("HOME")} {
		if err := os.WriteFile(filepath.Join(dir, "probe"), nil, 0o600); err != nil {
			t.Errorf("write into %s: %v", dir, err)
		}
	}
}
