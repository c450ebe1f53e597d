package memory_test

import (
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/dcs/memory"
)

// harness is srv as the suite needs it; wrap is put around every Store.
func harness(srv *memory.Server, wrap func(dcs.Store) dcs.Store) dcstest.Harness {
	fault := func(f memory.Fault) func(testing.TB) func() {
		return func(testing.TB) func() {
			srv.Inject(f, 0)
			return srv.Clear
		}
	}
	return dcstest.Harness{
		Open:    func(_ testing.TB, prefix string) dcs.Store { return wrap(srv.Open(prefix)) },
		Block:   fault(memory.Hang),
		Mute:    fault(memory.Mute),
		Refuse:  fault(memory.Refuse),
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
