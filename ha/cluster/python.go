package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Patroni reads values the way Python and PostgreSQL do. These are its rules where they decide something: when a text
// is a number, when it is true, and when two values look the same.

// pyText is str(v) of a leaf: what Patroni's comparisons and parsers see.
func pyText(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case string:
		return v
	case json.Number:
		if !strings.ContainsAny(v.String(), ".eE") {
			if v == "-0" {
				return "0"
			}
			return v.String()
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return pyFloat(f)
	case float64:
		return pyFloat(v)
	}
	return fmt.Sprint(v)
}

// pyFloat is repr() of a float: the shortest digits that read back, with a point or an exponent.
func pyFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// truthy is bool(v): a text that is not empty counts, also "false" (reference section 4.8).
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case map[string]any:
		return len(v) > 0
	case []any:
		return len(v) > 0
	case json.Number:
		f, err := v.Float64()
		return err != nil || f != 0
	case float64:
		return v != 0
	case int:
		return v != 0
	case int64:
		return v != 0
	case uint64:
		return v != 0
	}
	return true
}

// ParseBool reads a boolean in the forms that the dynamic configuration takes: on, true, yes, 1 in any case; everything
// else is false (reference section 4.4).
func ParseBool(v any) bool {
	b, _ := parseBool(v)
	return b
}

// parseBool also says whether v is one of the forms, of which off, false, no, 0 are the others.
func parseBool(v any) (value, ok bool) {
	switch strings.ToLower(pyText(v)) {
	case "on", "true", "yes", "1":
		return true, true
	case "off", "false", "no", "0":
		return false, true
	}
	return false, false
}

// parseInt reads an integer C-style: 0x for hexadecimal, a leading 0 for octal, fractions rounded (reference section
// 4.4). What is left over makes it no integer: there are no units. Beyond int64 it is cut to that.
func parseInt(v any) (int64, bool) {
	number, unit := cutNumber(strings.TrimSpace(pyText(v)))
	if unit != "" {
		return 0, false
	}
	if i, ok := intOf(number); ok { // beyond 2^53 a float64 would not be exact
		return i, true
	}
	f, ok := floatOf(number)
	return roundInt(f), ok
}

// parseSeconds is parseInt for a duration that may have one of PostgreSQL's units; without one it is in seconds. What
// is not a whole number of the next smaller unit is rounded to it first, as PostgreSQL does.
func parseSeconds(v any) (int64, bool) {
	number, unit := cutNumber(strings.TrimSpace(pyText(v)))
	f, ok := floatOf(number)
	if !ok {
		return 0, false
	}
	switch unit {
	case "":
		return roundInt(f), true
	case "d":
		return roundInt(math.RoundToEven(f*24) * 3600), true
	case "h":
		return roundInt(math.RoundToEven(f*60) * 60), true
	case "min":
		return roundInt(math.RoundToEven(f * 60)), true
	case "s":
		return roundInt(math.RoundToEven(f*1000) / 1000), true
	case "ms":
		return roundInt(math.RoundToEven(f*1000) / 1e6), true
	case "us":
		return roundInt(f / 1e6), true
	}
	return 0, false
}

// cutNumber splits a text after the longest number that it begins with, in strtol's forms first, then in strtod's.
func cutNumber(s string) (number, rest string) {
	sign := 0
	if s != "" && (s[0] == '-' || s[0] == '+') {
		sign = 1
	}
	span := func(from int, digits string) int {
		i := from
		for i < len(s) && strings.IndexByte(digits, s[i]) >= 0 {
			i++
		}
		return i
	}
	var end int
	switch body := s[sign:]; {
	case len(body) > 2 && body[0] == '0' && body[1] == 'x' && span(sign+2, hexDigits) > sign+2:
		end = span(sign+2, hexDigits)
		return s[:end], strings.TrimSpace(s[end:])
	case body != "" && body[0] == '0':
		end = span(sign, "01234567")
	default:
		end = span(sign, "0123456789")
	}
	if end > sign && (end == len(s) || strings.IndexByte(".eE", s[end]) < 0) {
		return s[:end], strings.TrimSpace(s[end:])
	}
	return cutFloat(s, sign, span)
}

const hexDigits = "0123456789abcdefABCDEF"

// cutFloat is cutNumber for a fraction or an exponent.
func cutFloat(s string, sign int, span func(int, string) int) (number, rest string) {
	whole := span(sign, "0123456789")
	end := whole
	if whole < len(s) && s[whole] == '.' {
		if last := span(whole+1, "0123456789"); last > whole+1 {
			end = last
		}
	}
	if end == sign { // no digit at all
		return "", s
	}
	if end < len(s) && (s[end] == 'e' || s[end] == 'E') {
		digits := end + 1
		if digits < len(s) && (s[digits] == '-' || s[digits] == '+') {
			digits++
		}
		if last := span(digits, "0123456789"); last > digits {
			end = last
		}
	}
	return s[:end], strings.TrimSpace(s[end:])
}

// intOf reads what cutNumber cut, when it is an integer; cut to int64.
func intOf(number string) (int64, bool) {
	i, err := strconv.ParseInt(number, 0, 64)
	if err == nil {
		return i, true
	}
	if errors.Is(err, strconv.ErrRange) {
		return i, true
	}
	return 0, false
}

func floatOf(number string) (float64, bool) {
	if number == "" {
		return 0, false
	}
	if i, ok := intOf(number); ok {
		return float64(i), true
	}
	f, err := strconv.ParseFloat(number, 64)
	return f, err == nil || math.IsInf(f, 0)
}

// roundInt rounds half to even, as Python does, and cuts to int64.
func roundInt(f float64) int64 {
	switch f = math.RoundToEven(f); {
	case math.IsNaN(f):
		return 0
	case f >= math.MaxInt64:
		return math.MaxInt64
	case f <= math.MinInt64:
		return math.MinInt64
	}
	return int64(f)
}
