package cluster

import (
	"fmt"
	"math"
	"strings"
	"unicode"
)

// NoFailover says that this member must never lead: the tag nofailover, or without it a failover_priority of 0 or less.
func (t Tags) NoFailover() bool { return t.excluded("nofailover", "failover_priority") }

// FailoverPriority breaks ties between equally advanced members; more wins. It is 0 with the tag nofailover, and 1 when
// nothing is configured. A member may lead with priority 0 when nofailover: false stands beside it; ask NoFailover.
func (t Tags) FailoverPriority() int { return t.priority("nofailover", "failover_priority") }

// NoSync says that this member is never a synchronous standby: the tag nosync, or without it a sync_priority of 0 or less.
func (t Tags) NoSync() bool { return t.excluded("nosync", "sync_priority") }

// SyncPriority orders the members that can be synchronous standbys, as FailoverPriority does for leading.
func (t Tags) SyncPriority() int { return t.priority("nosync", "sync_priority") }

// excluded is the flag, or what the priority says where the flag is missing or null.
func (t Tags) excluded(flag, priority string) bool {
	if v := t[flag]; v != nil {
		return truthy(v)
	}
	n, ok := parseInt(t[priority])
	return ok && n <= 0
}

func (t Tags) priority(flag, priority string) int {
	if truthy(t[flag]) {
		return 0
	}
	n, ok := parseInt(t[priority])
	if !ok {
		return 1
	}
	return int(max(min(n, math.MaxInt32), math.MinInt32))
}

// NoLoadBalance says that health checks for replicas fail on this member.
func (t Tags) NoLoadBalance() bool { return truthy(t["noloadbalance"]) }

// CloneFrom says that new replicas prefer this member as their source.
func (t Tags) CloneFrom() bool { return truthy(t["clonefrom"]) }

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
	for _, pair := range [...][2]string{{"nofailover", "failover_priority"}, {"nosync", "sync_priority"}} {
		flag, priority := t[pair[0]], t[pair[1]]
		n, ok := parseInt(priority)
		if flag == nil || !ok || truthy(flag) == (n <= 0) {
			continue
		}
		out = append(out, fmt.Sprintf("the tags %s: %v and %s: %v contradict each other; %[1]s decides", pair[0], flag, pair[1], priority))
	}
	return out
}

// SlotName is the name of a member's physical replication slot (reference section 5.14.1): lower case, - and . become _,
// what PostgreSQL does not take becomes u and its code point in at least four decimal digits, at most 63 bytes. Two
// members can share a name; nothing here prevents it.
func SlotName(member string) string {
	var b strings.Builder
	name := []rune(member)
	for i, r := range name {
		switch r = unicode.ToLower(r); {
		case r == '-' || r == '.':
			b.WriteByte('_')
		case name[i] == 'İ': // Unicode's full mapping, as Python has it: i and a combining dot above
			b.WriteString("iu0775")
		case name[i] == 'Σ' && endsWord(name, i):
			b.WriteString("u0962") // ς
		case r == '_' || (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9'):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "u%04d", r)
		}
	}
	return b.String()[:min(b.Len(), 63)]
}

// endsWord is Unicode's condition for a final sigma: a letter with case before it, none after it, not counting marks.
func endsWord(name []rune, i int) bool {
	cased := func(r rune) bool {
		return unicode.In(r, unicode.Lu, unicode.Ll, unicode.Lt, unicode.Other_Lowercase, unicode.Other_Uppercase)
	}
	passed := func(r rune) bool {
		return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk) || strings.ContainsRune(".:'’·", r)
	}
	before, after := i-1, i+1
	for before >= 0 && passed(name[before]) {
		before--
	}
	for after < len(name) && passed(name[after]) {
		after++
	}
	return before >= 0 && cased(name[before]) && (after == len(name) || !cased(name[after]))
}
