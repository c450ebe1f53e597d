package consul_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/consul"
	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/dcs/dcstest/consulserver"
)

// open opens a Store that is closed when the test ends.
func open(t testing.TB, c consul.Config) *consul.Store {
	t.Helper()
	if c.Prefix == "" {
		c.Prefix = "/service/test"
	}
	if c.Logger == nil {
		c.Logger = logger(t)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := consul.Open(ctx, c)
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
func proxies(t *testing.T, c *consulserver.Cluster) (all []*dcstest.Proxy, addrs []string) {
	t.Helper()
	for i := range c.URLs() {
		p := dcstest.NewProxy(t, c.Addr(i))
		all = append(all, p)
		addrs = append(addrs, p.Addr())
	}
	return all, addrs
}

// harness is servers behind proxies.
func harness(t *testing.T, servers int, wrap func(dcs.Store) dcs.Store) dcstest.Harness {
	t.Helper()
	c := consulserver.Start(t, servers)
	all, addrs := proxies(t, c)
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
			return wrap(open(t, consul.Config{Addresses: addrs, Prefix: prefix}))
		},
		Block: set(dcstest.BlackHole), Mute: set(dcstest.DropReplies), Refuse: set(dcstest.Refuse),
		Restart: func(testing.TB) {
			for i := range servers {
				c.Restart(i)
			}
		},
		// A server counts as the leader when its old term has passed, and takes requests some seconds later.
		RestartPatience: 30 * time.Second,
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
