//go:build unix && !linux

package local

import (
	"errors"
	"io/fs"
	"syscall"
	"time"
)

// toolAttr puts a tool into a process group of its own.
func toolAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// ownerOf returns who owns a file.
func ownerOf(info fs.FileInfo) (uid int, ok bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(stat.Uid), true
}

// deviceOf returns the file system that a file is on.
func deviceOf(info fs.FileInfo) (device uint64, ok bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(stat.Dev), true
}

// bootTime falls back to Go's monotonic clock. It stands still while the machine sleeps: production runs on Linux.
func bootTime() time.Duration { return time.Since(time.Time{}.AddDate(2000, 0, 0)) }

// exchange is not known here; the caller renames twice, with a marker.
func exchange(_, _ string) error { return errors.ErrUnsupported }
