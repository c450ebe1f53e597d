package postgrestest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Versions are the PostgreSQL major versions that tests should run on: 15, and each of 14 to 18 whose programs are
// named by $PGREGENT_PG<major> (a bin folder) or installed where Debian puts them. PGREGENT_PG_ONLY limits the list to
// one version.
func Versions() []string {
	if only := os.Getenv("PGREGENT_PG_ONLY"); only != "" {
		return []string{only}
	}
	var versions []string
	for _, major := range []string{"14", "15", "16", "17", "18"} {
		if _, found := binaries(major); found || major == "15" {
			versions = append(versions, major)
		}
	}
	return versions
}

// Binaries returns the folder with the programs of a PostgreSQL version. Without them the test is skipped, or fails
// when PGREGENT_REQUIRE is 1.
func Binaries(t testing.TB, major string) string {
	t.Helper()
	dir, found := binaries(major)
	if !found {
		Require(t, fmt.Sprintf("PostgreSQL %s is not installed: set PGREGENT_PG%s to its bin folder", major, major))
	}
	return dir
}

// Require skips the test for what is missing, or fails it when PGREGENT_REQUIRE is 1, as "make test" sets it.
func Require(t testing.TB, missing string) {
	t.Helper()
	if os.Getenv("PGREGENT_REQUIRE") == "1" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

func binaries(major string) (dir string, found bool) {
	for _, dir := range []string{os.Getenv("PGREGENT_PG" + major), filepath.Join("/usr/lib/postgresql", major, "bin")} {
		if dir == "" {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, "postgres")); err == nil && info.Mode().IsRegular() {
			return dir, true
		}
	}
	return "", false
}

// FreePort is a TCP port on which nothing listens on 127.0.0.1. It lies below those that the kernel gives to connections
// (net.ipv4.ip_local_port_range), any of which may be taken before a server listens on it, and is drawn at random, so that
// other test processes get others.
func FreePort(t testing.TB) int {
	t.Helper()
	const from, to = 10240, 32768
	var err error
	for range 100 {
		port := from + rand.IntN(to-from)
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		var l net.Listener
		if l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatalf("find a free port: %v", err)
	return 0
}

// givenPorts are those that FreePort has given to this process.
var givenPorts sync.Map //nolint:gochecknoglobals // of the process
