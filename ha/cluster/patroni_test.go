package cluster

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// vector is one question to Patroni's own functions and their answer; testdata/vectors.py asked a Patroni 4.1.5.
type vector struct {
	What string          `json:"what"`
	In   any             `json:"in"`
	Out  json.RawMessage `json:"out"`
}

// vectors reads testdata/vectors.jsonl, numbers as they stand there.
func vectors(t *testing.T) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/vectors.jsonl")
	require.NoError(t, err)
	var all []vector
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.UseNumber()
		var v vector
		require.NoError(t, d.Decode(&v), lines.Text())
		all = append(all, v)
	}
	return all
}

// answer is what this package says to a vector's question.
func answer(t *testing.T, v vector) any {
	t.Helper()
	text, _ := v.In.(string)
	object, _ := v.In.(map[string]any)
	pair, _ := v.In.([]any)
	switch v.What {
	case "int":
		return orNil(parseInt(v.In))
	case "seconds":
		return orNil(parseSeconds(v.In))
	case "bool":
		return orNil(parseBool(v.In))
	case "slot":
		return SlotName(text)
	case "tags":
		tags := plainNumbers(object)
		shown := orEmpty(tags.Published())
		return map[string]any{"published": shown, "nofailover": shown.NoFailover(), "failover_priority": shown.FailoverPriority(),
			"nosync": shown.NoSync(), "sync_priority": shown.SyncPriority()}
	case "flags":
		tags := plainNumbers(object)
		return map[string]any{"published": orEmpty(tags.Published()), "noloadbalance": tags.NoLoadBalance(), "clonefrom": tags.CloneFrom(),
			"nostream": tags.NoStream()}
	case "same":
		return sameObject(pair[0].(map[string]any), pair[1].(map[string]any))
	case "patch":
		base := pair[0].(map[string]any)
		changed := Patch(base, pair[1].(map[string]any))
		return map[string]any{"changed": changed, "config": base}
	case "timing":
		d := ParseDynamic(object)
		return []any{d.TTL / time.Second, d.LoopWait / time.Second, d.RetryTimeout / time.Second}
	case "dynamic":
		return dynamicAnswer(ParseDynamic(object))
	case "json":
		var w writer
		w.value(v.In)
		return w.String()
	}
	return recordAnswer(t, v.What, text)
}

func dynamicAnswer(d Dynamic) any {
	return map[string]any{
		"synchronous_mode": d.SynchronousMode, "strict": d.SynchronousModeStrict, "node_count": d.SynchronousNodeCount, "standby_cluster": d.StandbyCluster,
		"maximum_lag": d.MaximumLagOnFailover, "primary_start": d.PrimaryStartTimeout / time.Second, "primary_stop": d.PrimaryStopTimeout / time.Second,
		"member_slots_ttl": d.MemberSlotsTTL / time.Second, "pause": d.Pause, "failsafe": d.FailsafeMode,
		"check_timeline": d.CheckTimeline, "max_timelines": d.MaxTimelinesHistory,
	}
}

func recordAnswer(t *testing.T, what, text string) any {
	t.Helper()
	switch what {
	case "failover":
		f := decode(KeyFailover, text).Failover
		at := 0.0
		if !f.ScheduledAt.IsZero() {
			at = float64(f.ScheduledAt.UnixMicro()) / 1e6
		}
		return []any{f.Leader, f.Candidate, at}
	case "sync":
		s := decode(KeySync, text).Sync
		return []any{s.Leader, s.Quorum, append([]string{}, s.Standbys...)}
	case "status":
		s := decode(KeyStatus, text).Status
		slots := map[string]uint64{}
		for name, at := range s.Slots {
			slots[name] = uint64(at)
		}
		return []any{uint64(s.Optime), slots, append([]string{}, s.RetainSlots...)}
	case "member":
		m := decode(MembersPrefix+"m", text).Members[0]
		return []any{m.ConnURL, m.APIURL}
	case "history":
		h := decode(KeyHistory, text).History
		return []any{len(h.Lines), h.Timeline()}
	}
	t.Fatalf("the vectors ask for %q", what)
	return nil
}

func orNil[T any](v T, ok bool) any {
	if !ok {
		return nil
	}
	return v
}

func orEmpty(t Tags) Tags {
	if t == nil {
		return Tags{}
	}
	return t
}

// differs are questions that are answered differently on purpose: beyond int64, where Python counts on, a number is cut.
func differs(v vector) bool {
	return (v.What == "int" || v.What == "seconds") && pyText(v.In) == "1e+20"
}

// TestPatroniVectors compares the answers of this package with Patroni's. Each kind of question must occur.
func TestPatroniVectors(t *testing.T) {
	asked := map[string]int{}
	for _, v := range vectors(t) {
		asked[v.What]++
		if differs(v) {
			continue
		}
		b, err := json.Marshal(answer(t, v))
		require.NoError(t, err)
		if v.What == "json" {
			var want, got string
			require.NoError(t, json.Unmarshal(v.Out, &want))
			require.NoError(t, json.Unmarshal(b, &got))
			require.Equal(t, want, got, "%v", v.In)
			continue
		}
		require.JSONEq(t, string(v.Out), string(b), "%s %#v", v.What, v.In)
	}
	require.Len(t, asked, 16, "%v", asked)
}
