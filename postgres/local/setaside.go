package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// report is what report.json beside the WAL that was set aside says.
type report struct {
	Member        string    `json:"member"`
	Cluster       string    `json:"cluster"`
	SystemID      string    `json:"system_identifier"`
	When          time.Time `json:"when"`
	ForkTimeline  uint32    `json:"fork_timeline"`
	Fork          string    `json:"fork"`
	EndTimeline   uint32    `json:"end_timeline"`
	End           string    `json:"end"`
	Bytes         uint64    `json:"bytes"`
	Segments      []string  `json:"segments"`
	Missing       []string  `json:"missing,omitempty"` // recycled before they could be saved
	DataDirectory string    `json:"data_directory"`
}

// SetAside implements postgres.Controller. The WAL goes to StateDir/diverged/<UTC time>-<fork>; nothing is removed from there
// by this program. Setting the same WAL aside again, after an attempt to rewind that failed, returns what is there.
func (s *Server) SetAside(ctx context.Context, fork, end wal.Position) (postgres.Loss, error) {
	loss := postgres.Loss{Fork: fork, End: end}
	if end.LSN <= fork.LSN {
		return loss, nil
	}
	loss.Bytes = uint64(end.LSN - fork.LSN)
	fail := func(err error) (postgres.Loss, error) {
		return loss, fmt.Errorf("local: set diverged WAL aside: %w", err)
	}
	c, err := s.controlOf(s.cfg.DataDir)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", postgres.ErrDataDir, err))
	}
	root := filepath.Join(s.cfg.StateDir, "diverged")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return fail(err)
	}
	rep := report{
		Member: s.cfg.Name, Cluster: s.cfg.Scope, SystemID: c.SystemID, When: time.Now().UTC(), Bytes: loss.Bytes, DataDirectory: s.cfg.DataDir,
		ForkTimeline: uint32(fork.Timeline), Fork: fork.LSN.String(), EndTimeline: uint32(end.Timeline), End: end.LSN.String(),
	}
	if dir, earlier, found := sameReport(root, rep); found {
		loss.SavedTo, loss.Segments = dir, earlier.Segments
		return loss, nil
	}
	rep.Segments, rep.Missing, err = s.divergedFiles(c, fork, end)
	if err != nil {
		return fail(err)
	}
	name := rep.When.Format("20060102T150405.000Z") + "-" + strings.ReplaceAll(rep.Fork, "/", "_")
	if err := s.saveDiverged(ctx, root, name, rep); err != nil {
		return fail(err)
	}
	loss.SavedTo, loss.Segments = filepath.Join(root, name), rep.Segments
	s.log.WarnContext(ctx, "WAL that the leader's history lacks was set aside", "folder", loss.SavedTo, "bytes", loss.Bytes,
		"fork", rep.Fork, "end", rep.End, "timeline", rep.EndTimeline, "missing_files", len(rep.Missing))
	return loss, nil
}

// sameReport looks for a folder that holds the same WAL already.
func sameReport(root string, want report) (dir string, found report, ok bool) {
	paths, _ := filepath.Glob(filepath.Join(globEscape(root), "*", "report.json"))
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(data, &found) != nil {
			continue
		}
		if found.SystemID == want.SystemID && found.ForkTimeline == want.ForkTimeline && found.Fork == want.Fork &&
			found.EndTimeline == want.EndTimeline && found.End == want.End {
			return filepath.Dir(path), found, true
		}
	}
	return "", report{}, false
}

// divergedFiles lists the WAL files from the one that holds the fork to the one that holds the end, on the timelines
// between, and the histories of the newer ones.
func (s *Server) divergedFiles(c control, fork, end wal.Position) (files, missing []string, err error) {
	have, err := s.segments(c.segmentSize)
	if err != nil {
		return nil, nil, err
	}
	first, last := uint64(fork.LSN)/c.segmentSize, uint64(end.LSN-1)/c.segmentSize
	for n := first; n <= last; n++ {
		found := false
		for t := fork.Timeline; t <= max(end.Timeline, fork.Timeline); t++ {
			if have[t][n] {
				files = append(files, wal.SegmentName(t, wal.LSN(n*c.segmentSize), c.segmentSize))
				found = true
			}
		}
		if !found {
			missing = append(missing, wal.SegmentName(end.Timeline, wal.LSN(n*c.segmentSize), c.segmentSize))
		}
	}
	for t := fork.Timeline + 1; t <= end.Timeline; t++ {
		if name := wal.HistoryName(t); exists(s.walFile(name)) {
			files = append(files, name)
		}
	}
	return files, missing, nil
}

// saveDiverged copies the files and writes the report, into a folder that gets its name when all of it is on disk.
func (s *Server) saveDiverged(ctx context.Context, root, name string, rep report) (err error) {
	temp, err := os.MkdirTemp(root, ".unfinished-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp))
		}
	}()
	for _, file := range rep.Segments {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := copyFile(s.walFile(file), filepath.Join(temp, file)); err != nil {
			return err
		}
	}
	data, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	if _, err := writeFile(filepath.Join(temp, "report.json"), append(data, '\n'), 0o600); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(root, name)); err != nil {
		return err
	}
	return syncDir(root)
}

// copyFile copies and syncs one file.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
