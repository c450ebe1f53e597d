package local

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// writeFile replaces the file at path: a new file beside it, synced, renamed over it, and the folder synced, so that a
// crash leaves the old or the new content and nothing else. A file that already holds the content is left alone.
func writeFile(path string, content []byte, mode fs.FileMode) (changed bool, err error) {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm() == mode {
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			return false, nil
		}
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".tmp")
	if err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	temp := f.Name()
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp)
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	return true, syncDir(dir)
}

// syncDir makes what was created, renamed or removed in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	err = errors.Join(d.Sync(), d.Close())
	if err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// removeFile removes a file, durably. A file that is not there is no error.
func removeFile(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// exists says whether there is something at path, not following a symbolic link at its end.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// fileMode is the mode for a file in or about the data directory: readable by the group when the data directory is
// (initdb --allow-group-access), else private (reference section 7).
func (s *Server) fileMode() fs.FileMode {
	if info, err := os.Stat(s.cfg.DataDir); err == nil && info.Mode().Perm()&0o040 != 0 {
		return 0o640
	}
	return 0o600
}

func (s *Server) configFile() string {
	return filepath.Join(s.cfg.ConfigDir, s.cfg.ConfigBaseName+".conf")
}
func (s *Server) baseConfigFile() string {
	return filepath.Join(s.cfg.ConfigDir, s.cfg.ConfigBaseName+".base.conf")
}
func (s *Server) data(elem ...string) string {
	return filepath.Join(append([]string{s.cfg.DataDir}, elem...)...)
}

// What may have begun and not ended. The values are file names in StateDir.
const (
	markRewind = "rewinding"
	markClone  = "cloning" // the data directory itself is being replaced or filled
	markInitdb = "initializing"
)

// mark writes a marker, durably, before something begins that must not be mistaken for done when it stops half-way.
func (s *Server) mark(name, text string) error {
	if err := os.MkdirAll(s.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("StateDir: %w", err)
	}
	if _, err := writeFile(filepath.Join(s.cfg.StateDir, name), []byte(text+"\n"), 0o600); err != nil {
		return fmt.Errorf("marker: %w", err)
	}
	return syncDir(filepath.Dir(s.cfg.StateDir))
}

func (s *Server) unmark(name string) error {
	return removeFile(filepath.Join(s.cfg.StateDir, name))
}

// marked reads a marker.
func (s *Server) marked(name string) (text string, found bool) {
	data, err := os.ReadFile(filepath.Join(s.cfg.StateDir, name))
	if err != nil {
		return "", !errors.Is(err, fs.ErrNotExist)
	}
	return strings.TrimSpace(string(data)), true
}

// setSignal makes standby.signal exist or not, file and folder synced, and removes recovery.signal in both cases:
// point-in-time recovery is not something that this package starts.
func (s *Server) setSignal(standby bool) error {
	if err := removeFile(s.data("recovery.signal")); err != nil {
		return err
	}
	if !standby {
		return removeFile(s.data("standby.signal"))
	}
	_, err := writeFile(s.data("standby.signal"), nil, s.fileMode())
	return err
}

// isEmptyDir says whether a folder is missing or has nothing in it.
func isEmptyDir(path string) (bool, error) {
	d, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(1)
	if len(names) > 0 {
		return false, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return true, nil
}
