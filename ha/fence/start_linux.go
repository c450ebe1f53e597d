package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// start starts a postmaster. Nothing of another one may be left in the directory, whoever started that: two postmasters
// are two writers, and an orphan of one can still acknowledge (hazards A4, A17).
func (g *guard) start(req StartRequest) (int, error) {
	if g.busy() {
		return 0, ErrRunning
	}
	pid, err := g.startEmpty(req)
	if err != nil {
		if req.Primary { // whoever prepared the directory for a primary took the file away
			err = errors.Join(err, writeSignal(req.Dir))
		}
		return 0, err
	}
	g.ladder, g.occupied = ladder{}, true
	g.state.Postmaster = Postmaster{Running: true, PID: pid, Primary: req.Primary}
	g.dir = req.Dir
	if req.Primary {
		g.state.Postmaster.Epoch = req.Epoch
		g.admit()
		g.beginMark()
	} else {
		g.watchRole(true)
	}
	unprotect(pid)
	g.remember(pid)
	g.describe()
	return pid, nil
}

func (g *guard) startEmpty(req StartRequest) (int, error) {
	if g.mark != nil {
		return 0, fmt.Errorf("%w: standby.signal is being written after the last one; try again", ErrRunning)
	}
	if err := clearLeftovers(req.Dir, filepath.Base(req.Path)); err != nil {
		return 0, err
	}
	if req.Primary {
		if err := g.live(req.Epoch); err != nil {
			return 0, err
		}
		if err := removeSignal(req.Dir); err != nil {
			return 0, fmt.Errorf("standby.signal cannot be removed, so the server would not start as primary: %w", err)
		}
	}
	g.prepareRungs()
	g.lockFile, _ = os.Stat(filepath.Join(req.Dir, "postmaster.pid"))
	if req.Primary {
		if err := g.live(req.Epoch); err != nil { // the disk, or nft, took long
			return 0, err
		}
		if !unguarded && !g.endless() {
			g.kernel.set(g.hard)
		}
	}
	pid, err := g.fork(req)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", req.Path, err)
	}
	return pid, nil
}

// prepareRungs makes what a new server is put under. Nothing of an earlier one is left.
func (g *guard) prepareRungs() {
	if g.cgroup != nil && g.cgroup.spent {
		g.cgroup.remove()
		g.cgroup = nil
	}
	if g.options.Cgroup && g.cgroup == nil {
		g.starts++
		c, err := newCgroup(g.home, fmt.Sprintf("%s-%d", g.state.Nonce, g.starts))
		g.cgroup, g.trouble.cgroup = c, reason(err)
	}
	if port := g.options.AdmissionPort; port != 0 && (g.admission == nil || int(g.admission.port) != port) {
		a, err := newAdmission(port)
		g.admission, g.trouble.admission = a, reason(err)
	}
}

// fork creates the postmaster. It inherits no descriptor but its log, and ends with the guard: SIGQUIT makes it end its
// sessions too, where SIGKILL would leave busy ones to finish (hazard A4). As the first process of a PID namespace it
// gets SIGKILL, and the kernel kills the rest.
func (g *guard) fork(req StartRequest) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = null.Close() }()
	out := os.Stderr
	if req.Log != "" {
		if out, err = os.OpenFile(req.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return 0, fmt.Errorf("the server's log: %w", err)
		}
		defer func() { _ = out.Close() }()
	}
	attr := &syscall.ProcAttr{
		Dir: req.Dir, Env: req.Env, Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGQUIT},
	}
	if unguarded {
		attr.Sys.Pdeathsig = 0
	}
	if g.options.PIDNamespace {
		attr.Sys.Cloneflags, attr.Sys.Pdeathsig = syscall.CLONE_NEWPID, syscall.SIGKILL
	}
	argv := append([]string{req.Path}, req.Args...)
	if fd, ok := g.cgroup.descriptor(); ok {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fd
		pid, err := syscall.ForkExec(req.Path, argv, attr)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return pid, err
		}
		// The cgroup was made, and still the kernel does not let a child into it: go on without this rung.
		g.cgroup.remove()
		g.cgroup = nil
		attr.Sys.UseCgroupFD = false
	}
	pid, err := syscall.ForkExec(req.Path, argv, attr)
	if err != nil && g.options.PIDNamespace && errors.Is(err, fs.ErrPermission) {
		return 0, fmt.Errorf("a PID namespace needs CAP_SYS_ADMIN: %w", err)
	}
	return pid, err
}
