package cluster

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/postgres/wal"
)

// live is a value as a running Patroni 4.1.4 wrote it (reference sections 1.3 and 1.4).
func live(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/live/" + name + ".json")
	require.NoError(t, err)
	return string(b)
}

func decode(key, value string) Cluster {
	return Decode([]Item{{Key: key, Value: []byte(value), Version: 7, Session: "s"}})
}

// encoded decodes the value of a key and writes it again; nil when the key holds no record of its own.
func encoded(key, value string) ([]byte, error) {
	c := decode(key, value)
	switch key {
	case KeyConfig:
		return EncodeConfig(c.Config.Raw), c.Config.Err
	case KeyFailover:
		return EncodeFailover(c.Failover), c.Failover.Err
	case KeySync:
		return EncodeSync(c.Sync), c.Sync.Err
	case KeyStatus:
		return EncodeStatus(c.Status), c.Status.Err
	case KeyHistory:
		return EncodeHistory(c.History.Lines), c.History.Err
	case KeyFailsafe:
		return EncodeFailsafe(c.Failsafe.Members), c.Failsafe.Err
	case MembersPrefix + "m":
		return EncodeMember(c.Members[0]), c.Members[0].Err
	}
	return nil, nil
}

// codecs are the keys that encoded knows.
func codecs() []string {
	return []string{KeyConfig, KeyFailover, KeySync, KeyStatus, KeyHistory, KeyFailsafe, MembersPrefix + "m"}
}

