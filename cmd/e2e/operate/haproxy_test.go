package operate

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// proxyConfig is the one of Patroni's documentation, with more frequent checks and a second service for replicas.
const proxyConfig = `global
    maxconn 200
defaults
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s
%s`

// proxyInterval is the time between two checks of HAProxy; it believes the second success and the third failure.
const proxyInterval = 500 * time.Millisecond

// balancer is HAProxy in front of a cluster.
type balancer struct {
	t                 *testing.T
	primary, replicas int // ports
	log               string
}

func startBalancer(t *testing.T, c *rig.Cluster) *balancer {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		if program = "/usr/sbin/haproxy"; !exists(program) {
			postgrestest.Require(t, "HAProxy (.ci/deps installs it)")
		}
	}
	b := &balancer{t: t, primary: postgrestest.FreePort(t), replicas: postgrestest.FreePort(t)}
	file := filepath.Join(c.Root, "haproxy.cfg")
	text := fmt.Sprintf(proxyConfig, service("primary", b.primary, c)+service("replica", b.replicas, c))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	cmd := exec.Command(program, "-db", "-f", file)
	log, err := os.Create(filepath.Join(c.Root, "haproxy.log"))
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = log, log
	b.log = log.Name()
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	return b
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func service(role string, port int, c *rig.Cluster) string {
	text := fmt.Sprintf(`listen %s
    bind 127.0.0.1:%d
    option httpchk OPTIONS /%s
    http-check expect status 200
    default-server inter %dms fall 3 rise 2 on-marked-down shutdown-sessions
`, role, port, role, proxyInterval.Milliseconds())
	for _, d := range c.Nodes {
		text += fmt.Sprintf("    server %s 127.0.0.1:%d maxconn 100 check port %d\n", d.Name, d.PGPort, d.APIPort)
	}
	return text
}

// land connects through a service and says on which port the server listens, and whether it takes writes.
func land(port int) (server int, writable bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := connect(ctx, port)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = conn.Close(ctx) }()
	err = conn.QueryRow(ctx, "select inet_server_port(), not pg_is_in_recovery()").Scan(&server, &writable)
	return server, writable, err
}

// awaitLanding waits until connections land on a node, ten in a row, and returns when the first of these was made.
func (b *balancer) awaitLanding(d *rig.Node, since time.Time, within time.Duration) time.Duration {
	b.t.Helper()
	var first time.Time
	row := 0
	rig.Eventually(b.t, within, "connections land on "+d.Name, func() bool {
		at := time.Now()
		server, writable, err := land(b.primary)
		if err != nil || server != d.PGPort || !writable {
			row = 0
			return false
		}
		if row++; row == 1 {
			first = at
		}
		return row == 10
	})
	return first.Sub(since)
}

// awaitReplicas waits until the other service lands on these nodes, in turn, and on no other one.
func (b *balancer) awaitReplicas(within time.Duration, nodes ...*rig.Node) {
	b.t.Helper()
	var seen map[int]bool
	var last error
	defer func() {
		if b.t.Failed() {
			for _, d := range nodes {
				code, body := d.Get("/replica")
				b.t.Logf("%s, port %d: /replica answers %d, %v", d.Name, d.PGPort, code, body)
			}
			log, _ := os.ReadFile(b.log)
			b.t.Logf("connections landed on %v; the last error is %v; HAProxy says\n%s", seen, last, log)
		}
	}()
	rig.Eventually(b.t, within, "the service for replicas has all of them and no other", func() bool {
		seen = map[int]bool{}
		for range 3 * len(nodes) {
			server, writable, err := land(b.replicas)
			if last = err; err != nil || writable {
				return false
			}
			seen[server] = true
		}
		for _, d := range nodes {
			if !seen[d.PGPort] {
				return false
			}
		}
		return len(seen) == len(nodes)
	})
}

// TestHAProxy lets HAProxy follow a switchover and a failover.
func TestHAProxy(t *testing.T) {
	c := rig.New(t, rig.Options{PG: "15", Nodes: 3, DCS: fastTimes})
	c.StartAll()
	b := startBalancer(t, c)
	old := c.Leader()
	t.Logf("after the start: connections land after %v", b.awaitLanding(old, time.Now(), 20*time.Second))
	b.awaitReplicas(20*time.Second, c.Others(old)...)

	t.Run("switchover", func(t *testing.T) {
		ended := session(t, b.primary)
		target := c.Others(old)[0]
		began := time.Now()
		go func() {
			_, _ = old.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, old.Name, target.Name))
		}()
		took := b.awaitLanding(target, began, 20*time.Second)
		t.Logf("switchover: connections land on the new primary after %v (checks each %v)", took, proxyInterval)
		require.Less(t, took, 5*time.Second)
		await(t, ended, 5*time.Second, "the session with the old primary ends")
		c.AwaitHealthy(steady)
		b.awaitReplicas(20*time.Second, c.Others(target)...)
	})

	t.Run("failover", func(t *testing.T) {
		old := c.Leader()
		ended := session(t, b.primary)
		began := time.Now()
		old.Lose()
		await(t, ended, 5*time.Second, "the session with the lost primary ends")
		var next *rig.Node
		rig.Eventually(t, 20*time.Second, "another one leads", func() bool {
			next = c.Leader()
			return next != nil && next != old
		})
		took := b.awaitLanding(next, began, 30*time.Second)
		t.Logf("failover: connections land on the new primary after %v (ttl 8 s, checks each %v)", took, proxyInterval)
		require.Less(t, took, 13*time.Second)
		old.Start()
		c.AwaitHealthy(steady)
		b.awaitReplicas(20*time.Second, c.Others(next)...)
	})
}

// session opens a session that asks all the time; the channel is closed when it has ended.
func session(t *testing.T, port int) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var conn *pgx.Conn
	rig.Eventually(t, 10*time.Second, "a session is open", func() bool {
		var err error
		conn, err = connect(ctx, port)
		return err == nil
	})
	ended := make(chan struct{})
	tick := time.NewTicker(50 * time.Millisecond)
	go func() {
		defer close(ended)
		defer tick.Stop()
		for range tick.C {
			if _, err := conn.Exec(ctx, "select 1"); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return ended
}

func await(t *testing.T, done <-chan struct{}, within time.Duration, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(within):
		t.Fatalf("%s: not within %v", what, within)
	}
}
