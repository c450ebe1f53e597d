package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/pgregent/pgregent/postgres"
)

// Clone implements postgres.Controller. The copy is built beside the data directory, checked against its manifest, and
// exchanged with it in one step; what was there is DataDir + ".old" afterwards. An earlier ".old" goes when the
// directory that takes its place is a whole cluster. A clone of another cluster than the one that is here is
// ErrSystemID.
func (s *Server) Clone(ctx context.Context, from postgres.Source, progress func(postgres.Progress)) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("local: clone from %s: %w", from.Name, err)
		}
	}()
	if err := s.mustBeStopped("clone"); err != nil {
		return err
	}
	if err := s.checkSource(ctx, from); err != nil {
		return err
	}
	if err := s.prepareClone(); err != nil {
		return err
	}
	work, err := s.workDir()
	if err != nil {
		return err
	}
	if work.inPlace {
		if err := s.mark(markClone, "in place"); err != nil {
			return err
		}
	}
	outside, err := s.basebackup(ctx, from, work.path, progress)
	if err != nil {
		err = errors.Join(err, work.remove(), outside.remove())
		if work.inPlace {
			err = errors.Join(err, s.unmark(markClone))
		}
		return err
	}
	if err := s.putInPlace(work, outside); err != nil {
		return err
	}
	for _, name := range []string{markClone, markRewind, markInitdb} {
		err = errors.Join(err, s.unmark(name))
	}
	return errors.Join(err, s.remember())
}

// checkSource asks the source who it is before anything is touched, which also shows a wrong password at once.
func (s *Server) checkSource(ctx context.Context, from postgres.Source) error {
	line, err := s.Identify(ctx, from)
	if err != nil {
		return err
	}
	if here, err := readControl(s.cfg.DataDir); err == nil && here.SystemID != line.SystemID {
		return fmt.Errorf("%w: %s is of cluster %s and %s has cluster %s", postgres.ErrSystemID, s.cfg.DataDir, here.SystemID, from.Name, line.SystemID)
	}
	return nil
}

func (s *Server) oldDir() string { return s.cfg.DataDir + ".old" }

// prepareClone removes what earlier attempts left, and makes room: the earlier copy goes first when the data directory is
// a whole cluster, because that is the copy that is kept.
func (s *Server) prepareClone() error {
	if err := s.removeUnfinished(); err != nil {
		return err
	}
	if text, found := s.marked(markClone); found && text == "in place" {
		return removeContent(s.cfg.DataDir)
	}
	if state, _, _ := s.dataState(); state != postgres.DataReady {
		return nil // not a whole cluster: an earlier copy may be the better one
	}
	if exists(s.oldDir()) {
		s.log.Info("an earlier copy of the data directory is removed to make room for a new one", "path", s.oldDir())
	}
	return os.RemoveAll(s.oldDir())
}

