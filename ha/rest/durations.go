package rest

import "fmt"

// Durations is how long the operations of one kind took, or one phase in them, since the agent's start.
type Durations struct {
	Operation string
	Phase     string // empty: the whole operation
	Count     uint64
	Seconds   float64 // sum
	// Within counts those that took no longer than the bucket of the same index in DurationBuckets.
	Within []uint64
}

// DurationBuckets are the upper bounds, in seconds, of the histograms in /metrics.
func DurationBuckets() []float64 {
	return []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
}

// Add counts one more.
func (d *Durations) Add(seconds float64) {
	buckets := DurationBuckets()
	if d.Within == nil {
		d.Within = make([]uint64, len(buckets))
	}
	d.Count++
	d.Seconds += seconds
	for i, b := range buckets {
		if seconds <= b {
			d.Within[i]++
		}
	}
}

// durations writes the histograms.
func (m *metricWriter) durations(scope, name string, all []Durations) {
	m.histogram("pgregent_operation_seconds", "Time from one settled state of this node to the next, by what it was.", scope, name, all, false)
	m.histogram("pgregent_phase_seconds", "Time of a phase of an operation.", scope, name, all, true)
}

func (m *metricWriter) histogram(metric, help, scope, name string, all []Durations, phases bool) {
	first := true
	for _, d := range all {
		if (d.Phase != "") != phases {
			continue
		}
		if first {
			fmt.Fprintf(&m.b, "# HELP %s %s\n# TYPE %s histogram\n", metric, help, metric)
			first = false
		}
		labels := fmt.Sprintf(`scope="%s",name="%s",operation="%s"`, escape(scope), escape(name), escape(d.Operation))
		if phases {
			labels += fmt.Sprintf(`,phase="%s"`, escape(d.Phase))
		}
		for i, b := range DurationBuckets() {
			fmt.Fprintf(&m.b, "%s_bucket{%s,le=\"%g\"} %d\n", metric, labels, b, d.Within[i])
		}
		fmt.Fprintf(&m.b, "%s_bucket{%s,le=\"+Inf\"} %d\n%s_sum{%s} %g\n%s_count{%s} %d\n",
			metric, labels, d.Count, metric, labels, d.Seconds, metric, labels, d.Count)
	}
}
