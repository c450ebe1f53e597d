// Command pgregent-demo shows a cluster surviving: an embedded etcd, three pgregent nodes with real PostgreSQL, and a
// writer that inserts all the time. On a terminal it shows a live table and takes keys; otherwise it runs a tour and
// prints each step with its measured write outage. Everything it made is gone afterwards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() error {
	bin := flag.String("bin", "bin", "`folder` with the programs pgregent and pgregent-guard")
	pg := flag.String("pg", "", "`folder` with PostgreSQL's programs (default: the newest below /usr/lib/postgresql)")
	flag.Parse()
	if *pg == "" {
		if *pg = newestPostgreSQL(); *pg == "" {
			return errors.New("PostgreSQL is not installed: no /usr/lib/postgresql/*/bin/postgres; install the package postgresql, or name a folder with -pg")
		}
	}
	if os.Geteuid() == 0 {
		return asUser(*bin, *pg)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// Servers whose parents are killed become children of this process, which waits for them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("child subreaper: %w", err)
	}
	go reapOrphans()
	root, err := os.MkdirTemp("", "pgregent-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	c, err := newCluster(root, *bin, *pg)
	if err != nil {
		return err
	}
	defer c.close()
	if term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())) {
		return c.live(ctx)
	}
	err = c.tour(ctx)
	if err != nil {
		c.tails(os.Stderr)
	}
	return err
}

// newestPostgreSQL is the folder of the highest version that Debian has installed.
func newestPostgreSQL() string {
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

// asUser runs this program again as an unprivileged user, because PostgreSQL refuses to run as root. The programs are
// copied to where that user can read them.
func asUser(bin, pg string) error {
	u, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("PostgreSQL refuses to run as root, and there is no user postgres to run as: %w", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	dir, err := os.MkdirTemp("", "pgregent-demo-bin")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for name, from := range map[string]string{"demo": self, "pgregent": filepath.Join(bin, "pgregent"), "pgregent-guard": filepath.Join(bin, "pgregent-guard")} {
		if err := copyProgram(from, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("%w (build the programs with make build)", err)
		}
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(dir, "demo"), "-bin", dir, "-pg", pg) //nolint:noctx // it ends by the signals that it gets itself
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // a signal to this process alone is handed on; twice does no harm
		}
	}()
	if err := cmd.Wait(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("it ended with status %d", exit.ExitCode())
		}
		return err
	}
	return nil
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
