package local

import (
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// toolAttr puts a tool into a process group of its own, and has the kernel kill it when this program dies.
func toolAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

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
	return stat.Dev, true
}

// bootTime is CLOCK_BOOTTIME, which counts on while the machine sleeps and which nobody can set (hazard A6).
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// exchange swaps two paths in one step; there is no moment at which either is missing.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}
