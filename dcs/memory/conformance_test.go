package memory_test

import (
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/dcs/memory"
)

// network is between a server and the Stores that a harness opened: faults come to those, and to no others.
type network struct {
	srv    *memory.Server
	stores []*memory.Store
}

func (n *network) open(prefix string) dcs.Store {
	s := n.srv.Open(prefix)
	n.stores = append(n.stores, s)
	return s
}

func (n *network) fault(f memory.Fault) func(testing.TB) func() {
	return func(testing.TB) func() {
		for _, s := range n.stores {
			s.Inject(f, 0)
		}
		return func() {
			for _, s := range n.stores {
				s.Clear()
			}
		}
	}
}

// harness is srv as the suite needs it; wrap is put around every Store.
func harness(srv *memory.Server, wrap func(dcs.Store) dcs.Store) dcstest.Harness {
	n := &network{srv: srv}
	return dcstest.Harness{
		Open:    func(_ testing.TB, prefix string) dcs.Store { return wrap(n.open(prefix)) },
		Direct:  func(_ testing.TB, prefix string) dcs.Store { return srv.Open(prefix) },
		Block:   n.fault(memory.Hang),
		Mute:    n.fault(memory.Mute),
		Refuse:  n.fault(memory.Refuse),
		Restart: func(testing.TB) { srv.Restart() },
		Alone:   true,
		Effort:  time.Second,
	}
}

// run runs the suite: there is no network to disturb, and nothing else may be missing.
func run(t *testing.T, h dcstest.Harness) {
	t.Helper()
	missing := dcstest.Run(t, h).NotRun
	delete(missing, "Disturb")
	delete(missing, "Connections")
	if len(missing) > 0 {
		t.Errorf("not run: %v", missing)
	}
}

func bare(s dcs.Store) dcs.Store { return s }

func TestConformance(t *testing.T) {
	clock := memory.NewManualClock()
	h := harness(memory.NewServer(clock), bare)
	h.Advance, h.Sessions = clock.Advance, 10_000
	run(t, h)
}

// A server that is as late as it may be still conforms.
func TestConformanceWithSlack(t *testing.T) {
	clock := memory.NewManualClock()
	srv := memory.NewServer(clock)
	srv.SetLimits(dcs.Limits{MinTTL: 2 * time.Second, SessionSlack: 3 * time.Second})
	h := harness(srv, bare)
	h.Advance = clock.Advance
	run(t, h)
}

// In real time, and through a Client, which must keep the whole contract of what it wraps.
func TestConformanceOfClient(t *testing.T) {
	h := harness(memory.NewServer(dcs.Boottime()), func(s dcs.Store) dcs.Store {
		return dcs.NewClient(s, &dcs.ClientOptions{Timeout: time.Minute})
	})
	h.TTL = 300 * time.Millisecond
	run(t, h)
}