// basebackup runs pg_basebackup into dir and checks the result.
func (s *Server) basebackup(ctx context.Context, from postgres.Source, dir string, progress func(postgres.Progress)) (outsideDirs, error) {
	outside, err := s.planOutside(ctx, from)
	if err != nil {
		return outside, err
	}
	env, remove, err := s.toolPass(s.cfg.Replication, from.Host, from.Port)
	if err != nil {
		return outside, err
	}
	defer remove()
	info := s.login(s.cfg.Replication, from.Host, from.Port, "", s.version)
	args := []string{"--pgdata=" + dir, "-X", "stream", "--no-password", "--progress", "--dbname=" + info.String()}
	if optionValue(s.cfg.BasebackupOptions, "checkpoint") == "" {
		args = append(args, "--checkpoint=fast") // a spread one takes minutes (design section 9)
	}
	for _, option := range s.cfg.BasebackupOptions {
		if !strings.HasPrefix(option, "--waldir=") {
			args = append(args, option)
		}
	}
	args = append(args, outside.options()...)
	reader := progressReader(progress)
	if _, err := s.run(ctx, tool{program: "pg_basebackup", args: args, env: env, lines: reader}); err != nil {
		return outside, noSpace(err, dir)
	}
	if err := s.verifyBackup(ctx, dir); err != nil {
		return outside, err
	}
	if err := removeIfThere(filepath.Join(dir, "recovery.signal")); err != nil {
		return outside, err
	}
	return outside, makeSignal(dir)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// noSpace adds what to do to an error of a full disk.
func noSpace(err error, dir string) error {
	if strings.Contains(err.Error(), syscall.ENOSPC.Error()) || strings.Contains(err.Error(), "No space left") {
		return fmt.Errorf("the file system of %s is full, a copy needs as much space as the data directory of the source: %w", dir, err)
	}
	return err
}

// verifyBackup compares the copy with the manifest that came with it (hazard D3).
func (s *Server) verifyBackup(ctx context.Context, dir string) error {
	program, found := s.programs["pg_verifybackup"]
	if !found || s.cfg.VerifyBackup == "off" || slices.Contains(s.cfg.BasebackupOptions, "--no-manifest") {
		return nil
	}
	args := []string{"--no-parse-wal", "--quiet"}
	if s.cfg.VerifyBackup == "sizes" {
		args = append(args, "--skip-checksums")
	}
	if _, err := s.run(ctx, tool{program: program, args: append(args, dir)}); err != nil {
		return fmt.Errorf("the copy is not what its manifest says: %w", err)
	}
	return nil
}

// progressReader reads the lines "  12345/67890 kB (18%), 0/1 tablespace" that pg_basebackup writes.
func progressReader(progress func(postgres.Progress)) func(string) {
	if progress == nil {
		return nil
	}
	numbers := regexp.MustCompile(`^\s*(\d+)/(\d+) kB`)
	return func(line string) {
		m := numbers.FindStringSubmatch(line)
		if m == nil {
			return
		}
		done, err1 := strconv.ParseUint(m[1], 10, 53)
		total, err2 := strconv.ParseUint(m[2], 10, 53)
		if err1 == nil && err2 == nil {
			progress(postgres.Progress{DoneBytes: done << 10, TotalBytes: total << 10})
		}
	}
}

// putInPlace makes the finished copy the data directory. With exchange there is no moment without a data directory;
// without it, or when folders outside have to change places too, a marker says that the directory may be half-way.
func (s *Server) putInPlace(w work, outside outsideDirs) error {
	if w.inPlace {
		return errors.Join(outside.swap(s, w.path), syncDir(w.path))
	}
	parent := filepath.Dir(s.cfg.DataDir)
	if len(outside.dirs) > 0 {
		if err := s.mark(markClone, "swap"); err != nil {
			return err
		}
		if err := outside.swap(s, w.path); err != nil {
			return err
		}
	}
	if empty, err := isEmptyDir(s.cfg.DataDir); err != nil {
		return err
	} else if empty {
		return w.moveInto(s)
	}
	if err := os.RemoveAll(s.oldDir()); err != nil {
		return fmt.Errorf("remove the earlier copy: %w", err)
	}
	if err := os.Rename(w.path, s.oldDir()); err != nil {
		return fmt.Errorf("put the new directory into place: %w", err)
	}
	if err := syncDir(parent); err != nil {
		return err
	}
	err := exchange(s.oldDir(), s.cfg.DataDir)
	if err != nil {
		err = s.swapByRename()
	}
	if err != nil {
		return fmt.Errorf("put the new directory into place: %w", err)
	}
	s.log.Info("the data directory was replaced", "earlier", s.oldDir())
	return syncDir(parent)
}

// swapByRename does in three steps what exchange does in one, for file systems that cannot.
func (s *Server) swapByRename() error {
	if err := s.mark(markClone, "swap"); err != nil {
		return err
	}
	next := s.cfg.DataDir + ".new-000000000000"
	return errors.Join(os.Rename(s.oldDir(), next), os.Rename(s.cfg.DataDir, s.oldDir()), os.Rename(next, s.cfg.DataDir))
}
