package zookeeper_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/dcs/dcstest/zookeeperserver"
	"github.com/pgregent/pgregent/dcs/zookeeper"
)

// open opens a Store that is closed when the test ends.
func open(t testing.TB, c zookeeper.Config) *zookeeper.Store {
	t.Helper()
	if c.Prefix == "" {
		c.Prefix = "/service/test"
	}
	if c.Logger == nil {
		c.Logger = logger(t)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	s, err := zookeeper.Open(ctx, c)
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

// harness is an ensemble as the suite needs it, with all traffic through proxies.
func harness(t *testing.T, servers int, wrap func(dcs.Store) dcs.Store) dcstest.Harness {
	t.Helper()
	e := zookeeperserver.Start(t, servers)
	h := dcstest.Through(t, e.Addrs(), func(t testing.TB, addrs []string, prefix string) dcs.Store {
		t.Helper()
		return wrap(open(t, zookeeper.Config{Hosts: addrs, Prefix: prefix}))
	})
	h.Restart = func(testing.TB) {
		for i := range servers {
			e.Restart(i)
		}
	}
	if h.Alone = servers == 1; h.Alone {
		return h
	}
	losses := 0
	h.LoseLeader = func(t testing.TB) func() {
		t.Helper()
		i := e.Leader()
		if losses++; losses%2 == 0 {
			e.Freeze(i)
			return func() { e.Thaw(i) }
		}
		e.Kill(i)
		return func() { e.Restart(i) }
	}
	return h
}

// run runs the suite, of which nothing may be left out.
func run(t *testing.T, h dcstest.Harness) {
	t.Helper()
	if r := dcstest.Run(t, h); len(r.NotRun) > 0 {
		t.Errorf("not run: %v", r.NotRun)
	}
}

func TestConformanceOneServer(t *testing.T) {
	run(t, harness(t, 1, func(s dcs.Store) dcs.Store { return s }))
}

// Through a Client, as the loop uses it. The leader is killed and frozen in turn.
func TestConformanceThreeServers(t *testing.T) {
	run(t, harness(t, 3, func(s dcs.Store) dcs.Store {
		return dcs.NewClient(s, &dcs.ClientOptions{Timeout: 5 * time.Second})
	}))
}
