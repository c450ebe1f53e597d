package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestMedianAndPercentile(t *testing.T) {
	if m := median([]float64{5, 1, 9}); m != 5 {
		t.Errorf("median of three: %v", m)
	}
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median of four: %v", m)
	}
	if m := median(nil); m != 0 {
		t.Errorf("median of nothing: %v", m)
	}
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for p, want := range map[float64]float64{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := percentile(hundred, p); got != want {
			t.Errorf("percentile %v: %v, want %v", p, got, want)
		}
	}
}

func TestBudgetsAndTable(t *testing.T) {
	r := &record{}
	for _, v := range []float64{0.3, 0.2, 0.6} {
		r.add("switchover", "write outage", kindResult, "s", v).by("pg_ctl").most(0.25)
		r.add("switchover", "stop", kindPhase, "s", v/2)
	}
	r.add("switchover", "pg_ctl", kindBare, "s", 0.15)
	r.add("switchover", "catch up", kindPhase, "s", math.NaN())
	r.add("rest", "1 client", kindResult, "1/s", 9000).least(8780)
	r.Missing = append(r.Missing, "rolling restart: POST /restart answered 501")
	r.finish()

	f := r.find("switchover", "write outage")
	if f.Median != 0.3 || f.Min != 0.2 || f.Max != 0.6 || f.Ratio != 2 || f.Verdict != "over" {
		t.Errorf("the outage: %+v", f)
	}
	if f := r.find("rest", "1 client"); f.Verdict != "ok" {
		t.Errorf("a floor that is reached: %+v", f)
	}
	if f := r.find("switchover", "catch up"); f.Unknown != 1 || len(f.Values) != 0 || f.Verdict != "" {
		t.Errorf("what is not known stays so: %+v", f)
	}
	if over := r.over(); len(over) != 1 || over[0] != f {
		t.Errorf("over: %v", over)
	}
	text := strings.Join(strings.Fields(r.table()), " ") // how wide the columns are does not matter
	for _, want := range []string{
		"switchover write outage 3 0.300 s 0.200 s 0.600 s 0.150 s 2.0x <= 0.250 s over",
		"stop 3 0.150 s 0.100 s 0.300 s", "[pg_ctl] 1 0.150 s", "catch up 0 unknown", ">= 8780 1/s ok", "not available: rolling restart",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, r.table())
		}
	}
	b, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(b), `"budget":0.25`) || !strings.Contains(string(b), `"values":[0.3,0.2,0.6]`) {
		t.Errorf("JSON: %s, %v", b, err)
	}
}
