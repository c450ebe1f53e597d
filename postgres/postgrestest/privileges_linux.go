package postgrestest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const capNetAdmin = unix.CAP_NET_ADMIN

// privileged prepares what a process gets at its start; done takes it away again.
func privileged(attr *syscall.SysProcAttr, p Privileges, cred *syscall.Credential) (done func(), err error) {
	attr.AmbientCaps = p.Caps
	if p.Network {
		attr.Cloneflags |= syscall.CLONE_NEWNET
	}
	if !p.Cgroup {
		return func() {}, nil
	}
	mount, err := cgroup2()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(mount, "pgregent-test-")
	if err != nil {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		err = errors.Join(err, os.Chown(filepath.Join(dir, name), int(cred.Uid), int(cred.Gid)))
	}
	err = errors.Join(err, os.Chmod(dir, 0o755))
	f, openErr := os.Open(dir)
	if err = errors.Join(err, openErr); err != nil {
		_ = os.Remove(dir)
		return nil, fmt.Errorf("delegate a cgroup: %w", err)
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(f.Fd())
	return func() {
		_ = f.Close()
		_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		below, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
		for _, b := range below {
			_ = os.Remove(filepath.Dir(b))
		}
		_ = os.Remove(dir)
	}, nil
}

// cgroup2 is where cgroup v2 is mounted.
func cgroup2() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		left, right, _ := strings.Cut(line, " - ")
		if f := strings.Fields(left); strings.HasPrefix(right, "cgroup2 ") && len(f) > 4 {
			return f[4], nil
		}
	}
	return "", errors.New("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

// LoopbackUp brings the interface up in a new network namespace. In an old one it is up.
func LoopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}
