package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// pageSize is the size of a WAL page in every build that is supported, and the sizes of its two kinds of header.
const (
	pageSize        = 8192
	pageHeader      = 24
	segmentHeader   = 40 // of the first page of a segment
	recordAlignment = 8
)

// WALEnd implements postgres.Controller: pg_waldump reads the WAL from the last checkpoint on, on the newest timeline that
// the directory's WAL has come to, until a record is not valid.
func (s *Server) WALEnd(ctx context.Context) (wal.Position, error) {
	if err := s.mustBeStopped("find the end of WAL"); err != nil {
		return wal.Position{}, err
	}
	c, err := s.controlOf(s.cfg.DataDir)
	if err != nil {
		return wal.Position{}, fmt.Errorf("local: find the end of WAL: %w: %w", postgres.ErrDataDir, err)
	}
	end, err := s.walEnd(ctx, c)
	if err != nil {
		return wal.Position{}, fmt.Errorf("local: find the end of WAL: %w", err)
	}
	return end, nil
}

func (s *Server) walEnd(ctx context.Context, c control) (wal.Position, error) {
	have, err := s.segments(c.segmentSize)
	if err != nil {
		return wal.Position{}, err
	}
	known := max(c.Checkpoint.Timeline, c.MinRecovery.Timeline)
	for _, t := range have.timelines() {
		if t < known {
			break
		}
		start, ok := s.scanStart(c, t)
		if !ok || !have[t][uint64(start)/c.segmentSize] {
			continue
		}
		lsn, err := s.scan(ctx, c, t, start, have[t])
		return wal.Position{Timeline: t, LSN: lsn}, err
	}
	lsn, err := s.scan(ctx, c, c.Checkpoint.Timeline, c.Checkpoint.LSN, have[c.Checkpoint.Timeline])
	return wal.Position{Timeline: c.Checkpoint.Timeline, LSN: lsn}, err
}

// segmentSet holds the WAL files of a directory: timeline, then number.
type segmentSet map[wal.Timeline]map[uint64]bool

// timelines returns the timelines, the newest first.
func (set segmentSet) timelines() []wal.Timeline {
	var list []wal.Timeline
	for t := range set {
		list = append(list, t)
	}
	slices.Sort(list)
	slices.Reverse(list)
	return list
}

func (s *Server) segments(size uint64) (segmentSet, error) {
	entries, err := os.ReadDir(s.data("pg_wal"))
	if err != nil {
		return nil, err
	}
	set := segmentSet{}
	for _, e := range entries {
		if t, start, err := wal.ParseSegmentName(e.Name(), size); err == nil {
			if set[t] == nil {
				set[t] = map[uint64]bool{}
			}
			set[t][uint64(start)/size] = true
		}
	}
	return set, nil
}

// scanStart says where to begin to read timeline t: at the last checkpoint, or where t begins when that is later. ok is
// false when the checkpoint is not on the way to t: those files are left from another life of the directory.
func (s *Server) scanStart(c control, t wal.Timeline) (wal.LSN, bool) {
	if t == c.Checkpoint.Timeline {
		return c.Checkpoint.LSN, true
	}
	h, err := readHistory(s.cfg.DataDir, t)
	if err != nil || len(h.Switches) == 0 {
		return 0, false
	}
	for _, sw := range h.Switches {
		if sw.Timeline == c.Checkpoint.Timeline {
			return max(c.Checkpoint.LSN, h.Switches[len(h.Switches)-1].LSN), sw.LSN >= c.Checkpoint.LSN
		}
	}
	return 0, false
}

