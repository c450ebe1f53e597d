package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/pgregent/pgregent/examples/internal/lab"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// asProgram makes this test binary the program itself; programs is where TestMain built what it measures.
const (
	asProgram = "PGREGENT_TEST_BENCH"
	programs  = "PGREGENT_TEST_BENCH_BIN"
)

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(withPrograms(func() int { return postgrestest.Main(m) }))
}

// withPrograms builds the daemon and its guard before the user is changed, who may have no Go.
func withPrograms(run func() int) int {
	if os.Getenv(programs) != "" {
		return run()
	}
	dir, err := os.MkdirTemp("", "pgregent-bin")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755)
	}
	for _, p := range []string{"pgregent", "pgregent-guard"} {
		if err == nil {
			build := exec.Command("go", "build", "-o", filepath.Join(dir, p), "github.com/pgregent/pgregent/cmd/"+p)
			build.Stderr = os.Stderr
			err = build.Run()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	_ = os.Setenv(programs, dir)
	return run()
}

// TestOneSwitchover measures for real, once: what is reported must be there. How fast it is is not judged here.
func TestOneSwitchover(t *testing.T) {
	if _, err := lab.EtcdProgram(); err != nil {
		postgrestest.Require(t, err.Error())
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.json")
	cmd := exec.Command(self, "-n", "1", "-run", "^switchover$", "-bin", os.Getenv(programs), "-pg", postgrestest.Binaries(t, "15"), "-json", out)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	d := document{record: &record{}}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"write outage", "pg_ctl stop, promote", "by signals", "stop", "take the lease", "promote", "first write"} {
		if f := d.find("switchover", name); f == nil || len(f.Values) != 1 || f.Values[0] < 0 {
			t.Errorf("%s was not measured:\n%s", name, said)
		}
	}
	if f := d.find("switchover", "acknowledged writes lost"); f == nil || len(f.Values) != 1 || f.Values[0] != 0 {
		t.Errorf("writes were lost:\n%s", said)
	}
}
