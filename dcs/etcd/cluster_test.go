package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
	"github.com/pgregent/pgregent/dcs/etcd"
)

// limited is the time-out of calls that must succeed although members are missing: Patroni's retry_timeout at ttl 8, and more
// than an election takes.
const limited = 3 * time.Second

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func put(s dcs.Store, key, value string, at dcs.Version) (dcs.Version, error) {
	ctx, cancel := within(limited)
	defer cancel()
	txn := dcs.Txn{Then: []dcs.Op{dcs.Put(key, []byte(value))}}
	if at != dcs.Absent {
		txn.If = []dcs.Cond{{Key: key, Version: at}}
	}
	r, err := s.Commit(ctx, txn)
	return r.Versions[key], err
}

func value(s dcs.Store, key string) (string, error) {
	ctx, cancel := within(limited)
	defer cancel()
	snap, err := s.Read(ctx)
	it, _ := snap.Item(key)
	return string(it.Value), err
}

func session(t *testing.T, s dcs.Store, ttl time.Duration) dcs.Session {
	t.Helper()
	ctx, cancel := within(limited)
	defer cancel()
	ses, err := s.OpenSession(ctx, ttl)
	if err != nil {
		t.Fatalf("OpenSession: %v", err)
	}
	return ses
}

// rotated is the URLs with the i-th first.
func rotated(urls []string, i int) []string {
	return append(append([]string{}, urls[i:]...), urls[:i]...)
}

// awaken waits for a wake-up.
func awaken(t *testing.T, ch <-chan struct{}, limit time.Duration, why string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(limit):
		t.Fatalf("no wake-up within %v: %s", limit, why)
	}
}

// still receives until there was no wake-up for a while.
func still(ch <-chan struct{}) {
	for {
		select {
		case <-ch:
		case <-time.After(300 * time.Millisecond):
			return
		}
	}
}

// Each member in turn, so also the leader, is the preferred one and stops: what may be repeated succeeds within one
// time-out, all else the next time.
func TestMemberLost(t *testing.T) {
	for _, how := range []string{"frozen", "killed"} {
		t.Run(how, func(t *testing.T) {
			c := etcdserver.Start(t, 3)
			for i := range 3 {
				s := open(t, etcd.Config{Endpoints: rotated(c.URLs(), i), Prefix: fmt.Sprintf("/service/%s%d", how, i)})
				ses := session(t, s, 30*time.Second)
				at, err := put(s, "lease", "1", dcs.Absent)
				if err != nil {
					t.Fatal(err)
				}
				if how == "frozen" {
					c.Freeze(i)
				} else {
					c.Kill(i)
				}
				start := time.Now()
				ctx, cancel := within(limited)
				err = ses.Renew(ctx)
				cancel()
				renewed := time.Since(start)
				if err != nil {
					t.Errorf("member %d is %s: Renew: %v", i, how, err)
				}
				if _, err = put(s, "lease", "2", at); err != nil {
					t.Errorf("member %d is %s: Commit at a version: %v", i, how, err)
				}
				if got, err := value(s, "lease"); got != "2" || err != nil {
					t.Errorf("member %d is %s: Read: %q, %v", i, how, got, err)
				}
				if _, err := put(s, "other", "x", dcs.Absent); err != nil {
					t.Errorf("member %d is %s: Commit: %v", i, how, err)
				}
				t.Logf("member %d %s: renewed after %v, all four calls took %v", i, how, renewed, time.Since(start))
				if how == "frozen" {
					c.Thaw(i)
				} else {
					c.Restart(i)
				}
				_ = s.Close()
			}
		})
	}
}

// A Commit that may not be repeated, while the preferred member is frozen: at worst unknown, soon, and then true.
func TestMemberLostDuringCommit(t *testing.T) {
	c := etcdserver.Start(t, 3)
	for i := range 3 {
		s := open(t, etcd.Config{Endpoints: rotated(c.URLs(), i), Prefix: fmt.Sprintf("/service/commit%d", i)})
		c.Freeze(i)
		start := time.Now()
		_, err := put(s, "k", "1", dcs.Absent)
		took := time.Since(start)
		if err != nil && !errors.Is(err, dcs.ErrUnknown) {
			t.Errorf("member %d: %v", i, err)
		}
		if took > 2500*time.Millisecond {
			t.Errorf("member %d: the frozen endpoint was waited for for %v", i, took)
		}
		t.Logf("member %d: %v after %v", i, err, took)
		for end := time.Now().Add(2 * limited); ; { // the first may still meet a follower that trusts in the frozen leader
			_, err = put(s, "k", "2", dcs.Absent)
			if err == nil || !errors.Is(err, dcs.ErrUnknown) || time.Now().After(end) {
				break
			}
		}
		if err != nil {
			t.Errorf("member %d, another Commit: %v", i, err)
		}
		c.Thaw(i)
		// When it thaws, the member may still perform the Commit whose outcome was unknown: that is what unknown means.
		if got, err := value(s, "k"); got != "1" && got != "2" || err != nil {
			t.Errorf("member %d thawed: reads %q, %v", i, got, err)
		}
		_ = s.Close()
	}
}

