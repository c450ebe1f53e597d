package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/pgregent/pgregent/postgres"
)

// postmasterPID is what postmaster.pid says (PostgreSQL source, miscadmin.h).
type postmasterPID struct {
	pid    int
	start  int64  // Unix seconds
	status string // "starting", "ready", "standby", "stopping"; empty until it is first written
}

// errPIDGarbage says that postmaster.pid is there and names no process.
var errPIDGarbage = errors.New("postmaster.pid names no process")

// readPID reads postmaster.pid. A missing file is a zero value, not an error.
func readPID(dataDir string) (postmasterPID, error) {
	data, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return postmasterPID{}, nil
	}
	if err != nil {
		return postmasterPID{}, err
	}
	lines := strings.Split(string(data), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if pid < 0 {
		pid = -pid // a single-user backend
	}
	if err != nil || pid == 0 || pid > 1<<30 {
		return postmasterPID{}, errPIDGarbage
	}
	if pid == 1 {
		if outer := namespaced(dataDir); outer != 0 {
			pid = outer
		}
	}
	p := postmasterPID{pid: pid}
	if len(lines) > 2 {
		p.start, _ = strconv.ParseInt(strings.TrimSpace(lines[2]), 10, 64)
	}
	if len(lines) > 7 {
		p.status = strings.TrimSpace(lines[7])
	}
	return p, nil
}

// namespaced is the process of a data directory that is the first one of a PID namespace, as this process sees it, or 0. A
// postmaster in a namespace of its own (an optional rung of the fence, design section 7) writes 1 into postmaster.pid.
func namespaced(dataDir string) int {
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, file := range files {
		if !sameFile(filepath.Join(filepath.Dir(file), "cwd"), dataDir) {
			continue
		}
		b, _ := os.ReadFile(file)
		_, line, _ := strings.Cut(string(b), "\nNSpid:")
		line, _, _ = strings.Cut(line, "\n")
		if ids := strings.Fields(line); len(ids) > 1 && ids[len(ids)-1] == "1" {
			pid, _ := strconv.Atoi(ids[0])
			return pid
		}
	}
	return 0
}

// owner is what is known of the process that postmaster.pid names.
type owner int

const (
	ownerGone    owner = iota // no such process, or a zombie
	ownerOurs                 // a process of this data directory
	ownerForeign              // alive and something else: the file is stale and the number was used again
)

// ownerOfPID finds out whether pid is a PostgreSQL process of this data directory: a postmaster works in its data
// directory.
func ownerOfPID(pid int, dataDir string) owner {
	if pid <= 0 {
		return ownerGone
	}
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return ownerGone
	}
	proc := "/proc/" + strconv.Itoa(pid)
	if !exists("/proc/self/stat") {
		return ownerOurs // no /proc: a living process is believed
	}
	stat, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return ownerGone
	}
	// pid (comm) state ...; comm may hold anything, so the last bracket counts.
	if i := strings.LastIndexByte(string(stat), ')'); i >= 0 && i+2 < len(stat) && (stat[i+2] == 'Z' || stat[i+2] == 'X') {
		return ownerGone
	}
	if sameFile(proc+"/cwd", dataDir) {
		return ownerOurs
	}
	// A server with more capabilities than ours, or of another user, does not let us see where it works. Unknown is not
	// false: it is taken for the one that the lock file means, because nothing may be done beside a running server.
	if _, err := os.Readlink(proc + "/cwd"); errors.Is(err, fs.ErrPermission) && strings.HasPrefix(string(stat[bytes.IndexByte(stat, '(')+1:]), "postgres") {
		return ownerOurs
	}
	return ownerForeign
}

// sameFile says that two paths lead to one file or folder, whatever links are on the way.
func sameFile(a, b string) bool {
	one, err1 := os.Stat(a)
	other, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, other)
}

// postmaster returns the process id of the running postmaster of the data directory, or ErrNotRunning.
func (s *Server) postmaster() (int, error) {
	p, err := readPID(s.cfg.DataDir)
	if err != nil && !errors.Is(err, errPIDGarbage) {
		return 0, fmt.Errorf("local: %w", err)
	}
	if ownerOfPID(p.pid, s.cfg.DataDir) != ownerOurs {
		return 0, postgres.ErrNotRunning
	}
	return p.pid, nil
}

// mustBeStopped returns an error when a postmaster runs in the data directory.
func (s *Server) mustBeStopped(what string) error {
	if pid, err := s.postmaster(); err == nil {
		return fmt.Errorf("local: %s: the server runs as process %d: stop it first", what, pid)
	}
	return nil
}

// Reload implements postgres.Controller: it signals the postmaster, after making sure that the process is a postmaster
// of this data directory.
func (s *Server) Reload(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("local: reload: %w", err)
	}
	pid, err := s.postmaster()
	if err != nil {
		return fmt.Errorf("local: reload: %w", err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		return fmt.Errorf("local: reload: signal process %d: %w", pid, err)
	}
	s.mu.Lock()
	s.stale = false
	s.mu.Unlock()
	return nil
}
