package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// database is a PostgreSQL server for a test.
type database struct {
	addr, dir, bin string
	server         *postgrestest.Server
}

func startDatabase(t testing.TB) *database {
	t.Helper()
	d := &database{bin: postgrestest.Binaries(t, "15"), dir: filepath.Join(t.TempDir(), "db")}
	d.addr = fmt.Sprintf("127.0.0.1:%d", postgrestest.FreePort(t))
	initdb := exec.Command(filepath.Join(d.bin, "initdb"), "-D", d.dir, "-U", "postgres", "-A", "trust", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	d.start(t)
	return d
}

// start returns when the server accepts connections.
func (d *database) start(t testing.TB) {
	t.Helper()
	_, port, _ := net.SplitHostPort(d.addr)
	d.server = postgrestest.Start(t, postgres.Command{Path: filepath.Join(d.bin, "postgres"), Env: os.Environ(), Dir: d.dir,
		Args: []string{"-D", d.dir, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="}})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(30 * time.Second); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := pgx.Connect(ctx, dsn(d.addr))
		cancel()
		if err == nil {
			drop(conn)
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("the server does not start: %v\n%s", err, d.server.LogTail())
		}
	}
}

func dsn(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable", host, port)
}

func open(t testing.TB, addrs []string, prefix string) dcs.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := Open(ctx, dsn(addrs[0]), prefix)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The whole suite: restarts are crashes.
func TestConformance(t *testing.T) {
	d := startDatabase(t)
	h := dcstest.Through(t, []string{d.addr}, open)
	h.Alone = true
	h.Restart = func(testing.TB) {
		d.server.Stop(syscall.SIGQUIT)
		d.start(t)
	}
	if r := dcstest.Run(t, h); len(r.NotRun) > 0 {
		t.Errorf("not run: %v", r.NotRun)
	}
}

// Two members: one holds the lease, the other takes it over as soon as it is released, and not before.
func TestCompete(t *testing.T) {
	d := startDatabase(t)
	const ttl = 2 * time.Second
	lines := make(chan string, 100)
	start := func(name string) (stop func() error) {
		store := open(t, []string{d.addr}, "/service/demo")
		ctx, cancel := context.WithCancel(t.Context())
		read, write := io.Pipe()
		t.Cleanup(func() { cancel(); _ = write.Close(); _ = store.Close() })
		go func() {
			buf := make([]byte, 1000)
			for {
				n, err := read.Read(buf)
				if err != nil {
					return
				}
				lines <- name + " " + strings.TrimSpace(string(buf[:n]))
			}
		}()
		done := make(chan error, 1)
		go func() { done <- compete(ctx, store, name, ttl, write) }()
		return func() error { cancel(); return <-done }
	}
	expect := func(want string) {
		t.Helper()
		select {
		case line := <-lines:
			if line != want {
				t.Fatalf("%q, want %q", line, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("nobody said %q", want)
		}
	}
	stopA := start("a")
	expect("a holds the lease, epoch 1")
	stopB := start("b")
	expect("b waits, a holds the lease")
	if err := stopA(); err != nil {
		t.Fatal(err)
	}
	expect("a released the lease")
	expect("b holds the lease, epoch 2")
	if err := stopB(); err != nil {
		t.Fatal(err)
	}
}
