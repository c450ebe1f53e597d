package cluster

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSameMember(t *testing.T) {
	require.True(t, SameMember([]byte(`{"a":1,"b":{"c":true}}`), []byte(`{"b":{"c":"True"},"a":"1"}`)))
	require.False(t, SameMember([]byte(`{"a":1}`), []byte(`{"a":2}`)))
	require.False(t, SameMember([]byte(`{"a":1}`), []byte(`{"a":1,"b":1}`)))
}

func TestPatch(t *testing.T) {
	base := map[string]any{"ttl": 30, "postgresql": map[string]any{"parameters": map[string]any{"a": "1"}}, "gone": 1}
	require.True(t, Patch(base, map[string]any{"gone": nil, "slots": map[string]any{"x": nil}, "postgresql": map[string]any{"parameters": map[string]any{"b": 2}}}))
	require.Equal(t, map[string]any{"ttl": 30, "slots": map[string]any{"x": nil},
		"postgresql": map[string]any{"parameters": map[string]any{"a": "1", "b": 2}}}, base)
	require.False(t, Patch(base, map[string]any{"ttl": "30", "never": nil}))
}

func TestTags(t *testing.T) {
	require.True(t, Tags{"nofailover": "false"}.NoFailover(), "a text that is not empty is true")
	require.True(t, Tags{"failover_priority": 0}.NoFailover())
	require.False(t, Tags{"nofailover": false, "failover_priority": 0}.NoFailover())
	require.Equal(t, 0, Tags{"nofailover": true, "failover_priority": 5}.FailoverPriority())
	require.Equal(t, 1, Tags{}.FailoverPriority())
	require.Equal(t, Tags{"custom": false, "clonefrom": true}, Tags{"custom": false, "clonefrom": true, "nofailover": false, "nostream": false}.Published())
	require.Len(t, Tags{"nofailover": true, "failover_priority": 1}.Contradictions(), 1)
	for in, want := range map[string]string{"node-1": "node_1", "Node.A": "node_a", "pg 0": "pgu00320", "x/y": "xu0047y"} {
		require.Equal(t, want, SlotName(in))
	}
}

func TestDynamic(t *testing.T) {
	timing := func(ttl, loop, retry any) []time.Duration {
		d := ParseDynamic(map[string]any{"ttl": ttl, "loop_wait": loop, "retry_timeout": retry})
		return []time.Duration{d.TTL / time.Second, d.LoopWait / time.Second, d.RetryTimeout / time.Second}
	}
	require.Equal(t, []time.Duration{30, 10, 10}, timing(nil, nil, nil), "Patroni's defaults")
	require.Equal(t, []time.Duration{20, 1, 9}, timing(20, 10, 10))
	require.Equal(t, []time.Duration{30, 6, 12}, timing(30, 10, 12))
	require.Equal(t, []time.Duration{8, 2, 3}, timing("8", 2, json.Number("3")))
	require.Equal(t, []time.Duration{4, 1, 1}, timing(4, 1, 1))
	require.Equal(t, []time.Duration{3, 1, 1}, timing(1, 1, 1))
	require.Empty(t, ParseDynamic(DefaultDynamic()).Warnings)
	require.True(t, ParseDynamic(DefaultDynamic()).FailsafeMode, "in clusters that we bootstrap")
	require.False(t, ParseDynamic(nil).FailsafeMode, "where the key is absent")

	d := ParseDynamic(map[string]any{"synchronous_mode": "quorum", "failsafe_mode": true, "slots": map[string]any{"x": nil}, "maximum_lag_on_failover": "1MB"})
	require.True(t, d.FailsafeMode)
	require.Len(t, d.Unsupported, 2)
	require.Equal(t, "synchronous_mode = quorum is not supported yet: a primary here would acknowledge commits that no standby has", d.Unsupported[0])
	require.EqualValues(t, 1<<20, d.MaximumLagOnFailover)
	require.Len(t, d.Warnings, 1)
}

