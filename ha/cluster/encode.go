package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// Values are written as Patroni writes them: compact, ASCII only, keys in its order (reference section 1.2), so that
// neither program sees a change where there is none. Where Patroni's order is the one in which an operator or a query
// happened to name things (tags, slots, the keys of config), names are sorted: readers do not depend on an order.

// writer builds one JSON object in the order of its calls.
type writer struct{ bytes.Buffer }

func (w *writer) key(k string) {
	if w.Len() == 0 {
		w.WriteByte('{')
	} else {
		w.WriteByte(',')
	}
	w.text(k)
	w.WriteByte(':')
}

func (w *writer) end() []byte {
	if w.Len() == 0 {
		return []byte("{}")
	}
	w.WriteByte('}')
	return w.Bytes()
}

// text writes a string as Python's json.dumps does: everything beyond ASCII escaped.
func (w *writer) text(s string) {
	w.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			w.WriteByte('\\')
			w.WriteRune(r)
		case r == '\n':
			w.WriteString(`\n`)
		case r == '\r':
			w.WriteString(`\r`)
		case r == '\t':
			w.WriteString(`\t`)
		case r == '\b':
			w.WriteString(`\b`)
		case r == '\f':
			w.WriteString(`\f`)
		case r < 0x20 || (r >= 0x7f && r < 0x10000):
			w.WriteString(escape(r))
		case r >= 0x10000:
			a, b := utf16.EncodeRune(r)
			w.WriteString(escape(a) + escape(b))
		default:
			w.WriteByte(byte(r))
		}
	}
	w.WriteByte('"')
}

func escape(r rune) string { return fmt.Sprintf(`\u%04x`, r) }

// value writes any decoded JSON or YAML value; mappings are sorted by key.
func (w *writer) value(v any) {
	switch v := v.(type) {
	case nil:
		w.WriteString("null")
	case string:
		w.text(strings.ToValidUTF8(v, string(utf8.RuneError)))
	case bool:
		w.WriteString(strconv.FormatBool(v))
	case int:
		w.WriteString(strconv.Itoa(v))
	case json.Number:
		w.number(v)
	case float64:
		w.number(json.Number(pyFloat(v)))
	case time.Time: // YAML knows moments, JSON does not
		w.text(isoFormat(v))
	case Tags:
		w.value(map[string]any(v))
	case map[any]any: // YAML with keys that are no texts
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[jsonKey(k)] = e
		}
		w.value(m)
	case map[string]any:
		var o writer
		for _, k := range slices.Sorted(maps.Keys(v)) {
			o.key(k)
			o.value(v[k])
		}
		w.Write(o.end())
	case []any:
		w.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				w.WriteByte(',')
			}
			w.value(e)
		}
		w.WriteByte(']')
	default:
		b, err := json.Marshal(v)
		if err != nil {
			b = []byte("null")
		}
		w.Write(b)
	}
}

// number writes a number as it came; one that JSON does not know, such as infinity, is null.
func (w *writer) number(n json.Number) {
	if json.Valid([]byte(n)) {
		w.WriteString(n.String())
		return
	}
	w.WriteString("null")
}

// jsonKey is a mapping's key as Python's json.dumps writes it.
func jsonKey(k any) string {
	switch k := k.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(k)
	}
	return pyText(k)
}

// field writes a text that is not empty.
func (w *writer) field(key, v string) {
	if v != "" {
		w.key(key)
		w.text(v)
	}
}

// position writes an LSN that is known, as a number.
func (w *writer) position(key string, v uint64) {
	if v != 0 {
		w.key(key)
		w.WriteString(strconv.FormatUint(v, 10))
	}
}

// EncodeMember is the value of members/<name>. CheckpointAfterPromo must be true unless this member leads and its
// checkpoint after the promotion is not done: false is written, and keeps others from rewinding from it.
func EncodeMember(m Member) []byte {
	var w writer
	w.field("conn_url", m.ConnURL)
	w.field("api_url", m.APIURL)
	w.field("state", m.State)
	w.field("role", m.Role)
	w.field("version", m.Version)
	w.field("pgregent", m.Pgregent)
	if m.NoVote {
		w.key("no_vote")
		w.WriteString("true")
	}
	w.field("proxy_url", m.ProxyURL)
	if !m.CheckpointAfterPromo {
		w.key("checkpoint_after_promote")
		w.WriteString("false")
	}
	if len(m.Tags) > 0 {
		w.key("tags")
		w.value(m.Tags)
	}
	if m.PendingRestart {
		w.pendingRestart(m.PendingRestartReason)
	}
	w.position("xlog_location", uint64(m.Location))
	w.position("replay_lsn", uint64(m.ReplayLSN))
	w.position("receive_lsn", uint64(m.ReceiveLSN))
	w.field("replication_state", m.ReplicationState)
	w.position("timeline", uint64(m.Timeline))
	if len(m.ScheduledRestart) > 0 {
		w.scheduledRestart(m.ScheduledRestart)
	}
	if m.Pause {
		w.key("pause")
		w.WriteString("true")
	}
	return w.end()
}

