package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is what the kernel counts CPU time in (USER_HZ), which is 100 on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// Usage is what a process uses.
type Usage struct {
	CPU      time.Duration // user and system, since its start
	RSS, PSS uint64        // bytes; a page that n processes share counts 1/n in PSS
	FDs      int           // open descriptors
	Threads  int
}

// stat is /proc/PID/stat after the name: state, parent, group, session, ...; nil when there is none.
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// Parent is the process id of a process's parent, 0 when there is no such process.
func Parent(pid int) int {
	s := stat(pid)
	if len(s) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(s[1])
	return n
}

// Program is the base name of what a process executes, as its command line says: "postgres" for a postmaster and
// "postgres: what it does" for what that forked. Empty: there is none, or it has ended.
func Program(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	first, _, _ := bytes.Cut(b, []byte{0})
	if bytes.HasPrefix(first, []byte("postgres:")) {
		return string(first)
	}
	return filepath.Base(string(first))
}

// Processes are the ids of the processes that match says yes to, this one apart. dir is /proc/PID.
func Processes(match func(pid int, dir string) bool) []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && match(pid, "/proc/"+e.Name()) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Use measures a process.
func Use(pid int) (Usage, error) {
	s := stat(pid)
	if len(s) < 22 {
		return Usage{}, fmt.Errorf("process %d has ended", pid)
	}
	ticks := func(i int) int64 { n, _ := strconv.ParseInt(s[i], 10, 64); return n }
	u := Usage{CPU: time.Duration(ticks(11)+ticks(12)) * clockTick, Threads: int(ticks(17))}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kb, _ := strconv.ParseUint(f[1], 10, 64)
		switch f[0] {
		case "Rss:":
			u.RSS = kb << 10
		case "Pss:":
			u.PSS = kb << 10
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	u.FDs = len(fds)
	return u, err
}

// Machine describes where something is measured, without names: processors, memory, kernel.
func Machine(cpus int) string {
	mem, _ := os.ReadFile("/proc/meminfo")
	kb := 0.0
	for line := range strings.Lines(string(mem)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			kb, _ = strconv.ParseFloat(f[1], 64)
		}
	}
	model := "unknown processor"
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(cpu)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d cores (%s), %.0f GB, Linux %s", cpus, model, kb/1e6, strings.TrimSpace(string(kernel)))
}

// Load is the load average of the last minute: what else runs spoils a measurement.
func Load() float64 {
	b, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(b), " ")
	v, _ := strconv.ParseFloat(first, 64)
	return v
}
