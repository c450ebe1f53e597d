package etcd_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
	"github.com/pgregent/pgregent/dcs/etcd"
)

// A TTL is rounded up to whole seconds, and to what the servers keep.
func TestTTL(t *testing.T) {
	c := etcdserver.Start(t, 1)
	s := open(t, etcd.Config{Endpoints: c.URLs()})
	for ask, want := range map[time.Duration]time.Duration{
		time.Nanosecond: 2 * time.Second, 2 * time.Second: 2 * time.Second, 2*time.Second + 1: 3 * time.Second,
		7100 * time.Millisecond: 8 * time.Second, 30 * time.Second: 30 * time.Second,
	} {
		if got := session(t, s, ask).TTL(); got != want {
			t.Errorf("a session of %v has the TTL %v, want %v", ask, got, want)
		}
	}
	slow := open(t, etcd.Config{Endpoints: etcdserver.StartWith(t, etcdserver.Options{Args: []string{"--election-timeout=3000"}}).URLs()})
	if got := session(t, slow, 3*time.Second).TTL(); got != 5*time.Second {
		t.Errorf("with an election time-out of 3 s, a session of 3 s has the TTL %v, want 5 s", got)
	}
	if got := slow.Limits().MinTTL; got != 5*time.Second {
		t.Errorf("MinTTL is %v after that, want 5 s", got)
	}
}

// When sessions end, measured from outside: not before their TTL, and within the slack after it.
func TestExpiry(t *testing.T) {
	s := open(t, etcd.Config{Endpoints: etcdserver.Start(t, 1).URLs()})
	slack := s.Limits().SessionSlack
	type lived struct {
		ttl, after time.Duration
		err        error
	}
	results := make(chan lived)
	starts := []time.Duration{2 * time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second, 5 * time.Second}
	for i, ttl := range starts {
		go func() {
			results <- func() lived {
				ctx, cancel := within(20 * time.Second)
				defer cancel()
				ses, err := s.OpenSession(ctx, ttl)
				if err != nil {
					return lived{err: err}
				}
				<-time.After(time.Duration(i) * 130 * time.Millisecond) // so that they end at different moments of the server's round
				sent := time.Now()
				if err := ses.Renew(ctx); err != nil {
					return lived{err: err}
				}
				// A put that is bound to it, again and again: nothing else tells, and that does not renew it.
				for {
					_, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.PutSession("k"+ses.ID(), nil, ses.ID())}})
					if errors.Is(err, dcs.ErrSessionLost) {
						return lived{ttl: ttl, after: time.Since(sent)}
					}
					if err != nil {
						return lived{err: err}
					}
					<-time.After(20 * time.Millisecond)
				}
			}()
		}()
	}
	for range starts {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
			continue
		}
		t.Logf("TTL %v: ended after %v", r.ttl, r.after)
		if r.after < r.ttl || r.after > r.ttl+slack {
			t.Errorf("a session with the TTL %v ended %v after its renewal was sent; want at most %v later", r.ttl, r.after, slack)
		}
	}
}

// After Close of the Store the channel of a watch is as silent as any, and not closed.
func TestWatchOutlivesStore(t *testing.T) {
	s := open(t, etcd.Config{Endpoints: etcdserver.Start(t, 1).URLs()})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch, err := s.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	awaken(t, ch, limited, "it was set up")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case _, open := <-ch:
		if !open {
			t.Error("Close of the Store closed the channel")
		}
	case <-time.After(300 * time.Millisecond):
	}
	cancel()
	select {
	case _, open := <-ch:
		if open {
			t.Error("a wake-up after Close")
		}
	case <-time.After(limited):
		t.Error("the channel is open after its context has ended")
	}
}
