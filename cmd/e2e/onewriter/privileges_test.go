package onewriter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// What the tests got from root, if they were started by root. An empty one could not be made here.
const (
	netEnv   = "PGREGENT_ONEWRITER_NET"   // 1: a network namespace of their own
	nodesEnv = "PGREGENT_ONEWRITER_NODES" // a cgroup of version 2 that belongs to the test user
	oomEnv   = "PGREGENT_ONEWRITER_OOM"   // a cgroup with a memory controller that belongs to the test user
	diskEnv  = "PGREGENT_ONEWRITER_DISK"  // a file system of its own, on a loop device
)

// privileges are what root prepares for the unprivileged user that runs the tests: capabilities that some forms of the
// daemon get and the others do not, cgroups, and a disk that can be frozen. All of it is in namespaces of these tests
// alone, and gone when they end.
type privileges struct {
	root     bool
	uid, gid int
	test     *os.File // the cgroup that the tests run in
	undoing  []func()
}

// prepare is called twice: as root, and, as the test user, in what root prepared.
func prepare() (*privileges, error) {
	p := &privileges{}
	if os.Geteuid() != 0 {
		if os.Getenv(netEnv) != "" {
			return p, postgrestest.LoopbackUp()
		}
		return p, nil
	}
	name := os.Getenv("PGREGENT_TEST_USER")
	if name == "" {
		name = "postgres"
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	p.root = true
	p.uid, _ = strconv.Atoi(u.Uid)
	p.gid, _ = strconv.Atoi(u.Gid)
	// Mounts are made in a mount namespace of this thread, which all that it starts inherits.
	runtime.LockOSThread()
	if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
		p.root = false
		fmt.Fprintln(os.Stderr, "onewriter: without privileges: no mount namespace:", err)
		return p, nil
	}
	for what, step := range map[string]func() error{"a delegated cgroup": p.cgroups, "a memory cgroup": p.memory, "a disk": p.disk} {
		if err := step(); err != nil {
			fmt.Fprintf(os.Stderr, "onewriter: no %s: %v\n", what, err)
		}
	}
	return p, os.Setenv(netEnv, "1")
}

// keep lets the test user's process have what the privileged forms need. CAP_SETPCAP is for setpriv, which takes the
// rest away from the unprivileged forms.
func (p *privileges) keep(cmd *exec.Cmd) {
	if !p.root {
		return
	}
	for _, c := range held("sys_admin", "net_admin", "sys_resource", "setpcap") {
		cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, capabilities()[c])
	}
	// What a killed PostgreSQL leaves of System V shared memory goes with its namespace.
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC
	if p.test != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(p.test.Fd())
	}
}

// capabilities are those that some form of the daemon can use, as setpriv names them.
func capabilities() map[string]uintptr {
	return map[string]uintptr{"sys_admin": unix.CAP_SYS_ADMIN, "net_admin": unix.CAP_NET_ADMIN, "sys_resource": unix.CAP_SYS_RESOURCE, "setpcap": unix.CAP_SETPCAP}
}

// held are those of some capabilities that this process has: in a container even root may lack one.
func held(names ...string) []string {
	b, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(b), "CapPrm:")
	line, _, _ := strings.Cut(after, "\n")
	set, _ := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return slices.DeleteFunc(names, func(name string) bool { return set&(1<<capabilities()[name]) == 0 })
}

func (p *privileges) undo() {
	for _, f := range slices.Backward(p.undoing) {
		f()
	}
}

func (p *privileges) later(f func()) { p.undoing = append(p.undoing, f) }

