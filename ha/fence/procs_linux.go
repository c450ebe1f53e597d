package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FindPostmaster looks for a live postmaster of a data directory, whoever started it: the process that postmaster.pid
// names, if the directory is its working directory, as a postmaster's is. A postmaster in a PID namespace of its own
// writes 1 there, and is found by its name and its working directory.
func FindPostmaster(dataDir string) (pid int, ok bool) {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid < 1 {
		return 0, false
	}
	if pid == 1 {
		return namespaced(dataDir)
	}
	if !worksIn(pid, dataDir) && !hidden(pid) {
		return 0, false
	}
	return pid, alive(pid)
}

// hidden says that a process looks like a PostgreSQL server and does not let us see where it works, as one with more
// capabilities than ours. Unknown is not false: the lock file is believed then.
func hidden(pid int) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return errors.Is(err, fs.ErrPermission) && strings.HasPrefix(string(name), "postgres")
}

// namespaced finds the process of a data directory that is the first one of a PID namespace.
func namespaced(dataDir string) (int, bool) {
	for _, pid := range processes() {
		if !worksIn(pid, dataDir) {
			continue
		}
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, line, _ := strings.Cut(string(b), "\nNSpid:")
		line, _, _ = strings.Cut(line, "\n")
		if ids := strings.Fields(line); len(ids) > 1 && ids[len(ids)-1] == "1" {
			return pid, true
		}
	}
	return 0, false
}

// leftovers are the live processes that work in a data directory and run the program of that name: what is left of a
// postmaster that is gone, or all of one that is not the guard's child.
func leftovers(dataDir, name string) []int {
	var out []int
	self := os.Getpid()
	for _, pid := range processes() {
		if pid == self || !worksIn(pid, dataDir) {
			continue
		}
		if filepath.Base(program(pid)) != name {
			continue
		}
		if _, state, ok := parentOf(pid); ok && state != 'Z' {
			out = append(out, pid)
		}
	}
	return out
}

func worksIn(pid int, dir string) bool {
	a, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	b, err := os.Stat(dir)
	return err == nil && os.SameFile(a, b)
}

// processes lists all process ids that can be seen.
func processes() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = d.Close() }()
	names, _ := d.Readdirnames(-1)
	out := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// descendants lists the live processes below the given ones.
func descendants(roots ...int) []int {
	parent := map[int]int{}
	for _, pid := range processes() {
		if p, state, ok := parentOf(pid); ok && state != 'Z' {
			parent[pid] = p
		}
	}
	below := map[int]bool{}
	for _, r := range roots {
		below[r] = true
	}
	var out []int
	for child := range parent {
		for p, steps := parent[child], 0; p > 1 && steps < 64; p, steps = parent[p], steps+1 {
			if below[p] {
				out = append(out, child)
				break
			}
		}
	}
	return out
}

// parentOf reads /proc/PID/stat; the program's name in it may hold anything, so what counts is behind its last bracket.
func parentOf(pid int) (parent int, state byte, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, false
	}
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 2 {
		return 0, 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, fields[0][0], err == nil
}

// Alive says that a process exists and has not ended.
func Alive(pid int) bool { return pid > 0 && alive(pid) }

// alive says that a process exists and is no zombie.
func alive(pid int) bool {
	_, state, ok := parentOf(pid)
	return ok && state != 'Z' && state != 'X'
}

// The child of a guard is written down in the guard's folder, so that the next one knows whose it was.
const childName = "postmaster"

// remember writes it beside the guard's goroutine, which must not wait for a disk while a primary runs.
func (g *guard) remember(pid int) {
	path, id := filepath.Join(g.home, childName), []byte(identity(pid))
	go func() { _ = os.WriteFile(path, id, 0o600) }()
}

// identity is a process id with the time of its start, which no other process of this boot has.
func identity(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 20 {
		return ""
	}
	return strconv.Itoa(pid) + " " + fields[19]
}

// takeOver ends at once what a guard that was killed left in the data directory, and marks the directory as a standby's.
// Nothing of it waits for the next start: orphans still acknowledge, and so do the sessions of a postmaster that was
// stopped and took no signal in when its guard died (hazards A4, A5). A postmaster that no guard started is not touched.
func (g *guard) takeOver() error {
	if pid, ok := FindPostmaster(g.dir); ok {
		b, err := os.ReadFile(filepath.Join(g.home, childName))
		if err != nil || string(b) == "" || string(b) != identity(pid) {
			return nil
		}
	}
	if err := EndAll(g.dir, g.options.Program); err != nil {
		return err
	}
	g.trouble.atRest = reason(writeSignal(g.dir))
	return nil
}

// EndAll sends SIGKILL to every process of the program that works in the data directory, until none is left, for a second at
// most. It is what an agent does whose guard is gone or does not answer.
func EndAll(dataDir, program string) error {
	if program == "" {
		program = "postgres"
	}
	for range 50 {
		left := leftovers(dataDir, program)
		if len(left) == 0 {
			return nil
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		awaitEnd(left[0], 20*time.Millisecond)
	}
	return fmt.Errorf("%w: processes of the server in %s got SIGKILL and are still there", ErrRunning, dataDir)
}

// clearLeftovers ends what an earlier postmaster of the directory left behind: a guard that was killed could not do it, and
// an orphan in the middle of a statement still acknowledges it (hazard A4). A live postmaster is not a leftover: it is
// refused, for the agent to decide about.
func clearLeftovers(dataDir, name string) error {
	if pid, ok := FindPostmaster(dataDir); ok {
		return fmt.Errorf("%w: the postmaster with process id %d, which this guard did not start", ErrRunning, pid)
	}
	return EndAll(dataDir, name)
}

// awaitEnd waits until a process that is not a child has ended, or for d.
func awaitEnd(pid int, d time.Duration) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(d.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// program is the file that a process runs, without a mark that it was replaced on disk.
func program(pid int) string {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return strings.TrimSuffix(exe, " (deleted)")
}
