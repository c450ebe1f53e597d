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

	"github.com/pgregent/pgregent/postgres/wal"
)

// Values are written as Patroni writes them: compact, ASCII only, keys in its order (reference section 1.2), so that
// neither program sees a change where there is none.

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
			if r == 0x7f {
				w.WriteRune(r)
				continue
			}
			fmt.Fprintf(w, `\u%04x`, r)
		case r >= 0x10000:
			a, b := utf16.EncodeRune(r)
			fmt.Fprintf(w, `\u%04x\u%04x`, a, b)
		default:
			w.WriteByte(byte(r))
		}
	}
	w.WriteByte('"')
}

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
		w.WriteString(v.String())
	case Tags:
		w.value(map[string]any(v))
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

// EncodeMember is the value of members/<name>.
func EncodeMember(m Member) []byte {
	var w writer
	field := func(key, v string) {
		if v != "" {
			w.key(key)
			w.text(v)
		}
	}
	position := func(key string, v wal.LSN) {
		if v != 0 {
			w.key(key)
			w.WriteString(strconv.FormatUint(uint64(v), 10))
		}
	}
	field("conn_url", m.ConnURL)
	field("api_url", m.APIURL)
	field("state", m.State)
	field("role", m.Role)
	field("version", m.Version)
	field("pgregent", m.Pgregent)
	field("proxy_url", m.ProxyURL)
	if !m.CheckpointAfterPromo {
		w.key("checkpoint_after_promote")
		w.WriteString("false")
	}
	if len(m.Tags) > 0 {
		w.key("tags")
		w.value(m.Tags)
	}
	if m.PendingRestart {
		w.key("pending_restart")
		w.WriteString("true")
		var r writer
		for _, k := range slices.Sorted(maps.Keys(m.PendingRestartReason)) {
			c := m.PendingRestartReason[k]
			r.key(k)
			r.value(map[string]any{"old_value": c.Old, "new_value": c.New})
		}
		w.key("pending_restart_reason")
		w.Write(r.end())
	}
	position("xlog_location", m.Location)
	position("replay_lsn", m.ReplayLSN)
	position("receive_lsn", m.ReceiveLSN)
	field("replication_state", m.ReplicationState)
	if m.Timeline != 0 {
		w.key("timeline")
		w.WriteString(strconv.FormatUint(uint64(m.Timeline), 10))
	}
	if len(m.ScheduledRestart) > 0 {
		w.key("scheduled_restart")
		w.value(m.ScheduledRestart)
	}
	if m.Pause {
		w.key("pause")
		w.WriteString("true")
	}
	return w.end()
}

// EncodeFailover is the value of `failover`; no request is {} (reference section 9.1, item 2).
func EncodeFailover(f Failover) []byte {
	var w writer
	if !f.Requested() {
		return w.end()
	}
	if f.Leader != "" {
		w.key("leader")
		w.text(f.Leader)
	}
	if f.Candidate != "" {
		w.key("member")
		w.text(f.Candidate)
	}
	if !f.ScheduledAt.IsZero() {
		w.key("scheduled_at")
		w.text(isoFormat(f.ScheduledAt))
	}
	return w.end()
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
	w.text(s.Leader)
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

// EncodeHistory is the value of `history`.
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

// EncodeConfig is the value of `config`, keys sorted: readers do not depend on an order.
func EncodeConfig(raw map[string]any) []byte {
	var w writer
	w.value(raw)
	return w.Bytes()
}

// SameMember is Patroni's rule for skipping a write: two objects are the same when their leaves are the same as texts,
// so that 1 equals "1" (reference section 1.4).
func SameMember(a, b []byte) bool {
	x, err1 := object(a)
	y, err2 := object(b)
	if err1 != nil || err2 != nil {
		return bytes.Equal(a, b)
	}
	return sameValue(x, y)
}

func sameValue(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			w, ok := y[k]
			if !ok || !sameValue(v, w) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, sameValue)
	}
	switch b.(type) {
	case map[string]any, []any:
		return false
	}
	return leafText(a) == leafText(b)
}

// leafText is a leaf as Python prints it.
func leafText(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	}
	return fmt.Sprint(v)
}

// Patch merges patch into base as PATCH /config does (reference section 2.7): null deletes an existing key, mappings
// merge, other values replace when their text differs. A key that base lacks is stored as it is, nulls inside included.
// It says whether anything changed.
func Patch(base, patch map[string]any) (changed bool) {
	for k, v := range patch {
		old, exists := base[k]
		switch {
		case !exists:
			if v != nil {
				base[k], changed = v, true
			}
		case v == nil:
			delete(base, k)
			changed = true
		default:
			sub, isMap := v.(map[string]any)
			into, intoMap := old.(map[string]any)
			if isMap && intoMap {
				changed = Patch(into, sub) || changed
			} else if !sameValue(old, v) {
				base[k], changed = v, true
			}
		}
	}
	return changed
}
