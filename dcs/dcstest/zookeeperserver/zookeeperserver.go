// Package zookeeperserver starts real ZooKeeper servers for tests: one or an ensemble, on free ports, with their data in a
// folder of the test, and gone when the test ends, also when it fails.
//
//	ensemble := zookeeperserver.Start(t, 3)
//	store, err := zookeeper.Open(ctx, zookeeper.Config{Hosts: ensemble.Addrs(), Prefix: "/service/orders"})
//	...
//	ensemble.Freeze(ensemble.Leader())
//
// It uses no ZooKeeper client and installs nothing: .ci/deps does that. It is for Linux and for tests only; data is not
// synced to disk, which survives the death of a server and not that of the machine. A server is a Java process that takes
// about a second to start and 100 MB.
package zookeeperserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options changes what Start does. The zero value is one server without TLS.
type Options struct {
	// Servers is the number of servers; 0 means 1.
	Servers int

	// Tick is tickTime, by which the servers count: the shortest session is two of them, an election takes a few. 0 means
	// 200 ms.
	Tick time.Duration

	// Config is added to every server's zoo.cfg, such as "ssl.keyStore.location=/tmp/server.pem".
	Config []string

	// TLS gives every server a second port for clients, with TLS, which SecureAddrs tells. Config must then hold the key
	// and trust stores. It chooses the Netty connection factory, the only one that has TLS.
	TLS bool

	// Patience is the longest until the servers serve, at the start and after Restart. 0 means 60 s.
	Patience time.Duration
}

// Ensemble is running servers. Its methods may be called from any goroutine; those that change a server report what goes
// wrong by t.Errorf, so that they may be used beside the test's own goroutine, too.
type Ensemble struct {
	t       testing.TB
	options Options
	java    string
	jars    string
	members []*member
}

// member is one server and where it lives. Ports and data stay the same when it is restarted.
type member struct {
	number                         int
	dir                            string
	client, secure, peer, election string // host:port
	mu                             sync.Mutex
	process                        *process // nil when it was killed
}

// Start starts so many servers and waits until they serve. When there is no ZooKeeper (see Classpath), the test is
// skipped, or fails if the environment variable PGREGENT_REQUIRE is 1.
func Start(t testing.TB, servers int) *Ensemble {
	t.Helper()
	return StartWith(t, Options{Servers: servers})
}

// StartWith is Start with options.
func StartWith(t testing.TB, o Options) *Ensemble {
	t.Helper()
	jars, err := Classpath()
	java := ""
	if err == nil {
		java, err = exec.LookPath("java")
	}
	switch {
	case err != nil && os.Getenv("PGREGENT_REQUIRE") == "1":
		t.Fatalf("zookeeperserver: %v", err)
	case err != nil:
		t.Skipf("zookeeperserver: %v", err)
	}
	o.Servers = max(o.Servers, 1)
	if o.Tick <= 0 {
		o.Tick = 200 * time.Millisecond
	}
	if o.Patience <= 0 {
		o.Patience = 60 * time.Second
	}
	e := &Ensemble{t: t, options: o, java: java, jars: jars}
	// A port that is free now may be taken before a server listens on it: then all of it is tried again.
	dir := t.TempDir()
	t.Cleanup(e.stop)
	for try := 1; ; try++ {
		err = e.start(filepath.Join(dir, fmt.Sprintf("try%d", try)))
		if err == nil {
			return e
		}
		e.stop()
		if try == 3 || !strings.Contains(err.Error(), "Address already in use") {
			t.Fatalf("zookeeperserver: %v", err)
		}
	}
}

// start starts all servers in dir and waits for them.
func (e *Ensemble) start(dir string) error {
	ports, err := freePorts(4 * e.options.Servers)
	if err != nil {
		return err
	}
	e.members = nil
	for i := range e.options.Servers {
		e.members = append(e.members, &member{number: i + 1, dir: filepath.Join(dir, fmt.Sprintf("server%d", i+1)),
			client: ports[4*i], secure: ports[4*i+1], peer: ports[4*i+2], election: ports[4*i+3]})
	}
	for _, m := range e.members {
		if err := e.prepare(m); err != nil {
			return err
		}
		if err := e.run(m); err != nil {
			return err
		}
	}
	for i, m := range e.members {
		if err := e.serving(m); err != nil {
			return fmt.Errorf("server %d: %w", i, err)
		}
	}
	return nil
}

// Addrs are the host:port of all servers, also of those that do not run, by their number.
func (e *Ensemble) Addrs() []string { return e.list(func(m *member) string { return m.client }) }

// SecureAddrs are those with TLS.
func (e *Ensemble) SecureAddrs() []string { return e.list(func(m *member) string { return m.secure }) }

func (e *Ensemble) list(what func(*member) string) []string {
	all := make([]string, len(e.members))
	for i, m := range e.members {
		all[i] = what(m)
	}
	return all
}

