package postgrestest

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// reexecuted marks the environment of a test binary that Main started again as the unprivileged user.
const reexecuted = "PGREGENT_TEST_REEXECUTED"

// Main is what a TestMain calls, and returns its exit code:
//
//	func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }
//
// PostgreSQL refuses to run as root. When the test binary runs as root, Main runs a copy of it as an unprivileged user
// ($PGREGENT_TEST_USER, default postgres), with HOME and TMPDIR in a folder that this user owns, and hands on its exit
// code. Without a TMPDIR in the environment that folder is in memory (/dev/shm) when there are 4 GB to spare. Otherwise,
// and when it is fuzzing, it runs the tests here. In both cases the process that runs the tests is made a child subreaper
// first (Linux), so that the backends of a postmaster that a test kills become its children, and Server can wait for them.
//
// A coverage profile asked for on the command line is carried back. Other profiles are written only when the
// unprivileged user may write there.
func Main(m *testing.M) int {
	return mainAs(m, Privileges{}, nil)
}

// Privileges are what MainPrivileged gives to the unprivileged user.
type Privileges struct {
	Caps    []uintptr // ambient capabilities (Linux)
	Network bool      // a network namespace of its own, with the loopback interface up
	Cgroup  bool      // a cgroup of version 2 that the user may divide
}

// privilegedTests are the tests that MainPrivileged runs, and privilegedEnv is set in their environment.
const (
	privilegedTests = "^TestPrivileged"
	privilegedEnv   = "PGREGENT_TEST_PRIVILEGED"
)

// Privileged says that this process was started by MainPrivileged.
func Privileged() bool { return os.Getenv(privilegedEnv) != "" }

// MainPrivileged runs the tests that need more than an unprivileged user has, whose names begin with TestPrivileged, before
// Main runs the others:
//
//	if os.Geteuid() == 0 {
//		if code := postgrestest.MainPrivileged(m, p); code != 0 {
//			os.Exit(code)
//		}
//	}
//	os.Exit(postgrestest.Main(m))
//
// It works only for root, on Linux. In the other process Privileged says whether a test is in this one.
func MainPrivileged(m *testing.M, p Privileges) int {
	p.Caps = append(p.Caps, capNetAdmin) // for the loopback interface, in its own namespace
	return mainAs(m, p, nil)
}

// MainWith is Main for tests whose unprivileged user keeps something of root: change may change the command that runs the
// copy, such as by ambient capabilities. It is not called when the tests run here.
func MainWith(m *testing.M, change func(*exec.Cmd)) int { return mainAs(m, Privileges{}, change) }

func mainAs(m *testing.M, p Privileges, change func(*exec.Cmd)) int {
	if os.Geteuid() != 0 || isFuzzing(os.Args[1:]) {
		if Privileged() {
			if err := LoopbackUp(); err != nil {
				fmt.Fprintln(os.Stderr, "postgrestest: the loopback interface:", err)
				return 2
			}
		} else if f := flag.Lookup("test.skip"); f != nil && f.Value.String() == "" {
			_ = f.Value.Set(privilegedTests) // a pattern on the command line replaces it
		}
		if err := becomeSubreaper(); err != nil {
			fmt.Fprintln(os.Stderr, "postgrestest: become a child subreaper:", err)
			return 2
		}
		return m.Run()
	}
	if os.Getenv(reexecuted) != "" {
		fmt.Fprintln(os.Stderr, "postgrestest: still root after changing the user")
		return 2
	}
	code, err := runAsUser(p, change)
	if err != nil {
		fmt.Fprintln(os.Stderr, "postgrestest:", err)
		return 2
	}
	return code
}

// isFuzzing says that "go test -fuzz" runs this binary. It keeps its corpus where only its own user may write, and fuzz
// targets need no server.
func isFuzzing(args []string) bool {
	for _, arg := range args {
		name, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if name == "test.fuzzworker" || name == "test.fuzz" && value != "" {
			return true
		}
	}
	return false
}

// runAsUser runs a copy of this binary with its arguments as the unprivileged user. A copy, because "go test" builds
// the binary in a folder that only its own user may enter.
func runAsUser(p Privileges, change func(*exec.Cmd)) (int, error) {
	cred, err := testUser()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp(quickDir(), "pgtest")
	if err != nil {
		return 0, fmt.Errorf("make a folder for the unprivileged user: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, "test.bin")
	if err := copyExecutable(binary); err != nil {
		return 0, err
	}
	if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
		return 0, fmt.Errorf("hand %s to the unprivileged user: %w", dir, err)
	}
	profile, args := childArgs(os.Args[1:], filepath.Join(dir, "cover.out"))
	cmd := exec.Command(binary, args...) //nolint:noctx // "go test" has its own time-out
	cmd.Env = append(os.Environ(), reexecuted+"=1", "HOME="+dir, "TMPDIR="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = userAttr(cred)
	if len(p.Caps) > 0 {
		switch own := pattern(args); {
		case own == "":
			cmd.Args = append(cmd.Args, "-test.run="+privilegedTests)
		case !strings.Contains(own, "Privileged"):
			return 0, nil
		}
		cmd.Env = append(cmd.Env, privilegedEnv+"=1")
		done, err := privileged(cmd.SysProcAttr, p, cred)
		if err != nil {
			return 0, err
		}
		defer done()
	}
	if change != nil {
		change(cmd)
	}
	runtime.LockOSThread() // the kernel's death signal follows the thread that forks
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	if profile != "" {
		if data, readErr := os.ReadFile(filepath.Join(dir, "cover.out")); readErr == nil {
			if writeErr := os.WriteFile(profile, data, 0o644); writeErr != nil {
				return 0, fmt.Errorf("carry the coverage profile back: %w", writeErr)
			}
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run the tests as uid %d: %w", cred.Uid, err)
	}
	return 0, nil
}

// pattern is the value of the flag -test.run.
func pattern(args []string) string {
	for i, arg := range args {
		name, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if name == "test.run" && ok {
			return value
		}
		if name == "test.run" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// testUser finds who the tests run as.
func testUser() (*syscall.Credential, error) {
	name := os.Getenv("PGREGENT_TEST_USER")
	if name == "" {
		name = "postgres"
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root and there is no user %q (install PostgreSQL, or set PGREGENT_TEST_USER): %w", name, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("uid of %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("gid of %s: %w", name, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// copyExecutable writes the running program to path.
func copyExecutable(path string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open the test binary: %w", err)
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return fmt.Errorf("copy the test binary: %w", err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		return fmt.Errorf("copy the test binary: %w", err)
	}
	return nil
}

// childArgs drops the arguments that name files which only "go test" itself may write, and points a coverage profile
// at cover. It returns where the profile was wanted.
func childArgs(args []string, cover string) (profile string, out []string) {
	for _, arg := range args {
		name, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case strings.HasPrefix(arg, "-") && (name == "test.testlogfile" || name == "test.gocoverdir"):
		case name == "test.coverprofile" && value != "":
			profile = value
			out = append(out, "-test.coverprofile="+cover)
		default:
			out = append(out, arg)
		}
	}
	return profile, out
}
