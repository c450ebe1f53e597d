package ctl

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// YAML as Python's safe_dump writes it, which is what people have in their scripts and their eyes: keys in order, lists not
// indented, single quotes only where a plain text would be read as something else.

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// yamlText is a value as a document in block form.
func yamlText(v any) string {
	var b strings.Builder
	yamlBlock(&b, v, "")
	return b.String()
}

func yamlBlock(b *strings.Builder, v any, indent string) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			b.WriteString(indent + "{}\n")
			return
		}
		for _, k := range sortedKeys(v) {
			b.WriteString(indent + yamlScalar(k) + ":")
			yamlValue(b, v[k], indent, indent)
		}
	case []any:
		if len(v) == 0 {
			b.WriteString(indent + "[]\n")
			return
		}
		for _, e := range v {
			b.WriteString(indent + "-")
			if m, ok := e.(map[string]any); ok && len(m) > 0 {
				var inner strings.Builder
				yamlBlock(&inner, m, indent+"  ")
				b.WriteString(" " + strings.TrimPrefix(inner.String(), indent+"  "))
				continue
			}
			if l, ok := e.([]any); ok && len(l) > 0 {
				var inner strings.Builder
				yamlBlock(&inner, l, indent+"  ")
				b.WriteString(" " + strings.TrimPrefix(inner.String(), indent+"  "))
				continue
			}
			yamlValue(b, e, indent+"  ", indent)
		}
	default:
		b.WriteString(indent + yamlScalar(v) + "\n")
	}
}

// yamlValue writes what stands behind a key or a dash.
func yamlValue(b *strings.Builder, v any, indent, list string) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			b.WriteString(" {}\n")
			return
		}
		b.WriteString("\n")
		yamlBlock(b, v, indent+"  ")
	case []any:
		if len(v) == 0 {
			b.WriteString(" []\n")
			return
		}
		b.WriteString("\n")
		yamlBlock(b, v, list)
	case string:
		text := yamlString(v)
		if strings.Contains(v, "\n") && !strings.ContainsFunc(strings.ReplaceAll(v, "\n", ""), control) { // a line break is an empty line in quotes
			text = "'" + strings.ReplaceAll(strings.ReplaceAll(v, "'", "''"), "\n", "\n\n"+indent+"  ") + "'"
		}
		b.WriteString(" " + text + "\n")
	default:
		b.WriteString(" " + yamlScalar(v) + "\n")
	}
}

func control(r rune) bool { return r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 }

// yamlFlow is a value on one line.
func yamlFlow(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var parts []string
		for _, k := range sortedKeys(v) {
			parts = append(parts, yamlScalar(k)+": "+yamlFlow(v[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, yamlFlow(e))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return yamlScalar(v)
}

func yamlScalar(v any) string {
	switch v := v.(type) {
	case nil, none:
		return "null"
	case boolean:
		return strconv.FormatBool(bool(v))
	case bool:
		return strconv.FormatBool(v)
	case string:
		return yamlString(v)
	case json.Number:
		return v.String()
	case float64:
		if v == float64(int64(v)) {
			return strconv.FormatInt(int64(v), 10)
		}
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return fmt.Sprint(v)
}

// notPlain are texts that YAML 1.1 reads as something else than a text.
var notPlain = regexp.MustCompile(`^(?i:y|yes|n|no|true|false|on|off|null|~|)$|` + // booleans, null
	`^[-+]?(0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)$|` + // integers
	`^[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$|` +
	`^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]*)?([ \t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?))?)?$|^(=|<<)$`)

func yamlString(s string) string {
	special := strings.ContainsAny(s[:min(1, len(s))], "!&*?|>@%`\"'#-:,[]{}=<") && !plainStart(s)
	if strings.ContainsFunc(s, control) {
		b, _ := json.Marshal(s)
		return string(b)
	}
	if special || notPlain.MatchString(s) || strings.Contains(s, ": ") || strings.HasSuffix(s, ":") || strings.Contains(s, " #") ||
		strings.TrimSpace(s) != s || strings.HasPrefix(s, "---") || strings.ContainsAny(s, ",[]{}") && strings.ContainsAny(s[:1], "[]{},") {
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	return s
}

// plainStart says that a text may begin as it does: a dash, question mark or colon, and something behind it at once.
func plainStart(s string) bool {
	return len(s) > 1 && strings.ContainsAny(s[:1], "-?:<") && s[1] != ' '
}
