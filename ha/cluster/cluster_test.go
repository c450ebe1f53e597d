package cluster

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/postgres/wal"
)

func TestMemberFields(t *testing.T) {
	m := decode("members/node-2", live(t, "members-node-2")).Members[0]
	require.Equal(t, "node-2", m.Name)
	require.EqualValues(t, 50331840, m.ReceiveLSN)
	require.EqualValues(t, 1, m.Timeline)
	require.Equal(t, Key{Present: true, Version: 7, Session: "s"}, m.Key)
	require.True(t, m.CheckpointAfterPromo)
	host, port := m.HostPort()
	require.Equal(t, "127.0.0.1", host)
	require.Equal(t, 15432, port)
	require.False(t, decode("members/a", `{"checkpoint_after_promote":false}`).Members[0].CheckpointAfterPromo)
	require.Equal(t, RolePrimary, decode("members/a", `{"role":"master"}`).Members[0].Role)
	require.Empty(t, decode("members/a/b", `{}`).Members)
}

func TestEscapesAsPythonDoes(t *testing.T) {
	got := EncodeFailover(Failover{Leader: "knüt-\u20ac-\U0001F600-\"\\\n\x01"})
	require.Equal(t, `{"leader":"kn\u00fct-\u20ac-\ud83d\ude00-\"\\\n\u0001"}`, string(got))
	require.Equal(t, "knüt-\u20ac-\U0001F600-\"\\\n\x01", decode(KeyFailover, string(got)).Failover.Leader)
}

func TestLegacyForms(t *testing.T) {
	f := decode(KeyFailover, "old:new").Failover
	require.Equal(t, "old", f.Leader)
	require.Equal(t, "new", f.Candidate)
	require.EqualValues(t, 4711, decode(KeyStatus, "4711").Status.Optime)
	require.EqualValues(t, 4711, decode(KeyStatus, `{"optime":"4711"}`).Status.Optime)
	require.EqualValues(t, 4711, decode(KeyOptime, "4711").Status.Optime)
	s := decode(KeyStatus, `{"optime":1,"slots":"{\"a\":5}","retain_slots":"[\"a\"]"}`).Status
	require.Equal(t, map[string]wal.LSN{"a": 5}, s.Slots)
	require.Equal(t, []string{"a"}, s.RetainSlots)
	require.Len(t, decode(KeyHistory, `[[1,5,"x"],[2,6,"y","t"]]`).History.Lines, 2)
	m := decode("members/a", "postgres://u@h:1/postgres?application_name=http://h:8008/patroni").Members[0]
	require.Equal(t, "http://h:8008/patroni", m.APIURL)
	require.False(t, decode(KeyFailover, `{}`).Failover.Requested())
	require.False(t, decode(KeyFailover, `{"scheduled_at":"2036-01-01T00:00:00+00:00"}`).Failover.Requested())
}

func TestGarbageIsAnError(t *testing.T) {
	for _, v := range []string{"", "{", "[]", "null", "7x", "\xff\xfe", `{"a":1}{"b":2}`, `"text"`} {
		require.Error(t, decode(KeyConfig, v).Config.Err, "%q", v)
		require.Error(t, decode("members/a", v).Members[0].Err, "%q", v)
		require.Error(t, decode(KeyFailsafe, v).Failsafe.Err, "%q", v)
		require.Error(t, decode(KeyStatus, v).Status.Err, "%q", v)
		if v != "null" { // no synchronous replication, no request
			require.Error(t, decode(KeySync, v).Sync.Err, "%q", v)
			require.Equal(t, v != "", decode(KeyFailover, v).Failover.Err != nil, "%q", v)
		}
		require.False(t, decode(KeyFailover, v).Failover.Requested(), "%q", v)
	}
	for _, v := range []string{`{"a":1}`, "null", "", "7", `[1]`, `[["x",1,"r"]]`, `[[0,1,"r"]]`, `[[4294967296,1,"r"]]`} {
		require.Error(t, decode(KeyHistory, v).History.Err, "%q", v)
	}
	require.Error(t, decode("members/a", "postgres://%zz").Members[0].Err)
	require.ErrorContains(t, decode("members/a", "{").Members[0].Err, "members/a", "the error names the key")
	require.Error(t, decode(KeyFailover, `{"leader":"a","scheduled_at":"tomorrow"}`).Failover.Err)
	require.Equal(t, 30*time.Second, decode(KeyConfig, "garbage").Config.TTL, "the defaults stay")
}

