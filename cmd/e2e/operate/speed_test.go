package operate

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
)

// load is what some clients measured.
type load struct {
	requests, failed int
	rate             float64 // per second
	p50, p99         time.Duration
}

func (l load) String() string {
	return fmt.Sprintf("%7.0f/s, p50 %8v, p99 %8v", l.rate, l.p50.Round(time.Microsecond), l.p99.Round(time.Microsecond))
}

// TestSpeed measures both programs in one run, and pgregent beside a server that is stuck.
func TestSpeed(t *testing.T) {
	rig.Patroni(t, "patroni")
	store := etcdserver.StartWith(t, etcdserver.Options{Members: 1})
	theirs := rig.New(t, rig.Options{PG: "15", Nodes: 1, DCS: patroniTimes, Scope: "theirs", EtcdServers: store})
	ours := rig.New(t, rig.Options{PG: "15", Nodes: 1, DCS: patroniTimes, Scope: "ours", EtcdServers: store})
	theirs.Nodes[0].RunPatroni()
	theirs.Nodes[0].Start()
	ours.Nodes[0].Start()
	theirs.AwaitHealthy(steady)
	ours.AwaitHealthy(steady)
	ratio, duration := 4.0, time.Second // the short form runs on machines that do other things, too
	if full() {
		ratio, duration = 10, 5*time.Second
	}
	for _, path := range []string{"/patroni", "/primary"} {
		for _, clients := range []int{1, 16} {
			a := measure(theirs.Nodes[0], path, clients, duration)
			b := measure(ours.Nodes[0], path, clients, duration)
			t.Logf("GET %-8s %2d clients: Patroni %v; pgregent %v: %.1f times the requests, p99 1/%.1f",
				path, clients, a, b, b.rate/a.rate, float64(a.p99)/float64(b.p99))
			require.Zero(t, b.failed)
			if b.rate < ratio*a.rate || float64(b.p99)*ratio > float64(a.p99) {
				t.Errorf("GET %s with %d clients: less than %v times Patroni's", path, clients, ratio)
			}
		}
	}
	t.Run("stuck", func(t *testing.T) { stuck(t, ours.Nodes[0], duration) })
}

// stuck freezes PostgreSQL, all of it, and asks again.
func stuck(t *testing.T, d *rig.Node, duration time.Duration) {
	before := measure(d, "/patroni", 4, duration)
	frozen := d.Servers()
	thaw := func() {
		for _, pid := range frozen {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	t.Cleanup(thaw)
	for _, pid := range frozen {
		require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	}
	during := measure(d, "/patroni", 4, max(duration, 3*time.Second)) // longer than a loop
	thaw()
	t.Logf("PostgreSQL answers: %v; it is stuck: %v", before, during)
	require.Zero(t, during.failed)
	require.Less(t, during.p99, 2*before.p99+5*time.Millisecond)
	require.Greater(t, during.rate, before.rate/2)
	rig.Eventually(t, steady, "it leads on", d.Primary)
}

// measure sends the same request from some clients, one after the other each, on a connection that is kept when the
// server lets it.
func measure(d *rig.Node, path string, clients int, duration time.Duration) load {
	ends := time.Now().Add(duration)
	all := make([][]time.Duration, clients)
	failed := make([]int, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c := client{addr: fmt.Sprintf("127.0.0.1:%d", d.APIPort), path: path}
			defer c.hangUp()
			for began := time.Now(); began.Before(ends); began = time.Now() {
				if err := c.get(); err != nil {
					failed[i]++
					continue
				}
				all[i] = append(all[i], time.Since(began))
			}
		})
	}
	wg.Wait()
	times := slices.Concat(all...)
	l := load{requests: len(times), rate: float64(len(times)) / duration.Seconds()}
	for _, n := range failed {
		l.failed += n
	}
	if slices.Sort(times); len(times) > 0 {
		l.p50, l.p99 = times[len(times)/2], times[len(times)*99/100]
	}
	return l
}

// client does little itself, so that it is the server that is measured.
type client struct {
	addr, path string
	conn       net.Conn
	in         *bufio.Reader
}

func (c *client) get() error {
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.addr, 5*time.Second)
		if err != nil {
			return err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	_ = c.conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c.conn, "GET "+c.path+" HTTP/1.1\r\nHost: "+c.addr+"\r\n\r\n"); err != nil {
		c.hangUp()
		return err
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.hangUp()
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if res.Close || err != nil {
		c.hangUp()
	}
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", c.path, res.Status)
	}
	return err
}

func (c *client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn = nil
}
