// Package consulserver starts real Consul servers for tests: one or several, and client agents beside them, on free ports,
// with their data in a folder of the test, and gone when the test ends, also when it fails.
//
//	cluster := consulserver.Start(t, 3)
//	store, err := consul.Open(ctx, consul.Config{Addresses: cluster.URLs(), Prefix: "/service/orders"})
//	...
//	cluster.Freeze(cluster.Leader())
//
// It uses no Consul client and builds nothing: .ci/consul.sh does that. It is for Linux and for tests only.
package consulserver

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options changes what Start does. The zero value is one server.
type Options struct {
	// Servers is the number of servers; 0 means 1.
	Servers int

	// Agents is the number of client agents that join them, as they run on the machines of clients. Their numbers follow
	// those of the servers.
	Agents int

	// Config is laid over the configuration of every member, by the names of Consul's configuration files, such as
	// "session_ttl_min" or "acl".
	Config map[string]any

	// HTTPS gives every member a second port for clients, with TLS, which SecureAddr tells. Config must then hold its
	// certificate, as "tls".
	HTTPS bool

	// Patience is the longest until the members are healthy, at the start and after Restart. 0 means 60 s.
	Patience time.Duration
}

// Cluster is running members. Its methods may be called from any goroutine; those that change a member report what goes
// wrong by t.Errorf, so that they may be used beside the test's own goroutine, too.
type Cluster struct {
	t       testing.TB
	options Options
	binary  string
	members []*member
}

// member is one server or agent and where it lives. Ports and data stay the same when it is restarted.
type member struct {
	name, dir              string
	server                 bool
	http, https, serf, rpc string // host:port

	mu      sync.Mutex
	process *process // nil when it was killed
}

// Start starts so many servers and waits until they are healthy. When there is no consul program (see Binary), the test is
// skipped, or fails if the environment variable PGREGENT_REQUIRE is 1.
func Start(t testing.TB, servers int) *Cluster {
	t.Helper()
	return StartWith(t, Options{Servers: servers})
}

// StartWith is Start with options.
func StartWith(t testing.TB, o Options) *Cluster {
	t.Helper()
	binary, err := Binary()
	switch {
	case err != nil && os.Getenv("PGREGENT_REQUIRE") == "1":
		t.Fatalf("consulserver: %v", err)
	case err != nil:
		t.Skipf("consulserver: %v", err)
	}
	o.Servers = max(o.Servers, 1)
	if o.Patience <= 0 {
		o.Patience = 60 * time.Second
	}
	c := &Cluster{t: t, options: o, binary: binary}
	// A port that is free now may be taken before Consul listens on it: then all of it is tried again.
	dir := t.TempDir()
	t.Cleanup(c.stop)
	for try := 1; ; try++ {
		err = c.start(filepath.Join(dir, fmt.Sprintf("try%d", try)))
		if err == nil {
			return c
		}
		c.stop()
		if try == 3 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatalf("consulserver: %v", err)
		}
	}
}

// start starts all members in dir and waits for them.
func (c *Cluster) start(dir string) error {
	all := c.options.Servers + c.options.Agents
	ports, err := freePorts(4 * all)
	if err != nil {
		return err
	}
	c.members = nil
	for i := range all {
		name := fmt.Sprintf("m%d", i)
		c.members = append(c.members, &member{name: name, dir: filepath.Join(dir, name), server: i < c.options.Servers,
			http: ports[4*i], serf: ports[4*i+1], rpc: ports[4*i+2], https: ports[4*i+3]})
	}
	for _, m := range c.members {
		m.mu.Lock()
		err := c.runLocked(m)
		m.mu.Unlock()
		if err != nil {
			return err
		}
	}
	for i, m := range c.members {
		if err := c.healthy(m); err != nil {
			return fmt.Errorf("member %d: %w", i, err)
		}
	}
	return nil
}

// URLs are the URLs of the servers, also of those that do not run, by their number.
func (c *Cluster) URLs() []string {
	urls := make([]string, c.options.Servers)
	for i := range urls {
		urls[i] = "http://" + c.members[i].http
	}
	return urls
}

// Addr is the host:port of a member's HTTP API, for a proxy in front of it.
func (c *Cluster) Addr(i int) string { return c.members[i].http }

// SecureAddr is that with TLS.
func (c *Cluster) SecureAddr(i int) string { return c.members[i].https }

