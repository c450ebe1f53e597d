package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgregent/pgregent/postgres/wal"
)

// Item is one key of the store, relative to the cluster's prefix.
type Item struct {
	Key     string
	Value   []byte
	Version uint64
	Session string
}

// Decode reads every record that the items hold. Unknown keys are ignored; a value that cannot be read leaves an empty
// record with its error. It never panics, whatever the store holds (hazard E3).
func Decode(items []Item) Cluster {
	var c Cluster
	optime := Item{}
	for _, it := range items {
		k := Key{Present: true, Version: it.Version, Session: it.Session}
		switch {
		case it.Key == KeyLeader:
			c.Leader = Leader{Key: k, Name: string(it.Value)}
		case it.Key == KeyInitialize:
			c.Initialize = Initialize{Key: k, SystemID: string(it.Value)}
		case it.Key == KeyConfig:
			c.Config = decodeConfig(k, it.Value)
		case it.Key == KeyFailover:
			c.Failover = decodeFailover(k, it.Value)
		case it.Key == KeySync:
			c.Sync = decodeSync(k, it.Value)
		case it.Key == KeyStatus:
			c.Status = decodeStatus(k, it.Value)
		case it.Key == KeyOptime:
			optime = it
		case it.Key == KeyHistory:
			c.History = decodeHistory(k, it.Value)
		case it.Key == KeyFailsafe:
			c.Failsafe = decodeFailsafe(k, it.Value)
		case strings.HasPrefix(it.Key, MembersPrefix):
			if name := it.Key[len(MembersPrefix):]; name != "" && !strings.Contains(name, "/") {
				c.Members = append(c.Members, decodeMember(k, name, it.Value))
			}
		}
	}
	if !c.Status.Present && optime.Key != "" { // legacy: only the position, under a key of its own
		c.Status = decodeStatus(Key{Present: true, Version: optime.Version, Session: optime.Session}, optime.Value)
	}
	if !c.Config.Present || c.Config.Err != nil {
		c.Config.Dynamic = ParseDynamic(nil)
	}
	slices.SortFunc(c.Members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return c
}

// object reads a JSON object with its numbers kept exact.
func object(value []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if m == nil {
		return nil, errors.New("not a JSON object")
	}
	if d.More() {
		return nil, errors.New("more than one JSON value")
	}
	return m, nil
}

func (k Key) failed(name string, err error) Key {
	k.Err = fmt.Errorf("cluster: the key %s cannot be read: %w", name, err)
	return k
}

func str(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// number reads an integer, also from a text.
func number(v any) (int64, bool) {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i, true
		}
		f, err := v.Float64()
		if err != nil || math.IsNaN(f) || math.Abs(f) > 1<<62 {
			return 0, false
		}
		return int64(math.Round(f)), true
	case float64:
		if math.IsNaN(v) || math.Abs(v) > 1<<62 {
			return 0, false
		}
		return int64(math.Round(v)), true
	case int:
		return int64(v), true
	case int64:
		return v, true
	case uint64:
		return int64(v), v <= math.MaxInt64
	case string:
		i, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return i, err == nil
	}
	return 0, false
}

func lsn(v any) wal.LSN {
	if i, ok := number(v); ok && i > 0 {
		return wal.LSN(i)
	}
	return 0
}

func decodeConfig(k Key, value []byte) Config {
	m, err := object(value)
	if err != nil {
		return Config{Key: k.failed(KeyConfig, err)}
	}
	return Config{Key: k, Raw: m, Dynamic: ParseDynamic(m)}
}

// decodeFailover also reads the legacy form leader:candidate. null and nothing are no request. Anything else that is not
// an object is no request either, with an error that says so.
func decodeFailover(k Key, value []byte) Failover {
	text := strings.TrimSpace(string(value))
	if text == "" || text == "null" {
		return Failover{Key: k}
	}
	m, err := object(value)
	if err != nil {
		parts := strings.Split(text, ":")
		if len(parts) < 2 || strings.ContainsAny(text, `{}[]"`) || !utf8.ValidString(text) {
			return Failover{Key: k.failed(KeyFailover, err)}
		}
		return Failover{Key: k, Leader: strings.TrimSpace(parts[0]), Candidate: strings.TrimSpace(parts[1])}
	}
	f := Failover{Key: k, Leader: str(m["leader"]), Candidate: str(m["member"])}
	if at := str(m["scheduled_at"]); at != "" {
		if f.ScheduledAt, err = ParseTime(at); err != nil {
			f = Failover{Key: k.failed(KeyFailover, err)}
		}
	}
	return f
}

