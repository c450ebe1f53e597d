package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// filesSeen is what one look at the data directory and the markers found.
type filesSeen struct {
	data    postgres.DataState
	problem string // why data is unknown, invalid or interrupted
	control control
	pid     postmasterPID
}

// fileLook reads files beside the caller: a read on storage that hangs cannot be cancelled, so the caller leaves with
// its context and the read stays behind, one at a time.
type fileLook struct {
	s       *Server
	mu      sync.Mutex
	running chan struct{} // closed when the read under way ends; nil when there is none
	last    filesSeen
}

func (f *fileLook) init(s *Server) { f.s = s }

// see returns a look that began after the call, or, when that does not end within ctx, one with DataUnknown.
func (f *fileLook) see(ctx context.Context) filesSeen {
	for {
		f.mu.Lock()
		wait := f.running
		mine := wait == nil
		if mine {
			wait = make(chan struct{})
			f.running = wait
			go f.read(wait)
		}
		f.mu.Unlock()
		select {
		case <-wait:
			if !mine {
				continue // that one may have begun before this call
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.last
		case <-ctx.Done():
			return filesSeen{data: postgres.DataUnknown, problem: "reading the data directory takes longer than this look may: is its storage stuck?"}
		}
	}
}

func (f *fileLook) read(done chan struct{}) {
	seen := f.s.readFiles()
	f.mu.Lock()
	f.last, f.running = seen, nil
	f.mu.Unlock()
	close(done)
}

// readFiles looks at the data directory, the markers and postmaster.pid.
func (s *Server) readFiles() filesSeen {
	var seen filesSeen
	seen.data, seen.problem, seen.control = s.dataState()
	seen.pid, _ = readPID(s.cfg.DataDir)
	seen.control.PostmasterPIDNow = seen.pid.pid
	return seen
}

// dataState says what is in the data directory, and reads pg_control.
func (s *Server) dataState() (postgres.DataState, string, control) {
	for name, what := range map[string]string{
		markRewind: "pg_rewind did not finish: the directory holds a mixture and needs a new base backup",
		markClone:  "a base backup into the directory did not finish: it needs a new one",
		markInitdb: "initdb did not finish: run it again",
	} {
		if _, found := s.marked(name); found {
			c, _ := s.controlOf(s.cfg.DataDir)
			return postgres.DataInterrupted, what, c
		}
	}
	empty, err := isEmptyDir(s.cfg.DataDir)
	if err != nil {
		return postgres.DataUnknown, fmt.Sprintf("the data directory cannot be read: %v", err), control{}
	}
	if empty {
		return postgres.DataEmpty, "", control{}
	}
	c, err := s.controlOf(s.cfg.DataDir)
	if err == nil {
		return postgres.DataReady, "", c
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotACluster) {
		return postgres.DataInvalid, fmt.Sprintf("%s is not empty and no PostgreSQL cluster that this program can read: %v", s.cfg.DataDir, err), control{}
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return postgres.DataUnknown, fmt.Sprintf("the data directory cannot be read: %v", err), control{}
	}
	return postgres.DataInvalid, err.Error(), control{}
}

var errNotACluster = errors.New("not a cluster")

// controlOf reads pg_control and what belongs to postgres.Control from a data directory.
func (s *Server) controlOf(dir string) (control, error) {
	major, err := readMajor(dir)
	if err != nil {
		var num *strconv.NumError
		if errors.As(err, &num) {
			return control{}, fmt.Errorf("%w: %w", errNotACluster, err)
		}
		return control{}, err
	}
	c, err := readControl(dir)
	if err != nil {
		return control{}, err
	}
	c.CatalogMajor = major
	c.SignalStandby = exists(filepath.Join(dir, "standby.signal"))
	c.SignalRecovery = exists(filepath.Join(dir, "recovery.signal"))
	c.BackupLabel = exists(filepath.Join(dir, "backup_label"))
	tip := max(c.Checkpoint.Timeline, c.MinRecovery.Timeline)
	if h, err := readHistory(dir, tip); err == nil {
		c.TimelineHistory = h
	}
	return c, nil
}

// readHistory reads the history of a timeline from pg_wal. Timeline 1 has no file and no switches. A file that is
// missing gives the zero History, unknown.
func readHistory(dir string, tip wal.Timeline) (wal.History, error) {
	if tip == 0 {
		return wal.History{}, nil
	}
	if tip == 1 {
		return wal.History{Tip: 1}, nil
	}
	data, err := os.ReadFile(filepath.Join(dir, "pg_wal", wal.HistoryName(tip)))
	if errors.Is(err, fs.ErrNotExist) {
		return wal.History{}, nil
	}
	if err != nil {
		return wal.History{}, err
	}
	return wal.ParseHistory(tip, data)
}
