package cluster

import (
	"fmt"
	"strconv"
	"strings"
)

// truthy is Python's bool(): a text that is not empty counts, also "false" (reference section 4.8).
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	}
	if n, ok := number(v); ok {
		return n != 0
	}
	return true
}

// NoFailover says that this member must never lead.
func (t Tags) NoFailover() bool {
	if v, ok := t["nofailover"]; ok {
		return truthy(v)
	}
	p, ok := t["failover_priority"]
	return ok && t.priority(p) <= 0
}

func (t Tags) priority(v any) int {
	n, ok := number(v)
	if !ok {
		return 1
	}
	return int(max(min(n, 1<<30), -1<<30))
}

// FailoverPriority breaks ties between equally advanced members; more wins. It is 0 for a member that must not lead,
// and 1 when not configured.
func (t Tags) FailoverPriority() int {
	if v, ok := t["nofailover"]; ok && truthy(v) {
		return 0
	}
	if v, ok := t["failover_priority"]; ok {
		return t.priority(v)
	}
	return 1
}

// NoLoadBalance says that health checks for replicas fail on this member.
func (t Tags) NoLoadBalance() bool { return truthy(t["noloadbalance"]) }

// CloneFrom says that new replicas prefer this member as their source.
func (t Tags) CloneFrom() bool { return truthy(t["clonefrom"]) }

// NoSync says that this member is never a synchronous standby.
func (t Tags) NoSync() bool {
	if v, ok := t["nosync"]; ok {
		return truthy(v)
	}
	p, ok := t["sync_priority"]
	return ok && t.priority(p) <= 0
}

// NoStream says that this member does not stream and needs no slot.
func (t Tags) NoStream() bool { return ParseBool(t["nostream"]) }

// ReplicateFrom is the member that this one cascades from; empty: the leader.
func (t Tags) ReplicateFrom() string { s, _ := t["replicatefrom"].(string); return s }

// Published are the tags as the member key and the REST API show them: switches that are off are left out.
func (t Tags) Published() Tags {
	out := Tags{}
	for k, v := range t {
		switch k {
		case "clonefrom", "noloadbalance", "nostream":
			if !truthy(v) {
				continue
			}
		case "nofailover":
			if _, keep := t["failover_priority"]; !truthy(v) && !keep {
				continue
			}
		case "nosync":
			if _, keep := t["sync_priority"]; !truthy(v) && !keep {
				continue
			}
		}
		out[k] = v
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// Contradictions are tags that say opposite things, one sentence each, with what is done.
func (t Tags) Contradictions() []string {
	var out []string
	for flag, priority := range map[string]string{"nofailover": "failover_priority", "nosync": "sync_priority"} {
		f, ok1 := t[flag]
		p, ok2 := t[priority]
		if ok1 && ok2 && truthy(f) == (t.priority(p) > 0) {
			out = append(out, fmt.Sprintf("tags: %s: %v and %s: %v contradict each other; %s wins", flag, f, priority, p, flag))
		}
	}
	return out
}

// SlotName is the name of a member's physical replication slot (reference section 5.14.1): lower case, - and . become _,
// what PostgreSQL does not take becomes u and its code, at most 63 bytes.
func SlotName(member string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(member) {
		switch {
		case r == '-' || r == '.':
			b.WriteByte('_')
		case r == '_' || (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9'):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "u%04d", r)
		}
	}
	return b.String()[:min(b.Len(), 63)]
}

// ParseBool reads a boolean in the forms that the dynamic configuration takes: on, true, yes, 1 in any case; everything
// else is false (reference section 4.4).
func ParseBool(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case string:
		switch strings.ToLower(strings.TrimSpace(v)) {
		case "on", "true", "yes", "1":
			return true
		}
		return false
	}
	n, ok := number(v)
	return ok && n == 1
}

// parseInt reads an integer C-style: 0x for hexadecimal, a leading 0 for octal; fractions are rounded.
func parseInt(v any) (int64, bool) {
	if s, ok := v.(string); ok {
		s = strings.TrimSpace(s)
		if i, err := strconv.ParseInt(s, 0, 64); err == nil {
			return i, true
		}
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return 0, false
		}
		return number(f)
	}
	return number(v)
}
