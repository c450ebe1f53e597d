package etcd_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

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

// proxies is a proxy in front of each member.
func proxies(t *testing.T, c *etcdserver.Cluster) (all []*dcstest.Proxy, addrs []string) {
	t.Helper()
	for i := range c.URLs() {
		p := dcstest.NewProxy(t, c.Addr(i))
		all = append(all, p)
		addrs = append(addrs, p.Addr())
	}
	return all, addrs
}

// harness is a cluster as the suite needs it, with all traffic through proxies.
func harness(t *testing.T, members int, wrap func(dcs.Store) dcs.Store) dcstest.Harness {
	t.Helper()
	c := etcdserver.Start(t, members)
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
			// The members would name addresses that lead past the proxies.
			return wrap(open(t, etcd.Config{Endpoints: addrs, Prefix: prefix, UseProxies: true}))
		},
		Block: set(dcstest.BlackHole), Mute: set(dcstest.DropReplies), Refuse: set(dcstest.Refuse),
		Restart: func(testing.TB) {
			for i := range members {
				c.Restart(i)
			}
		},
	}
}

func TestConformanceOneMember(t *testing.T) {
	dcstest.Run(t, harness(t, 1, func(s dcs.Store) dcs.Store { return s }))
}

// Through a Client, as the loop uses it.
func TestConformanceThreeMembers(t *testing.T) {
	dcstest.Run(t, harness(t, 3, func(s dcs.Store) dcs.Store {
		return dcs.NewClient(s, &dcs.ClientOptions{Timeout: 5 * time.Second})
	}))
}
