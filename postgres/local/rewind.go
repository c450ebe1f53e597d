package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// Rewind implements postgres.Controller (reference section 5.15, hazard B11). That the source has checkpointed since its
// promotion is the caller's duty: the members tell each other. WAL beyond the fork is lost unless SetAside was called.
//
// A directory whose WAL does not go beyond the fork is left as it is, without error: it can follow. A failure before
// pg_rewind began to write leaves the directory as it was; a later one leaves it DataInterrupted.
//
// Two servers that were promoted to the same timeline number cannot be told apart here (hazard B10): the caller must
// know the promotions, and clone.
func (s *Server) Rewind(ctx context.Context, from postgres.Source) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("local: rewind to %s: %w", from.Name, err)
		}
	}()
	if err := s.mustBeStopped("rewind"); err != nil {
		return err
	}
	c, err := s.rewindable()
	if err != nil {
		return err
	}
	line, err := s.Identify(ctx, from)
	if err != nil {
		return err
	}
	if line.SystemID != c.SystemID {
		return fmt.Errorf("%w: %s is of cluster %s and %s has cluster %s", postgres.ErrSystemID, s.cfg.DataDir, c.SystemID, from.Name, line.SystemID)
	}
	end, err := s.walEnd(ctx, c)
	if err != nil {
		return err
	}
	local, err := readHistory(s.cfg.DataDir, end.Timeline)
	if err != nil {
		return err
	}
	fork, diverged, err := findFork(local, end, line)
	if err != nil {
		return err
	}
	if !diverged {
		s.log.InfoContext(ctx, "nothing to rewind: the WAL does not go beyond the fork", "end", end.LSN.String(), "fork", fork.LSN.String())
		return nil
	}
	s.archiveReady(ctx, c, fork)
	return s.rewind(ctx, from, c)
}

// rewindable reads pg_control and refuses what pg_rewind cannot work on.
func (s *Server) rewindable() (control, error) {
	state, problem, c := s.dataState()
	if state != postgres.DataReady {
		return control{}, fmt.Errorf("%w: %w: %s", postgres.ErrRewindImpossible, postgres.ErrDataDir, cmpOr(problem, "it is empty"))
	}
	if !c.WALLogHints && !c.DataChecksums {
		return control{}, fmt.Errorf("%w: the cluster has neither data checksums nor wal_log_hints=on", postgres.ErrRewindImpossible)
	}
	if c.BackupLabel {
		return control{}, fmt.Errorf("%w: the directory is a base backup that was never started", postgres.ErrRewindImpossible)
	}
	return c, nil
}

// findFork finds where the local WAL, which ends at end, leaves the history of the source, and whether it goes beyond.
func findFork(local wal.History, end wal.Position, source postgres.Line) (fork wal.Position, diverged bool, err error) {
	if source.Position.Timeline == end.Timeline {
		if !source.Replica && end.LSN > source.Position.LSN {
			return wal.Position{}, false, fmt.Errorf("%w: the source is on timeline %d too and ends at %s, before %s here: two servers have written this timeline",
				postgres.ErrRewindImpossible, end.Timeline, source.Position.LSN, end.LSN)
		}
		return end, false, nil
	}
	if !local.Known() {
		local = wal.History{Tip: end.Timeline} // the history file is gone; the fork can only be on this timeline
	}
	fork, ok := local.Fork(source.History, end)
	if !ok {
		return wal.Position{}, false, fmt.Errorf("%w: the histories of timeline %d here and %d there have nothing in common",
			postgres.ErrRewindImpossible, end.Timeline, source.Position.Timeline)
	}
	return fork, fork != end, nil
}

