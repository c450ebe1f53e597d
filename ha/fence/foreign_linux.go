package fence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FindPostmaster looks for a live postmaster of a data directory, whoever started it: the process that postmaster.pid
// names, if the directory is its working directory, as a postmaster's is.
func FindPostmaster(dataDir string) (pid int, ok bool) {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return 0, false
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return 0, false
	}
	want, err := filepath.EvalSymlinks(dataDir)
	if err != nil {
		return 0, false
	}
	_, state, alive := parentOf(pid)
	return pid, alive && state != 'Z' && cwd == want
}

// StopForeign stops a postmaster that is not the guard's child, through a pidfd so that a process id that was used anew
// is never hit, and returns when it is gone.
func StopForeign(ctx context.Context, pid int, mode Mode) error {
	sig, ok := mode.signal()
	if !ok {
		return fmt.Errorf("fence: there is no stop mode %q", mode)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fence: process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, syscall.Signal(sig), nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return fmt.Errorf("fence: signal process %d: %w", pid, err)
	}
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((50 * time.Millisecond).Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("fence: wait for process %d: %w", pid, err)
		}
		if n > 0 {
			return nil
		}
	}
	return fmt.Errorf("fence: process %d did not end: %w", pid, ctx.Err())
}