// Leader is the number of the server that a majority of the running servers takes for the leader. It waits until there is
// one, and fails the test when there is none for the patience.
func (c *Cluster) Leader() int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), c.options.Patience) //nolint:forbidigo // see healthy
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		votes := map[string]int{}
		for _, m := range c.members[:c.options.Servers] {
			var leader string
			if ask(ctx, "http://"+m.http+"/v1/status/leader", &leader) == nil {
				votes[leader]++
			}
		}
		for i, m := range c.members[:c.options.Servers] {
			if votes[m.rpc] > c.options.Servers/2 {
				return i
			}
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("consulserver: no leader within %v; the servers say %v", c.options.Patience, votes)
		case <-tick.C:
		}
	}
}

// Kill ends a member with SIGKILL, and returns when it is gone. Its data stays. A member that does not run is left alone.
func (c *Cluster) Kill(i int) {
	m := c.members[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process.kill()
	m.process = nil
}

// Freeze stops a member with SIGSTOP, and returns when all of its threads have stopped: the kernel goes on accepting
// connections and bytes for it, and nothing is answered.
func (c *Cluster) Freeze(i int) {
	c.signal(i, stopSignal)
	if err := c.members[i].stopped(5 * time.Second); err != nil {
		c.t.Errorf("consulserver: freeze member %d: %v", i, err)
	}
}

// Thaw lets a frozen member go on.
func (c *Cluster) Thaw(i int) { c.signal(i, continueSignal) }

func (c *Cluster) signal(i int, sig os.Signal) {
	m := c.members[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.process.signal(sig); err != nil {
		c.t.Errorf("consulserver: %v to member %d: %v", sig, i, err)
	}
}

// Restart stops a member with SIGTERM if it runs, and kills it if it has not ended within a while. A client agent leaves the
// cluster then, which ends the sessions that were opened at it. Then Restart starts the member again on its data and ports,
// and waits until it is healthy, for which a majority of the servers must run.
func (c *Cluster) Restart(i int) {
	if err := c.restart(c.members[i]); err != nil {
		c.t.Errorf("consulserver: restart of member %d: %v", i, err)
	}
}

func (c *Cluster) restart(m *member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	limit := 2 * time.Second
	if !m.server {
		limit = 20 * time.Second // it tells the others
	}
	m.process.terminate(limit)
	if err := c.runLocked(m); err != nil {
		return err
	}
	return c.healthy(m)
}

// stop kills every member.
func (c *Cluster) stop() {
	for i, m := range c.members {
		c.Kill(i)
		if c.t.Failed() {
			c.t.Logf("consulserver: the last lines of member %d:\n%s", i, m.tail(20))
		}
	}
}

// config is the configuration of a member. Elections are as fast as Consul allows.
func (c *Cluster) config(m *member) map[string]any {
	port := func(address string) int {
		var n int
		_, _ = fmt.Sscanf(address[strings.LastIndexByte(address, ':')+1:], "%d", &n)
		return n
	}
	var join []string
	for _, o := range c.members[:c.options.Servers] {
		join = append(join, o.serf)
	}
	https := -1
	if c.options.HTTPS {
		https = port(m.https)
	}
	config := map[string]any{
		"node_name": m.name, "data_dir": filepath.Join(m.dir, "data"), "server": m.server, "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
		"ports": map[string]int{"http": port(m.http), "https": https, "serf_lan": port(m.serf), "server": port(m.rpc),
			"dns": -1, "serf_wan": -1, "grpc": -1, "grpc_tls": -1},
		"retry_join": join, "retry_interval": "1s", "performance": map[string]any{"raft_multiplier": 1},
		"disable_update_check": true, "log_level": "WARN",
		// Otherwise a server that was lost for a while is thrown out, and has no vote for 10 s when it is back: until then the
		// others can lose nobody.
		"autopilot": map[string]any{"cleanup_dead_servers": false, "server_stabilization_time": "1s"},
	}
	if m.server {
		config["bootstrap_expect"] = c.options.Servers
	}
	maps.Copy(config, c.options.Config)
	return config
}

// runLocked starts a member.
func (c *Cluster) runLocked(m *member) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	text, err := json.Marshal(c.config(m))
	if err != nil {
		return err
	}
	file := filepath.Join(m.dir, "config.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	p, err := launch(c.binary, []string{"agent", "-config-file=" + file}, m.logFile())
	if err != nil {
		return err
	}
	m.process = p
	return nil
}

func (m *member) logFile() string { return filepath.Join(m.dir, "log") }

// tail is the end of what a member wrote.
func (m *member) tail(lines int) string {
	data, err := os.ReadFile(m.logFile())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
