package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ProgramsEnv names the folder with the programs pgregent and pgregent-guard; without it they are built.
const ProgramsEnv = "PGREGENT_BIN"

// module is what the programs are packages of.
const module = "github.com/pgregent/pgregent/cmd/"

// Program is the path of a program that WithPrograms built.
func Program(name string) string { return filepath.Join(os.Getenv(ProgramsEnv), name) }

// Build builds a program into dir.
func Build(dir, name string, flags ...string) error {
	args := append(append([]string{"build"}, flags...), "-o", filepath.Join(dir, name), module+name)
	build := exec.Command("go", args...)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build %s: %w", name, err)
	}
	return nil
}

// unguardedEnv names a guard that guards nothing, for the positive control.
const unguardedEnv = "PGREGENT_UNGUARDED"

// Unguarded is the path of the guard that guards nothing, which BuildUnguarded built.
func Unguarded() string { return os.Getenv(unguardedEnv) }

// BuildUnguarded builds it. Like WithPrograms, it comes before the change of the user. undo removes it.
func BuildUnguarded() (undo func(), err error) {
	if Unguarded() != "" {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "pgregent-unguarded")
	if err != nil {
		return nil, err
	}
	undo = func() { _ = os.RemoveAll(dir) }
	err = errors.Join(os.Chmod(dir, 0o755), Build(dir, "pgregent-guard", "-tags", "pgregent_unguarded"),
		os.Setenv(unguardedEnv, filepath.Join(dir, "pgregent-guard")))
	if err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

// WithPrograms builds the daemon and its guard, unless ProgramsEnv names them, and runs the tests. It is called before
// the user is changed, who may have no Go, and returns the exit code.
func WithPrograms(run func() int) int {
	go ReapOrphans()
	if os.Getenv(ProgramsEnv) != "" {
		return run()
	}
	dir, err := os.MkdirTemp("", "pgregent-bin")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		err = os.Chmod(dir, 0o755)
	}
	for _, p := range []string{"pgregent", "pgregent-guard"} {
		if err == nil {
			err = Build(dir, p)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 2
	}
	_ = os.Setenv(ProgramsEnv, dir)
	return run()
}

// ReapOrphans waits, for ever, for servers and guards that became this process's children when their parents ended: a
// test process is a child subreaper, and a server that nobody waits for looks alive for ever. A child of this process's
// own session may be one that an exec.Cmd is about to wait for ("postgres --version" of a node in this process): it gets
// the time to.
func ReapOrphans() {
	const patience = 25 // rounds, half a second
	seen := map[string]int{}
	for range time.Tick(20 * time.Millisecond) {
		ended := map[string]int{}
		tasks, _ := filepath.Glob("/proc/self/task/*/children")
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			for pid := range strings.FieldsSeq(string(b)) {
				stat, _ := os.ReadFile("/proc/" + pid + "/stat")
				if !reapable(string(stat)) {
					continue
				}
				if ended[pid] = seen[pid] + 1; ended[pid] > patience || !ownSession(string(stat)) {
					n, _ := strconv.Atoi(pid)
					_, _ = syscall.Wait4(n, nil, syscall.WNOHANG, nil)
				}
			}
		}
		seen = ended
	}
}

// ownSession says that the process belongs to the session of this one.
func ownSession(stat string) bool {
	own, err := os.ReadFile("/proc/self/stat")
	return err == nil && session(stat) == session(string(own))
}

// session is the fourth field after the name, which may contain anything.
func session(stat string) string {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 4 {
		return ""
	}
	return fields[3]
}

// reapable says that the process has ended and is of a kind that no exec.Cmd of a test waits for.
func reapable(stat string) bool {
	for _, name := range []string{"postgres", "pgregent-guard", "sh", "sleep"} {
		if strings.Contains(stat, " ("+name+") Z ") {
			return true
		}
	}
	return false
}
