// Package etcdserver starts real etcd servers for tests: one or several members, on free ports, with their data in a
// folder of the test, and gone when the test ends, also when it fails.
//
//	cluster := etcdserver.Start(t, 3)
//	store, err := etcd.Open(ctx, etcd.Config{Endpoints: cluster.URLs(), Prefix: "/service/orders"})
//	...
//	cluster.Freeze(0)
//
// It uses no etcd client and builds nothing: .ci/etcd.sh does that. It is for Linux and for tests only; data is not
// synced to disk, which survives the death of a server and not that of the machine.
package etcdserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options changes what Start does. The zero value is one member without TLS.
type Options struct {
	// Members is the number of members; 0 means 1.
	Members int

	// HTTPS makes the members serve clients with TLS; Args must then hold --cert-file and --key-file.
	HTTPS bool

	// Args are added to the command line of every member, such as "--election-timeout=300" (with
	// "--heartbeat-interval=50"), or "--auth-token-ttl=2".
	Args []string

	// Patience is the longest until the members are healthy, at the start and after Restart. 0 means 30 s.
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

// member is one server and where it lives. Ports and data stay the same when it is restarted.
type member struct {
	name, dir             string
	client, peer, metrics string // host:port

	mu      sync.Mutex
	process *process // nil when it was killed
}

// Start starts a cluster of so many members and waits until it is healthy. When there is no etcd program (see Binary),
// the test is skipped, or fails if the environment variable PGREGENT_REQUIRE is 1.
func Start(t testing.TB, members int) *Cluster {
	t.Helper()
	return StartWith(t, Options{Members: members})
}

// StartWith is Start with options.
func StartWith(t testing.TB, o Options) *Cluster {
	t.Helper()
	binary, err := Binary()
	switch {
	case err != nil && os.Getenv("PGREGENT_REQUIRE") == "1":
		t.Fatalf("etcdserver: %v", err)
	case err != nil:
		t.Skipf("etcdserver: %v", err)
	}
	o.Members = max(o.Members, 1)
	if o.Patience <= 0 {
		o.Patience = 30 * time.Second
	}
	c := &Cluster{t: t, options: o, binary: binary}
	// A port that is free now may be taken before etcd listens on it: then all of it is tried again.
	dir := t.TempDir()
	t.Cleanup(c.stop)
	for try := 1; ; try++ {
		err = c.start(filepath.Join(dir, fmt.Sprintf("try%d", try)))
		if err == nil {
			return c
		}
		c.stop()
		if try == 3 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatalf("etcdserver: %v", err)
		}
	}
}

