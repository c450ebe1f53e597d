package local

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pgregent/pgregent/postgres/wal"
)

// parseLSN reads "16/B374D848". An empty text is zero, unknown.
func parseLSN(text string) (wal.LSN, error) {
	if text == "" {
		return 0, nil
	}
	hi, lo, ok := strings.Cut(text, "/")
	if ok {
		h, errHi := strconv.ParseUint(hi, 16, 32)
		l, errLo := strconv.ParseUint(lo, 16, 32)
		if errHi == nil && errLo == nil {
			return wal.LSN(h<<32 | l), nil
		}
	}
	return 0, fmt.Errorf("%q is no WAL position", text)
}

// formatLSN writes an LSN as PostgreSQL does.
func formatLSN(l wal.LSN) string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) }

// parseHistory reads a timeline history file: lines of timeline, switch position and reason.
func parseHistory(tip wal.Timeline, data string) (wal.History, error) {
	h := wal.History{Tip: tip}
	for line := range strings.Lines(data) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, "\t", 3)
		if len(fields) < 2 {
			fields = strings.Fields(line)
		}
		if len(fields) < 2 {
			return wal.History{}, fmt.Errorf("history of timeline %d: the line %q is not understood", tip, line)
		}
		tli, err := strconv.ParseUint(strings.TrimSpace(fields[0]), 10, 32)
		if err != nil {
			return wal.History{}, fmt.Errorf("history of timeline %d: the line %q is not understood", tip, line)
		}
		lsn, err := parseLSN(strings.TrimSpace(fields[1]))
		if err != nil {
			return wal.History{}, fmt.Errorf("history of timeline %d: %w", tip, err)
		}
		if n := len(h.Switches); tli == 0 || wal.Timeline(tli) >= tip || n > 0 && h.Switches[n-1].Timeline >= wal.Timeline(tli) {
			return wal.History{}, fmt.Errorf("history of timeline %d: timeline %d is out of order", tip, tli)
		}
		s := wal.Switch{Timeline: wal.Timeline(tli), LSN: lsn}
		if len(fields) > 2 {
			s.Reason = fields[2]
		}
		h.Switches = append(h.Switches, s)
	}
	return h, nil
}

// segmentName is the name of the WAL file of a timeline that holds segment number n.
func segmentName(t wal.Timeline, n, size uint64) string {
	perID := uint64(1) << 32 / size
	return fmt.Sprintf("%08X%08X%08X", t, n/perID, n%perID)
}

// parseSegment reads the name of a WAL file.
func parseSegment(name string, size uint64) (t wal.Timeline, n uint64, ok bool) {
	if len(name) != 24 || strings.Trim(name, "0123456789ABCDEF") != "" {
		return 0, 0, false
	}
	tli, err1 := strconv.ParseUint(name[:8], 16, 32)
	id, err2 := strconv.ParseUint(name[8:16], 16, 32)
	seg, err3 := strconv.ParseUint(name[16:], 16, 32)
	perID := uint64(1) << 32 / size
	if err1 != nil || err2 != nil || err3 != nil || seg >= perID {
		return 0, 0, false
	}
	return wal.Timeline(tli), id*perID + seg, true
}