// mounted finds where a file system is mounted. option is one of its options, empty: any.
func mounted(kind, option string) (string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 3 && f[2] == kind && (option == "" || slices.Contains(strings.Split(f[3], ","), option)) {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("%s %s is not mounted", kind, option)
}

// cgroups makes two groups below one whose processes the test user may move: one that the tests run in, where he may make
// nothing, and one that is his.
func (p *privileges) cgroups() error {
	root, err := mounted("cgroup2", "")
	if err != nil {
		return err
	}
	top := filepath.Join(root, fmt.Sprintf("pgregent-test-%d", os.Getpid()))
	test, nodes := filepath.Join(top, "test"), filepath.Join(top, "nodes")
	if err := errors.Join(os.Mkdir(top, 0o755), os.Mkdir(test, 0o755), os.Mkdir(nodes, 0o755)); err != nil {
		return err
	}
	p.later(func() { removeGroups(top) })
	if err := p.give(top+"/cgroup.procs", nodes); err != nil {
		return err
	}
	for _, file := range []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "cgroup.kill"} {
		if err := p.give(filepath.Join(nodes, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if p.test, err = os.Open(test); err != nil {
		return err
	}
	return os.Setenv(nodesEnv, nodes)
}

// memory makes a group in which the kernel's killer can be called: beside the others in version 2, or in the
// hierarchy of version 1 that has the memory controller.
func (p *privileges) memory() error {
	if nodes := os.Getenv(nodesEnv); nodes != "" {
		top := filepath.Dir(nodes)
		oom := filepath.Join(top, "oom")
		err := errors.Join(os.WriteFile(filepath.Join(filepath.Dir(top), "cgroup.subtree_control"), []byte("+memory"), 0),
			os.WriteFile(filepath.Join(top, "cgroup.subtree_control"), []byte("+memory"), 0), os.Mkdir(oom, 0o755),
			p.give(oom+"/cgroup.procs", oom+"/memory.max"))
		if err == nil {
			return os.Setenv(oomEnv, oom)
		}
	}
	root, err := mounted("cgroup", "memory")
	if err != nil {
		return err
	}
	own, err := ownGroup("memory")
	if err != nil {
		return err
	}
	oom := filepath.Join(root, own, fmt.Sprintf("pgregent-test-%d", os.Getpid()))
	if err := os.Mkdir(oom, 0o755); err != nil {
		return err
	}
	p.later(func() { removeGroups(oom) })
	if err := p.give(oom+"/cgroup.procs", oom+"/memory.limit_in_bytes"); err != nil {
		return err
	}
	return os.Setenv(oomEnv, oom)
}

func ownGroup(controller string) (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && f[1] == controller {
			return f[2], nil
		}
	}
	return "", fmt.Errorf("this process has no cgroup of the controller %s", controller)
}

func (p *privileges) give(paths ...string) error {
	var errs []error
	for _, path := range paths {
		errs = append(errs, os.Chown(path, p.uid, p.gid))
	}
	return errors.Join(errs...)
}

// removeGroups removes cgroups from the leaves up. Who is still in them is killed: nothing may outlive the tests.
func removeGroups(top string) {
	_ = os.WriteFile(filepath.Join(top, "cgroup.kill"), []byte("1"), 0)
	for range 100 {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, d := range slices.Backward(dirs) {
			_ = os.Remove(d)
		}
		if _, err := os.Stat(top); err != nil {
			return
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 10e6}, nil)
	}
	fmt.Fprintln(os.Stderr, "onewriter: the cgroup is left:", top)
}

// disk makes a file system on a loop device, which goes with its mount.
func (p *privileges) disk() error {
	dir, err := os.MkdirTemp("", "pgregent-disk")
	if err != nil {
		return err
	}
	p.later(func() { _ = os.RemoveAll(dir) })
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(at, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, 512<<20)); err != nil {
		return err
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	p.later(func() {
		_ = thaw(at)
		if err := unix.Unmount(at, 0); err != nil {
			fmt.Fprintln(os.Stderr, "onewriter: unmount the disk:", err)
		}
	})
	if err := p.give(at); err != nil {
		return err
	}
	return os.Setenv(diskEnv, at)
}

// The requests of "fsfreeze" (linux/fs.h).
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// freeze blocks every write to a file system, in the kernel, until thaw.
func freeze(path string) error { return fsRequest(path, fiFreeze) }

func thaw(path string) error { return fsRequest(path, fiThaw) }

func fsRequest(path string, request uint) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return unix.IoctlSetInt(int(f.Fd()), request, 0)
}
