package rest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// ownMetrics are the metrics that Patroni does not have.
func ownMetrics(m *metricWriter, r *Report, now time.Time) {
	m.flag("pgregent_writable", "Value is 1 if PostgreSQL accepts writes here under the lease.", r.Writable && now.Before(r.LeaderUntil))
	m.gauge("pgregent_lease_seconds_left", "Seconds until the fence if the lease is not renewed, 0 without the lease.", pick(r.IsLeader, max(r.LeaderUntil.Sub(now).Seconds(), 0)))
	m.gauge("pgregent_lease_epoch", "Epoch of the lease that this node last held.", float64(r.Epoch))
	m.gauge("pgregent_loop_age_seconds", "Seconds since the loop last began a turn.", pick(!r.LoopAt.IsZero(), max(now.Sub(r.LoopAt).Seconds(), 0)))
	m.flag("pgregent_unfit", "Value is 1 if this node must not lead because of a setting that is not supported.", r.Unfit != "")
	m.flag("pgregent_fence_bounded", "Value is 1 if a primary here ends by its deadline whatever happens to the agent.", r.Fence.Bounded)
	for _, rung := range r.Fence.Rungs {
		m.flag("pgregent_fence_rung_"+strings.ReplaceAll(rung, "-", "_"), "Value is 1 if this means of the fence is active.", true)
	}
	m.counters(r.Counters)
	m.histograms(r.Histograms)
	if r.Store != nil {
		m.store(*r.Store)
	}
}

// cutLabels splits a name that brings labels.
func cutLabels(name string) (base, labels string) {
	base, rest, ok := strings.Cut(name, "{")
	if !ok {
		return name, ""
	}
	return base, strings.TrimSuffix(rest, "}")
}

// with adds labels to those that every sample has.
func (m *metricWriter) with(labels string) string {
	if labels == "" {
		return m.labels
	}
	return strings.TrimSuffix(m.labels, "}") + "," + labels + "}"
}

func (m *metricWriter) head(name, kind, help string) {
	fmt.Fprintf(&m.b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (m *metricWriter) counters(all map[string]float64) {
	last := ""
	for _, name := range slices.SortedFunc(maps.Keys(all), byBase) {
		base, labels := cutLabels(name)
		if base != last {
			m.head("pgregent_"+base, "counter", "Counter of this node's loop.")
			last = base
		}
		fmt.Fprintf(&m.b, "pgregent_%s%s %s\n", base, m.with(labels), number(all[name]))
	}
}

func (m *metricWriter) histograms(all map[string]Histogram) {
	last := ""
	for _, name := range slices.SortedFunc(maps.Keys(all), byBase) {
		base, labels := cutLabels(name)
		if base != last {
			m.head("pgregent_"+base, "histogram", "How long it took, in seconds.")
			last = base
		}
		m.histogram("pgregent_"+base, labels, all[name])
	}
}

// byBase keeps the samples of one metric together, as the format wants it.
func byBase(a, b string) int {
	x, xl := cutLabels(a)
	y, yl := cutLabels(b)
	if x != y {
		return strings.Compare(x, y)
	}
	return strings.Compare(xl, yl)
}

func (m *metricWriter) histogram(name, labels string, h Histogram) {
	if len(h.Counts) != len(h.Bounds)+1 {
		return
	}
	if labels != "" {
		labels += ","
	}
	var sum uint64
	for i, c := range h.Counts {
		bound := "+Inf"
		if i < len(h.Bounds) {
			bound = fmt.Sprint(h.Bounds[i])
		}
		sum += c
		fmt.Fprintf(&m.b, "%s_bucket%s %d\n", name, m.with(labels+`le="`+bound+`"`), sum)
	}
	all := m.with(strings.TrimSuffix(labels, ","))
	fmt.Fprintf(&m.b, "%s_sum%s %s\n%s_count%s %d\n", name, all, number(h.Sum), name, all, sum)
}

// store shows how the store answers: calls by outcome, and how long they take.
func (m *metricWriter) store(s dcs.Stats) {
	calls := slices.Sorted(maps.Keys(s.Calls))
	m.head("pgregent_store_calls_total", "counter", "Calls to the store by outcome.")
	for _, c := range calls {
		for _, o := range slices.Sorted(maps.Keys(s.Calls[c].Outcomes)) {
			fmt.Fprintf(&m.b, "pgregent_store_calls_total%s %d\n", m.with(fmt.Sprintf(`call="%s",outcome="%s"`, c, o)), s.Calls[c].Outcomes[o])
		}
	}
	m.head("pgregent_store_seconds", "histogram", "How long calls to the store took, whatever their outcome.")
	for _, c := range calls {
		l := s.Calls[c].Latency
		h := Histogram{Counts: l.Counts, Sum: l.Sum.Seconds()}
		for _, b := range l.Bounds {
			h.Bounds = append(h.Bounds, b.Seconds())
		}
		m.histogram("pgregent_store_seconds", fmt.Sprintf(`call="%s"`, c), h)
	}
}
