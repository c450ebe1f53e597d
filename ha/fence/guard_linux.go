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
// the child, owns everything; others only read the socket and feed it.
type guard struct {
	state    State
	head     time.Duration
	enforce  bool
	clock    dcs.Clock
	requests chan incoming
	agent    *client
	waiters  []waiter // stops that wait until nothing is left
	timer    dcs.Timer
	stage    stage
	killing  bool
	idle     time.Time
	end      bool
}

// stage is how far the ladder has gone.
type stage int

const (
	stageNone stage = iota
	stageFast
	stageImmediate
)

type client struct {
	conn *net.UnixConn
	pid  int
}

type incoming struct {
	from *client
	req  request
	gone bool
}

type waiter struct {
	to    *client
	id    uint64
	close uint64 // close this epoch when nothing is left; 0: none
}

func serve(dir string) error {
	runtime.GOMAXPROCS(2)
	runtime.LockOSThread()
	debug.SetGCPercent(-1) // a collection only when the limit is near: nothing here grows
	debug.SetMemoryLimit(24 << 20)
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	for tries := 0; ; tries++ { // the last guard may be ending at this moment
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if tries == 100 {
			return fmt.Errorf("another guard lives in %s: %w", dir, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("child subreaper: %w", err)
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
	l, err := listen(dir)
	if err != nil {
		return err
	}
	g := &guard{clock: dcs.Boottime(), requests: make(chan incoming, 16), idle: time.Now()}
	g.state = State{Version: protocolVersion, PID: os.Getpid(), Nonce: nonce(), BootID: bootID()}
	go g.accept(l)
	g.loop()
	_ = throughDir(dir, os.Remove)
	return nil
}

func nonce() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
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
		if err != nil {
			break // what cannot speak the protocol is no agent
		}
		g.requests <- incoming{from: c, req: r}
	}
	g.requests <- incoming{from: c, gone: true}
}

// parseRequest reads one message.
func parseRequest(b []byte) (request, error) {
	var r request
	if err := json.Unmarshal(b, &r); err != nil {
		return request{}, err
	}
	if r.ID == 0 || r.Op == "" {
		return request{}, errors.New("a request needs an id and an op")
	}
	if r.Op == "start" && (r.Start == nil || r.Start.Path == "") {
		return request{}, errors.New("start needs a path")
	}
	return r, nil
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
			g.ladder()
		case <-tick.C:
			g.checkIdle()
		}
		g.reap()
	}
}

// checkIdle ends a guard that has nothing to guard and nobody to serve.
func (g *guard) checkIdle() {
	if g.agent != nil || g.busy() {
		g.idle = time.Now()
	}
	g.end = g.end || time.Since(g.idle) > idleExit
}

func (g *guard) busy() bool { return g.state.Postmaster.Running || g.state.Orphans > 0 }

// arm sets the timer for the next step of the ladder.
func (g *guard) arm() {
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	if g.killing {
		g.timer = g.clock.Timer(10 * time.Millisecond) // until wait says that nothing is left
		return
	}
	if !g.enforce || !g.state.Open || !g.busy() || g.state.Postmaster.Epoch != g.state.Epoch {
		return
	}
	at := g.state.Deadline
	switch {
	case g.stage == stageNone:
		at -= g.head
	case g.stage == stageImmediate:
		at += killAfter
	}
	g.timer = g.clock.Timer(max(at-g.clock.Now(), 0))
}

// ladder does the step that is due: fast shutdown, immediate shutdown, SIGKILL to everything.
func (g *guard) ladder() {
	if g.killing {
		g.kill()
		return
	}
	now := g.clock.Now()
	switch {
	case now < g.state.Deadline-g.head:
	case g.stage == stageNone:
		g.stage = stageFast
		g.signal(syscall.SIGINT)
	case now >= g.state.Deadline && g.stage == stageFast:
		g.stage = stageImmediate
		g.signal(syscall.SIGQUIT)
	case now >= g.state.Deadline+killAfter && g.stage == stageImmediate:
		g.kill()
	}
	if g.state.Open && now >= g.state.Deadline && !g.busy() {
		g.closeEpoch(EventFenced)
	}
}

func (g *guard) signal(sig syscall.Signal) {
	if g.state.Postmaster.Running {
		_ = syscall.Kill(g.state.Postmaster.PID, sig)
	}
}

// kill sends SIGKILL to every descendant, again and again until wait says that none is left: a fork may race with it.
func (g *guard) kill() {
	g.killing = true
	for _, pid := range descendants(os.Getpid()) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// descendants lists the live processes below pid.
func descendants(pid int) []int {
	parent := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		var child int
		if _, err := fmt.Sscanf(e.Name(), "%d", &child); err != nil {
			continue
		}
		if p, state, ok := parentOf(child); ok && state != 'Z' {
			parent[child] = p
		}
	}
	var out []int
	for child := range parent {
		for p, steps := parent[child], 0; p > 1 && steps < 64; p, steps = parent[p], steps+1 {
			if p == pid {
				out = append(out, child)
				break
			}
		}
	}
	return out
}

// parentOf reads /proc/PID/stat; the program's name in it may hold anything, so it is cut off first.
func parentOf(pid int) (parent int, state byte, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	s := string(b)
	i := strings.LastIndexByte(s, ')')
	if i < 0 {
		return 0, 0, false
	}
	_, err = fmt.Sscanf(s[i+1:], " %c %d", &state, &parent)
	return parent, state, err == nil
}

// reap waits for whatever ended, the postmaster and its adopted orphans, and tells who waits for it.
func (g *guard) reap() {
	was := g.busy()
	none := false
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			none = true // ECHILD: no child of any kind
			break
		}
		if pid <= 0 {
			break
		}
		if pid == g.state.Postmaster.PID && g.state.Postmaster.Running {
			g.state.Postmaster.Running = false
			g.state.LastExit = Exit{PID: pid, Code: status.ExitStatus()}
			if status.Signaled() {
				g.state.LastExit.Signal = int(status.Signal())
			}
			g.push(Event{Kind: EventExit, PID: pid, Code: g.state.LastExit.Code, Signal: g.state.LastExit.Signal})
		}
	}
	if g.state.Postmaster.Running || none {
		g.state.Orphans = 0
	} else {
		// What outlives its postmaster serves nobody any more and can still acknowledge a write (hazard A4).
		g.state.Orphans = max(len(descendants(os.Getpid())), 1)
		g.kill()
	}
	if was && !g.busy() {
		g.emptied()
	}
}

// emptied settles everything that waited until nothing is left.
func (g *guard) emptied() {
	g.killing = false
	g.stage = stageNone
	g.idle = time.Now()
	g.state.Postmaster.Primary, g.state.Postmaster.Epoch = false, 0
	g.push(Event{Kind: EventEmpty})
	if g.state.Open && g.enforce && g.clock.Now() >= g.state.Deadline {
		g.closeEpoch(EventFenced)
	}
	for _, w := range g.waiters {
		if w.close != 0 && w.close == g.state.Epoch {
			g.state.Open = false
		}
		w.to.send(reply{ID: w.id})
	}
	g.waiters = nil
}

func (g *guard) closeEpoch(kind EventKind) {
	g.state.Open = false
	g.push(Event{Kind: kind, Epoch: g.state.Epoch})
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
