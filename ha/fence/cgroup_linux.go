package fence

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroup is a control group of PostgreSQL's own, below the guard's: one write to cgroup.kill ends every process in it,
// also one that is being forked at that moment (kernel commit 661ee6281820; hazards 2.3). It needs cgroup v2, Linux 5.14,
// and a group that was delegated to the guard's user (systemd: Delegate=yes). A nil cgroup does nothing.
//
// One that was killed is not used again: Linux from 6.12 on, 6.18 seen, kills at once what is later put into it with
// CLONE_INTO_CGROUP, because it compares its count of kills with that of the parent's group.
type cgroup struct {
	path  string
	spent bool     // it was killed
	dir   *os.File // CLONE_INTO_CGROUP takes it
	end   *os.File // cgroup.kill
}

// newCgroup makes one, and removes those that earlier guards of the same folder left. unique tells it from all of them.
func newCgroup(guardDir, unique string) (*cgroup, error) {
	own, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(guardDir))
	prefix := filepath.Join(own, fmt.Sprintf("pgregent-%x-", h.Sum64()))
	earlier, _ := filepath.Glob(prefix + "*")
	for _, e := range earlier {
		_ = os.Remove(e) // one that is not empty stays
	}
	c := &cgroup{path: prefix + unique}
	if err := os.Mkdir(c.path, 0o755); err != nil {
		return nil, fmt.Errorf("no cgroup of PostgreSQL's own: %s cannot be divided: %w", own, errors.Unwrap(err))
	}
	if err := unix.Access(filepath.Join(own, "cgroup.procs"), unix.W_OK); err != nil {
		c.remove() // the kernel lets nothing move in that may not leave here
		return nil, fmt.Errorf("no cgroup of PostgreSQL's own: %s is not delegated: %w", own, err)
	}
	if c.dir, err = os.Open(c.path); err == nil {
		c.end, err = os.OpenFile(filepath.Join(c.path, "cgroup.kill"), os.O_WRONLY, 0)
	}
	if err != nil {
		c.remove()
		return nil, fmt.Errorf("no cgroup of PostgreSQL's own: %w", err)
	}
	return c, nil
}

// ownCgroup is the folder of the guard's group in the cgroup v2 hierarchy.
func ownCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for mount := range strings.Lines(string(mounts)) {
			left, right, _ := strings.Cut(mount, " - ")
			f := strings.Fields(left)
			if !strings.HasPrefix(right, "cgroup2 ") || len(f) < 5 {
				continue
			}
			if below, err := filepath.Rel(f[3], path); err == nil && !strings.HasPrefix(below, "..") {
				return filepath.Join(f[4], below), nil
			}
		}
	}
	return "", fmt.Errorf("no cgroup of PostgreSQL's own: cgroup v2 is not mounted")
}

// kill sends SIGKILL to everything in it. It does not wait.
func (c *cgroup) kill() {
	if c != nil {
		_, _ = c.end.WriteAt([]byte("1"), 0)
		c.spent = true
	}
}

// descriptor is what a new process is put into.
func (c *cgroup) descriptor() (fd int, ok bool) {
	if c == nil {
		return 0, false
	}
	return int(c.dir.Fd()), true
}

// populated says that a process is left in it.
func (c *cgroup) populated() bool {
	if c == nil {
		return false
	}
	b, err := os.ReadFile(filepath.Join(c.path, "cgroup.events"))
	return err == nil && strings.Contains(string(b), "populated 1")
}

// remove gives it back. One that is not empty stays, for the next guard to find.
func (c *cgroup) remove() {
	if c == nil {
		return
	}
	if c.dir != nil {
		_ = c.dir.Close()
	}
	if c.end != nil {
		_ = c.end.Close()
	}
	_ = os.Remove(c.path)
}
