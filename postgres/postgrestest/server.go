package postgrestest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/pgregent/postgres"
)

// Server is a running postmaster that a test started. It ends with the test, or with the test process.
type Server struct {
	t      testing.TB
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
}

// Start starts the postmaster of a Command. Its output goes to Command.Log or, when that is empty, to a file that is
// shown when the test fails. The server need not accept connections yet when Start returns.
func Start(t testing.TB, command postgres.Command) *Server {
	t.Helper()
	s := &Server{t: t, log: command.Log, exited: make(chan struct{})}
	if s.log == "" {
		s.log = filepath.Join(t.TempDir(), "server.log")
	}
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("server log: %v", err)
	}
	defer func() { _ = out.Close() }()
	s.cmd = exec.Command(command.Path, command.Args...) //nolint:noctx // it ends by the methods below, or with the test
	s.cmd.Env, s.cmd.Dir = command.Env, command.Dir
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = serverAttr()
	started := make(chan error)
	go func() {
		// The kernel's death signal follows the thread that forked, so that thread stays until the server has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait() // how it ended is in its log
			close(s.exited)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", command.Path, err)
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("log of the server in %s:\n%s", command.Dir, s.LogTail())
		}
	})
	return s
}

// PID is the postmaster's process id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Exited is closed when the postmaster has ended.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Stop shuts the server down: SIGINT is a fast shutdown, SIGQUIT an immediate one, SIGTERM a smart one. It returns when
// the postmaster has ended, and fails the test after 30 seconds.
func (s *Server) Stop(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatalf("signal the postmaster: %v", err)
	}
	s.waitExit()
}

// Kill kills the postmaster and every process below it at one stroke, as a loss of power would, waits until none is
// left, and collects the orphans. Killing a server that has ended does nothing.
func (s *Server) Kill() {
	s.t.Helper()
	select {
	case <-s.exited:
		return
	default:
	}
	pid := s.PID()
	_ = syscall.Kill(pid, syscall.SIGSTOP) // it must not start more children meanwhile
	children := childrenOf(pid)
	for _, p := range append([]int{pid}, children...) {
		_ = syscall.Kill(p, syscall.SIGKILL)
	}
	s.waitExit()
	for _, child := range children {
		reap(child)
	}
}

// KillPostmaster kills the postmaster only. Its backends end by themselves when they notice (hazard A4); the call
// returns when none is left.
func (s *Server) KillPostmaster() {
	s.t.Helper()
	children := childrenOf(s.PID())
	_ = syscall.Kill(s.PID(), syscall.SIGKILL)
	s.waitExit()
	for _, child := range children {
		reap(child)
	}
}

// Freeze stops the postmaster and every process below it without ending them; Thaw lets them go on.
func (s *Server) Freeze() { s.signalAll(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (s *Server) Thaw() { s.signalAll(syscall.SIGCONT) }

func (s *Server) signalAll(sig syscall.Signal) {
	s.t.Helper()
	for _, p := range append([]int{s.PID()}, childrenOf(s.PID())...) {
		if err := syscall.Kill(p, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.t.Fatalf("signal process %d: %v", p, err)
		}
	}
}

// Log returns what the server has logged.
func (s *Server) Log() string {
	data, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// LogTail returns the last 30 lines of the log.
func (s *Server) LogTail() string {
	lines := strings.Split(strings.TrimRight(s.Log(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

func (s *Server) waitExit() {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		s.t.Fatalf("the postmaster %d has not ended after 30 s; its log ends:\n%s", s.PID(), s.LogTail())
	}
}

// childrenOf lists the living children of a process, from /proc.
func childrenOf(pid int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var children []int
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (comm) state ppid ...
		i := bytes.LastIndexByte(data, ')')
		if i < 0 {
			continue
		}
		fields := strings.Fields(string(data[i+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			children = append(children, child)
		}
	}
	return children
}
