package local

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pgregent/pgregent/postgres"
)

// Initdb implements postgres.Controller. The cluster is built beside the data directory and renamed into place, so that
// the data directory is never half a cluster. The lines of BootstrapHBA are in pg_hba.conf, and standby.signal is there,
// because at rest a data directory carries it (design section 7).
func (s *Server) Initdb(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("local: initdb: %w", err)
		}
	}()
	if err := s.mayInitdb(); err != nil {
		return err
	}
	if err := s.removeUnfinished(); err != nil {
		return err
	}
	waldir := optionValue(s.cfg.InitdbOptions, "waldir")
	if err := s.emptyWALDir(waldir); err != nil {
		return err
	}
	if err := s.mark(markInitdb, waldir); err != nil {
		return err
	}
	work, err := s.workDir()
	if err != nil {
		return err
	}
	if err := s.runInitdb(ctx, work.path); err != nil {
		return errors.Join(err, work.remove(), s.emptyWALDir(waldir), s.unmark(markInitdb))
	}
	if err := work.moveInto(s); err != nil {
		return err
	}
	return s.unmark(markInitdb)
}

// mayInitdb refuses when there is something that initdb would put at risk.
func (s *Server) mayInitdb() error {
	if err := s.mustBeStopped("initdb"); err != nil {
		return err
	}
	empty, err := isEmptyDir(s.cfg.DataDir)
	if err != nil {
		return err
	}
	if !empty {
		return fmt.Errorf("%w: %s is not empty", postgres.ErrDataDir, s.cfg.DataDir)
	}
	if id, found := s.marked(memberOf); found {
		return fmt.Errorf("%w: this member already had the data of cluster %s and %s is empty now: is its file system mounted? To begin a new cluster here, remove %s (hazard D2)",
			postgres.ErrDataDir, id, s.cfg.DataDir, filepath.Join(s.cfg.StateDir, memberOf))
	}
	return nil
}

// memberOf is the file in StateDir with the system identifier of the cluster that this member holds, or held.
const memberOf = "system-id"

// remember writes down which cluster this member belongs to, so that an empty data directory is not taken for a new
// member's when its file system is not mounted (hazard D2).
func (s *Server) remember() error {
	c, err := readControl(s.cfg.DataDir)
	if err != nil {
		return err
	}
	return s.mark(memberOf, c.SystemID)
}

// emptyWALDir prepares a WAL folder outside the data directory. Content is removed only when the marker says that an initdb
// of this program put it there.
func (s *Server) emptyWALDir(waldir string) error {
	if waldir == "" {
		return nil
	}
	empty, err := isEmptyDir(waldir)
	if err != nil || empty {
		return err
	}
	if left, found := s.marked(markInitdb); !found || left != waldir {
		return fmt.Errorf("the option waldir names %s, which is not empty", waldir)
	}
	return removeContent(waldir)
}

func removeContent(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

func optionValue(options []string, name string) string {
	for _, o := range options {
		if value, found := strings.CutPrefix(o, "--"+name+"="); found {
			return value
		}
	}
	return ""
}

// runInitdb makes the cluster in dir.
func (s *Server) runInitdb(ctx context.Context, dir string) error {
	args := append([]string{"--pgdata=" + dir, "--username=" + s.cfg.Superuser.Username}, s.cfg.InitdbOptions...)
	if s.cfg.Superuser.Password != "" {
		f, err := os.CreateTemp(s.cfg.StateDir, "pgpass-initdb-*") // mode 0600
		if err != nil {
			return fmt.Errorf("StateDir: %w", err)
		}
		defer func() { _ = os.Remove(f.Name()) }() // what is left is removed by removeLeftPasses
		_, err = f.WriteString(s.cfg.Superuser.Password + "\n")
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("StateDir: %w", err)
		}
		args = append(args, "--pwfile="+f.Name())
	}
	// The locale of a new cluster is the environment's, so initdb is the one tool that sees it.
	if _, err := s.run(ctx, tool{program: "initdb", args: args, locale: true}); err != nil {
		return err
	}
	if len(s.cfg.BootstrapHBA) > 0 {
		path := filepath.Join(dir, "pg_hba.conf")
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := strings.TrimRight(string(content), "\n") + "\n\n" + strings.Join(s.cfg.BootstrapHBA, "\n") + "\n"
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if _, err := writeFile(path, []byte(text), info.Mode().Perm()); err != nil {
			return err
		}
	}
	return makeSignal(dir)
}

// makeSignal writes standby.signal into a directory that is not in place yet.
func makeSignal(dir string) error {
	info, err := os.Stat(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		return err
	}
	_, err = writeFile(filepath.Join(dir, "standby.signal"), nil, info.Mode().Perm())
	return err
}

// work is a directory that is being built.
type work struct {
	path    string
	inPlace bool // it is the data directory itself, because nothing can be renamed there
}

// workDir makes the folder to build in: beside the data directory, or, when its parent cannot be written to or it is a
// mount point, the empty data directory itself.
func (s *Server) workDir() (work, error) {
	var nonce [6]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return work{}, err
	}
	path := s.cfg.DataDir + ".new-" + hex.EncodeToString(nonce[:])
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.Mkdir(path, 0o700)
	}
	if err == nil && !isMountPoint(s.cfg.DataDir) {
		return work{path: path}, nil
	}
	_ = os.Remove(path) // it may not have been made
	if empty, _ := isEmptyDir(s.cfg.DataDir); !empty || !exists(s.cfg.DataDir) {
		return work{}, fmt.Errorf("%s cannot be replaced, because its parent folder cannot be written to or it is a mount point: put the data directory one level below: %w", s.cfg.DataDir, cmpErr(err))
	}
	return work{path: s.cfg.DataDir, inPlace: true}, os.Chmod(s.cfg.DataDir, 0o700)
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("mount point")
	}
	return err
}

// isMountPoint says that a folder is on another file system than its parent.
func isMountPoint(dir string) bool {
	inner, err := os.Stat(dir)
	if err != nil {
		return false
	}
	outer, err := os.Stat(filepath.Dir(dir))
	if err != nil {
		return false
	}
	a, okA := deviceOf(inner)
	b, okB := deviceOf(outer)
	return okA && okB && a != b
}

// remove deletes what was built.
func (w work) remove() error {
	if w.inPlace {
		return removeContent(w.path)
	}
	return os.RemoveAll(w.path)
}

// moveInto puts the finished directory where an empty or missing data directory is.
func (w work) moveInto(s *Server) error {
	if w.inPlace {
		return syncDir(w.path)
	}
	// The system call replaces an empty folder; os.Rename refuses to.
	if err := syscall.Rename(w.path, s.cfg.DataDir); err != nil {
		return errors.Join(fmt.Errorf("put the new directory into place: %w", err), w.remove())
	}
	return syncDir(filepath.Dir(s.cfg.DataDir))
}

// removeUnfinished deletes directories that an earlier initdb or base backup was building when it was stopped (hazard
// D3), and password files that were left with them. Names carry a mark of their own, so nothing else is hit.
func (s *Server) removeUnfinished() error {
	s.removeLeftPasses()
	left, err := filepath.Glob(globEscape(s.cfg.DataDir) + ".new-????????????")
	if err != nil {
		return err
	}
	for _, path := range left {
		s.log.Info("an unfinished directory is removed", "path", path)
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// globEscape makes a path match only itself.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