// start starts all members in dir and waits for them.
func (c *Cluster) start(dir string) error {
	ports, err := freePorts(3 * c.options.Members)
	if err != nil {
		return err
	}
	c.members = nil
	for i := range c.options.Members {
		c.members = append(c.members, &member{
			name:   fmt.Sprintf("m%d", i),
			dir:    filepath.Join(dir, fmt.Sprintf("m%d", i)),
			client: ports[3*i], peer: ports[3*i+1], metrics: ports[3*i+2],
		})
	}
	for _, m := range c.members {
		if err := c.run(m); err != nil {
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

// URLs are the client URLs of all members, also of those that do not run, by their number.
func (c *Cluster) URLs() []string {
	urls := make([]string, len(c.members))
	for i, m := range c.members {
		urls[i] = c.scheme() + m.client
	}
	return urls
}

// Addr is the host:port at which a member serves clients, for a proxy in front of it.
func (c *Cluster) Addr(i int) string { return c.members[i].client }

// MetricsURL is where a member tells its metrics and its health, without TLS and authentication.
func (c *Cluster) MetricsURL(i int) string { return "http://" + c.members[i].metrics }

// Kill ends a member with SIGKILL, and returns when it is gone. Its data stays. A member that does not run is left alone.
func (c *Cluster) Kill(i int) {
	m := c.members[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process.kill()
	m.process = nil
}

// Wipe is Kill, and the member's data is lost, too. The member of a cluster of one can be restarted then, and is empty.
func (c *Cluster) Wipe(i int) {
	c.Kill(i)
	if err := os.RemoveAll(filepath.Join(c.members[i].dir, "data")); err != nil {
		c.t.Errorf("etcdserver: wipe member %d: %v", i, err)
	}
}

// Freeze stops a member with SIGSTOP, and returns when all of its threads have stopped: the kernel goes on accepting
// connections and bytes for it, and nothing is answered.
func (c *Cluster) Freeze(i int) {
	c.signal(i, stopSignal)
	if err := c.members[i].stopped(5 * time.Second); err != nil {
		c.t.Errorf("etcdserver: freeze member %d: %v", i, err)
	}
}

// Thaw lets a frozen member go on.
func (c *Cluster) Thaw(i int) { c.signal(i, continueSignal) }

func (c *Cluster) signal(i int, sig os.Signal) {
	m := c.members[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.process.signal(sig); err != nil {
		c.t.Errorf("etcdserver: %v to member %d: %v", sig, i, err)
	}
}

// Restart stops a member in good order if it runs, and kills it if it has not ended within a second (it is frozen, or waits
// for the watches of its clients to end). Then it starts the member again on its data and ports, and waits until it is
// healthy, for which a majority of the members must run.
func (c *Cluster) Restart(i int) {
	if err := c.restart(c.members[i]); err != nil {
		c.t.Errorf("etcdserver: restart of member %d: %v", i, err)
	}
}

func (c *Cluster) restart(m *member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process.terminate(time.Second)
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
			c.t.Logf("etcdserver: the last lines of member %d:\n%s", i, m.tail(20))
		}
	}
}

func (c *Cluster) scheme() string {
	if c.options.HTTPS {
		return "https://"
	}
	return "http://"
}

// args is the command line of a member.
func (c *Cluster) args(m *member) []string {
	var initial []string
	for _, o := range c.members {
		initial = append(initial, o.name+"=http://"+o.peer)
	}
	return append([]string{
		"--name=" + m.name, "--data-dir=" + filepath.Join(m.dir, "data"),
		"--listen-client-urls=" + c.scheme() + m.client, "--advertise-client-urls=" + c.scheme() + m.client,
		"--listen-peer-urls=http://" + m.peer, "--initial-advertise-peer-urls=http://" + m.peer,
		"--listen-metrics-urls=http://" + m.metrics,
		"--initial-cluster=" + strings.Join(initial, ","), "--initial-cluster-token=" + c.members[0].dir,
		"--unsafe-no-fsync", "--log-level=warn", "--logger=zap",
	}, c.options.Args...)
}

// run starts a member.
func (c *Cluster) run(m *member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return c.runLocked(m)
}

func (c *Cluster) runLocked(m *member) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	p, err := launch(c.binary, c.args(m), m.logFile())
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

// Binary is the etcd program: the one that PGREGENT_ETCD names, else the one that .ci/etcd.sh put into the cache, else
// etcd in the PATH.
func Binary() (string, error) {
	if named := os.Getenv("PGREGENT_ETCD"); named != "" {
		if !executable(named) {
			return "", fmt.Errorf("PGREGENT_ETCD is %q, which is not a program", named)
		}
		return named, nil
	}
	if found := cached(); found != "" {
		return found, nil
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if found := filepath.Join(dir, "etcd"); executable(found) {
			return found, nil
		}
	}
	return "", errors.New("there is no etcd program: run .ci/etcd.sh, or name one in PGREGENT_ETCD")
}

// cached is the newest etcd of the cache, or empty. The folder is that of .ci/env.
func cached() string {
	cache := os.Getenv("PGREGENT_CACHE")
	if cache == "" && os.Getuid() == 0 {
		cache = "/var/cache/pgregent"
	}
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		cache = filepath.Join(dir, "pgregent")
	}
	if link := filepath.Join(cache, "bin", "etcd"); executable(link) {
		return link
	}
	all, _ := filepath.Glob(filepath.Join(cache, "bin", "etcd-[0-9]*[0-9]")) // the pattern is well-formed
	if len(all) == 0 {
		return ""
	}
	return slices.MaxFunc(all, func(a, b string) int { return modTime(a).Compare(modTime(b)) })
}

func modTime(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// freePorts returns addresses on which nobody listens.
func freePorts(n int) ([]string, error) {
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
		if err != nil {
			return nil, fmt.Errorf("a free port: %w", err)
		}
		defer func() { _ = l.Close() }() // all at once, so that no port is given twice
		addrs[i] = l.Addr().String()
	}
	return addrs, nil
}
