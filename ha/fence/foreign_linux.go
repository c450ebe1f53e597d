package fence

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// foreign holds a postmaster that is not the guard's child: one that was started by hand, that a paused Patroni left, or
// that outlived a guard that was killed while it was stopped. It is held by a pidfd, so that a process id that was used
// anew is never hit.
//
// The guard's ladder works on it. What does not work is the kernel's part: when this guard dies, nothing ends it. So it
// is the weaker rung, and State says so; a replica is soon started again under the guard.
type foreign struct {
	pid     int
	fd      int
	program string
}

// adopt takes charge of the postmaster of the data directory.
func (g *guard) adopt(pid int) error {
	if g.busy() {
		return ErrRunning
	}
	if found, ok := FindPostmaster(g.dir); !ok || found != pid {
		return fmt.Errorf("process %d is no postmaster of %q", pid, g.dir)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	f := &foreign{pid: pid, fd: fd, program: filepath.Base(program(pid))}
	g.foreign = f
	g.ladder, g.occupied = ladder{}, true
	g.state.Postmaster = Postmaster{Running: true, PID: pid, Foreign: true, Primary: isPrimary(g.dir, pid, nil)}
	g.lockFile = nil
	g.watchRole(!g.state.Postmaster.Primary)
	go func() {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				g.gone <- f
				return
			}
		}
	}()
	g.describe()
	return nil
}

func (f *foreign) signal(sig syscall.Signal) { _ = unix.PidfdSendSignal(f.fd, sig, nil, 0) }

// onGone notes the end of an adopted postmaster; what is left of it is ended by reap.
func (g *guard) onGone(f *foreign) {
	if g.foreign != f || !g.state.Postmaster.Running {
		return
	}
	g.exited(f.pid, 0)
}

// forget closes the pidfd when nothing is left.
func (g *guard) forget() {
	if g.foreign != nil {
		_ = unix.Close(g.foreign.fd)
		g.foreign = nil
	}
}
