package zookeeper_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/dcs/dcstest/zookeeperserver"
	"github.com/pgregent/pgregent/dcs/zookeeper"
)

// limited is the time-out of one call: Patroni's retry_timeout at ttl 8.
const limited = 3 * time.Second

// outage is how long calls may fail in a row while the ensemble elects a leader: less than the lease lasts at ttl 8.
const outage = 5 * time.Second

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

func item(s dcs.Store, key string) (dcs.Item, error) {
	ctx, cancel := within(limited)
	defer cancel()
	snap, err := s.Read(ctx)
	it, _ := snap.Item(key)
	return it, err
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

// recovers calls until it works, and returns how long that took.
func recovers(t *testing.T, what string, f func() error) time.Duration {
	t.Helper()
	for start := time.Now(); ; <-time.After(10 * time.Millisecond) {
		err := f()
		took := time.Since(start)
		if err == nil {
			return took
		}
		if errors.Is(err, dcs.ErrSessionLost) || took > outage {
			t.Fatalf("%s: after %v: %v", what, took, err)
		}
	}
}

// The leader, and then a follower that the store is connected to, is killed or frozen. Within the time that a lease lasts, a
// renewal, a write at a version, a read, and a plain write succeed, and the session lives.
func TestServerLost(t *testing.T) {
	for _, how := range []string{"frozen", "killed"} {
		for _, who := range []string{"leader", "follower"} {
			t.Run(who+" "+how, func(t *testing.T) {
				e := zookeeperserver.Start(t, 3)
				i := e.Leader()
				if who == "follower" {
					i = (i + 1) % 3
				}
				addrs := append(append([]string{}, e.Addrs()[i:]...), e.Addrs()[:i]...)
				s := open(t, zookeeper.Config{Hosts: addrs})
				ses := session(t, s, 8*time.Second)
				ctx, cancel := within(limited)
				defer cancel()
				r, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("lease", []byte("1")), dcs.PutSession("leader", []byte("pg1"), ses.ID())}})
				if err != nil {
					t.Fatal(err)
				}
				if how == "frozen" {
					e.Freeze(i)
				} else {
					e.Kill(i)
				}
				start := time.Now()
				renewed := recovers(t, "Renew", func() error {
					ctx, cancel := within(limited)
					defer cancel()
					return ses.Renew(ctx)
				})
				at := r.Versions["lease"]
				recovers(t, "Commit at a version", func() error {
					version, err := put(s, "lease", "2", at)
					if errors.Is(err, dcs.ErrConflict) {
						t.Fatalf("nobody else writes, and a Commit is refused: %v", err)
					}
					if errors.Is(err, dcs.ErrUnknown) { // it may have happened: read before acting
						it, readErr := item(s, "lease")
						if readErr == nil && string(it.Value) == "2" {
							return nil
						}
						if readErr == nil {
							at = it.Version
						}
					}
					_ = version
					return err
				})
				recovers(t, "Read", func() error { _, err := item(s, "lease"); return err })
				recovers(t, "Commit", func() error { _, err := put(s, "other", "x", dcs.Absent); return err })
				t.Logf("renewed after %v, all four calls took %v", renewed, time.Since(start))
				it, err := item(s, "leader")
				if err != nil || it.Session != ses.ID() || it.Version != r.Versions["leader"] {
					t.Errorf("leader is %+v (%v), want it at version %d bound to %s", it, err, r.Versions["leader"], ses.ID())
				}
				if how == "frozen" {
					e.Thaw(i)
				} else {
					e.Restart(i)
				}
				if it, err := item(s, "lease"); err != nil || string(it.Value) != "2" {
					t.Errorf("with all servers back, lease is %q (%v), want 2", it.Value, err)
				}
			})
		}
	}
}

// A server that has lost the majority answers reads and pings from what it knows. Neither Read nor Renew, nor a
// refused Commit, may believe it (hazard A11).
func TestNoMajority(t *testing.T) {
	for _, who := range []string{"leader", "follower"} {
		t.Run(who, func(t *testing.T) {
			// Long ticks: the one that is left waits 10 s before it gives up, and serves until then.
			e := zookeeperserver.StartWith(t, zookeeperserver.Options{Servers: 3, Tick: 2 * time.Second})
			i := e.Leader()
			if who == "follower" {
				i = (i + 1) % 3
			}
			s := open(t, zookeeper.Config{Hosts: e.Addrs()[i : i+1]})
			ses := session(t, s, 20*time.Second)
			if _, err := put(s, "k", "v", dcs.Absent); err != nil {
				t.Fatal(err)
			}
			e.Freeze((i + 1) % 3)
			e.Freeze((i + 2) % 3)
			calls := map[string]func(context.Context) error{
				"Read":  func(ctx context.Context) error { _, err := s.Read(ctx); return err },
				"Renew": ses.Renew,
				"Commit": func(ctx context.Context) error {
					_, err := s.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: "k", Version: 1}}, Then: []dcs.Op{dcs.Put("k", nil)}})
					return err
				},
			}
			for name, f := range calls {
				ctx, cancel := within(time.Second)
				err := f(ctx)
				cancel()
				if err == nil || errors.Is(err, dcs.ErrConflict) || errors.Is(err, dcs.ErrSessionLost) {
					t.Errorf("%s with one server of three: %v", name, err)
				}
			}
			e.Thaw((i + 1) % 3)
			e.Thaw((i + 2) % 3)
			recovers(t, "Renew with all servers", func() error {
				ctx, cancel := within(limited)
				defer cancel()
				return ses.Renew(ctx)
			})
		})
	}
}

