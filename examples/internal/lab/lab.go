// Package lab is what the measuring examples share: an etcd server of their own, an unprivileged user to run PostgreSQL
// as, and what /proc says about a process. It is for Linux.
package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FreePort is a TCP port of 127.0.0.1 that nobody listens on at the moment.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// PostgreSQL is the folder with the programs of the highest version that Debian has installed, or empty.
func PostgreSQL() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return ""
	}
	version := func(path string) int {
		v, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return v
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }))
}

// AsUser runs this program again as the user postgres, because PostgreSQL refuses to run as root, and returns its exit
// code. programs are copied, under their names, to a folder that this user can read; args makes the arguments from it.
// The other run has files open as its descriptors 3 and up.
func AsUser(programs map[string]string, args func(dir string) []string, files ...*os.File) (int, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, fmt.Errorf("PostgreSQL refuses to run as root, and there is no user postgres to run as: %w", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	dir, err := os.MkdirTemp("", "pgregent-bench-bin")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	if err := copyProgram(self, filepath.Join(dir, "self")); err != nil {
		return 0, err
	}
	for name, from := range programs {
		if err := copyProgram(from, filepath.Join(dir, name)); err != nil {
			return 0, fmt.Errorf("%w (build the programs with make build)", err)
		}
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return 0, err
	}
	cmd := exec.Command(filepath.Join(dir, "self"), args(dir)...) //nolint:noctx // it ends by the signals that it gets itself
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, files
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Adopt makes this process the parent of orphans, and waits for servers and guards among them for ever: a process that
// nobody waits for looks alive.
func Adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("child subreaper: %w", err)
	}
	go func() {
		for range time.Tick(20 * time.Millisecond) {
			reap()
		}
	}()
	return nil
}

// reap waits for orphans that have ended. A child that was started here is of this process's session and is waited for
// by whoever started it, servers and guards apart: nobody needs their exit status.
func reap() {
	own := stat(os.Getpid())
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for word := range strings.FieldsSeq(string(b)) {
			pid, _ := strconv.Atoi(word)
			s := stat(pid)
			if len(s) < 4 || len(own) < 4 || s[0] != "Z" {
				continue
			}
			name, _ := os.ReadFile("/proc/" + word + "/comm")
			if n := strings.TrimSpace(string(name)); s[3] != own[3] || n == "postgres" || n == "pgregent-guard" {
				_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			}
		}
	}
}
