package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// asProgram makes this test binary the example itself.
const asProgram = "PGREGENT_TEST_EMBED"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" || os.Getenv("PGREGENT_GUARD_DIR") != "" {
		fence.Main()
		main()
		return
	}
	os.Exit(postgrestest.Main(m))
}

// TestEmbed runs the program until it leads, and ends it in order.
func TestEmbed(t *testing.T) {
	store := etcdserver.Start(t, 1)
	dir := t.TempDir()
	pg, api := postgrestest.FreePort(t), postgrestest.FreePort(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-name", "pg1", "-data", filepath.Join(dir, "pg1"), "-listen", fmt.Sprintf("127.0.0.1:%d", pg),
		"-api", fmt.Sprintf("127.0.0.1:%d", api), "-etcd", strings.Join(store.URLs(), ","), "-bin", postgrestest.Binaries(t, "15"), "-password", "secret")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := func() string { b, _ := os.ReadFile(out.Name()); return string(b) }
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/primary", api))
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			t.Fatalf("it does not lead:\n%s", said())
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%v\n%s", err, said())
		}
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatalf("it does not end:\n%s", said())
	}
	if !strings.Contains(said(), "on_start: pg1 is primary now (epoch 1)") {
		t.Fatalf("the callback was not told:\n%s", said())
	}
}
