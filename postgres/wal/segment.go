package wal

import (
	"fmt"
	"strconv"
)

// DefaultSegmentSize is the size of a WAL segment file unless initdb was told otherwise.
const DefaultSegmentSize = 16 << 20

// SegmentName is the file that holds the byte at lsn on a timeline: 24 hexadecimal digits. size is the cluster's
// segment size, a power of two from 1 MB to 1 GB.
func SegmentName(tl Timeline, lsn LSN, size uint64) string {
	n, per := uint64(lsn)/size, uint64(1<<32)/size
	return fmt.Sprintf("%08X%08X%08X", uint32(tl), n/per, n%per)
}

// ParseSegmentName reads a segment file's name: its timeline and the LSN of its first byte.
func ParseSegmentName(name string, size uint64) (tl Timeline, start LSN, err error) {
	bad := fmt.Errorf("wal: %q is no WAL segment: 24 hexadecimal digits are expected", name)
	if len(name) != 24 || size == 0 {
		return 0, 0, bad
	}
	var part [3]uint64
	for i := range part {
		if part[i], err = hex(name[8*i : 8*i+8]); err != nil {
			return 0, 0, bad
		}
	}
	if part[2] >= 1<<32/size {
		return 0, 0, bad
	}
	return Timeline(part[0]), LSN(part[1]<<32 + part[2]*size), nil
}

// HistoryName is the file that holds the history of a timeline.
func HistoryName(tl Timeline) string { return fmt.Sprintf("%08X.history", uint32(tl)) }

// ParseHistoryName reads a history file's name.
func ParseHistoryName(name string) (Timeline, bool) {
	if len(name) != len("00000000.history") || name[8:] != ".history" {
		return 0, false
	}
	v, err := strconv.ParseUint(name[:8], 16, 32)
	return Timeline(v), err == nil && v != 0
}
