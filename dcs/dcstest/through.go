package dcstest

import (
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// Trouble is a network that works badly, in a way that Harness.Disturb can bring about.
type Trouble int

// Troubles.
const (
	// Slow: every answer comes 200 ms late.
	Slow Trouble = iota + 1
	// Thin: a connection carries 200 kB a second in each direction.
	Thin
	// Deaf: nothing that clients send arrives; what the server says does.
	Deaf
	// Lossy: one answer in ten is lost, and the connection with it.
	Lossy
	// Stalled: the connections that are open carry nothing any more and do not end; new ones work.
	Stalled
	// HalfClosed: the server ends its side of the connections that are open, and still hears; new ones work.
	HalfClosed
)

// slowness is how late answers are in Slow.
const slowness = 200 * time.Millisecond

// Through returns a harness for the servers at the TCP addresses targets. open makes a client that connects to addrs,
// and nowhere else: a client that asks the servers for their addresses must be told not to. Open's clients go through a
// Proxy for each server, Direct's straight to the servers, and every hook that a network can provide is there. What is
// left to the caller is Restart, and LoseLeader or Alone.
func Through(t testing.TB, targets []string, open func(t testing.TB, addrs []string, prefix string) dcs.Store) Harness {
	t.Helper()
	h := Harness{Direct: func(t testing.TB, prefix string) dcs.Store {
		t.Helper()
		return open(t, targets, prefix)
	}}
	var addrs []string
	for _, target := range targets {
		p := NewProxy(t, target)
		h.Proxies, addrs = append(h.Proxies, p), append(addrs, p.Addr())
	}
	h.Open = func(t testing.TB, prefix string) dcs.Store {
		t.Helper()
		return open(t, addrs, prefix)
	}
	return h.filled()
}

// filled makes the hooks that are nil and that proxies can provide.
func (h Harness) filled() Harness {
	if len(h.Proxies) == 0 {
		return h
	}
	mode := func(m Mode) func(testing.TB) func() {
		return func(testing.TB) func() { return disturbed(h.Proxies, m, Faults{}) }
	}
	for hook, m := range map[*func(testing.TB) func()]Mode{&h.Block: BlackHole, &h.Mute: DropReplies, &h.Refuse: Refuse} {
		if *hook == nil {
			*hook = mode(m)
		}
	}
	if h.Disturb == nil {
		h.Disturb = func(t testing.TB, trouble Trouble) func() {
			t.Helper()
			m, f := network(t, trouble)
			return disturbed(h.Proxies, m, f)
		}
	}
	if h.Connections == nil {
		h.Connections = func() (n int) {
			for _, p := range h.Proxies {
				n += p.Connections()
			}
			return n
		}
	}
	return h
}

// network is how a proxy brings a trouble about.
func network(t testing.TB, trouble Trouble) (Mode, Faults) {
	t.Helper()
	switch trouble {
	case Slow:
		return Pass, Faults{ReplyDelay: slowness}
	case Thin:
		return Pass, Faults{Rate: 200_000}
	case Deaf:
		return DropRequests, Faults{}
	case Lossy:
		return Pass, Faults{ReplyLoss: 0.1}
	case Stalled:
		return Stall, Faults{}
	case HalfClosed:
		return HalfClose, Faults{}
	default:
		t.Fatalf("dcstest: there is no trouble %d", trouble)
		return Pass, Faults{}
	}
}

// disturbed sets all proxies, and back.
func disturbed(all []*Proxy, m Mode, f Faults) (undo func()) {
	for _, p := range all {
		p.SetFaults(f)
		p.SetMode(m)
	}
	return func() {
		for _, p := range all {
			p.SetFaults(Faults{})
			p.SetMode(Pass)
		}
	}
}