// Leader is the number of the server that leads, or -1 when none says so within the patience. A single server leads itself.
func (e *Ensemble) Leader() int {
	for end := time.Now().Add(e.options.Patience); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		for i, m := range e.members {
			if mode := m.mode(); mode == "leader" || mode == "standalone" {
				return i
			}
		}
	}
	e.t.Errorf("zookeeperserver: no server leads")
	return -1
}

// Kill ends a server with SIGKILL, and returns when it is gone. Its data stays. One that does not run is left alone.
func (e *Ensemble) Kill(i int) {
	m := e.members[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process.kill()
	m.process = nil
}

// Freeze stops a server with SIGSTOP, and returns when all of its threads have stopped: the kernel goes on accepting
// connections and bytes for it, and nothing is answered.
func (e *Ensemble) Freeze(i int) {
	e.signal(i, stopSignal)
	if err := e.members[i].stopped(5 * time.Second); err != nil {
		e.t.Errorf("zookeeperserver: freeze server %d: %v", i, err)
	}
}

// Thaw lets a frozen server go on.
func (e *Ensemble) Thaw(i int) { e.signal(i, continueSignal) }

func (e *Ensemble) signal(i int, sig os.Signal) {
	m := e.members[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.process.signal(sig); err != nil {
		e.t.Errorf("zookeeperserver: %v to server %d: %v", sig, i, err)
	}
}

// Restart kills a server if it runs, starts it again on its data and ports, and waits until it serves, for which a majority
// must run.
func (e *Ensemble) Restart(i int) {
	if err := e.restart(e.members[i]); err != nil {
		e.t.Errorf("zookeeperserver: restart of server %d: %v", i, err)
	}
}

func (e *Ensemble) restart(m *member) error {
	m.mu.Lock()
	m.process.kill()
	m.process = nil
	m.mu.Unlock()
	if err := e.run(m); err != nil {
		return err
	}
	return e.serving(m)
}

// stop kills every server.
func (e *Ensemble) stop() {
	for i, m := range e.members {
		e.Kill(i)
		if e.t.Failed() {
			e.t.Logf("zookeeperserver: the last lines of server %d:\n%s", i, m.tail(20))
		}
	}
}

// prepare writes a server's configuration.
func (e *Ensemble) prepare(m *member) error {
	if err := os.MkdirAll(filepath.Join(m.dir, "data"), 0o700); err != nil {
		return err
	}
	lines := []string{
		fmt.Sprintf("tickTime=%d", e.options.Tick.Milliseconds()), "initLimit=20", "syncLimit=5",
		"dataDir=" + filepath.Join(m.dir, "data"), "clientPortAddress=127.0.0.1", "clientPort=" + port(m.client),
		"maxClientCnxns=0", "maxSessionTimeout=120000", "admin.enableServer=false", "4lw.commands.whitelist=srvr,stat,mntr,ruok,cons,dump",
	}
	if e.options.TLS {
		lines = append(lines, "secureClientPort="+port(m.secure), "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory")
	}
	if len(e.members) > 1 {
		for _, o := range e.members {
			lines = append(lines, fmt.Sprintf("server.%d=%s:%s", o.number, o.peer, port(o.election)))
		}
	}
	lines = append(lines, e.options.Config...)
	if err := os.WriteFile(filepath.Join(m.dir, "data", "myid"), fmt.Appendln(nil, m.number), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.dir, "zoo.cfg"), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// run starts a server.
func (e *Ensemble) run(m *member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := launch(e.java, []string{
		"-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData", // it starts in a second
		"-Dzookeeper.forceSync=no", "-Dzookeeper.cnxTimeout=1000", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", e.jars, "org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(m.dir, "zoo.cfg"),
	}, m.logFile())
	if err != nil {
		return err
	}
	m.process = p
	return nil
}

func (m *member) logFile() string { return filepath.Join(m.dir, "log") }

// tail is the end of what a server wrote.
func (m *member) tail(lines int) string {
	data, err := os.ReadFile(m.logFile())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Classpath is what java is to be started with: the variable PGREGENT_ZOOKEEPER, else the jars of Debian's packages zookeeper
// and libslf4j-java. zookeeper.jar names what it needs, and forgets some of what it needs for TLS.
func Classpath() (string, error) {
	if named := os.Getenv("PGREGENT_ZOOKEEPER"); named != "" {
		return named, nil
	}
	var jars []string
	for _, name := range []string{"zookeeper", "slf4j-simple", "netty-codec", "netty-resolver", "netty-transport-native-unix-common"} {
		jar := filepath.Join("/usr/share/java", name+".jar")
		if _, err := os.Stat(jar); err != nil {
			return "", errors.New("there is no ZooKeeper: run .ci/deps, or name its jars in PGREGENT_ZOOKEEPER")
		}
		jars = append(jars, jar)
	}
	return strings.Join(jars, ":"), nil
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr) // it came from a listener
	return p
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