// The first endpoint takes connections and never answers, or nobody is there at all.
func TestDeadEndpointFirst(t *testing.T) {
	c := etcdserver.Start(t, 1)
	hole := dcstest.NewProxy(t, c.Addr(0))
	hole.SetMode(dcstest.BlackHole)
	none := dcstest.NewProxy(t, c.Addr(0))
	none.SetMode(dcstest.Refuse)
	for _, dead := range []*dcstest.Proxy{hole, none} {
		start := time.Now()
		s := open(t, etcd.Config{Endpoints: []string{dead.Addr(), c.Addr(0)}})
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("Open took %v", took)
		}
		start = time.Now()
		ses := session(t, s, 10*time.Second)
		if _, err := put(s, "k", "v", dcs.Absent); err != nil {
			t.Error(err)
		}
		if _, err := value(s, "k"); err != nil {
			t.Error(err)
		}
		ctx, cancel := within(limited)
		if err := ses.Renew(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		if took := time.Since(start); took > time.Second {
			t.Errorf("four calls after Open took %v; the dead endpoint should be known", took)
		}
	}
}

// Members that were not given are found and used.
func TestDiscovery(t *testing.T) {
	c := etcdserver.Start(t, 3)
	s := open(t, etcd.Config{Endpoints: c.URLs()[:1]})
	only := open(t, etcd.Config{Endpoints: c.URLs()[:1], UseProxies: true})
	deadline := time.Now().Add(5 * time.Second)
	for len(s.Endpoints()) < 3 && time.Now().Before(deadline) {
		<-time.After(10 * time.Millisecond)
	}
	if got := s.Endpoints(); len(got) != 3 {
		t.Fatalf("the endpoints are %q, want three", got)
	}
	c.Kill(0)
	if _, err := value(s, "k"); err != nil {
		t.Errorf("the given member is gone, the others live: Read: %v", err)
	}
	if _, err := put(s, "k", "v", dcs.Absent); err != nil {
		t.Errorf("the given member is gone, the others live: Commit: %v", err)
	}
	ctx, cancel := within(500 * time.Millisecond)
	defer cancel()
	if _, err := only.Read(ctx); err == nil || len(only.Endpoints()) != 1 {
		t.Errorf("use_proxies: endpoints %q, error %v; want the given one only", only.Endpoints(), err)
	}
}

// An endpoint that belongs to another cluster is not used, neither at first nor when it is the only one left.
func TestForeignCluster(t *testing.T) {
	mine, other := etcdserver.Start(t, 1), etcdserver.Start(t, 1)
	s := open(t, etcd.Config{Endpoints: []string{mine.URLs()[0], other.URLs()[0]}, UseProxies: true})
	ses := session(t, s, 30*time.Second)
	mine.Kill(0)
	ctx, cancel := within(time.Second)
	defer cancel()
	_, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("k", nil)}})
	if err == nil || !strings.Contains(err.Error(), "belongs to the etcd cluster") {
		t.Errorf("Commit: %v", err)
	}
	ctx, cancel = within(500 * time.Millisecond)
	defer cancel()
	if err := ses.Renew(ctx); err == nil || errors.Is(err, dcs.ErrSessionLost) {
		t.Errorf("Renew of a session that only the other cluster does not know: %v", err)
	}
	there := open(t, etcd.Config{Endpoints: other.URLs()})
	if got, _ := value(there, "k"); got != "" {
		t.Error("something was written to the other cluster")
	}
	mine.Restart(0)
	if _, err := put(s, "k", "v", dcs.Absent); err != nil {
		t.Errorf("the right cluster is back: %v", err)
	}
}

// A cluster that comes back without its data: that is noticed, and when it insists, accepted.
func TestDataLost(t *testing.T) {
	c := etcdserver.Start(t, 1)
	s := open(t, etcd.Config{Endpoints: c.URLs()})
	ses := session(t, s, 30*time.Second)
	for range 5 {
		if _, err := put(s, "k", "v", dcs.Absent); err != nil {
			t.Fatal(err)
		}
	}
	c.Wipe(0)
	c.Restart(0)
	ctx, cancel := within(limited)
	defer cancel()
	if err := ses.Renew(ctx); !errors.Is(err, dcs.ErrSessionLost) {
		t.Errorf("Renew: %v, want that the session is lost", err)
	}
	_, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("l", nil)}})
	if err == nil || !errors.Is(err, dcs.ErrUnknown) || !strings.Contains(err.Error(), "restored from a backup") {
		t.Errorf("the first Commit: %v, want a word on what happened", err)
	}
	if got, err := value(s, "k"); got != "" || err != nil {
		t.Errorf("Read: %q, %v, want nothing", got, err)
	}
	if _, err := put(s, "k", "w", dcs.Absent); err != nil {
		t.Errorf("another Commit: %v", err)
	}
}

