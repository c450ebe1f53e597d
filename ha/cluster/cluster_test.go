package cluster

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/postgres/wal"
)

// The values were written by a Patroni 4.1.4 (reference sections 1.3 and 1.4).
const (
	primaryJSON = `{"conn_url":"postgres://127.0.0.1:15431/postgres","api_url":"http://127.0.0.1:18001/patroni","state":"running","role":"primary","version":"4.1.4","proxy_url":"postgres://127.0.0.1:16431/postgres","tags":{"clonefrom":true,"custom":"abc"},"xlog_location":50331784,"timeline":1}`
	replicaJSON = `{"conn_url":"postgres://127.0.0.1:15432/postgres","api_url":"http://127.0.0.1:18002/patroni","state":"running","role":"replica","version":"4.1.4","tags":{"clonefrom":true},"xlog_location":50331840,"replay_lsn":50331840,"receive_lsn":50331840,"replication_state":"streaming","timeline":1}`
	statusJSON  = `{"optime":50331784,"slots":{"node_1":50331784,"node_2":50331784,"perm":24385680},"retain_slots":["node_1","node_2"]}`
	historyJSON = `[[1,50616232,"no recovery target specified","2026-11-22T19:57:31.528529+00:00","node-2"],[2,50616864,"no recovery target specified","2026-11-22T19:58:48.444529+00:00","node-1"]]`
	syncJSON    = `{"leader":"node-1","quorum":0,"sync_standby":"node-2,node-3"}`
)

func decode(key, value string) Cluster {
	return Decode([]Item{{Key: key, Value: []byte(value), Version: 7, Session: "s"}})
}

func TestPatroniValuesRoundTrip(t *testing.T) {
	for _, v := range []string{primaryJSON, replicaJSON} {
		c := decode("members/node-1", v)
		require.NoError(t, c.Members[0].Err)
		require.Equal(t, v, string(EncodeMember(c.Members[0])))
	}
	require.Equal(t, statusJSON, string(EncodeStatus(decode(KeyStatus, statusJSON).Status)))
	require.Equal(t, historyJSON, string(EncodeHistory(decode(KeyHistory, historyJSON).History.Lines)))
	require.Equal(t, syncJSON, string(EncodeSync(decode(KeySync, syncJSON).Sync)))
	failover := `{"leader":"node-1","member":"node-2","scheduled_at":"2036-01-01T00:00:00+00:00"}`
	require.Equal(t, failover, string(EncodeFailover(decode(KeyFailover, failover).Failover)))
	failsafe := `{"node-1":"http://127.0.0.1:18001/patroni","node-2":"http://127.0.0.1:18002/patroni"}`
	require.Equal(t, failsafe, string(EncodeFailsafe(decode(KeyFailsafe, failsafe).Failsafe.Members)))
	require.Equal(t, `{}`, string(EncodeFailover(Failover{ScheduledAt: time.Now()})), "a moment alone is no request")
	require.Equal(t, `{"leader":"a","quorum":0,"sync_standby":null}`, string(EncodeSync(Sync{Leader: "a"})))
}

func TestMemberFields(t *testing.T) {
	m := decode("members/node-2", replicaJSON).Members[0]
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
		require.Error(t, decode(KeySync, v).Sync.Err, "%q", v)
		require.Error(t, decode(KeyFailsafe, v).Failsafe.Err, "%q", v)
	}
	require.Error(t, decode(KeyHistory, `{"a":1}`).History.Err)
	require.Error(t, decode(KeyFailover, `{"leader":"a","scheduled_at":"tomorrow"}`).Failover.Err)
	require.Equal(t, 30*time.Second, decode(KeyConfig, "garbage").Config.TTL, "the defaults stay")
}

func FuzzDecode(f *testing.F) {
	for _, v := range []string{primaryJSON, replicaJSON, statusJSON, historyJSON, syncJSON, "a:b", "17", "postgres://x", "{}", "[[1,2,\"\"]]"} {
		f.Add([]byte(v))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		keys := []string{KeyLeader, KeyInitialize, KeyConfig, KeyFailover, KeySync, KeyStatus, KeyOptime, KeyHistory, KeyFailsafe, "members/m"}
		for _, k := range keys {
			c := decode(k, string(value))
			for key, again := range map[string][]byte{
				"members/m": EncodeMember(append(c.Members, Member{})[0]), KeyFailover: EncodeFailover(c.Failover), KeySync: EncodeSync(c.Sync),
				KeyStatus: EncodeStatus(c.Status), KeyHistory: EncodeHistory(c.History.Lines), KeyFailsafe: EncodeFailsafe(c.Failsafe.Members),
			} {
				require.True(t, json.Valid(again), "%s: %s", key, again)
			}
			if c.Status.Err == nil && c.Status.Present {
				b := EncodeStatus(c.Status)
				require.Equal(t, string(b), string(EncodeStatus(decode(KeyStatus, string(b)).Status)))
			}
		}
		_, _ = ParseNote(value)
	})
}

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

	d := ParseDynamic(map[string]any{"synchronous_mode": "quorum", "failsafe_mode": true, "slots": map[string]any{"x": nil}, "maximum_lag_on_failover": "1MB"})
	require.Len(t, d.Unsupported, 3)
	require.EqualValues(t, 1<<20, d.MaximumLagOnFailover)
	require.Len(t, d.Warnings, 1)
	require.Empty(t, ParseDynamic(map[string]any{"synchronous_mode": "off", "failsafe_mode": false, "slots": map[string]any{}}).Unsupported)
}

