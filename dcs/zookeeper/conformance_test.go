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

// proxies is a proxy in front of each server.
func proxies(t *testing.T, e *zookeeperserver.Ensemble) (all []*dcstest.Proxy, addrs []string) {
	t.Helper()
	for _, addr := range e.Addrs() {
		p := dcstest.NewProxy(t, addr)
		all = append(all, p)
		addrs = append(addrs, p.Addr())
	}
	return all, addrs
}

// harness is an ensemble as the suite needs it, with all traffic through proxies.
func harness(t *testing.T, servers int, wrap func(dcs.Store) dcs.Store) dcstest.Harness {
	t.Helper()
	e := zookeeperserver.Start(t, servers)
	all, addrs := proxies(t, e)
	set := func(m dcstest.Mode) func(testing.TB) func() {
		return func(testing.TB) func() {
			for _, p := range all {
				p.SetMode(m)
			}
			return func() {
				for _, p := range all {
					p.SetMode(dcstest.Pass)
				}
			}
		}
	}
	return dcstest.Harness{
		Open: func(t testing.TB, prefix string) dcs.Store {
			t.Helper()
			return wrap(open(t, zookeeper.Config{Hosts: addrs, Prefix: prefix}))
		},
		Block: set(dcstest.BlackHole), Mute: set(dcstest.DropReplies), Refuse: set(dcstest.Refuse),
		Restart: func(testing.TB) {
			for i := range servers {
				e.Restart(i)
			}
		},
	}
}

func TestConformanceOneServer(t *testing.T) {
	dcstest.Run(t, harness(t, 1, func(s dcs.Store) dcs.Store { return s }))
}

// Through a Client, as the loop uses it.
func TestConformanceThreeServers(t *testing.T) {
	dcstest.Run(t, harness(t, 3, func(s dcs.Store) dcs.Store {
		return dcs.NewClient(s, &dcs.ClientOptions{Timeout: 5 * time.Second})
	}))
}
