package wal

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Sizes of a WAL segment file (PostgreSQL documentation, initdb --wal-segsize): a power of two between the smallest and
// the largest.
const (
	DefaultSegmentSize = 16 << 20
	minSegmentSize     = 1 << 20
	maxSegmentSize     = 1 << 30
)

func validSegmentSize(size uint64) bool {
	return size >= minSegmentSize && size <= maxSegmentSize && size&(size-1) == 0
}

// SegmentName is the file that holds the byte at lsn on a timeline: 24 hexadecimal digits. size is the cluster's
// segment size, a power of two from 1 MB to 1 GB; with any other size there is no such file, and the name is empty.
func SegmentName(tl Timeline, lsn LSN, size uint64) string {
	if !validSegmentSize(size) {
		return ""
	}
	n, per := uint64(lsn)/size, uint64(1<<32)/size
	return fmt.Sprintf("%08X%08X%08X", uint32(tl), n/per, n%per)
}

// ParseSegmentName reads a segment file's name: its timeline and the LSN of its first byte. Capital digits only, as
// PostgreSQL writes and looks for them; size as for SegmentName.
func ParseSegmentName(name string, size uint64) (tl Timeline, start LSN, err error) {
	if !validSegmentSize(size) {
		return 0, 0, fmt.Errorf("wal: %d is no segment size: a power of two from 1 MB to 1 GB is expected", size)
	}
	bad := fmt.Errorf("wal: %q is no WAL segment of %d bytes: 24 hexadecimal digits are expected", name, size)
	if len(name) != 24 {
		return 0, 0, bad
	}
	var part [3]uint64
	for i := range part {
		if part[i], err = capitalHex(name[8*i : 8*i+8]); err != nil {
			return 0, 0, bad
		}
	}
	if part[0] == 0 || part[2] >= 1<<32/size {
		return 0, 0, bad
	}
	return Timeline(part[0]), LSN(part[1]<<32 + part[2]*size), nil
}

const historySuffix = ".history"

// HistoryName is the file that holds the history of a timeline.
func HistoryName(tl Timeline) string { return fmt.Sprintf("%08X%s", uint32(tl), historySuffix) }

// ParseHistoryName reads a history file's name; ok is false for every other name.
func ParseHistoryName(name string) (tl Timeline, ok bool) {
	digits, found := strings.CutSuffix(name, historySuffix)
	if !found || len(digits) != 8 {
		return 0, false
	}
	v, err := capitalHex(digits)
	return Timeline(v), err == nil && v != 0
}

// capitalHex reads hexadecimal digits of a file name.
func capitalHex(s string) (uint64, error) {
	if strings.Trim(s, "0123456789ABCDEF") != "" {
		return 0, errors.New("not hexadecimal in capital letters")
	}
	return strconv.ParseUint(s, 16, 32)
}