// rewind brings the directory to a clean state and runs pg_rewind.
func (s *Server) rewind(ctx context.Context, from postgres.Source, c control) error {
	env, remove, err := s.toolPass(s.cfg.Rewind, from.Host, from.Port)
	if err != nil {
		return err
	}
	defer remove()
	env = append(env, "PGOPTIONS=-c statement_timeout=0")
	// pg_rewind and a single-user server refuse to work beside standby.signal.
	if err := s.setSignal(false); err != nil {
		return err
	}
	if c.State != postgres.ControlShutDown && c.State != postgres.ControlShutDownInRecovery {
		if err := s.recoverAlone(ctx); err != nil {
			return errors.Join(err, s.setSignal(true))
		}
	}
	if err := s.mark(markRewind, "from "+from.Name+" since "+time.Now().UTC().Format(time.RFC3339)); err != nil {
		return err
	}
	args := []string{"--target-pgdata=" + s.cfg.DataDir, "--source-server=" + s.login(s.cfg.Rewind, from.Host, from.Port, "", s.version).String(), "--progress"}
	args = append(args, s.restoreOptions(ctx)...)
	args = append(args, s.cfg.RewindOptions...)
	writing := false
	out, err := s.run(ctx, tool{program: "pg_rewind", args: args, env: env, lines: func(line string) {
		writing = writing || strings.Contains(line, "need to copy")
	}})
	if err == nil {
		if err := s.checkRewound(c, strings.Contains(strings.Join(args, " "), "--restore-target-wal")); err != nil {
			return err
		}
		s.log.InfoContext(ctx, "rewound", "source", from.Name)
		return errors.Join(s.setSignal(true), s.unmark(markRewind))
	}
	writing = writing || strings.Contains(out.stderr, "need to copy")
	if writing {
		return fmt.Errorf("%w: it failed half-way and the directory needs a new base backup: %w", postgres.ErrRewindImpossible, err)
	}
	if err := errors.Join(s.setSignal(true), s.unmark(markRewind)); err != nil {
		return err
	}
	return s.judgeRewind(ctx, from, err)
}

// checkRewound makes sure that the WAL which the rewound directory needs, from the last common checkpoint on, came along:
// pg_rewind does not look, and a server without it starts and never gets consistent (hazard B11). From an archive it can
// still come.
func (s *Server) checkRewound(c control, archive bool) error {
	label, err := os.ReadFile(s.data("backup_label"))
	if archive || errors.Is(err, os.ErrNotExist) {
		return nil // nothing was rewound
	}
	if err != nil {
		return err
	}
	m := regexp.MustCompile(`START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) `).FindSubmatch(label)
	if m == nil {
		return fmt.Errorf("%w: backup_label names no start of WAL", postgres.ErrRewindImpossible)
	}
	start, err := wal.ParseLSN(string(m[1]))
	if err != nil {
		return err
	}
	have, err := s.segments(c.segmentSize)
	if err != nil {
		return err
	}
	present, last := map[uint64]bool{}, uint64(0)
	for _, numbers := range have {
		for n := range numbers {
			present[n], last = true, max(last, n)
		}
	}
	first := uint64(start) / c.segmentSize
	for n := first; n <= max(first, last); n++ {
		if !present[n] {
			return fmt.Errorf("%w: WAL from %s on is needed and the source has no %s any more: the directory needs a new base backup",
				postgres.ErrRewindImpossible, start, wal.SegmentName(c.Checkpoint.Timeline, wal.LSN(n*c.segmentSize), c.segmentSize))
		}
	}
	return nil
}

// judgeRewind tells a source that is gone, where a later attempt may succeed, from a rewind that cannot succeed.
func (s *Server) judgeRewind(ctx context.Context, from postgres.Source, err error) error {
	if ctx.Err() != nil {
		return err
	}
	if _, gone := s.Identify(ctx, from); gone != nil {
		return err
	}
	return fmt.Errorf("%w: %w", postgres.ErrRewindImpossible, err)
}

// recoverAlone runs crash recovery in a single-user server, which listens nowhere. Without it pg_rewind would do the
// same, without syncing and with a configuration file that it may not find.
func (s *Server) recoverAlone(ctx context.Context) error {
	args := []string{
		"--single", "-D", s.cfg.DataDir, "-c", "config_file=" + s.configFile(), "-c", "archive_mode=on", "-c", "archive_command=false",
		"template1",
	}
	if !exists(s.configFile()) {
		args = []string{"--single", "-D", s.cfg.DataDir, "template1"}
	}
	if _, err := s.run(ctx, tool{program: "postgres", args: args}); err != nil {
		return fmt.Errorf("crash recovery before the rewind: %w", err)
	}
	return nil
}

// restoreOptions lets pg_rewind fetch WAL from the archive when there is a restore_command that it can find.
func (s *Server) restoreOptions(ctx context.Context) []string {
	if s.cfg.ConfigDir != s.cfg.DataDir && s.version < 15 || !exists(s.configFile()) {
		return nil
	}
	var args []string
	if s.version >= 15 {
		args = append(args, "--config-file="+s.configFile())
	}
	out, err := s.run(ctx, tool{program: "postgres", args: []string{"-D", s.cfg.DataDir, "--config_file=" + s.configFile(), "-C", "restore_command"}})
	if err == nil && strings.TrimSpace(out.stdout) != "" {
		args = append(args, "--restore-target-wal")
	}
	return args
}
