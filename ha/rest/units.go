package rest

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// cutNumber splits a number from the unit behind it: C's forms of whole numbers, and fractions.
func cutNumber(s string) (value float64, unit string, ok bool) {
	s = strings.TrimSpace(s)
	if len(s) > 100 {
		return 0, "", false
	}
	// The longest beginning that is a number, as strtol and strtod find it.
	for end := len(s); end > 0; end-- {
		head := s[:end]
		if last := head[end-1]; last == ' ' || last == '_' || strings.ContainsAny(head, "_pPnNiI") {
			continue
		}
		if i, err := strconv.ParseInt(head, 0, 64); err == nil {
			return float64(i), strings.TrimSpace(s[end:]), true
		}
		if f, err := strconv.ParseFloat(head, 64); err == nil && !strings.ContainsAny(head, "xX") {
			return f, strings.TrimSpace(s[end:]), true
		}
	}
	return 0, "", false
}

// parseSize reads bytes, or a number with B, kB, MB, GB, TB; what is no whole number of the next smaller unit is rounded
// to it (reference section 2.4). Anything else is no size.
func parseSize(s string) (int64, bool) {
	v, unit, ok := cutNumber(s)
	if !ok {
		return 0, false
	}
	shift := 0
	switch unit {
	case "", "B":
	case "kB":
		shift = 10
	case "MB":
		shift = 20
	case "GB":
		shift = 30
	case "TB":
		shift = 40
	default:
		return 0, false
	}
	if shift > 0 {
		v = math.RoundToEven(v*1024) * float64(int64(1)<<(shift-10))
	}
	return int64(max(-math.MaxInt64/2, min(math.RoundToEven(v), math.MaxInt64/2))), true
}

// parseSeconds reads seconds, or a number with one of PostgreSQL's units of time.
func parseSeconds(s string) (time.Duration, bool) {
	v, unit, ok := cutNumber(s)
	if !ok {
		return 0, false
	}
	scale := map[string]time.Duration{"": time.Second, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[unit]
	if scale == 0 || math.Abs(v) > 1e9 {
		return 0, false
	}
	return (time.Duration(v * float64(scale))).Round(time.Second), true
}
