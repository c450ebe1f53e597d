package wal

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ParseLSN reads PostgreSQL's text form, two hexadecimal numbers: "16/B374D848".
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	h, err1 := hex(hi)
	l, err2 := hex(lo)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("wal: %q is no LSN: two hexadecimal numbers with a slash are expected, as 16/B374D848", s)
	}
	return LSN(h<<32 | l), nil
}

func hex(s string) (uint64, error) {
	if len(s) == 0 || len(s) > 8 {
		return 0, errors.New("one to eight hexadecimal digits are expected")
	}
	if strings.Trim(s, "0123456789abcdefABCDEF") != "" {
		return 0, errors.New("not hexadecimal")
	}
	return strconv.ParseUint(s, 16, 32)
}

// String is PostgreSQL's text form.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint64(l)&0xFFFFFFFF) }

// Sub is how many bytes l is ahead of m; negative when it is behind. A distance beyond what int64 holds is cut to it.
func (l LSN) Sub(m LSN) int64 {
	if l >= m {
		return int64(min(uint64(l-m), math.MaxInt64))
	}
	return -int64(min(uint64(m-l), math.MaxInt64))
}

// Lag is how many bytes of WAL l lacks to reach ahead: 0 when it is there or beyond. Unknown positions have no lag to
// speak of; ask before.
func (l LSN) Lag(ahead LSN) uint64 {
	if ahead <= l {
		return 0
	}
	return uint64(ahead - l)
}

// MarshalText is String, so that JSON holds an LSN as a text.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is ParseLSN.
func (l *LSN) UnmarshalText(b []byte) error {
	v, err := ParseLSN(string(b))
	if err == nil {
		*l = v
	}
	return err
}

// String is "timeline@LSN".
func (p Position) String() string { return fmt.Sprintf("%d@%v", p.Timeline, p.LSN) }

// IsZero says that nothing is known.
func (p Position) IsZero() bool { return p == Position{} }

// Compare orders positions by timeline, then by LSN: -1, 0 or +1. It orders candidates that are known to be on one
// line; whether a position is on a line at all is History.Contains, another question.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Timeline, q.Timeline), cmp.Compare(p.LSN, q.LSN))
}

// ParseHistory reads the content of a timeline history file (PostgreSQL documentation, "Timelines"): one line for each
// earlier timeline, with its number, where it ended, and why; empty lines and lines that begin with # say nothing. tip is
// the timeline that the file is named for, 1 or more. The first line that cannot be read, or that does not lead upwards
// to tip, is an error: half a history would hide where WAL parts.
func ParseHistory(tip Timeline, data []byte) (History, error) {
	if tip == 0 {
		return History{}, errors.New("wal: a history is that of a timeline from 1, not of 0")
	}
	h := History{Tip: tip}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		num, rest := field(line)
		at, reason := field(rest)
		tl, err := ParseTimeline(num)
		if err != nil {
			return History{}, fmt.Errorf("wal: history of timeline %d, line %d: %w", tip, n, err)
		}
		lsn, err := ParseLSN(at)
		if err != nil {
			return History{}, fmt.Errorf("wal: history of timeline %d, line %d: %w", tip, n, err)
		}
		if k := len(h.Switches); tl >= tip || (k > 0 && (h.Switches[k-1].Timeline >= tl || h.Switches[k-1].LSN > lsn)) {
			return History{}, fmt.Errorf("wal: history of timeline %d, line %d: timeline %d ending at %v is out of order", tip, n, tl, lsn)
		}
		h.Switches = append(h.Switches, Switch{Timeline: tl, LSN: lsn, Reason: reason})
	}
	return h, nil
}

// field cuts the first word off.
func field(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

// ParseTimeline reads a decimal timeline number, 1 or more.
func ParseTimeline(s string) (Timeline, error) {
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("wal: %q is no timeline: a whole number from 1 is expected", s)
	}
	return Timeline(v), nil
}

// String is the content of a history file.
func (h History) String() string {
	var b strings.Builder
	for _, s := range h.Switches {
		fmt.Fprintf(&b, "%d\t%v\t%s\n", s.Timeline, s.LSN, s.Reason)
	}
	return b.String()
}

// Known says that the history says anything.
func (h History) Known() bool { return h.Tip != 0 }

// end is where a timeline of the history ends, and whether the timeline is on it; the tip has no end.
func (h History) end(tl Timeline) (at LSN, on bool) {
	if tl == h.Tip && tl != 0 {
		return ^LSN(0), true
	}
	i := slices.IndexFunc(h.Switches, func(s Switch) bool { return s.Timeline == tl })
	if i < 0 {
		return 0, false
	}
	return h.Switches[i].LSN, true
}

// Begin is where a timeline of the history begins: 0 for the first one. ok is false when it is not on the history.
func (h History) Begin(tl Timeline) (at LSN, ok bool) {
	if _, on := h.end(tl); !on {
		return 0, false
	}
	for _, s := range h.Switches {
		if s.Timeline >= tl {
			break
		}
		at = s.LSN
	}
	return at, true
}

// Contains says whether WAL that ends at p is on this history: on the tip always, on an earlier timeline up to and
// including its switch point, on any other timeline never.
func (h History) Contains(p Position) bool {
	at, on := h.end(p.Timeline)
	return on && p.LSN <= at
}

// Fork is the last position that WAL with this history, ending at end, shares with the other history: end itself when
// all of it is on the other. Only numbers and switch points are compared: two promotions that have both in common look
// alike here. ok is false when they share no timeline, and when end is not on this history.
//
// A history that does not begin with timeline 1 has lost its beginning; it is compared from the timeline that it begins
// with, which is taken for the other's of that number.
func (h History) Fork(other History, end Position) (at Position, ok bool) {
	if !h.Contains(end) {
		return Position{}, false
	}
	mine, theirs := h.all(), other.all()
	skip := slices.IndexFunc(theirs, func(s Switch) bool { return s.Timeline == mine[0].Timeline })
	if skip < 0 {
		return Position{}, false
	}
	// Timeline by timeline from there: the same number after the same switch points, until one of the two is elsewhere.
	// Looking a number up anywhere on the other history is not enough: it may have come there another way.
	for i, s := range mine {
		if skip+i >= len(theirs) || theirs[skip+i].Timeline != s.Timeline {
			break
		}
		stop := min(s.LSN, theirs[skip+i].LSN)
		if s.Timeline == end.Timeline {
			stop = min(stop, end.LSN)
		}
		at, ok = Position{s.Timeline, stop}, true
		if s.Timeline == end.Timeline || s.LSN != theirs[skip+i].LSN {
			break
		}
	}
	return at, ok
}

// all are the timelines of the history, oldest first; the tip ends nowhere. Nothing when the history is unknown.
func (h History) all() []Switch {
	if !h.Known() {
		return nil
	}
	return append(slices.Clip(h.Switches), Switch{Timeline: h.Tip, LSN: ^LSN(0)})
}
