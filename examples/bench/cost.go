package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/pgregent/pgregent/examples/internal/lab"
)

// idle watches a cluster that has nothing to do: no writer, no probes.
func idle(ctx context.Context, b *bench, name string, c *cluster) error {
	return b.watch(ctx, name, c, b.idle, true)
}

// soak is as many turns as an hour at loop_wait 10 has: nothing may grow.
func soak(ctx context.Context, b *bench, name string, c *cluster) error {
	return b.watch(ctx, name, c, time.Duration(c.times.loopWait)*time.Hour/10, false)
}

func (b *bench) watch(ctx context.Context, name string, c *cluster, during time.Duration, rates bool) error {
	c.writer.stop()
	for _, n := range c.nodes {
		n.probe.stop()
	}
	pause(ctx, 3*time.Duration(c.times.loopWait)*time.Second/2)
	requests, methods, err := c.etcd.Requests(ctx)
	if err != nil {
		return err
	}
	before, err := c.usage(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	pause(ctx, during)
	took := time.Since(began).Seconds()
	after, err := c.usage(ctx)
	if err != nil {
		return err
	}
	now, methodsNow, err := c.etcd.Requests(ctx)
	if err != nil {
		return err
	}
	if rates {
		b.rec.add(name, "store requests, all nodes", kindResult, "/s", (now-requests)/took).most(0.9)
		for _, method := range slices.Sorted(maps.Keys(methodsNow)) {
			if v := methodsNow[method] - methods[method]; v > 0 {
				b.rec.add(name, method, kindPhase, "/s", v/took)
			}
		}
	}
	for i := range c.nodes {
		b.nodeCost(name, before[i], after[i], took, rates)
	}
	for _, n := range c.nodes {
		n.probe = watchServer(c.dir, n.port)
	}
	return nil
}

// nodeCost adds what one node used.
func (b *bench) nodeCost(name string, x, y used, took float64, rates bool) {
	perMinute := func(d time.Duration) float64 { return d.Seconds() * 60 / took }
	if rates {
		b.rec.add(name, "agent CPU per minute", kindResult, "s", perMinute(y.agent.CPU-x.agent.CPU)).most(0.09)
		b.rec.add(name, "guard CPU per minute", kindPhase, "s", perMinute(y.guard.CPU-x.guard.CPU))
		b.rec.add(name, "turns of the loop per minute", kindPhase, "", (y.turns-x.turns)*60/took)
	}
	b.rec.add(name, "memory per node, PSS", kindResult, "MB", mb(y.agent.PSS+y.guard.PSS)).most(20)
	b.rec.add(name, "agent PSS", kindPhase, "MB", mb(y.agent.PSS))
	b.rec.add(name, "agent RSS", kindPhase, "MB", mb(y.agent.RSS))
	b.rec.add(name, "guard PSS", kindPhase, "MB", mb(y.guard.PSS))
	b.rec.add(name, "guard RSS", kindPhase, "MB", mb(y.guard.RSS))
	b.rec.add(name, "PSS more than before", kindPhase, "MB", mb(y.agent.PSS+y.guard.PSS)-mb(x.agent.PSS+x.guard.PSS))
	b.rec.add(name, "agent descriptors", kindPhase, "", float64(y.agent.FDs))
	b.rec.add(name, "agent descriptors more than before", kindPhase, "", float64(y.agent.FDs-x.agent.FDs))
	b.rec.add(name, "goroutines", kindPhase, "", y.goroutines)
	b.rec.add(name, "goroutines more than before", kindPhase, "", y.goroutines-x.goroutines)
}

func mb(bytes uint64) float64 { return float64(bytes) / 1e6 }

// used is what a node's processes use, and what the daemon says of itself.
type used struct {
	agent, guard      lab.Usage
	goroutines, turns float64 // unknown when it does not say
}

func (c *cluster) usage(ctx context.Context) ([]used, error) {
	out := make([]used, len(c.nodes))
	for i, n := range c.nodes {
		agent, err := together(n.agents())
		if err != nil {
			return nil, err
		}
		guard, err := together(n.guards())
		if err != nil {
			return nil, err
		}
		_, text, err := n.get(ctx, "/metrics")
		if err != nil {
			return nil, err
		}
		out[i] = used{agent, guard, metric(text, "go_goroutines"), metric(text, "pgregent_loop_turns_total")}
	}
	return out, nil
}

// together adds up what processes use.
func together(pids []int) (sum lab.Usage, err error) {
	for _, pid := range pids {
		u, err := lab.Use(pid)
		if err != nil {
			return sum, err
		}
		sum.CPU, sum.RSS, sum.PSS = sum.CPU+u.CPU, sum.RSS+u.RSS, sum.PSS+u.PSS
		sum.FDs, sum.Threads = sum.FDs+u.FDs, sum.Threads+u.Threads
	}
	return sum, nil
}

// restLoad asks the leader for GET /patroni as fast as it answers.
func restLoad(ctx context.Context, b *bench, name string, c *cluster) error {
	c.writer.stop()
	l := c.leader()
	for _, clients := range []int{1, 16} {
		took, err := hammer(ctx, l.api, "/patroni", clients, 2*time.Second)
		if err != nil {
			return err
		}
		who := fmt.Sprintf("%d clients", clients)
		if clients == 1 {
			who = "1 client"
		}
		rate := b.rec.add(name, who+", requests", kindResult, "/s", float64(len(took))/2)
		p99 := b.rec.add(name, who+", p99", kindResult, "ms", percentile(took, 0.99))
		b.rec.add(name, who+", median", kindPhase, "ms", percentile(took, 0.5))
		if b.base == nil {
			continue
		}
		if o := b.base.find(name, rate.Name); o != nil {
			rate.least(10 * o.Median)
		}
		if o := b.base.find(name, p99.Name); o != nil {
			p99.most(o.Median / 10)
		}
	}
	return nil
}

// hammer sends requests from so many clients, each on a connection that it keeps while the server does, and returns how
// many milliseconds each took.
func hammer(ctx context.Context, port int, path string, clients int, during time.Duration) ([]float64, error) {
	until := time.Now().Add(during)
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path)
	all, errs := make([][]float64, clients), make([]error, clients)
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() {
			var conn net.Conn
			var answers *bufio.Reader
			for ctx.Err() == nil && time.Now().Before(until) && errs[i] == nil {
				began := time.Now()
				if conn == nil {
					if conn, errs[i] = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); errs[i] != nil {
						return
					}
					answers = bufio.NewReader(conn)
				}
				var keep bool
				if keep, errs[i] = ask(conn, answers, request); !keep {
					_ = conn.Close()
					conn = nil
				}
				all[i] = append(all[i], float64(time.Since(began).Microseconds())/1e3)
			}
			if conn != nil {
				_ = conn.Close()
			}
		})
	}
	running.Wait()
	var took []float64
	for i := range clients {
		if errs[i] != nil {
			return nil, errs[i]
		}
		took = append(took, all[i]...)
	}
	return took, nil
}

// ask sends one request and reads the answer; keep says that the connection can be used again.
func ask(conn net.Conn, answers *bufio.Reader, request string) (keep bool, err error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return false, err
	}
	res, err := http.ReadResponse(answers, nil)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET: %s", res.Status)
	}
	return !res.Close && err == nil, err
}
