package consul_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strconv"
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

// harness is servers as the suite needs them, with all traffic through proxies.
func harness(t *testing.T, servers int, wrap func(dcs.Store) dcs.Store) dcstest.Harness {
	t.Helper()
	c := consulserver.Start(t, servers)
	var addrs []string
	for i := range servers {
		addrs = append(addrs, c.Addr(i))
	}
	h := dcstest.Through(t, addrs, func(t testing.TB, addrs []string, prefix string) dcs.Store {
		t.Helper()
		return wrap(open(t, consul.Config{Addresses: addrs, Prefix: prefix}))
	})
	h.Restart = func(testing.TB) {
		for i := range servers {
			c.Restart(i)
		}
	}
	// A server that comes back waits for its old term to pass before it leads, or believes another.
	h.RestartPatience = 30 * time.Second
	h.Sessions = 1000
	h.Connections = func() int { return established(t, h.Proxies) }
	if h.Alone = servers == 1; h.Alone {
		return h
	}
	losses := 0
	h.LoseLeader = func(t testing.TB) func() {
		t.Helper()
		i := c.Leader()
		if losses++; losses%2 == 0 {
			c.Freeze(i)
			return func() { c.Thaw(i) }
		}
		c.Kill(i)
		return func() { c.Restart(i) }
	}
	return h
}

// established counts the connections to the proxies that clients have. The proxies have more: a server keeps the connection of a
// question that nobody waits for any more until it would have answered it.
func established(t testing.TB, all []*dcstest.Proxy) (n int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Error(err)
	}
	for _, p := range all {
		_, text, _ := net.SplitHostPort(p.Addr())
		port, _ := strconv.Atoi(text)
		n += len(regexp.MustCompile(fmt.Sprintf(`(?m)^ *\d+: [0-9A-F:]+ [0-9A-F]+:%04X 01 `, port)).FindAll(table, -1))
	}
	return n
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
