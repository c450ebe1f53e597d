package dcstest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// Report is what a run of the suite found out about a store besides passing or failing.
type Report struct {
	// Limits is what the store says of itself; the cases hold it to that.
	Limits dcs.Limits
	// Cases is how many ran.
	Cases int
	// NotRun is the cases that could not run, by the first hook that the harness lacks. Those that do not apply to a store
	// of one server (Harness.Alone) are not among them.
	NotRun map[string][]string
	// Measured is the longest time that something took, in real time unless Harness.Advance is set.
	Measured map[string]time.Duration
}

// String is the report in a few lines.
func (r Report) String() string {
	var b strings.Builder
	l := r.Limits
	fmt.Fprintf(&b, "%d cases ran\n", r.Cases)
	fmt.Fprintf(&b, "  promises: sessions of %v or more, ended at most %v late; ", l.MinTTL, l.SessionSlack)
	fmt.Fprintf(&b, "values of %s bytes, transactions of %s conditions and operations\n", limit(l.MaxValue), limit(l.MaxOps))
	for _, what := range slices.Sorted(maps.Keys(r.Measured)) {
		fmt.Fprintf(&b, "  %s: %v\n", what, r.Measured[what].Round(time.Millisecond))
	}
	for _, hook := range slices.Sorted(maps.Keys(r.NotRun)) {
		fmt.Fprintf(&b, "  not run, the harness has no %s: %s\n", hook, strings.Join(r.NotRun[hook], ", "))
	}
	return b.String()
}

func limit(n int) string {
	if n == 0 {
		return "unknown"
	}
	return fmt.Sprint(n)
}
