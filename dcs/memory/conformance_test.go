package memory_test

import (
	"sync"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/dcs/memory"
)

// faults injects one fault into every Store of a server, also into those that are opened while it lasts.
type faults struct {
	mu     sync.Mutex
	stores []*memory.Store
	now    memory.Fault // 0: none
}

func (f *faults) add(s *memory.Store) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stores = append(f.stores, s)
	if f.now != 0 {
		s.Inject(f.now, 0)
	}
}

// hook is a hook of a dcstest.Harness.
func (f *faults) hook(fault memory.Fault) func(testing.TB) func() {
	return func(testing.TB) func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.now = fault
		for _, s := range f.stores {
			s.Inject(fault, 0)
		}
		return func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.now = 0
			for _, s := range f.stores {
				s.Clear()
			}
		}
	}
}

// harness is srv as the suite needs it; wrap is put around every Store.
func harness(srv *memory.Server, wrap func(dcs.Store) dcs.Store) dcstest.Harness {
	f := new(faults)
	return dcstest.Harness{
		Open: func(_ testing.TB, prefix string) dcs.Store {
			s := srv.Open(prefix)
			f.add(s)
			return wrap(s)
		},
		Block:   f.hook(memory.Hang),
		Mute:    f.hook(memory.Mute),
		Refuse:  f.hook(memory.Refuse),
		Restart: func(testing.TB) { srv.Restart() },
	}
}

func bare(s dcs.Store) dcs.Store { return s }

func TestConformance(t *testing.T) {
	clock := memory.NewManualClock()
	h := harness(memory.NewServer(clock), bare)
	h.Advance = clock.Advance
	dcstest.Run(t, h)
}

// A server that is as late as it may be still conforms.
func TestConformanceWithSlack(t *testing.T) {
	clock := memory.NewManualClock()
	srv := memory.NewServer(clock)
	srv.SetLimits(dcs.Limits{MinTTL: 2 * time.Second, SessionSlack: 3 * time.Second})
	h := harness(srv, bare)
	h.Advance = clock.Advance
	dcstest.Run(t, h)
}

// In real time, and through a Client, which must keep the whole contract of what it wraps.
func TestConformanceOfClient(t *testing.T) {
	h := harness(memory.NewServer(dcs.Boottime()), func(s dcs.Store) dcs.Store {
		return dcs.NewClient(s, &dcs.ClientOptions{Timeout: time.Minute})
	})
	h.TTL = 300 * time.Millisecond
	dcstest.Run(t, h)
}
