package dcstest

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
)

// A harness with nothing but Open: the report names every case that a hook is missing for, and the hook.
func TestReportOfASmallHarness(t *testing.T) {
	clock := memory.NewManualClock()
	srv := memory.NewServer(clock)
	r := Run(t, Harness{Open: func(_ testing.TB, prefix string) dcs.Store { return srv.Open(prefix) }, Advance: clock.Advance})
	missing := slices.Sorted(maps.Keys(r.NotRun))
	if want := []string{"Block", "Connections", "Disturb", "LoseLeader", "Mute", "Refuse", "Restart"}; !slices.Equal(missing, want) {
		t.Errorf("missing are %q, want %q", missing, want)
	}
	n := r.Cases
	for _, cases := range r.NotRun {
		n += len(cases)
	}
	if all := len(allCases()); n != all {
		t.Errorf("%d cases ran or were named, of %d", n, all)
	}
	text := r.String()
	for _, want := range []string{"sessions of 1ms or more", "values of 1048576 bytes", "no Restart: Restart/DataAndSessionsStay", "keeps a session at least"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
}

// Proxies are enough for every hook of the network.
func TestProxiesFillTheHarness(t *testing.T) {
	h := Harness{Proxies: []*Proxy{NewProxy(t, "127.0.0.1:1")}}.filled()
	if got := h.missing("Block Mute Refuse Disturb Connections"); got != "" {
		t.Errorf("a proxy does not provide %s", got)
	}
}
