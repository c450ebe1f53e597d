package ha

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
)

// told is what happens to a tracer: after so many milliseconds a decision with this reason, or the step of a task.
type told struct {
	after int
	what  string // a reason, or a step
}

func traceOf(t *testing.T, lines []told, released bool) []rest.Operation {
	t.Helper()
	var now time.Duration
	tr := &tracer{clock: func() time.Duration { return now }}
	steps := map[string]bool{"demote": true, "promote": true, "start replica": true, stepCheckpoint: true, stepStop: true, stepRelease: true, stepLook: true}
	for _, l := range lines {
		now += time.Duration(l.after) * time.Millisecond
		if steps[l.what] {
			tr.begin(l.what)
		} else {
			tr.decided(policy.Reason(l.what), released && l.what == "taking", 2)
		}
	}
	return tr.operations()
}

func ms(name string, n int) rest.Phase {
	return rest.Phase{Name: name, Took: time.Duration(n) * time.Millisecond}
}

func TestTrace(t *testing.T) {
	take := []told{{0, "follower"}, {1000, "no-leader"}, {5, "taking"}, {4, "promoting"}, {2, "promoting"}, {3, "promote"}, {70, stepLook}, {6, "leader"}, {2000, "leader"}}
	want := []rest.Phase{ms("no-leader", 5), ms("taking", 4), ms("promoting", 5), ms("promote", 70), ms("look", 6)}
	for released, kind := range map[bool]string{true: "switchover", false: "failover"} {
		ops := traceOf(t, take, released)
		require.Len(t, ops, 1)
		require.Equal(t, kind, ops[0].Kind)
		require.Equal(t, want, ops[0].Phases)
		require.Equal(t, 90*time.Millisecond, ops[0].Took, "the sum of its phases")
		require.Equal(t, "leader", ops[0].Result)
		require.EqualValues(t, 2, ops[0].Epoch)
	}

	for kind, lines := range map[string][]told{
		"handover":  {{0, "leader"}, {1, "switchover"}, {1, "demote"}, {0, stepCheckpoint}, {1, stepStop}, {1, stepRelease}, {1, stepLook}, {1, "rejoining"}, {1, "follower"}},
		"demotion":  {{0, "leader"}, {1, "deadline"}, {1, "fencing"}, {1, "rejoining"}, {1, "follower"}},
		"restart":   {{0, "leader"}, {1, "restarting"}, {1, "leader"}},
		"rejoin":    {{0, "follower"}, {1, "rejoining"}, {1, "start replica"}, {1, stepLook}, {1, "follower"}},
		"repoint":   {{0, "follower"}, {1, "repointing"}, {1, "follower"}},
		"start":     {{1, "rejoining"}, {1, "follower"}},
		"bootstrap": {{1, "bootstrap-race"}, {1, "bootstrapping"}, {1, "leader"}},
		"stop":      {{0, "leader"}, {1, "stopping"}, {1, "demote"}, {1, stepLook}, {1, "stopped"}},
	} {
		ops := traceOf(t, lines, false)
		require.Len(t, ops, 1, kind)
		require.Equal(t, kind, ops[0].Kind)
	}
}

// TestTraceKept: the history is bounded, and the durations count everything.
func TestTraceKept(t *testing.T) {
	tr := &tracer{clock: func() time.Duration { return 0 }}
	for range 3 * tracesKept {
		tr.decided(policy.ReasonFollower, false, 0)
		tr.decided(policy.ReasonRepointing, false, 0)
	}
	require.Len(t, tr.operations(), tracesKept)
	all := tr.histograms()
	require.Len(t, all, 2, "the operation and its phase")
	h := all[`phase_seconds{operation="repoint",phase="repointing"}`]
	require.EqualValues(t, 3*tracesKept-1, h.Counts[0])
	require.Len(t, h.Counts, len(h.Bounds)+1)
}

func TestOperationJSON(t *testing.T) {
	op := rest.Operation{Kind: "failover", Began: time.Unix(1, 0).UTC(), Took: 1500 * time.Millisecond, Result: "leader", Phases: []rest.Phase{ms("promote", 70)}}
	b, err := json.Marshal(op)
	require.NoError(t, err)
	require.JSONEq(t, `{"kind":"failover","began":"1970-01-01T00:00:01Z","result":"leader","seconds":1.5,"phases":[{"name":"promote","seconds":0.07}]}`, string(b))
	var back rest.Operation
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, op, back)
}
