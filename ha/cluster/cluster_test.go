package cluster

import (
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
