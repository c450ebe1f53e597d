package rest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/pgregent/postgres"
)

// benchNode answers with one report, as a node between two turns of its loop does.
type benchNode struct {
	*fakeNode
	report *Report
}

func (n benchNode) Report() *Report { return n.report }

func newBenchNode() benchNode {
	n := primaryNode()
	n.report.LeaderUntil = time.Now().Add(time.Hour)
	for _, name := range []string{"b", "c"} {
		n.report.Server.Walsenders = append(n.report.Server.Walsenders, postgres.Walsender{User: "replicator", ApplicationName: name, ClientAddr: "10.0.0.1", State: "streaming", SyncState: "async"})
	}
	return benchNode{n, n.fakeReport()}
}

func (n *fakeNode) fakeReport() *Report { r := n.report; return &r }

// nobody throws an answer away.
type nobody struct{ h http.Header }

func (w *nobody) Header() http.Header         { return w.h }
func (w *nobody) Write(b []byte) (int, error) { return len(b), nil }
func (w *nobody) WriteHeader(int)             {}

func BenchmarkHandler(b *testing.B) {
	for _, path := range []string{"/patroni", "/primary", "/replica?lag=10MB&tag_x=y", "/metrics", "/liveness"} {
		b.Run(path[1:], func(b *testing.B) {
			a := NewHandler(newBenchNode(), Options{})
			req := httptest.NewRequest("GET", path, nil)
			w := &nobody{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				a.ServeHTTP(w, req)
			}
		})
	}
}

// BenchmarkServer measures requests over kept connections on the loopback, client included: requests per second and the
// 99th percentile.
func BenchmarkServer(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := NewServer(NewHandler(newBenchNode(), Options{}), nil)
	go func() { _ = s.Serve(l) }()
	defer func() { _ = s.Close() }()
	for _, clients := range []int{1, 16} {
		for _, path := range []string{"/patroni", "/primary"} {
			b.Run(fmt.Sprintf("%s_%d", path[1:], clients), func(b *testing.B) {
				took := load(b, "http://"+l.Addr().String()+path, clients, b.N)
				slices.Sort(took)
				b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "req/s")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			})
		}
	}
}

// load sends n requests from some clients with one connection each, and returns how long each took.
func load(b *testing.B, url string, clients, n int) []time.Duration {
	var all []time.Duration
	var mu sync.Mutex
	var wg sync.WaitGroup
	b.ResetTimer()
	for i := range clients {
		wg.Go(func() {
			client := http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			var took []time.Duration
			for k := i; k < n; k += clients {
				began := time.Now()
				req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
				res, err := client.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				took = append(took, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	wg.Wait()
	return all
}