// What is too large is refused, by this side or by the server, and disturbs nothing else.
func TestTooLarge(t *testing.T) {
	s := open(t, etcd.Config{Endpoints: etcdserver.Start(t, 1).URLs()})
	ctx, cancel := within(10 * time.Second)
	defer cancel()
	ch, err := s.Watch(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	awaken(t, ch, limited, "it was set up")
	for _, bytes := range []int{600_000, 800_000, 1_048_576} {
		var txn dcs.Txn
		for i := range 3 {
			txn.Then = append(txn.Then, dcs.Put(fmt.Sprint(i), make([]byte, bytes)))
		}
		if _, err := s.Commit(ctx, txn); !errors.Is(err, dcs.ErrTooLarge) || errors.Is(err, dcs.ErrUnknown) {
			t.Errorf("three values of %d bytes: %v", bytes, err)
		}
	}
	select {
	case <-ch:
		t.Error("the watch was set up again")
	case <-time.After(300 * time.Millisecond):
	}
}

// A wake-up stands for what was missed while the stream was cut, also when the history of that time is gone.
func TestWatchAfterCompaction(t *testing.T) {
	c := etcdserver.Start(t, 1)
	proxy := dcstest.NewProxy(t, c.Addr(0))
	s := open(t, etcd.Config{Endpoints: []string{proxy.Addr()}, UseProxies: true})
	direct := open(t, etcd.Config{Endpoints: c.URLs()})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch, err := s.Watch(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	awaken(t, ch, 5*time.Second, "it was set up")
	still(ch)
	proxy.SetMode(dcstest.Refuse)
	var at dcs.Version
	for i := range 10 {
		if at, err = put(direct, "k", fmt.Sprint(i), dcs.Absent); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := clientv3.New(clientv3.Config{Endpoints: c.URLs()})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	limit, stop := within(limited)
	defer stop()
	if _, err := raw.Compact(limit, int64(at), clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	proxy.SetMode(dcstest.Pass)
	awaken(t, ch, 10*time.Second, "the stream was made again after a compaction")
	still(ch)
	if _, err := put(direct, "k", "after", dcs.Absent); err != nil {
		t.Fatal(err)
	}
	awaken(t, ch, 5*time.Second, "a put after the compaction")
}

// A watch leaves a member that is frozen, or that has lost the leader.
func TestWatchLeavesMember(t *testing.T) {
	c := etcdserver.Start(t, 3)
	s := open(t, etcd.Config{Endpoints: c.URLs()})
	other := open(t, etcd.Config{Endpoints: rotated(c.URLs(), 1)})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch, err := s.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	awaken(t, ch, 5*time.Second, "it was set up")
	still(ch)
	c.Freeze(0)
	start := time.Now()
	// The loop reads; that is how it learns that the member is gone, and the watch with it.
	if _, err := value(s, "k"); err != nil {
		t.Errorf("Read: %v", err)
	}
	awaken(t, ch, 5*time.Second, "the watch moved to another member")
	t.Logf("moved after %v", time.Since(start))
	still(ch)
	if _, err := put(other, "k", "v", dcs.Absent); err != nil {
		t.Errorf("Commit: %v", err)
	}
	awaken(t, ch, 5*time.Second, "a put, while a member is frozen")
	c.Thaw(0)

	c.Kill(1)
	c.Kill(2) // the last one has no majority and no leader
	still(ch)
	c.Restart(1)
	if _, err := put(other, "k", "w", dcs.Absent); err != nil {
		t.Errorf("Commit after the majority is back: %v", err)
	}
	awaken(t, ch, 10*time.Second, "a put after the majority is back")
}

// No member answers.
func TestOpenUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := l.Addr().String() // accepts, by the kernel, and never answers
	defer l.Close()
	closed := dcstest.NewProxy(t, silent)
	closed.SetMode(dcstest.Refuse)
	ctx, cancel := within(500 * time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = etcd.Open(ctx, etcd.Config{Endpoints: []string{silent, closed.Addr()}, Prefix: "/service/x"})
	if took := time.Since(start); err == nil || took > 600*time.Millisecond {
		t.Fatalf("%v after %v", err, took)
	}
	for _, want := range []string{silent, closed.Addr(), "connection refused"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %q, want %q in it", err, want)
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %q, want it to be of the kind of its context", err)
	}
}

// Something answers that is not etcd: that is an answer, and Open does not try on.
func TestOpenNotEtcd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	ctx, cancel := within(5 * time.Second)
	defer cancel()
	start := time.Now()
	_, err = etcd.Open(ctx, etcd.Config{Proxy: "http://" + l.Addr().String(), Prefix: "/service/x"})
	if took := time.Since(start); err == nil || took > 4*time.Second || !strings.Contains(err.Error(), "HTTP/1") {
		t.Errorf("%v after %v, want a sentence on HTTP/1 at once", err, took)
	}
}
