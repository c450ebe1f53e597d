package onewriter

import (
	"bytes"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"
)

// row is what the runs of one scenario showed.
type row struct {
	name     string
	outcomes []outcome // those that count
	repeated int       // those that do not
	errors   []string
}

// overlap is the longest of all runs.
func (r *row) overlap() time.Duration {
	var longest time.Duration
	for _, o := range r.outcomes {
		longest = max(longest, o.overlap)
	}
	return longest
}

// table is what is printed at the end.
func table(rows []*row) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "scenario\truns\trepeated\toverlap ms\texcepted ms\tacks old\tnew\tlost\tsilence s (median\tmax)\tper run s\t")
	for _, r := range rows {
		var exempt, silenceMax, took time.Duration
		var older, newer, lost int
		var silences []time.Duration
		for _, o := range r.outcomes {
			exempt, took = max(exempt, o.exempt), took+o.took
			older, newer, lost = older+o.old, newer+o.new, lost+o.lost
			silences = append(silences, o.silence)
		}
		var median time.Duration
		if len(silences) > 0 {
			slices.Sort(silences)
			median, silenceMax = silences[len(silences)/2], silences[len(silences)-1]
			took /= time.Duration(len(silences))
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.1f\t%.1f\t%.1f\t\n", r.name, len(r.outcomes), r.repeated, milliseconds(r.overlap()),
			milliseconds(exempt), older, newer, lost, median.Seconds(), silenceMax.Seconds(), took.Seconds())
	}
	_ = w.Flush()
	return b.String()
}

// milliseconds rounds up: 0 is none.
func milliseconds(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }
