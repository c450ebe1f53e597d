package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// kind says what a figure is.
type kind string

const (
	kindResult kind = "result" // what a budget is about
	kindPhase  kind = "phase"  // a part of the result before it
	kindBare   kind = "bare"   // the same by bare commands of PostgreSQL
)

// figure is one measured quantity of one scenario, over the repetitions.
type figure struct {
	Scenario string    `json:"scenario"`
	Name     string    `json:"name"`
	Kind     kind      `json:"kind"`
	Unit     string    `json:"unit"`
	Values   []float64 `json:"values"`
	Unknown  int       `json:"unknown,omitempty"` // repetitions in which it could not be told

	Median  float64  `json:"median"`
	Min     float64  `json:"min"`
	Max     float64  `json:"max"`
	Bare    float64  `json:"bare,omitempty"`   // median of the bare figure that it is compared with
	Ratio   float64  `json:"ratio,omitempty"`  // Median by Bare
	Budget  *float64 `json:"budget,omitempty"` // of design section 9; for the median
	AtLeast bool     `json:"at_least,omitempty"`
	Verdict string   `json:"verdict,omitempty"` // ok, over, or empty without a budget
	Note    string   `json:"note,omitempty"`

	against string // the bare figure's name
}

// record collects figures in the order in which they first appear.
type record struct {
	Figures []*figure `json:"figures"`
	Missing []string  `json:"not_available,omitempty"` // scenarios that could not be run, and why
}

func (r *record) find(scenario, name string) *figure {
	for _, f := range r.Figures {
		if f.Scenario == scenario && f.Name == name {
			return f
		}
	}
	return nil
}

// add adds a repetition's value. NaN is a value that is not known.
func (r *record) add(scenario, name string, k kind, unit string, value float64) *figure {
	f := r.find(scenario, name)
	if f == nil {
		f = &figure{Scenario: scenario, Name: name, Kind: k, Unit: unit}
		r.Figures = append(r.Figures, f)
	}
	if math.IsNaN(value) {
		f.Unknown++
	} else {
		f.Values = append(f.Values, value)
	}
	return f
}

// most gives the figure a budget that its median must not exceed.
func (f *figure) most(limit float64) *figure { f.Budget = &limit; return f }

// least gives it one that its median must reach.
func (f *figure) least(limit float64) *figure { f.Budget, f.AtLeast = &limit, true; return f }

// by compares the figure with a bare one of the same scenario.
func (f *figure) by(name string) *figure { f.against = name; return f }

// finish computes what depends on all values.
func (r *record) finish() {
	first := map[string]int{} // what belongs together stands together
	for i, f := range r.Figures {
		if _, ok := first[f.Scenario]; !ok {
			first[f.Scenario] = i
		}
	}
	slices.SortStableFunc(r.Figures, func(a, b *figure) int { return first[a.Scenario] - first[b.Scenario] })
	for _, f := range r.Figures {
		if len(f.Values) > 0 {
			f.Median, f.Min, f.Max = median(f.Values), slices.Min(f.Values), slices.Max(f.Values)
		}
	}
	for _, f := range r.Figures {
		if b := r.find(f.Scenario, f.against); f.against != "" && b != nil && b.Median > 0 {
			f.Bare, f.Ratio = b.Median, f.Median/b.Median
		}
		if f.Budget == nil || len(f.Values) == 0 {
			continue
		}
		f.Verdict = "ok"
		if (f.AtLeast && f.Median < *f.Budget) || (!f.AtLeast && f.Median > *f.Budget) {
			f.Verdict = "over"
		}
	}
}

// median of no values is 0.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	switch n := len(s); {
	case n == 0:
		return 0
	case n%2 == 1:
		return s[n/2]
	default:
		return (s[n/2-1] + s[n/2]) / 2
	}
}

// percentile is the smallest value that at least the share p of all is not above (nearest rank).
func percentile(values []float64, p float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if len(s) == 0 {
		return 0
	}
	rank := int(math.Ceil(p * float64(len(s))))
	return s[min(max(rank, 1), len(s))-1]
}

// over lists the figures that miss their budgets.
func (r *record) over() []*figure {
	var out []*figure
	for _, f := range r.Figures {
		if f.Verdict == "over" {
			out = append(out, f)
		}
	}
	return out
}

// table is the record for people.
func (r *record) table() string {
	rows := [][]string{{"scenario", "figure", "n", "median", "min", "max", "bare", "ratio", "budget", ""}}
	last := ""
	for _, f := range r.Figures {
		name, scenario := f.Name, f.Scenario
		if scenario == last {
			scenario = ""
		} else if last != "" {
			rows = append(rows, nil)
		}
		last = f.Scenario
		switch f.Kind {
		case kindPhase:
			name = "  " + name
		case kindBare:
			name = "[" + name + "]"
		}
		row := []string{scenario, name, fmt.Sprint(len(f.Values)), "unknown", "", "", "", "", "", f.Verdict}
		if len(f.Values) > 0 {
			row[3], row[4], row[5] = format(f.Median, f.Unit), format(f.Min, f.Unit), format(f.Max, f.Unit)
		}
		if f.Ratio > 0 {
			row[6], row[7] = format(f.Bare, f.Unit), fmt.Sprintf("%.1fx", f.Ratio)
		}
		if f.Budget != nil {
			sign := "<= "
			if f.AtLeast {
				sign = ">= "
			}
			row[8] = sign + format(*f.Budget, f.Unit)
		}
		if f.Note != "" {
			row[9] = strings.TrimSpace(row[9] + "  (" + f.Note + ")")
		}
		rows = append(rows, row)
	}
	text := align(rows)
	for _, m := range r.Missing {
		text += "not available: " + m + "\n"
	}
	return text
}

// align pads the columns. Numbers stand at the right.
func align(rows [][]string) string {
	width := map[int]int{}
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], len(c))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, c := range row {
			if i >= 2 && i <= 7 {
				line += fmt.Sprintf("%*s  ", width[i], c)
			} else {
				line += fmt.Sprintf("%-*s  ", width[i], c)
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// format writes a value with as many digits as mean something.
func format(v float64, unit string) string {
	switch {
	case unit == "s" && math.Abs(v) < 10:
		return fmt.Sprintf("%.3f s", v)
	case unit == "s" || unit == "ms":
		return fmt.Sprintf("%.1f %s", v, unit)
	case unit == "":
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f %s", v, unit)
	}
	return fmt.Sprintf("%.2f %s", v, unit)
}
