package etcdserver_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
)

// version asks a member for its version over plain HTTP.
func version(url string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/version", http.NoBody)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func TestThreeMembers(t *testing.T) {
	c := etcdserver.Start(t, 3)
	if n := len(c.URLs()); n != 3 {
		t.Fatalf("%d URLs, want 3", n)
	}
	for i, url := range c.URLs() {
		if err := version(url, 5*time.Second); err != nil {
			t.Errorf("member %d: %v", i, err)
		}
	}
	c.Freeze(1)
	if err := version(c.URLs()[1], 300*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen member: %v, want no answer", err)
	}
	c.Thaw(1)
	if err := version(c.URLs()[1], 5*time.Second); err != nil {
		t.Errorf("a thawed member: %v", err)
	}
	c.Kill(1)
	c.Kill(1) // no harm
	if conn, err := net.DialTimeout("tcp", c.Addr(1), time.Second); err == nil {
		conn.Close()
		t.Error("a killed member still listens")
	}
	c.Restart(1)
	if err := version(c.URLs()[1], 5*time.Second); err != nil {
		t.Errorf("a restarted member: %v", err)
	}
	c.Freeze(2)
	c.Restart(2)
	if err := version(c.URLs()[2], 5*time.Second); err != nil {
		t.Errorf("a member that was frozen and restarted: %v", err)
	}
}

// All that was started is gone when the test has ended, also what was frozen.
func TestNothingIsLeft(t *testing.T) {
	var urls []string
	t.Run("inner", func(t *testing.T) {
		c := etcdserver.Start(t, 1)
		urls = c.URLs()
		c.Freeze(0)
	})
	for _, url := range urls {
		if conn, err := net.DialTimeout("tcp", url[len("http://"):], time.Second); err == nil {
			conn.Close()
			t.Errorf("%s still listens", url)
		}
	}
}

func TestBinary(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "bin", "etcd-1.2.3")
	if err := os.MkdirAll(filepath.Dir(program), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGREGENT_ETCD", "")
	t.Setenv("PGREGENT_CACHE", dir)
	t.Setenv("PATH", "")
	if got, err := etcdserver.Binary(); got != program {
		t.Errorf("from the cache: %q, %v, want %q", got, err, program)
	}
	t.Setenv("PGREGENT_CACHE", t.TempDir())
	if got, err := etcdserver.Binary(); err == nil {
		t.Errorf("from nowhere: %q", got)
	}
	t.Setenv("PATH", filepath.Join(dir, "other"))
	link := filepath.Join(dir, "other", "etcd")
	if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, link); err != nil {
		t.Fatal(err)
	}
	if got, err := etcdserver.Binary(); got != link {
		t.Errorf("from the PATH: %q, %v, want %q", got, err, link)
	}
	t.Setenv("PGREGENT_ETCD", filepath.Join(dir, "none"))
	if got, err := etcdserver.Binary(); err == nil {
		t.Errorf("PGREGENT_ETCD names nothing, and it found %q", got)
	}
	t.Setenv("PGREGENT_ETCD", program)
	if got, err := etcdserver.Binary(); got != program {
		t.Errorf("by name: %q, %v, want %q", got, err, program)
	}
}
