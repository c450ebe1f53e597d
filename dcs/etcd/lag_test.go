package etcd

import (
	"bufio"
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
)

func openFor(t *testing.T, c *etcdserver.Cluster) *Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := Open(ctx, Config{Endpoints: c.URLs(), Prefix: "/service/x"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func mustPut(t *testing.T, s *Store, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put(key, nil)}}); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := s.Read(ctx); err != nil {
		t.Fatal(err)
	}
}

// wakes waits for a wake-up, or for the time in which there should be none.
func wakes(ch <-chan struct{}, d time.Duration) bool {
	select {
	case <-ch:
		return true
	case <-time.After(d):
		return false
	}
}

// A watch that has not shown what reads show is set up again; one that is only a little late, or does not watch the key,
// is left alone (hazard C4).
func TestLaggingWatch(t *testing.T) {
	s := openFor(t, etcdserver.Start(t, 1))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch, err := s.Watch(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Watch(ctx, "other")
	if err != nil {
		t.Fatal(err)
	}
	if !wakes(ch, 5*time.Second) || !wakes(other, 5*time.Second) {
		t.Fatal("the watches are not set up")
	}
	mustPut(t, s, "k")
	if !wakes(ch, 5*time.Second) {
		t.Fatal("no wake-up for the put")
	}
	// As if the stream had lost the event.
	s.mu.Lock()
	for w := range s.watches {
		w.seen.Store(1)
	}
	s.mu.Unlock()
	mustRead(t, s)
	mustRead(t, s)
	if wakes(ch, watchLag/2) {
		t.Error("the watch was set up again although it may just be late")
	}
	if wakes(ch, watchLag) {
		t.Error("the watch was set up again, and nobody has read")
	}
	mustRead(t, s)
	if !wakes(ch, 5*time.Second) {
		t.Error("the watch that lost an event was not set up again")
	}
	if wakes(other, 300*time.Millisecond) {
		t.Error("the watch of another key was set up again")
	}
	mustPut(t, s, "k")
	if !wakes(ch, 5*time.Second) {
		t.Error("no wake-up for a put after it was set up again")
	}
}

// started is how many requests and streams of clients a member has begun to serve, by method.
func started(t *testing.T, c *etcdserver.Cluster) map[string]int {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, c.MetricsURL(0)+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all := make(map[string]int)
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line, ok := strings.CutPrefix(lines.Text(), "grpc_server_started_total{grpc_method=\"")
		if !ok {
			continue
		}
		method, rest, _ := strings.Cut(line, `"`)
		if n, err := strconv.Atoi(rest[strings.LastIndex(rest, " ")+1:]); err == nil && n > 0 && method != "Check" {
			all[method] += n
		}
	}
	return all
}

// What each call costs the server, and that an idle Store costs nothing.
func TestRequests(t *testing.T) {
	c := etcdserver.Start(t, 1)
	s := openFor(t, c)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch, err := s.Watch(ctx, "a", "b", "c")
	if err != nil {
		t.Fatal(err)
	}
	wakes(ch, 5*time.Second)
	ses, err := s.OpenSession(ctx, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); started(t, c)["MemberList"] == 0 && time.Now().Before(end); {
		<-time.After(10 * time.Millisecond)
	}
	want := map[string]int{"Range": 1, "Status": 1, "MemberList": 1, "Watch": 1, "LeaseGrant": 1}
	same := func(when string) {
		t.Helper()
		got := started(t, c)
		for _, method := range []string{"Range", "Txn", "Put", "Status", "MemberList", "Watch", "LeaseGrant", "LeaseKeepAlive", "LeaseRevoke", "Authenticate"} {
			if got[method] != want[method] {
				t.Errorf("%s: %d of %s, want %d", when, got[method], method, want[method])
			}
		}
	}
	same("after Open, Watch and OpenSession")
	mustPut(t, s, "a")
	mustRead(t, s)
	if err := ses.Renew(ctx); err != nil {
		t.Error(err)
	}
	want["Txn"]++
	want["Range"]++
	want["LeaseKeepAlive"]++
	same("after one call of each kind")
	<-time.After(3 * time.Second)
	same("after a pause")
	if err := ses.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := ses.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := ses.Renew(ctx); err == nil {
		t.Error("a session that was closed is renewed")
	}
	want["LeaseRevoke"]++
	same("after the session was closed twice")
}

// The current version has none of the bugs.
func TestWarnings(t *testing.T) {
	s := openFor(t, etcdserver.Start(t, 1))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if got := s.Warnings(ctx); len(got) != 0 {
		t.Errorf("warnings: %q", got)
	}
}