// Hosts of which some are dead: nobody waits for them for long.
func TestDeadHostFirst(t *testing.T) {
	e := zookeeperserver.Start(t, 1)
	hole, none := dcstest.NewProxy(t, e.Addrs()[0]), dcstest.NewProxy(t, e.Addrs()[0])
	hole.SetMode(dcstest.BlackHole)
	none.SetMode(dcstest.Refuse)
	start := time.Now()
	s := open(t, zookeeper.Config{Hosts: []string{hole.Addr(), none.Addr(), e.Addrs()[0]}})
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Open took %v", took)
	}
	start = time.Now()
	ses := session(t, s, 10*time.Second)
	ctx, cancel := within(limited)
	defer cancel()
	if err := ses.Renew(ctx); err != nil {
		t.Error(err)
	}
	if _, err := put(s, "k", "v", dcs.Absent); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("three calls after Open took %v; the dead hosts should be known", took)
	}
}

// No host answers: the error names each of them, and is in time.
func TestOpenUnreachable(t *testing.T) {
	e := zookeeperserver.Start(t, 1)
	hole, none := dcstest.NewProxy(t, e.Addrs()[0]), dcstest.NewProxy(t, e.Addrs()[0])
	hole.SetMode(dcstest.BlackHole)
	none.SetMode(dcstest.Refuse)
	ctx, cancel := within(1500 * time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := zookeeper.Open(ctx, zookeeper.Config{Hosts: []string{hole.Addr(), none.Addr()}, Prefix: "/service/x"})
	if took := time.Since(start); err == nil || took > 2*time.Second {
		t.Fatalf("%v after %v", err, took)
	}
	for _, want := range []string{hole.Addr() + ": the server closed", none.Addr() + ": dial", "connection refused"} {
		if !contains(err.Error(), want) {
			t.Errorf("the error is %q, want %q in it", err, want)
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %q, want it to be of the kind of its context", err)
	}
}

// A session longer than the servers keep would be shortened by them: it is refused.
func TestSessionTooLong(t *testing.T) {
	e := zookeeperserver.StartWith(t, zookeeperserver.Options{Config: []string{"maxSessionTimeout=10000"}})
	s := open(t, zookeeper.Config{Hosts: e.Addrs()})
	ctx, cancel := within(limited)
	defer cancel()
	_, err := s.OpenSession(ctx, 11*time.Second)
	if err == nil || errors.Is(err, dcs.ErrUnknown) || !contains(err.Error(), "raise maxSessionTimeout") {
		t.Errorf("OpenSession: %v", err)
	}
	if _, err := s.OpenSession(ctx, 10*time.Second); err != nil {
		t.Errorf("OpenSession of the longest: %v", err)
	}
}

// MinTTL is what the servers grant.
func TestMinTTL(t *testing.T) {
	e := zookeeperserver.StartWith(t, zookeeperserver.Options{Tick: 2 * time.Second})
	s := open(t, zookeeper.Config{Hosts: e.Addrs()})
	if got := s.Limits(); got.MinTTL != 4*time.Second || got.SessionSlack < 4*time.Second {
		t.Errorf("with ticks of 2 s: %+v, want a MinTTL of 4 s", got)
	}
}

// What is too large is refused before it is sent.
func TestTooLarge(t *testing.T) {
	s := open(t, zookeeper.Config{Hosts: zookeeperserver.Start(t, 1).Addrs()})
	for _, bytes := range []int{340_000, 360_000} {
		var txn dcs.Txn
		for i := range 3 {
			txn.Then = append(txn.Then, dcs.Put(fmt.Sprint(i), make([]byte, bytes)))
		}
		ctx, cancel := within(limited)
		_, err := s.Commit(ctx, txn)
		cancel()
		if large := 3*bytes > 1_040_000; large != errors.Is(err, dcs.ErrTooLarge) || !large && err != nil {
			t.Errorf("three values of %d bytes: %v", bytes, err)
		}
	}
}

// Two that close a session at the same time each have their own time.
func TestCloseAtOnce(t *testing.T) {
	e := zookeeperserver.Start(t, 1)
	proxy := dcstest.NewProxy(t, e.Addrs()[0])
	s := open(t, zookeeper.Config{Hosts: []string{proxy.Addr()}})
	ses := session(t, s, 8*time.Second)
	proxy.SetMode(dcstest.BlackHole)
	first := make(chan error, 1)
	ctx, cancel := within(2 * time.Second)
	defer cancel()
	go func() { first <- ses.Close(ctx) }()
	<-time.After(100 * time.Millisecond) // the first has begun
	for range 2 {
		brief, cancel := within(200 * time.Millisecond)
		start := time.Now()
		err := ses.Close(brief)
		if took := time.Since(start); err == nil || took > time.Second {
			t.Errorf("Close of a session that nobody answers for: %v after %v; it had 200ms", err, took)
		}
		cancel()
	}
	if err := <-first; err == nil {
		t.Error("a Close that nobody answered returned no error")
	}
}
