// Command pgregent-scale finds out how many clusters one etcd carries: it runs clusters of three members in one process,
// with the real loop and the real store client but simulated PostgreSQL, against a real etcd server, and reports what a
// cluster costs the store and this process, and how late the loops are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/etcd"
	"github.com/pgregent/pgregent/examples/internal/lab"
)

func main() {
	sizes := flag.String("clusters", "10,50,200", "numbers of clusters, one run each")
	during := flag.Duration("for", time.Minute, "how long each is watched")
	ttl := flag.Int("ttl", 30, "ttl in seconds")
	loopWait := flag.Int("loop-wait", 10, "loop_wait in seconds")
	retry := flag.Int("retry-timeout", 10, "retry_timeout in seconds")
	dir := flag.String("dir", os.TempDir(), "`folder` for the data; what disk it is on matters to etcd")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	times := map[string]any{"ttl": *ttl, "loop_wait": *loopWait, "retry_timeout": *retry}
	if err := run(ctx, *sizes, *dir, *during, times); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

func run(ctx context.Context, sizes, dir string, during time.Duration, times map[string]any) error {
	fmt.Printf("%s, %s; load average before: %.2f; ttl %v, loop_wait %v, retry_timeout %v\n",
		lab.Machine(runtime.NumCPU()), time.Now().Format("2006-01-02"), lab.Load(), times["ttl"], times["loop_wait"], times["retry_timeout"])
	var last *result
	for word := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 1 {
			return fmt.Errorf("-clusters: %q is no number of clusters", word)
		}
		if last, err = one(ctx, dir, n, during, times); err != nil {
			return err
		}
		last.print()
	}
	last.predict()
	return nil
}

// result is what a run with so many clusters measured.
type result struct {
	clusters                          int
	healthyAfter, during              time.Duration
	requests, commits, received, sent float64 // per second, all clusters
	storeCPU, ownCPU                  float64 // cores
	storeRSS, ownRSS                  uint64
	goroutines                        int
	turns, turnMean                   float64 // per second; ms
	late, calls                       []float64
	failovers                         uint64
	unhealthy                         int
	capacity, commitCPU               float64 // commits per second that the store can do alone, and the cores it took
}

// one runs n clusters on a store of their own.
func one(ctx context.Context, parent string, n int, during time.Duration, times map[string]any) (*result, error) {
	dir, err := os.MkdirTemp(parent, "pgregent-scale")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	store, err := lab.StartEtcd(dir)
	if err != nil {
		return nil, err
	}
	defer store.Stop()
	w, err := newWorld(ctx, store.Addr, filepath.Join(dir, "state"), n, times)
	if err != nil {
		return nil, err
	}
	r := &result{clusters: n, during: during}
	began := time.Now()
	if !w.await(ctx, 2*time.Minute, func() bool { return w.healthy() == n }) {
		return nil, errors.Join(fmt.Errorf("%d of %d clusters are healthy after 2 min", w.healthy(), n), w.stop())
	}
	r.healthyAfter = time.Since(began)
	w.await(ctx, 2*w.loopWait, func() bool { return false }) // what follows a start is not measured
	if err := r.watch(ctx, w, store); err != nil {
		return nil, errors.Join(err, w.stop())
	}
	if err := w.stop(); err != nil {
		return nil, err
	}
	runtime.GC()
	return r, r.hammer(ctx, store)
}

// await lets the leaders write until ok, or for so long.
func (w *world) await(ctx context.Context, within time.Duration, ok func() bool) bool {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !ok(); <-tick.C {
		if time.Since(began) > within || ctx.Err() != nil {
			return false
		}
		w.write()
	}
	return true
}

// watch measures for a while.
func (r *result) watch(ctx context.Context, w *world, store *lab.Etcd) error {
	before, err := store.Metrics(ctx)
	if err != nil {
		return err
	}
	etcdBefore, err := lab.Use(store.PID())
	if err != nil {
		return err
	}
	ownBefore, err := lab.Use(os.Getpid())
	if err != nil {
		return err
	}
	epochs, turns, seconds := w.epochs(), w.counter("loop_turns_total"), w.counter("loop_seconds_total")
	w.watched.begin()
	began := time.Now()
	w.await(ctx, r.during, func() bool { return false })
	took := time.Since(began).Seconds()
	w.watched.note(func() {
		r.late, r.calls, r.commits, w.watched.on = w.watched.late, w.watched.calls, float64(w.watched.commits)/took, false
	})
	after, err := store.Metrics(ctx)
	if err != nil {
		return err
	}
	etcdAfter, err := lab.Use(store.PID())
	if err != nil {
		return err
	}
	ownAfter, err := lab.Use(os.Getpid())
	if err != nil {
		return err
	}
	rate := func(name string) float64 { return (after[name] - before[name]) / took }
	r.requests = rate(lab.Messages)
	r.received, r.sent = rate("etcd_network_client_grpc_received_bytes_total"), rate("etcd_network_client_grpc_sent_bytes_total")
	r.storeCPU, r.ownCPU = (etcdAfter.CPU-etcdBefore.CPU).Seconds()/took, (ownAfter.CPU-ownBefore.CPU).Seconds()/took
	r.storeRSS, r.ownRSS, r.goroutines = etcdAfter.RSS, ownAfter.RSS, runtime.NumGoroutine()
	did := w.counter("loop_turns_total") - turns
	r.turns, r.turnMean = did/took, (w.counter("loop_seconds_total")-seconds)/max(did, 1)*1e3
	r.failovers, r.unhealthy = w.epochs()-epochs, r.clusters-w.healthy()
	return ctx.Err()
}