func TestLookUps(t *testing.T) {
	c := Decode([]Item{{Key: "members/b", Value: []byte(`{}`)}, {Key: "members/a", Value: []byte(`{"state":"running"}`)}, {Key: "members/", Value: []byte(`{}`)},
		{Key: KeyLeader, Value: []byte("a")}, {Key: KeyInitialize, Value: []byte("7711086890896456014")}, {Key: "lease", Value: []byte("x")}, {Key: "later", Value: nil}})
	require.Len(t, c.Members, 2)
	require.Equal(t, "a", c.Members[0].Name)
	require.Equal(t, "a", c.Leader.Name)
	m, ok := c.Member("a")
	require.True(t, ok)
	require.Equal(t, StateRunning, m.State)
	_, ok = c.Member("x")
	require.False(t, ok)
	require.True(t, c.Initialize.Valid())
	require.False(t, c.Config.Present)
	require.Equal(t, 30*time.Second, c.Config.TTL)
	for _, bad := range []string{"", "123456789", "77110868908964560x4", "-7711086890896456014"} {
		require.False(t, decode(KeyInitialize, bad).Initialize.Valid(), bad)
	}
	s := decode(KeySync, `{"leader":"Node-1","sync_standby":"Node-2"}`).Sync
	require.True(t, s.Votes("node-2"), "names compare without case")
	require.False(t, s.Votes("node-1"))
	require.Equal(t, "pg1", Tags{"replicatefrom": "pg1"}.ReplicateFrom())
	require.Empty(t, Tags{"replicatefrom": true}.ReplicateFrom())
}

// TestStatusBeatsOptime: the legacy key counts only where there is no status.
func TestStatusBeatsOptime(t *testing.T) {
	c := Decode([]Item{{Key: KeyOptime, Value: []byte("5")}, {Key: KeyStatus, Value: []byte(`{"optime":7}`)}})
	require.EqualValues(t, 7, c.Status.Optime)
	c = Decode([]Item{{Key: KeyOptime, Value: []byte("5"), Version: 3}})
	require.EqualValues(t, 5, c.Status.Optime)
	require.EqualValues(t, 3, c.Status.Version)
}

// TestYAMLValues: a configuration file has types that JSON lacks; what is published is JSON all the same.
func TestYAMLValues(t *testing.T) {
	got := EncodeConfig(map[string]any{
		"a": int64(-1), "b": uint64(1 << 63), "c": 2.0, "d": math.Inf(1), "e": math.NaN(), "f": time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC),
		"g": map[any]any{1: "x", true: nil, nil: 1.5, "s": []any{}}, "h": "\xff", "i": func() {}, "j": json.Number("nan"), "k": Tags{"x": 1},
	})
	require.Equal(t, `{"a":-1,"b":9223372036854775808,"c":2.0,"d":null,"e":null,"f":"2036-01-01T00:00:00+00:00",`+
		`"g":{"1":"x","null":1.5,"s":[],"true":null},"h":"\ufffd","i":null,"j":null,"k":{"x":1}}`, string(got))
	for _, v := range []any{int64(1), uint64(1), 1, 0.5, json.Number("1e999"), struct{}{}, map[string]any{"x": 1}, []any{1}} {
		require.True(t, truthy(v), "%#v", v)
	}
	for _, v := range []any{int64(0), uint64(0), 0, 0.0, json.Number("-0"), "", nil, false, map[string]any{}, []any{}} {
		require.False(t, truthy(v), "%#v", v)
	}
	for _, v := range []any{7, int64(7), uint64(7), 7.0, "7", json.Number("7"), json.Number("7.2")} {
		require.EqualValues(t, 7, lsn(v), "%#v", v)
	}
	for _, v := range []any{nil, true, -7, -7.5, "x", math.NaN(), 1e300, uint64(1 << 63), json.Number("1e300"), json.Number("x")} {
		require.EqualValues(t, 0, lsn(v), "%#v", v)
	}
	for in, want := range map[float64]int64{math.Inf(1): math.MaxInt64, math.Inf(-1): math.MinInt64, math.NaN(): 0, 2.5: 2, 3.5: 4} {
		require.Equal(t, want, roundInt(in), "%v", in)
	}
	require.Equal(t, "nan inf -inf", pyText(math.NaN())+" "+pyText(math.Inf(1))+" "+pyText(math.Inf(-1)))
}

// TestNoteLine: of what a note names, the line is what a promotion made from WAL that contains it left standing.
func TestNoteLine(t *testing.T) {
	a, b, c := Promotion{2, 100, "a"}, Promotion{3, 200, "b"}, Promotion{3, 150, "c"}
	require.Empty(t, Note{}.Line())
	require.Equal(t, []Promotion{a, b}, Note{Promotions: []Promotion{a}, Promotion: b}.Line())
	require.Equal(t, []Promotion{a, c}, Note{Promotions: []Promotion{a, b}, Promotion: c}.Line(), "the same number again")
	require.Equal(t, []Promotion{{4, 90, "d"}}, Note{Promotions: []Promotion{a, b}, Promotion: Promotion{4, 90, "d"}}.Line(), "made before all of them")
}
