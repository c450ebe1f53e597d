package postgrestest

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// serverAttr gives a postmaster a session of its own, and has the kernel kill it when the test process dies.
func serverAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

// userAttr changes the user, and has the kernel kill the tests when "go test" kills this process.
func userAttr(cred *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: cred, Pdeathsig: syscall.SIGKILL}
}

// quickDir is where temporary folders go: tests make many clusters, and none of them has to survive a loss of power. Empty
// means the system's default.
func quickDir() string {
	const dir, enough = "/dev/shm", 4 << 30
	var fs syscall.Statfs_t
	if os.Getenv("TMPDIR") != "" || syscall.Statfs(dir, &fs) != nil || fs.Bavail*uint64(fs.Bsize) < enough {
		return ""
	}
	return dir
}

// reap waits for an orphan of a postmaster, which is a child of this process once its parent is gone: Main made this
// process a child subreaper. Where it did not, there is nothing to collect.
func reap(pid int) {
	for range 3000 {
		_, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.ECHILD) && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return
		}
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return
		}
		<-time.After(2 * time.Millisecond)
	}
}