// scan finds the end of the last valid record at or after start. It tells pg_waldump where the files end: for a file
// that is missing pg_waldump waits five seconds before it gives up.
func (s *Server) scan(ctx context.Context, c control, t wal.Timeline, start wal.LSN, have map[uint64]bool) (wal.LSN, error) {
	files := uint64(start) / c.segmentSize
	for have[files] {
		files++
	}
	limit := wal.LSN(files * c.segmentSize)
	if limit <= start {
		return 0, fmt.Errorf("the WAL file %s is missing", wal.SegmentName(t, start, c.segmentSize))
	}
	dump := func(from wal.LSN, options ...string) (output, error) {
		args := append(options, "--path="+s.data("pg_wal"), "--timeline="+strconv.FormatUint(uint64(t), 10), "--start="+from.String(), "--end="+limit.String())
		return s.run(ctx, tool{program: "pg_waldump", args: args})
	}
	out, err := dump(start, "--quiet")
	if ctx.Err() != nil {
		return 0, err
	}
	if at, ok := invalidRecord(out.stderr); ok {
		return headerless(at, c.segmentSize), nil
	}
	if strings.Contains(out.stderr, "could not find a valid record after") {
		if start == c.Checkpoint.LSN {
			return 0, fmt.Errorf("the record of the last checkpoint cannot be read: %w", err)
		}
		return start, nil // the timeline has begun and holds nothing yet
	}
	// Another kind of end, at a page or where the files end: count from the last record that can be read. It is printed
	// last, so a dump of the last file is enough, unless one record fills that.
	for _, from := range []wal.LSN{max(start, limit-wal.LSN(c.segmentSize)), start} {
		out, err = dump(from)
		if ctx.Err() != nil {
			return 0, err
		}
		if lsn, length, isSwitch, ok := lastRecord(out.stdout); ok && isSwitch {
			return lsn - lsn%wal.LSN(c.segmentSize) + wal.LSN(c.segmentSize), nil // nothing follows in its file
		} else if ok {
			return recordEnd(lsn, length, c.segmentSize), nil
		}
	}
	return 0, fmt.Errorf("no record can be read from %s on: %s", start, lastLines(out.stderr, 2))
}

// invalidRecord reads where the record begins that pg_waldump could not use: at the end of the last good one.
func invalidRecord(stderr string) (wal.LSN, bool) {
	m := regexp.MustCompile(`(?:invalid record length|record with incorrect prev-link [0-9A-F/]+|invalid resource manager ID \d+|` +
		`resource manager data checksum in record|record length \d+) at ([0-9A-F]+/[0-9A-F]+)`).FindStringSubmatch(stderr)
	if m == nil {
		return 0, false
	}
	lsn, err := wal.ParseLSN(m[1])
	return lsn, err == nil
}

// headerless takes off a page header that the reader has stepped over: the end of a record that fills its page is
// the page's end.
func headerless(at wal.LSN, segmentSize uint64) wal.LSN {
	switch {
	case uint64(at)%segmentSize == segmentHeader:
		return at - segmentHeader
	case at%pageSize == pageHeader && uint64(at)%segmentSize > pageSize:
		return at - pageHeader
	}
	return at
}

// lastRecord reads the position and length of the last record that pg_waldump printed, and whether it is the one that
// ends a WAL file early.
func lastRecord(stdout string) (lsn wal.LSN, length uint64, isSwitch, ok bool) {
	all := regexp.MustCompile(`rmgr: (\w+) +len \(rec/tot\): +\d+/ *(\d+), .*?lsn: ([0-9A-F]+/[0-9A-F]+),.*? desc: (\w*)`).FindAllStringSubmatch(stdout, -1)
	if len(all) == 0 {
		return 0, 0, false, false
	}
	m := all[len(all)-1]
	length, err1 := strconv.ParseUint(m[2], 10, 32)
	lsn, err2 := wal.ParseLSN(m[3])
	return lsn, length, m[1] == "XLOG" && m[4] == "SWITCH", err1 == nil && err2 == nil
}

// recordEnd counts length bytes on from lsn, over the page headers between, and rounds up.
func recordEnd(lsn wal.LSN, length, segmentSize uint64) wal.LSN {
	at := uint64(lsn)
	for {
		left := pageSize - at%pageSize
		if length <= left {
			at += length
			break
		}
		length -= left
		at += left
		if at%segmentSize == 0 {
			at += segmentHeader
		} else {
			at += pageHeader
		}
	}
	return wal.LSN((at + recordAlignment - 1) / recordAlignment * recordAlignment)
}

// walFile is the path of a file in pg_wal.
func (s *Server) walFile(name string) string { return filepath.Join(s.data("pg_wal"), name) }