// hammer measures how many commits the store can do, from many clients at once, with nothing else to do.
func (r *result) hammer(ctx context.Context, store *lab.Etcd) error {
	const clients, during = 64, 5 * time.Second
	call, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	var done sync.WaitGroup
	counts, errs := make([]int, clients), make([]error, clients)
	before, err := lab.Use(store.PID())
	if err != nil {
		return err
	}
	for i := range clients {
		s, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{store.Addr}, Prefix: fmt.Sprintf("/hammer/%d", i)})
		if err != nil {
			return err
		}
		done.Go(func() {
			defer s.Close()
			for call.Err() == nil {
				_, err := s.Commit(call, dcs.Txn{Then: []dcs.Op{dcs.Put("status", make([]byte, 256)), dcs.Put("lease", make([]byte, 512))}})
				if err != nil && call.Err() == nil {
					errs[i] = err
					return
				}
				counts[i]++
			}
		})
	}
	done.Wait()
	after, err := lab.Use(store.PID())
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	for _, c := range counts {
		r.capacity += float64(c) / during.Seconds()
	}
	r.commitCPU = (after.CPU - before.CPU).Seconds() / during.Seconds()
	return nil
}

func (r *result) print() {
	n := float64(r.clusters)
	fmt.Printf("\n%d clusters, %d members; all healthy after %v\n", r.clusters, 3*r.clusters, r.healthyAfter.Round(100*time.Millisecond))
	row := func(what, format string, all, each float64) {
		fmt.Printf("  %-34s "+format+"   each cluster "+format+"\n", what, all, each)
	}
	row("store requests per second", "%10.2f", r.requests, r.requests/n)
	row("  of them commits", "%10.2f", r.commits, r.commits/n)
	row("bytes to the store per second", "%10.0f", r.received, r.received/n)
	row("bytes from the store per second", "%10.0f", r.sent, r.sent/n)
	row("CPU of the store, milli-cores", "%10.2f", r.storeCPU*1e3, r.storeCPU*1e3/n)
	row("CPU of the members, milli-cores", "%10.2f", r.ownCPU*1e3, r.ownCPU*1e3/n)
	row("RSS of the store, MB", "%10.2f", float64(r.storeRSS)/1e6, float64(r.storeRSS)/1e6/n)
	row("RSS of the members, MB", "%10.2f", float64(r.ownRSS)/1e6, float64(r.ownRSS)/1e6/n)
	row("goroutines", "%10.0f", float64(r.goroutines), float64(r.goroutines)/n)
	row("turns per second", "%10.2f", r.turns, r.turns/n)
	fmt.Printf("  a turn takes %.2f ms on average; store call, ms: %s\n", r.turnMean, spread(r.calls))
	fmt.Printf("  loop later than loop_wait, ms: %s\n", spread(r.late))
	fmt.Printf("  changes of a leader: %d; clusters not healthy at the end: %d\n", r.failovers, r.unhealthy)
	fmt.Printf("  this store alone does %.0f commits per second with %.2f cores\n", r.capacity, r.commitCPU)
}

// predict says how many clusters of this cost one store carries.
func (r *result) predict() {
	n := float64(r.clusters)
	byCPU, byCommits := n/max(r.storeCPU, 1e-9), r.capacity*n/max(r.commits, 1e-9)
	fmt.Printf("\nlimit of one such store, from %d clusters: %.0f clusters when one core is its own, %.0f when only its commits count\n",
		r.clusters, byCPU, byCommits)
}

// spread is the distribution of values in one line.
func spread(values []float64) string {
	if len(values) == 0 {
		return "none"
	}
	s := slices.Sorted(slices.Values(values))
	at := func(p float64) float64 { return s[min(int(p*float64(len(s))), len(s)-1)] }
	return fmt.Sprintf("median %.1f, p90 %.1f, p99 %.1f, p99.9 %.1f, max %.1f (%d)", at(0.5), at(0.9), at(0.99), at(0.999), s[len(s)-1], len(s))
}