// TestLiveValuesComeBack decodes and encodes what Patroni wrote: the same bytes, apart from the order of names that are
// sorted here.
func TestLiveValuesComeBack(t *testing.T) {
	for key, file := range map[string]string{KeyFailover: "failover", KeySync: "sync", KeyHistory: "history", KeyFailsafe: "failsafe"} {
		want := live(t, file)
		got, err := encoded(key, want)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	for _, file := range []string{"members-node-1", "members-node-2"} {
		want := live(t, file)
		got, err := encoded(MembersPrefix+"m", want)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
		require.True(t, SameMember([]byte(want), got))
	}
	got, err := encoded(KeyStatus, live(t, "status"))
	require.NoError(t, err)
	require.Equal(t, `{"optime":50331784,"slots":{"node_1":50331784,"node_2":50331784,"perm":24385680},"retain_slots":["node_1","node_2"]}`, string(got))
	got, err = encoded(KeyConfig, live(t, "config"))
	require.NoError(t, err)
	require.Equal(t, `{"failsafe_mode":true,"loop_wait":5,"postgresql":{"parameters":{"max_connections":50},"use_pg_rewind":true},"retry_timeout":5,"slots":{"perm":{"type":"physical"}},"synchronous_mode":"quorum","ttl":20}`, string(got))
}

func TestEncodeMemberInFull(t *testing.T) {
	got := EncodeMember(Member{
		ConnURL: ConnURL("10.0.0.5", 5432, ""), APIURL: "http://10.0.0.5:8008/patroni", State: StateRunning, Role: RolePrimary,
		Version: ProtocolVersion, Pgregent: "0.1.0", Tags: Tags{"nofailover": "1", "weight": 1.0, "b": nil}, PendingRestart: true,
		PendingRestartReason: map[string]PendingChange{"max_connections": {Old: "100", New: "101"}, "a": {Old: "x"}},
		Location:             5, Timeline: 2, Pause: true,
		ScheduledRestart: map[string]any{"schedule": "2036-01-01T00:00:00+00:00", "restart_pending": true, "postmaster_start_time": "2026-11-22 19:55:24.909680+00:00"},
	})
	require.Equal(t, `{"conn_url":"postgres://10.0.0.5:5432/postgres","api_url":"http://10.0.0.5:8008/patroni","state":"running","role":"primary",`+
		`"version":"4.1.0","pgregent":"0.1.0","checkpoint_after_promote":false,"tags":{"b":null,"nofailover":"1","weight":1.0},`+
		`"pending_restart":true,"pending_restart_reason":{"a":{"old_value":"x","new_value":""},"max_connections":{"old_value":"100","new_value":"101"}},`+
		`"xlog_location":5,"timeline":2,"scheduled_restart":{"schedule":"2036-01-01T00:00:00+00:00","restart_pending":true,"postmaster_start_time":"2026-11-22 19:55:24.909680+00:00"},"pause":true}`,
		string(got))
	again, err := encoded(MembersPrefix+"m", string(got))
	require.NoError(t, err)
	require.Equal(t, string(got), string(again))
}

func TestEmptyRecords(t *testing.T) {
	require.Equal(t, `{}`, string(EncodeFailover(Failover{ScheduledAt: time.Now()})), "a moment alone is no request")
	require.Equal(t, `{"leader":"a","quorum":0,"sync_standby":null}`, string(EncodeSync(Sync{Leader: "a"})))
	require.Equal(t, `{"leader":null,"quorum":0,"sync_standby":null}`, string(EncodeSync(Sync{})))
	require.Equal(t, `{"optime":0}`, string(EncodeStatus(LeaderStatus{})))
	require.Equal(t, `[]`, string(EncodeHistory(nil)))
	require.Equal(t, `{}`, string(EncodeFailsafe(nil)))
	require.Equal(t, `{}`, string(EncodeConfig(nil)))
	require.Equal(t, `{}`, string(EncodeMember(Member{CheckpointAfterPromo: true})))
	require.Equal(t, `[[1,5,"x"],[2,6,"y","t"],[3,7,"z","","n"]]`, string(EncodeHistory([]HistoryLine{
		{Timeline: 1, LSN: 5, Reason: "x"}, {Timeline: 2, LSN: 6, Reason: "y", At: "t"}, {Timeline: 3, LSN: 7, Reason: "z", NewLeader: "n"}})))
}

func TestMemberURLs(t *testing.T) {
	for address, want := range map[string]string{"10.0.0.5": "postgres://10.0.0.5:5433/db", "fe80::1": "postgres://[fe80::1]:5433/db"} {
		m := Member{ConnURL: ConnURL(address, 5433, "db")}
		require.Equal(t, want, m.ConnURL)
		host, port := m.HostPort()
		require.Equal(t, address, host)
		require.Equal(t, 5433, port)
	}
	for _, bad := range []string{"", "postgres://", "::", "postgres://h:99999999999999999999/db"} {
		host, port := Member{ConnURL: bad}.HostPort()
		require.True(t, host == "" && port == 0, "%q: %s %d", bad, host, port)
	}
	_, port := Member{ConnURL: "postgres://h/db"}.HostPort()
	require.Equal(t, 5432, port)
	require.Equal(t, "https://[::1]:8008", Member{APIURL: "https://[::1]:8008/patroni"}.APIBase())
	for _, bad := range []string{"", "ftp://h/patroni", "http:///patroni", "%"} {
		require.Empty(t, Member{APIURL: bad}.APIBase(), bad)
	}
}

func TestNote(t *testing.T) {
	n := Note{Promotion: Promotion{Timeline: 2, LSN: 0x5000, ID: "b"}, Promotions: []Promotion{{Timeline: 1, LSN: 1, ID: "a"}}, End: wal.Position{Timeline: 2, LSN: 0x6000}, Target: "pg2"}
	b, err := EncodeNote(n)
	require.NoError(t, err)
	require.Equal(t, `{"promotion":{"timeline":2,"lsn":"0/5000","id":"b"},"promotions":[{"timeline":1,"lsn":"0/1","id":"a"}],"end":{"timeline":2,"lsn":"0/6000"},"target":"pg2"}`, string(b))
	got, err := ParseNote(b)
	require.NoError(t, err)
	require.Equal(t, n, got)

	b, err = EncodeNote(Note{})
	require.NoError(t, err)
	require.Equal(t, `{}`, string(b))
	got, err = ParseNote(nil)
	require.NoError(t, err)
	require.Equal(t, Note{}, got)
	got, err = ParseNote([]byte(`{"later":[1],"target":"x"}`))
	require.NoError(t, err)
	require.Equal(t, Note{Target: "x"}, got)
	for _, bad := range []string{"{", "x", "[]", `{"promotion":{"lsn":5}}`, `{"end":{"timeline":"1"}}`, `{} {}`} {
		_, err := ParseNote([]byte(bad))
		require.Error(t, err, bad)
	}

	many := Note{}
	for i := range MaxPromotions + 3 {
		many.Promotions = append(many.Promotions, Promotion{Timeline: wal.Timeline(i + 1), ID: "x"})
	}
	b, err = EncodeNote(many)
	require.NoError(t, err)
	got, err = ParseNote(b)
	require.NoError(t, err)
	require.Equal(t, many.Promotions[3:], got.Promotions, "the newest are kept")
	require.Len(t, many.Promotions, MaxPromotions+3, "the caller's note is as it was")
}

func TestParseTime(t *testing.T) {
	want := time.Date(2036, 1, 2, 3, 4, 5, 250_000_000, time.UTC)
	for _, s := range []string{"2036-01-02T03:04:05.25+00:00", "2036-01-02 05:04:05.250000+02", " 2036-01-02T03:04:05.25Z ", "2036-01-02T01:34:05.25-0130", "2036-01-02 03:04:05.25 +00:00"} {
		got, err := ParseTime(s)
		require.NoError(t, err, s)
		require.True(t, want.Equal(got), "%s is %v", s, got)
	}
	for _, s := range []string{"", "tomorrow", "2036-01-02", "2036-01-02T03:04:05", "2036-13-02T03:04:05Z", "2036-01-02T03:04:05 CET", "0000-01-01T00:00Z"} {
		_, err := ParseTime(s)
		require.Error(t, err, s)
	}
	for in, want := range map[string]string{"2036-01-01T00:00:00.5+02:00": "2036-01-01T00:00:00.500000+02:00", "2036-01-01 00:00Z": "2036-01-01T00:00:00+00:00"} {
		got, err := encoded(KeyFailover, `{"leader":"a","scheduled_at":"`+in+`"}`)
		require.NoError(t, err)
		require.Equal(t, `{"leader":"a","scheduled_at":"`+want+`"}`, string(got))
	}
}