// ParseTime reads ISO 8601 with an offset: with T or a space between day and time, with or without seconds and their
// fraction, the offset as Z, +02, +0200, +02:00, also after a space. A moment without an offset is an error: nobody can
// know what it means on another machine.
func ParseTime(s string) (time.Time, error) {
	text := strings.TrimSpace(s)
	if len(text) > len("2006-01-02") && text[10] == ' ' {
		text = text[:10] + "T" + text[11:]
	}
	text = strings.ReplaceAll(text, " ", "")
	for _, clock := range [...]string{"15:04:05", "15:04"} {
		for _, zone := range [...]string{"Z07:00", "Z0700", "Z07"} {
			if t, err := time.Parse("2006-01-02T"+clock+zone, text); err == nil && t.Year() > 0 {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%q is no moment with a time zone, as 2036-01-01T00:00:00+00:00", s)
}

// decodeSync: without a leader synchronous replication is not active, and nobody votes, whoever is listed.
func decodeSync(k Key, value []byte) Sync {
	if string(bytes.TrimSpace(value)) == "null" {
		return Sync{Key: k}
	}
	m, err := object(value)
	if err != nil {
		return Sync{Key: k.failed(KeySync, err)}
	}
	s := Sync{Key: k, Leader: str(m["leader"])}
	if s.Leader == "" {
		return s
	}
	for name := range strings.SplitSeq(str(m["sync_standby"]), ",") {
		if name = strings.TrimSpace(name); name != "" {
			s.Standbys = append(s.Standbys, name)
		}
	}
	slices.Sort(s.Standbys)
	if q, ok := number(m["quorum"]); ok && q > 0 && q < 1000 {
		s.Quorum = int(q)
	}
	return s
}

// decodeStatus also reads a bare integer, and objects inside texts.
func decodeStatus(k Key, value []byte) LeaderStatus {
	if i, err := strconv.ParseInt(strings.TrimSpace(string(value)), 10, 64); err == nil {
		return LeaderStatus{Key: k, Optime: lsn(i)}
	}
	m, err := object(value)
	if err != nil {
		return LeaderStatus{Key: k.failed(KeyStatus, err)}
	}
	s := LeaderStatus{Key: k, Optime: lsn(m["optime"])}
	if slots, ok := nested(m["slots"]).(map[string]any); ok {
		s.Slots = map[string]wal.LSN{}
		for name, v := range slots {
			s.Slots[name] = lsn(v)
		}
	}
	if names, ok := nested(m["retain_slots"]).([]any); ok {
		for _, n := range names {
			if name := str(n); name != "" {
				s.RetainSlots = append(s.RetainSlots, name)
			}
		}
	}
	return s
}

// nested is v, or what the JSON in it says when it is a text.
func nested(v any) any {
	s, ok := v.(string)
	if !ok {
		return v
	}
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var out any
	if d.Decode(&out) != nil {
		return nil
	}
	return out
}

func decodeHistory(k Key, value []byte) History {
	var lines [][]any
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	if err := d.Decode(&lines); err != nil {
		return History{Key: k.failed(KeyHistory, err)}
	}
	if lines == nil {
		return History{Key: k.failed(KeyHistory, errors.New("null is no list"))}
	}
	h := History{Key: k}
	for _, l := range lines {
		if len(l) < 3 {
			continue
		}
		tl, ok := number(l[0])
		if !ok || tl <= 0 || tl > math.MaxUint32 {
			return History{Key: k.failed(KeyHistory, fmt.Errorf("%v is no timeline", l[0]))}
		}
		line := HistoryLine{Timeline: wal.Timeline(tl), LSN: lsn(l[1]), Reason: str(l[2])}
		if len(l) > 3 {
			line.At = str(l[3])
		}
		if len(l) > 4 {
			line.NewLeader = str(l[4])
		}
		h.Lines = append(h.Lines, line)
	}
	return h
}

func decodeFailsafe(k Key, value []byte) Failsafe {
	m, err := object(value)
	if err != nil {
		return Failsafe{Key: k.failed(KeyFailsafe, err)}
	}
	f := Failsafe{Key: k, Members: map[string]string{}}
	for name, v := range m {
		f.Members[name] = str(v)
	}
	return f
}

func decodeMember(k Key, name string, value []byte) Member {
	m := Member{Key: k, Name: name, CheckpointAfterPromo: true}
	if bytes.HasPrefix(value, []byte("postgres")) { // legacy: a URL with the api_url as application_name
		u, err := url.Parse(string(value))
		if err != nil {
			m.Key = k.failed(MembersPrefix+name, err)
			return m
		}
		m.APIURL = u.Query().Get("application_name")
		u.RawQuery = ""
		m.ConnURL = u.String()
		return m
	}
	o, err := object(value)
	if err != nil {
		m.Key = k.failed(MembersPrefix+name, err)
		return m
	}
	m.ConnURL, m.APIURL, m.ProxyURL = str(o["conn_url"]), str(o["api_url"]), str(o["proxy_url"])
	m.State, m.Role, m.Version, m.Pgregent = str(o["state"]), str(o["role"]), str(o["version"]), str(o["pgregent"])
	m.NoVote = o["no_vote"] == true
	if m.Role == "master" {
		m.Role = RolePrimary
	}
	if v, ok := o["checkpoint_after_promote"].(bool); ok {
		m.CheckpointAfterPromo = v
	}
	if t, ok := o["tags"].(map[string]any); ok {
		m.Tags = plainNumbers(t)
	}
	m.PendingRestart, _ = o["pending_restart"].(bool)
	if reasons, ok := o["pending_restart_reason"].(map[string]any); ok {
		m.PendingRestartReason = map[string]PendingChange{}
		for name, v := range reasons {
			r, _ := v.(map[string]any)
			m.PendingRestartReason[name] = PendingChange{Old: str(r["old_value"]), New: str(r["new_value"])}
		}
	}
	m.Location, m.ReplayLSN, m.ReceiveLSN = lsn(o["xlog_location"]), lsn(o["replay_lsn"]), lsn(o["receive_lsn"])
	m.ReplicationState = str(o["replication_state"])
	if tl, ok := number(o["timeline"]); ok && tl > 0 && tl <= math.MaxUint32 {
		m.Timeline = wal.Timeline(tl)
	}
	m.ScheduledRestart, _ = o["scheduled_restart"].(map[string]any)
	m.Pause, _ = o["pause"].(bool)
	return m
}

// plainNumbers turns exact numbers into int or float64, as YAML gives them.
func plainNumbers(m map[string]any) Tags {
	t := Tags{}
	for k, v := range m {
		if n, ok := v.(json.Number); ok {
			if i, err := n.Int64(); err == nil {
				v = int(i)
			} else if f, err := n.Float64(); err == nil {
				v = f
			}
		}
		t[k] = v
	}
	return t
}
