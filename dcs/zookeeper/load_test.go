package zookeeper_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest/zookeeperserver"
	"github.com/pgregent/pgregent/dcs/zookeeper"
)

// tally is what several clients did to one counter.
type tally struct {
	acked atomic.Int64 // the highest value that a Commit was acknowledged for
	done  atomic.Int64 // acknowledged
	maybe atomic.Int64 // unknown
	wins  sync.Map     // value to who was told that it wrote it
}

// step reads the counter, checks that no acknowledged value is missing, and counts it up.
func (y *tally) step(s dcs.Store, who int) error {
	before := y.acked.Load()
	it, err := item(s, "n")
	if err != nil {
		return nil // the servers are disturbed
	}
	n, _ := strconv.ParseInt(string(it.Value), 10, 64)
	if n < before {
		return fmt.Errorf("client %d reads %d, and %d was acknowledged before", who, n, before)
	}
	ctx, cancel := within(limited)
	defer cancel()
	n++
	_, err = s.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: "n", Version: it.Version}}, Then: []dcs.Op{dcs.Put("n", []byte(strconv.FormatInt(n, 10)))}})
	switch {
	case err == nil:
		if other, twice := y.wins.LoadOrStore(n, who); twice {
			return fmt.Errorf("clients %d and %v were both told that they wrote %d", who, other, n)
		}
		y.done.Add(1)
		for old := y.acked.Load(); old < n && !y.acked.CompareAndSwap(old, n); old = y.acked.Load() {
		}
	case errors.Is(err, dcs.ErrUnknown):
		y.maybe.Add(1)
	}
	return nil
}

// Several clients count up one key by compare-and-swap while the leader is killed and frozen, again and again: nobody is told
// of a write that another made, no acknowledged write is missing in any later read.
func TestLeaderLostUnderLoad(t *testing.T) {
	e := zookeeperserver.Start(t, 3)
	var y tally
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for who := range 3 {
		s := open(t, zookeeper.Config{Hosts: append(append([]string{}, e.Addrs()[who:]...), e.Addrs()[:who]...)})
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := y.step(s, who); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	more := func(n int64) { // until so many more writes were acknowledged
		for start, end := y.done.Load(), time.Now().Add(20*time.Second); y.done.Load() < start+n; <-time.After(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no %d writes within 20 s", n)
			}
		}
	}
	for range 2 {
		more(50)
		leader := e.Leader()
		e.Kill(leader)
		more(50)
		e.Restart(leader)
		more(50)
		leader = e.Leader()
		e.Freeze(leader)
		more(50)
		e.Thaw(leader)
	}
	more(50)
	close(stop)
	wg.Wait()
	s := open(t, zookeeper.Config{Hosts: e.Addrs()})
	it, err := item(s, "n")
	n, _ := strconv.ParseInt(string(it.Value), 10, 64)
	if err != nil || n < y.done.Load() || n > y.done.Load()+y.maybe.Load() {
		t.Errorf("the counter is %d (%v) after %d writes that were acknowledged and %d that may have happened", n, err, y.done.Load(), y.maybe.Load())
	}
	t.Logf("%d writes acknowledged, %d unknown, the counter is %d", y.done.Load(), y.maybe.Load(), n)
}
