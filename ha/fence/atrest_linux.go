package fence

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// At rest a data directory holds standby.signal (design section 7, hazard A17). The file is written once the server has
// come up as primary, because before that it would read it, and removed only for a start as primary.

const (
	signalName = "standby.signal"
	markEvery  = 20 * time.Millisecond
	// inProduction is DB_IN_PRODUCTION of enum DBState, which stands at offset 16 of global/pg_control in every version
	// since 9.x (src/include/catalog/pg_control.h).
	inProduction  = 6
	shutDown      = 1 // DB_SHUTDOWNED
	controlOffset = 16
)

// marker writes standby.signal beside the guard's goroutine, which must not wait for a disk.
type marker struct {
	dir  string
	pid  int
	old  os.FileInfo   // postmaster.pid before the start: not this server's
	stop chan struct{} // closed when the postmaster is gone: the file can be written at once
	once sync.Once
	err  error
}

func (m *marker) now() { m.once.Do(func() { close(m.stop) }) }

// beginMark starts writing standby.signal as soon as the server is up as primary.
func (g *guard) beginMark() {
	if g.mark != nil {
		return
	}
	g.state.Postmaster.AtRest = false
	m := &marker{dir: g.dir, pid: g.state.Postmaster.PID, old: g.lockFile, stop: make(chan struct{})}
	g.mark = m
	go func() {
		m.run()
		g.marked <- m
	}()
}

func (g *guard) onMarked(m *marker) {
	if g.mark == m {
		g.mark = nil
	}
	if m.pid != g.state.Postmaster.PID {
		return
	}
	g.state.Postmaster.AtRest = m.err == nil
	g.note(&g.trouble.atRest, m.err)
}

func (m *marker) run() {
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			m.err = writeSignal(m.dir)
			return
		case <-tick.C:
			if isPrimary(m.dir, m.pid, m.old) {
				m.err = writeSignal(m.dir)
				return
			}
		}
	}
}

// isPrimary says that this very postmaster has come up as primary: its lock file says so, and pg_control says "in
// production". The latter alone is not enough, a crash leaves it behind; the former alone would do, but pg_control is the
// word of the design. old is the lock file of an earlier server, whose process id may be the same: in a PID namespace both
// are 1, and in a container numbers repeat.
func isPrimary(dir string, pid int, old os.FileInfo) bool {
	path := filepath.Join(dir, "postmaster.pid")
	b, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	if info, err := os.Stat(path); err != nil || old != nil && os.SameFile(info, old) && info.ModTime().Equal(old.ModTime()) {
		return false
	}
	lines := strings.Split(string(b), "\n")
	own := lines[0] == strconv.Itoa(pid) || lines[0] == "1" // in a PID namespace it is 1
	if !own || len(lines) < 8 || strings.TrimSpace(lines[7]) != "ready" {
		return false
	}
	state, ok := controlState(dir)
	return ok && state == inProduction
}

// controlState is the state in pg_control.
func controlState(dir string) (state uint32, ok bool) {
	f, err := os.Open(filepath.Join(dir, "global", "pg_control"))
	if err != nil {
		return 0, false
	}
	defer func() { _ = f.Close() }()
	var control [controlOffset + 4]byte
	if _, err := io.ReadFull(f, control[:]); err != nil {
		return 0, false
	}
	return binary.NativeEndian.Uint32(control[controlOffset:]), true
}

// roleWatch notices, beside the guard's goroutine, that a server which was started or adopted as a replica has become a
// primary without the guard's leave: promoted by hand, or by a recovery target.
type roleWatch struct {
	dir   string
	pid   int
	old   os.FileInfo
	stop  chan struct{}
	found bool
}

const roleEvery = 500 * time.Millisecond

// watchRole begins to watch the server that runs, or ends watching.
func (g *guard) watchRole(on bool) {
	if g.watching != nil {
		close(g.watching.stop)
		g.watching = nil
	}
	if !on {
		return
	}
	w := &roleWatch{dir: g.dir, pid: g.state.Postmaster.PID, old: g.lockFile, stop: make(chan struct{})}
	g.watching = w
	go func() {
		tick := time.NewTicker(roleEvery)
		defer tick.Stop()
		for !w.found {
			select {
			case <-w.stop:
				return
			case <-tick.C:
				w.found = isPrimary(w.dir, w.pid, w.old)
			}
		}
		select {
		case g.turned <- w:
		case <-w.stop:
		}
	}()
}

// onPrimary treats it as one: under the open epoch, if there is one, its deadline counts; without, nobody takes it for a
// replica any more, and closing or retiring ends it.
func (g *guard) onPrimary(pid int) {
	p := &g.state.Postmaster
	if !p.Running || p.PID != pid || p.Primary {
		return
	}
	p.Primary = true
	if g.state.Open {
		p.Epoch = g.state.Epoch
	}
	g.watchRole(false)
	g.armKernel()
	g.admit()
	g.beginMark()
}

// writeSignal makes standby.signal, file and folder synced. A folder that is no data directory is left alone.
func writeSignal(dir string) error {
	info, err := os.Stat(filepath.Join(dir, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, signalName), os.O_CREATE|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), syncDir(dir))
}

func removeSignal(dir string) error {
	if err := os.Remove(filepath.Join(dir, signalName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