// record is one WAL record of the model: where it stands, and which promotion's server wrote it.
type record struct {
	lsn   wal.LSN
	tl    wal.Timeline
	owner string
}

// server is a model server: its records, and what Compare may see of it.
type server struct {
	records []record
	branch  Branch
	primary bool // it was promoted itself, and writes
}

func (s server) clone() server {
	c := server{ // a copy is a standby
		records: append([]record(nil), s.records...), branch: s.branch,
	}
	c.branch.History.Switches = append([]wal.Switch(nil), s.branch.History.Switches...)
	c.branch.Promotions = append([]Promotion(nil), s.branch.Promotions...)
	return c
}

func (s *server) write(n int) {
	for range n {
		owner := "initdb"
		if k := len(s.branch.Promotions); k > 0 {
			owner = s.branch.Promotions[k-1].ID
		}
		s.branch.End.LSN += 10
		s.records = append(s.records, record{s.branch.End.LSN, s.branch.History.Tip, owner})
	}
}

func (s *server) promote(tl wal.Timeline, id string) {
	h := &s.branch.History
	h.Switches = append(h.Switches, wal.Switch{Timeline: h.Tip, LSN: s.branch.End.LSN})
	h.Tip = tl
	s.branch.Promotions = append(s.branch.Promotions, Promotion{Timeline: tl, LSN: s.branch.End.LSN, ID: id})
	s.branch.End.Timeline = tl
	s.primary = true
}

// cut keeps the first records only, as a standby that has received no more, still on the timelines that it has.
func (s server) cut(n int) server {
	c := s.clone()
	c.records = c.records[:n]
	last := wal.Position{Timeline: 1, LSN: 10}
	if n > 0 {
		last = wal.Position{Timeline: c.records[n-1].tl, LSN: c.records[n-1].lsn}
	}
	c.branch.End = last
	for len(c.branch.History.Switches) > 0 && c.branch.History.Tip > last.Timeline {
		k := len(c.branch.History.Switches) - 1
		c.branch.History.Tip = c.branch.History.Switches[k].Timeline
		c.branch.History.Switches = c.branch.History.Switches[:k]
		c.branch.Promotions = c.branch.Promotions[:len(c.branch.Promotions)-1]
	}
	return c
}

func prefix(a, b []record) bool {
	if len(a) > len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestCompareAgainstRecords draws pairs of servers that were promoted apart, cut off and cloned, and checks Compare
// against the records themselves: it must never call a server behind that holds records the other lacks, and with
// every identity known it must never call one diverged that holds none.
func TestCompareAgainstRecords(t *testing.T) {
	counts := map[Relation]int{}
	for seed := range uint64(20000) {
		r := rand.New(rand.NewPCG(seed, 1))
		first := server{branch: Branch{History: wal.History{Tip: 1}, End: wal.Position{Timeline: 1}}}
		first.write(1 + r.IntN(3))
		all := []server{first, first.clone(), first.clone()}
		for step := range 12 {
			i, j := r.IntN(3), r.IntN(3)
			switch r.IntN(4) {
			case 0: // promotion chooses 1 + the highest timeline that this server sees
				all[i].promote(all[i].branch.History.Tip+1, string(rune('A'+step)))
				all[i].write(1 + r.IntN(2)) // a promotion writes an end-of-recovery record
			case 1:
				if all[i].primary {
					all[i].write(r.IntN(3))
				}
			case 2: // i becomes a copy of j, maybe behind
				all[i] = all[j].cut(1 + r.IntN(len(all[j].records)))
			case 3:
				if rel, _ := Compare(all[i].branch, all[j].branch); rel == RelationBehind {
					all[i] = all[j].clone() // it streams to the end
				}
			}
		}
		a, b := all[0], all[1]
		rel, fork := Compare(a.branch, b.branch)
		counts[rel]++
		switch rel {
		case RelationBehind:
			// On one and the same timeline the other may be a shorter copy; it is still one line.
			require.True(t, prefix(a.records, b.records) || (a.branch.End.Timeline == b.branch.End.Timeline && prefix(b.records, a.records)), "seed %d: behind, but it holds records that the other lacks\n%+v\n%+v", seed, a, b)
		case RelationDiverged:
			require.False(t, prefix(a.records, b.records), "seed %d: diverged at %v, but all of it is there\n%+v\n%+v", seed, fork, a, b)
			for _, rec := range a.records {
				if rec.lsn <= min(fork.LSN, b.branch.End.LSN) && rec.tl <= fork.Timeline {
					require.Contains(t, b.records, rec, "seed %d: fork %v is too late", seed, fork)
				}
			}
		case RelationUnknown:
			t.Fatalf("seed %d: everything is known", seed)
		}
	}
	for rel := RelationBehind; rel <= RelationOtherPromotion; rel++ {
		require.Greater(t, counts[rel], 500, "relation %d was hardly drawn: %v", rel, counts)
	}
}
