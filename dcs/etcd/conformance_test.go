package etcd_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
	"github.com/pgregent/pgregent/dcs/etcd"
)

// open opens a Store that is closed when the test ends.
func open(t testing.TB, c etcd.Config) *etcd.Store {
	t.Helper()
	if c.Prefix == "" {
		c.Prefix = "/service/test"
	}
	if c.Logger == nil {
		c.Logger = logger(t)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := etcd.Open(ctx, c)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// logger writes to the log of the test.
func logger(t testing.TB) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// harness is a cluster as the suite needs it, with all traffic through proxies.
func harness(t *testing.T, members int, wrap func(dcs.Store) dcs.Store) dcstest.Harness {
	t.Helper()
	c := etcdserver.Start(t, members)
	var addrs []string
	for i := range members {
		addrs = append(addrs, c.Addr(i))
	}
	h := dcstest.Through(t, addrs, func(t testing.TB, addrs []string, prefix string) dcs.Store {
		t.Helper()
		// The members would name addresses that lead past the proxies.
		return wrap(open(t, etcd.Config{Endpoints: addrs, Prefix: prefix, UseProxies: true}))
	})
	h.Sessions = 1000
	h.Restart = func(testing.TB) {
		for i := range members {
			c.Restart(i)
		}
	}
	if h.Alone = members == 1; h.Alone {
		return h
	}
	losses := 0
	h.LoseLeader = func(t testing.TB) func() {
		t.Helper()
		i := leader(t, c)
		if losses++; losses%2 == 0 {
			c.Freeze(i)
			return func() { c.Thaw(i) }
		}
		c.Kill(i)
		return func() { c.Restart(i) }
	}
	return h
}

// leader is the number of the member that leads.
func leader(t testing.TB, c *etcdserver.Cluster) int {
	t.Helper()
	ctx, cancel := within(10 * time.Second)
	defer cancel()
	cl, err := clientv3.New(clientv3.Config{Endpoints: c.URLs(), Context: ctx, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cl.Close() }()
	for i, url := range c.URLs() {
		if s, err := cl.Status(ctx, url); err == nil && s.Leader == s.Header.MemberId {
			return i
		}
	}
	t.Fatal("no member leads")
	return 0
}

// run runs the suite, of which nothing may be left out.
func run(t *testing.T, h dcstest.Harness) {
	t.Helper()
	if r := dcstest.Run(t, h); len(r.NotRun) > 0 {
		t.Errorf("not run: %v", r.NotRun)
	}
}

func TestConformanceOneMember(t *testing.T) {
	run(t, harness(t, 1, func(s dcs.Store) dcs.Store { return s }))
}

// Through a Client, as the loop uses it. The leader is killed and frozen in turn.
func TestConformanceThreeMembers(t *testing.T) {
	run(t, harness(t, 3, func(s dcs.Store) dcs.Store {
		return dcs.NewClient(s, &dcs.ClientOptions{Timeout: 5 * time.Second})
	}))
}
