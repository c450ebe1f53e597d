package main

import (
	"bufio"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// event is a line of a daemon's log. Only lines in the form of log/slog are understood: of another program nothing is
// known but what probes and writer see.
type event struct {
	At   time.Time `json:"at"`
	Node string    `json:"node"`
	Text string    `json:"text"`
}

var logTime = regexp.MustCompile(`^time=(\S+) level=(\S+) (.*)$`)

// events are all nodes' lines since a moment, in the order of their times.
func (c *cluster) events(since time.Time) []event {
	var all []event
	for _, n := range c.nodes {
		f, err := os.Open(n.data + ".log")
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			m := logTime.FindStringSubmatch(lines.Text())
			if m == nil {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, m[1])
			// The log has milliseconds: what happened right after the moment may seem to be before it.
			if err == nil && !at.Before(since.Truncate(time.Millisecond)) {
				all = append(all, event{At: at, Node: n.name, Text: m[3]})
			}
		}
		_ = f.Close()
	}
	slices.SortStableFunc(all, func(a, b event) int { return a.At.Compare(b.At) })
	return all
}

// when is the first event of a node whose text has all the parts; zero: there is none. Any node when name is empty.
func when(events []event, name string, parts ...string) time.Time {
	for _, e := range events {
		if name != "" && e.Node != name {
			continue
		}
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(e.Text, p) }) {
			return e.At
		}
	}
	return time.Time{}
}

// changed is the first event of a node that names a reason other than those; zero: there is none.
func changed(events []event, name string, usual ...string) time.Time {
	for _, e := range events {
		_, reason, ok := strings.Cut(e.Text, " reason=")
		reason, _, _ = strings.Cut(reason, " ")
		if ok && e.Node == name && !slices.Contains(usual, reason) {
			return e.At
		}
	}
	return time.Time{}
}

// mark is the end of a phase; a zero time is not known.
type mark struct {
	phase string
	at    time.Time
}

// phases adds the phases between a beginning and the marks after it. A phase whose end is not known, and the one after
// it, are unknown. Marks that lie before their predecessor by the milliseconds that logs and probes are late count 0.
func (r *record) phases(scenario string, began time.Time, marks ...mark) {
	last := began
	for _, m := range marks {
		v := m.at.Sub(last).Seconds()
		if m.at.IsZero() || last.IsZero() {
			v = unknown()
		} else if v < 0 {
			m.at, v = last, 0
		}
		r.add(scenario, m.phase, kindPhase, "s", v)
		last = m.at
	}
}

// metric reads a value of Prometheus' text format: the first line with the name, whatever its labels.
func metric(text []byte, name string) float64 {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok && (strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "{")) {
			if v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64); err == nil {
				return v
			}
		}
	}
	return unknown()
}