func (w *writer) pendingRestart(reasons map[string]PendingChange) {
	w.key("pending_restart")
	w.WriteString("true")
	if len(reasons) == 0 {
		return
	}
	var all writer
	for _, k := range slices.Sorted(maps.Keys(reasons)) {
		var one writer
		one.key("old_value")
		one.text(reasons[k].Old)
		one.key("new_value")
		one.text(reasons[k].New)
		all.key(k)
		all.Write(one.end())
	}
	w.key("pending_restart_reason")
	w.Write(all.end())
}

// scheduledRestart writes the moment first and the postmaster that it is meant for last, as Patroni adds them to the
// filters of the request.
func (w *writer) scheduledRestart(request map[string]any) {
	const first, last = "schedule", "postmaster_start_time"
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(request)), func(k string) bool { return k == first || k == last })
	var o writer
	for _, k := range slices.Concat([]string{first}, names, []string{last}) {
		if v, ok := request[k]; ok {
			o.key(k)
			o.value(v)
		}
	}
	w.key("scheduled_restart")
	w.Write(o.end())
}

// EncodeFailover is the value of `failover`; no request is {}, never an absent key (reference section 9.1, item 2).
func EncodeFailover(f Failover) []byte {
	var w writer
	if !f.Requested() {
		return w.end()
	}
	w.field("leader", f.Leader)
	w.field("member", f.Candidate)
	if !f.ScheduledAt.IsZero() {
		w.key("scheduled_at")
		w.text(isoFormat(f.ScheduledAt))
	}
	return w.end()
}

// ScheduledRestart is a member's `scheduled_restart`: when, for which start of its postmaster, and the filters of the
// request as they were given (reference section 1.4).
func ScheduledRestart(at, started time.Time, filters map[string]any) map[string]any {
	out := maps.Clone(filters)
	if out == nil {
		out = map[string]any{}
	}
	out["schedule"] = isoFormat(at)
	if !started.IsZero() {
		out["postmaster_start_time"] = strings.Replace(isoFormat(started), "T", " ", 1)
	}
	return out
}

// isoFormat is Python's datetime.isoformat().
func isoFormat(t time.Time) string {
	if t.Nanosecond()/1000 == 0 {
		return t.Format("2006-01-02T15:04:05-07:00")
	}
	return t.Format("2006-01-02T15:04:05.000000-07:00")
}

// EncodeSync is the value of `sync`.
func EncodeSync(s Sync) []byte {
	var w writer
	w.key("leader")
	if s.Leader == "" {
		w.WriteString("null") // synchronous replication is not active
	} else {
		w.text(s.Leader)
	}
	w.key("quorum")
	w.WriteString(strconv.Itoa(s.Quorum))
	w.key("sync_standby")
	if len(s.Standbys) == 0 {
		w.WriteString("null")
	} else {
		w.text(strings.Join(slices.Sorted(slices.Values(s.Standbys)), ","))
	}
	return w.end()
}

// EncodeStatus is the value of `status`.
func EncodeStatus(s LeaderStatus) []byte {
	var w writer
	w.key("optime")
	w.WriteString(strconv.FormatUint(uint64(s.Optime), 10))
	if len(s.Slots) > 0 {
		var o writer
		for _, name := range slices.Sorted(maps.Keys(s.Slots)) {
			o.key(name)
			o.WriteString(strconv.FormatUint(uint64(s.Slots[name]), 10))
		}
		w.key("slots")
		w.Write(o.end())
	}
	if len(s.RetainSlots) > 0 {
		names := make([]any, 0, len(s.RetainSlots))
		for _, n := range slices.Sorted(slices.Values(s.RetainSlots)) {
			names = append(names, n)
		}
		w.key("retain_slots")
		w.value(names)
	}
	return w.end()
}

// EncodeHistory is the value of `history`; no lines are [], which readers take for timeline 1. A line keeps the length
// that it had: three elements without moment and leader, four without leader.
func EncodeHistory(lines []HistoryLine) []byte {
	all := make([]any, 0, len(lines))
	for _, l := range lines {
		row := []any{int(l.Timeline), json.Number(strconv.FormatUint(uint64(l.LSN), 10)), l.Reason}
		if l.At != "" || l.NewLeader != "" {
			row = append(row, l.At)
		}
		if l.NewLeader != "" {
			row = append(row, l.NewLeader)
		}
		all = append(all, row)
	}
	var w writer
	w.value(all)
	return w.Bytes()
}

// EncodeFailsafe is the value of `failsafe`.
func EncodeFailsafe(members map[string]string) []byte {
	var w writer
	for _, name := range slices.Sorted(maps.Keys(members)) {
		w.key(name)
		w.text(members[name])
	}
	return w.end()
}

// EncodeConfig is the value of `config`, keys sorted at every level; numbers that were decoded keep their spelling.
func EncodeConfig(raw map[string]any) []byte {
	var w writer
	w.value(raw)
	return w.Bytes()
}
