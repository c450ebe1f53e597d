package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/pgregent/pgregent/postgres/wal"

	"github.com/pgregent/pgregent/postgres"
)

// archiveReady archives the WAL files that wait for it, up to the fork: a rewind removes them, and the archive would have
// a gap that nobody else can fill (hazard B12). What lies after the fork is not archived, it is no part of the cluster's
// history. It is an attempt: a failure is logged and the rewind goes on.
func (s *Server) archiveReady(ctx context.Context, c control, fork wal.Position) {
	s.mu.Lock()
	conf := s.configured
	s.mu.Unlock()
	if conf == nil || conf.parameters["archive_command"] == "" {
		return
	}
	mode := strings.ToLower(conf.parameters["archive_mode"])
	if on, _ := postgres.ParseBool(mode); !on && mode != "always" {
		return
	}
	ready, err := filepath.Glob(filepath.Join(globEscape(s.data("pg_wal")), "archive_status", "*.ready"))
	if err != nil {
		return
	}
	for _, path := range ready {
		file := strings.TrimSuffix(filepath.Base(path), ".ready")
		t, start, err := wal.ParseSegmentName(file, c.segmentSize)
		if err == nil && (t > fork.Timeline || uint64(start)+c.segmentSize > uint64(fork.LSN)) || !exists(s.walFile(file)) {
			continue
		}
		command := strings.NewReplacer("%%", "%", "%p", "pg_wal/"+file, "%f", file).Replace(conf.parameters["archive_command"])
		_, err = s.run(ctx, tool{program: "/bin/sh", args: []string{"-c", command}, dir: s.cfg.DataDir, locale: true})
		if err == nil {
			err = os.Rename(path, strings.TrimSuffix(path, ".ready")+".done")
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			s.log.WarnContext(ctx, "a WAL file could not be archived before the rewind", "file", file, "error", err)
			return
		}
	}
}
