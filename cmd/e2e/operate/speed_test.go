package operate

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
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
//
// Sixteen clients that ask again as soon as they have the answer keep every processor of the machine busy, with their own
// work, too, and a percentile then says how the kernel shares them out. So the rate is measured that way, and the time of
// an answer at the ten times of Patroni's rate that is to be reached.
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
	ratio, duration := 3.0, time.Second // the short form runs on machines that do other things, too
	if full() {
		ratio, duration = 10, 5*time.Second
	}
	for _, path := range []string{"/patroni", "/primary"} {
		for _, clients := range []int{1, 16} {
			why := ""
			for range 3 { // what another program disturbed is measured again
				if why = faster(t, theirs.Nodes[0], ours.Nodes[0], path, clients, duration, ratio); why == "" {
					break
				}
			}
			if why != "" {
				t.Errorf("GET %s with %d clients: %s, %v are wanted", path, clients, why, ratio)
			}
		}
	}
	t.Run("stuck", func(t *testing.T) { stuck(t, ours.Nodes[0], duration) })
}

// faster compares the programs once, and says what is not good enough.
func faster(t *testing.T, theirs, ours *rig.Node, path string, clients int, duration time.Duration, ratio float64) string {
	a := measure(theirs, path, clients, duration, 0)
	b := measure(ours, path, clients, duration, 0)
	t.Logf("GET %-8s %2d clients: Patroni %v", path, clients, a)
	t.Logf("    pgregent, as fast as it can: %v: %.1f times the requests, p99 1/%.1f", b, b.rate/a.rate, float64(a.p99)/float64(b.p99))
	require.Zero(t, b.failed)
	p99 := b.p99
	if clients > 1 {
		paced := measure(ours, path, clients, duration, min(ratio*a.rate, b.rate))
		t.Logf("    pgregent, at a given rate:   %v: %.1f times the requests, p99 1/%.1f", paced, paced.rate/a.rate, float64(a.p99)/float64(paced.p99))
		require.Zero(t, paced.failed)
		p99 = min(p99, paced.p99) // both are at no less than the rate that is wanted
	}
	switch {
	case b.rate < ratio*a.rate:
		return fmt.Sprintf("%.1f times the requests of Patroni", b.rate/a.rate)
	case float64(p99)*ratio > float64(a.p99):
		return fmt.Sprintf("p99 is 1/%.1f of Patroni's", float64(a.p99)/float64(p99))
	}
	return ""
}

// stuckRate is how many requests a second are asked of a node whose server is stuck.
const stuckRate = 2000

// stuck freezes PostgreSQL, all of it, and asks again.
func stuck(t *testing.T, d *rig.Node, duration time.Duration) {
	before := measure(d, "/patroni", 4, duration, stuckRate)
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
	during := measure(d, "/patroni", 4, max(duration, 3*time.Second), stuckRate) // longer than a loop
	thaw()
	t.Logf("PostgreSQL answers: %v; it is stuck: %v", before, during)
	require.Zero(t, during.failed)
	require.Less(t, during.p99, 2*before.p99+5*time.Millisecond)
	require.Greater(t, during.rate, before.rate*0.9)
	rig.Eventually(t, steady, "it leads on", d.Primary)
}

// measure sends the same request from some clients, one after the other each, on a connection that is kept when the
// server lets it. rate is how many a second they send together, 0: as many as they can.
func measure(d *rig.Node, path string, clients int, duration time.Duration, rate float64) load {
	began := time.Now()
	ends := began.Add(duration)
	all := make([][]time.Duration, clients)
	failed := make([]int, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c := newClient(fmt.Sprintf("127.0.0.1:%d", d.APIPort), path)
			defer c.hangUp()
			for n := 0; ; n++ {
				if rate > 0 {
					waitUntil(began.Add(time.Duration(float64(n*clients+i) / rate * float64(time.Second))))
				}
				sent := time.Now()
				if !sent.Before(ends) {
					return
				}
				if err := c.get(); err != nil {
					failed[i]++
					continue
				}
				all[i] = append(all[i], time.Since(sent))
			}
		})
	}
	wg.Wait()
	times := slices.Concat(all...)
	l := load{requests: len(times), rate: float64(len(times)) / time.Since(began).Seconds()}
	for _, n := range failed {
		l.failed += n
	}
	if slices.Sort(times); len(times) > 0 {
		l.p50, l.p99 = times[len(times)/2], times[len(times)*99/100]
	}
	return l
}

// waitUntil is more exact than a timer of the runtime, which may be a millisecond late.
func waitUntil(due time.Time) {
	if left := time.Until(due); left > 0 {
		ts := syscall.NsecToTimespec(int64(left))
		_ = syscall.Nanosleep(&ts, nil)
	}
}

// client does little itself, so that it is the server that is measured.
type client struct {
	addr, path string
	request    []byte
	conn       net.Conn
	in         *bufio.Reader
}

func newClient(addr, path string) *client {
	return &client{addr: addr, path: path, request: []byte("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\n\r\n")}
}

func (c *client) get() error {
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.addr, 5*time.Second)
		if err != nil {
			return err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
	}
	err := c.exchange()
	if err != nil {
		c.hangUp()
	}
	return err
}

// exchange sends the request and reads the answer. One without a length ends with the connection.
func (c *client) exchange() error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.Contains(line, []byte(" 200 ")) {
		return fmt.Errorf("%s: %s", c.path, line)
	}
	length := -1
	for len(line) > 2 {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return err
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
	}
	if length < 0 {
		_, err = io.Copy(io.Discard, c.in)
		c.hangUp()
		return err
	}
	_, err = c.in.Discard(length)
	return err
}

func (c *client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn = nil
}