// TestUnsupported: a setting that changes safety is never passed over, in whatever form it comes.
func TestUnsupported(t *testing.T) {
	pg := func(key string, v any) map[string]any { return map[string]any{"postgresql": map[string]any{key: v}} }
	for key, raws := range map[string][]map[string]any{
		"synchronous_mode":        {{"synchronous_mode": true}, {"synchronous_mode": "on"}, {"synchronous_mode": json.Number("1")}, {"synchronous_mode": "Quorum"}},
		"synchronous_mode_strict": {{"synchronous_mode_strict": "yes"}},
		"standby_cluster": {{"standby_cluster": map[string]any{"host": "h"}}, {"standby_cluster": map[string]any{"port": 5432}},
			{"standby_cluster": map[string]any{"restore_command": "cp"}, "synchronous_mode": true}},
		"slots":                             {{"slots": map[string]any{"x": nil}}, {"slots": []any{"x"}}},
		"permanent_slots":                   {{"permanent_slots": map[string]any{"x": nil}}},
		"permanent_replication_slots":       {{"permanent_replication_slots": map[string]any{"x": nil}}},
		"ignore_slots":                      {{"ignore_slots": []any{map[string]any{"name": "x"}}}},
		"citus":                             {{"citus": map[string]any{"group": 0}}},
		"postgresql.create_replica_methods": {pg("create_replica_methods", []any{"pgbackrest", "basebackup"}), pg("create_replica_methods", "wal_e")},
		"postgresql.create_replica_method":  {pg("create_replica_method", []any{"x"})},
	} {
		for _, raw := range raws {
			got := ParseDynamic(raw).Unsupported
			require.Len(t, got, 1, "%v", raw)
			require.Regexp(t, "^"+regexp.QuoteMeta(key)+" = .+ is not supported yet: .+", got[0])
		}
	}
	for _, raw := range []map[string]any{nil, DefaultDynamic(), {"synchronous_mode": "off"}, {"synchronous_mode": nil}, {"failsafe_mode": "TRUE"}, {"slots": map[string]any{}},
		{"slots": nil}, {"ignore_slots": []any{}}, {"standby_cluster": map[string]any{"host": ""}}, {"standby_cluster": nil}, {"citus": nil},
		pg("create_replica_methods", []any{"basebackup"}), pg("create_replica_methods", "basebackup"), pg("pre_promote", "/bin/true"), pg("before_stop", "/bin/true")} {
		require.Empty(t, ParseDynamic(raw).Unsupported, "%v", raw)
	}
}

// TestDynamicWarnings: what is not understood is said, once, with the key.
func TestDynamicWarnings(t *testing.T) {
	for key, v := range map[string]any{"pause": "paused", "synchronous_mode": "strict", "failsafe_mode": 2, "maximum_lag_on_failover": "1MB", "primary_start_timeout": -1,
		"member_slots_ttl": "1 week", "ttl": "x", "postgresql": "x", "check_timeline": []any{}} {
		w := ParseDynamic(map[string]any{key: v}).Warnings
		require.Len(t, w, 1, "%s %v", key, w)
		require.Contains(t, w[0], key)
	}
	w := ParseDynamic(map[string]any{"ttl": 5, "loop_wait": 1, "retry_timeout": 2}).Warnings
	require.Len(t, w, 1)
	require.Contains(t, w[0], "300 ms")
}

// TestTimingRule goes over every small setting: the rule holds, nothing is raised that was allowed, and what fits stays.
func TestTimingRule(t *testing.T) {
	for ttl := range int64(35) {
		for loop := range int64(20) {
			for retry := range int64(18) {
				d := ParseDynamic(map[string]any{"ttl": ttl, "loop_wait": loop, "retry_timeout": retry})
				least := time.Duration(minRetry) * time.Second
				if d.TTL < fastTTL*time.Second {
					least = time.Second
				}
				require.LessOrEqual(t, d.LoopWait+2*d.RetryTimeout, d.TTL, "%d %d %d", ttl, loop, retry)
				require.GreaterOrEqual(t, d.TTL, 3*time.Second)
				require.GreaterOrEqual(t, d.LoopWait, time.Second)
				require.GreaterOrEqual(t, d.RetryTimeout, least, "%d %d %d", ttl, loop, retry)
				if ttl >= fastTTL && loop >= 1 && retry >= 3 && loop+2*retry <= ttl {
					require.Empty(t, d.Warnings)
					require.Equal(t, []time.Duration{time.Duration(ttl), time.Duration(loop), time.Duration(retry)},
						[]time.Duration{d.TTL / time.Second, d.LoopWait / time.Second, d.RetryTimeout / time.Second})
				} else {
					require.NotEmpty(t, d.Warnings, "%d %d %d", ttl, loop, retry)
				}
			}
		}
	}
}
