package fence

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/pgregent/dcs"
)

// Main serves as the guard when this process was started as one, and then does not return. Otherwise it returns at once.
// Call it first in main: everything that runs before it runs in the guard too.
func Main() {
	dir := os.Getenv(guardEnv)
	if dir == "" {
		return
	}
	_ = os.Unsetenv(guardEnv)
	if err := serve(dir); err != nil {
		fmt.Fprintln(os.Stderr, time.Now().Format(time.RFC3339), "guard:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// guard is the process. One goroutine, on the main thread for life because PDEATHSIG follows the thread that created
// the child, owns everything; others only read the socket, or write standby.signal, and feed it.
//
// That goroutine never waits for a disk while a primary runs (invariant I21): what it needs is opened at its start.
type guard struct {
	dir       string // the data directory
	home      string // the guard's own folder
	state     State
	options   Options
	trouble   troubles
	head      time.Duration
	hard      time.Duration // when the kernel ends a guard that is frozen
	leaps     []leap        // of the wall clock, not long ago
	clock     dcs.Clock
	requests  chan incoming
	agent     *client
	waiters   []waiter // stops that wait until nothing is left
	timer     dcs.Timer
	kernel    kernelTimer
	cgroup    *cgroup
	starts    int
	admission *admission
	dog       *watchdog
	ladder    ladder
	occupied  bool     // a postmaster was started or adopted, and not all of it was gone yet
	foreign   *foreign // the postmaster, when it is not a child
	gone      chan *foreign
	mark      *marker // writes standby.signal; nil when that is done
	marked    chan *marker
	proof     *prover // watches for the shutdown checkpoint; nil when nobody waits for it
	proved    chan *prover
	jumped    <-chan time.Duration
	closedBy  Proof       // how the last epoch ended
	lockFile  os.FileInfo // postmaster.pid as it was before the postmaster was started
	watching  *roleWatch  // of a server that is not known to be a primary
	turned    chan *roleWatch
	idle      time.Duration
	ending    bool // asked to end
	end       bool
}

type client struct {
	conn *net.UnixConn
	pid  int
}

type incoming struct {
	from *client
	req  request
	gone bool
}

// waiter is a request that is answered when nothing is left, or, with early, when pg_control proves a shutdown.
type waiter struct {
	to    *client
	id    uint64
	close uint64 // close this epoch then; 0: none
	early bool
}

func serve(dir string) error {
	runtime.GOMAXPROCS(2)
	runtime.LockOSThread()
	debug.SetGCPercent(-1) // a collection only when the limit is near: nothing here grows
	debug.SetMemoryLimit(24 << 20)
	held, err := lock(dir)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }() // not before: a file without a reference would be closed by a collection
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("child subreaper: %w", err)
	}
	// Not signal.Ignore: a program that is started inherits what is ignored.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	l, err := listen(dir)
	if err != nil {
		return err
	}
	g := &guard{home: dir, clock: dcs.Boottime(), requests: make(chan incoming, 16),
		marked: make(chan *marker, 1), proved: make(chan *prover, 1), gone: make(chan *foreign, 1), turned: make(chan *roleWatch, 1), closedBy: ProofEmpty}
	g.idle = g.clock.Now()
	g.state = State{Version: protocolVersion, PID: os.Getpid(), Nonce: nonce(), BootID: bootID()}
	if g.state.Earlier, err = rememberNonce(dir, g.state.Nonce); err != nil {
		return err
	}
	protect()
	dropAmbient()
	keepDescriptors()
	g.trouble.kernel = reason(g.kernel.create())
	g.jumped = jumps(g.clock)
	g.describe()
	go g.accept(l)
	g.loop()
	g.cgroup.remove()
	_ = throughDir(dir, os.Remove)
	return nil
}

// lock makes this the only guard of the folder. The last one may be ending at this moment.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for tries := 0; ; tries++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if tries == 100 {
			return nil, fmt.Errorf("another guard lives in %s: %w", dir, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func nonce() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// rememberNonce adds the nonce to those of the folder, durably, and returns the earlier ones. Nothing runs yet.
func rememberNonce(dir, nonce string) (earlier []string, err error) {
	path := filepath.Join(dir, noncesName)
	if b, err := os.ReadFile(path); err == nil {
		earlier = strings.Fields(string(b))
	}
	earlier = earlier[max(0, len(earlier)-maxNonces):]
	text := strings.Join(append(slices.Clone(earlier), nonce), "\n") + "\n"
	tmp, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = tmp.WriteString(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return nil, err
	}
	return earlier, errors.Join(os.Rename(path+".tmp", path), syncDir(dir))
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

func listen(dir string) (*net.UnixListener, error) {
	var l *net.UnixListener
	err := throughDir(dir, func(path string) (err error) {
		_ = os.Remove(path) // the lock says that no guard uses it
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		return os.Chmod(path, 0o600)
	})
	return l, err
}

// accept takes connections of this user only, one reader each.
func (g *guard) accept(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		cred, err := peer(conn)
		if err != nil || int(cred.Uid) != os.Geteuid() {
			_ = conn.Close()
			continue
		}
		go g.readClient(&client{conn: conn, pid: int(cred.Pid)})
	}
}

func peer(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(err, inner)
}

func (g *guard) readClient(c *client) {
	s := bufio.NewScanner(c.conn)
	s.Buffer(make([]byte, 4096), maxMessage)
	for s.Scan() {
		r, err := parseRequest(s.Bytes())
		if err != nil && r.ID != 0 {
			c.send(reply{ID: r.ID, Error: err.Error()})
			continue
		}
		if err != nil {
			break // what cannot speak the protocol is no agent
		}
		g.requests <- incoming{from: c, req: r}
	}
	g.requests <- incoming{from: c, gone: true}
}

func (g *guard) loop() {
	children := make(chan os.Signal, 16)
	signal.Notify(children, syscall.SIGCHLD)
	tick := time.NewTicker(5 * time.Second)
	for !g.end {
		g.arm()
		var due <-chan struct{}
		if g.timer != nil {
			due = g.timer.C()
		}
		select {
		case in := <-g.requests:
			g.handle(in)
		case <-children:
		case <-due:
			g.step()
		case m := <-g.marked:
			g.onMarked(m)
		case w := <-g.turned:
			if w == g.watching && w.found {
				g.onPrimary(w.pid)
			}
		case p := <-g.proved:
			g.onProved(p)
		case f := <-g.gone:
			g.onGone(f)
		case by := <-g.jumped:
			g.onJump(by)
		case <-tick.C:
			g.checkIdle()
		}
		g.reap()
		g.end = g.end || g.ending && g.mark == nil && !g.busy()
	}
}

// checkIdle ends a guard that has nothing to guard and nobody to serve.
func (g *guard) checkIdle() {
	if g.agent != nil || g.busy() || g.mark != nil {
		g.idle = g.clock.Now()
	}
	g.end = g.end || g.clock.Now()-g.idle > idleExit
}

func (g *guard) busy() bool { return g.state.Postmaster.Running || g.state.Orphans > 0 }

// leading says that something runs, or is left, that is or was allowed to be primary under the last epoch, or is one without any.
func (g *guard) leading() bool {
	p := g.state.Postmaster
	return g.busy() && p.Primary && (p.Epoch == g.state.Epoch || p.Epoch == 0)
}

func (g *guard) push(e Event) {
	if g.agent != nil {
		g.agent.send(reply{Event: &e})
	}
}

// send never blocks the guard for long: an agent that does not read is cut off.
func (c *client) send(r reply) {
	b, err := json.Marshal(r)
	if err != nil {
		return
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		_ = c.conn.Close()
	}
}
