package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgregent/pgregent/dcs"
)

const (
	maxWatched   = 128         // keys of one Watch
	watchPause   = time.Second // after a server refused to be watched
	watchedData  = 1           // a node's value, creation and end
	watchedChild = 2           // its children
)

// watch is one call of Watch.
type watch struct {
	paths map[string]bool // nil for all below the prefix
	ch    chan struct{}
	due   bool // a wake-up is owed, guarded by hub.mu
}

// hub sets ZooKeeper's watches, which fire once, for all calls of Watch. A watch is first set again and then its callers
// are woken, so that what happens while they read fires it again. A new connection has no watches: all are set again, and
// one wake-up stands for what was missed.
type hub struct {
	store *Store
	kick  chan struct{} // something is to be set, or somebody to be woken

	mu      sync.Mutex
	watches map[*watch]struct{}
	link    *link
	set     map[string]int      // by path, what is watched on the current link
	inside  map[string][]string // by path of a folder, its children when they were last seen
}

func newHub(s *Store) *hub {
	return &hub{store: s, kick: make(chan struct{}, 1), watches: make(map[*watch]struct{})}
}

// Watch implements dcs.Store. It does not wait for the server: one wake-up follows when the watch is set up, now or later.
func (s *Store) Watch(ctx context.Context, keys ...string) (<-chan struct{}, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if len(keys) > maxWatched {
		return nil, fmt.Errorf("%w: %d keys to watch, at most %d", dcs.ErrTooLarge, len(keys), maxWatched)
	}
	w := &watch{ch: make(chan struct{}, 1), due: true}
	for _, k := range keys {
		path, err := s.pathOf(k)
		if err != nil {
			return nil, err
		}
		if w.paths == nil {
			w.paths = make(map[string]bool)
		}
		w.paths[path] = true
	}
	h := s.hub
	h.mu.Lock()
	h.watches[w] = struct{}{}
	h.mu.Unlock()
	h.wake()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watches, w)
		close(w.ch) // nobody sends: that needs the lock, and the watch to be there
	})
	return w.ch, nil
}

func (h *hub) wake() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// use begins anew on another connection.
func (h *hub) use(l *link) {
	h.mu.Lock()
	h.link, h.set, h.inside = l, make(map[string]int), make(map[string][]string)
	for w := range h.watches {
		w.due = true
	}
	h.mu.Unlock()
	h.wake()
}

// heard is told by the library what has fired. It must not block. Events of a connection that was left do no harm: a watch
// that is set twice fires twice at worst.
func (h *hub) heard(e zk.Event) {
	fired := watchedData
	switch e.Type {
	case zk.EventNodeChildrenChanged:
		fired = watchedChild
	case zk.EventNodeDeleted:
		fired = watchedData | watchedChild
	case zk.EventNodeCreated, zk.EventNodeDataChanged:
	default:
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.set == nil {
		return
	}
	h.set[e.Path] &^= fired
	if e.Type == zk.EventNodeDeleted {
		delete(h.inside, e.Path)
		delete(h.set, e.Path)
	}
	below := e.Path == h.store.prefix || strings.HasPrefix(e.Path, h.store.prefix+"/")
	for w := range h.watches {
		w.due = w.due || w.paths[e.Path] || w.paths == nil && below
	}
	h.wake()
}

// run sets and wakes until the Store is closed.
func (h *hub) run() {
	for {
		select {
		case <-h.store.ctx.Done():
			return
		case <-h.kick:
		}
		if err := h.round(); err != nil && !retry(err) && h.store.ctx.Err() == nil {
			h.store.config.Logger.WarnContext(h.store.ctx, "zookeeper: the watches cannot be set", "error", err)
			pause(h.store.ctx, watchPause)
			h.wake()
		}
	}
}

// round sets what is not set, and then wakes who is owed it. After an error that ends the connection, use begins anew.
func (h *hub) round() error {
	h.mu.Lock()
	l := h.link
	var due []*watch
	all, paths := false, make(map[string]bool)
	for w := range h.watches {
		if w.due {
			due = append(due, w)
			w.due = false
		}
		all = all || w.paths == nil
		for p := range w.paths {
			paths[p] = true
		}
	}
	h.mu.Unlock()
	err := h.arm(l, all, paths)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range due {
		if _, open := h.watches[w]; !open {
			continue
		}
		if err != nil {
			w.due = true
			continue
		}
		select {
		case w.ch <- struct{}{}:
		default: // there is a wake-up already
		}
	}
	return err
}

// arm sets what is not set.
func (h *hub) arm(l *link, all bool, paths map[string]bool) error {
	if l == nil || l.ctx.Err() != nil {
		return errCut
	}
	for p := range paths {
		if err := h.armData(l, p); err != nil {
			return err
		}
	}
	if !all {
		return nil
	}
	for level := []string{h.store.prefix}; len(level) > 0; {
		inside, err := gather(h.store.ctx, level, func(_ context.Context, p string) ([]string, error) { return h.armNode(l, p) })
		if err != nil {
			return err
		}
		level = nil
		for _, paths := range inside {
			level = append(level, paths...)
		}
	}
	return nil
}

// armNode watches a node and its children, whose paths it returns. Keys below the prefix have data to watch; the prefix is
// waited for, when it does not exist, and otherwise only its children matter.
func (h *hub) armNode(l *link, path string) ([]string, error) {
	if path != h.store.prefix {
		if err := h.armData(l, path); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	set := h.set[path]&watchedChild != 0
	known := h.inside[path]
	if !set {
		h.set[path] |= watchedChild // before the request: it may fire before the answer is looked at
	}
	h.mu.Unlock()
	if set {
		return known, nil
	}
	names, err := asks(h.store.ctx, l, func(c *zk.Conn) ([]string, error) {
		names, _, _, err := c.ChildrenW(path)
		return names, err
	})
	if errors.Is(err, zk.ErrNoNode) {
		h.unset(path, watchedChild)
		if path != h.store.prefix {
			return nil, nil // its end has been told, or will be by the watch on its data
		}
		return nil, h.armData(l, path)
	}
	if err != nil {
		h.unset(path, watchedChild)
		return nil, err
	}
	for i := range names {
		names[i] = path + "/" + names[i]
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inside[path] = names
	return names, nil
}

func (h *hub) unset(path string, what int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set[path] &^= what
}

// armData watches the value, the creation and the end of a node.
func (h *hub) armData(l *link, path string) error {
	h.mu.Lock()
	set := h.set[path]&watchedData != 0
	h.set[path] |= watchedData // before the request: it may fire before the answer is looked at
	h.mu.Unlock()
	if set {
		return nil
	}
	stat, err := asks(h.store.ctx, l, func(c *zk.Conn) (*zk.Stat, error) {
		_, stat, _, err := c.ExistsW(path)
		return stat, err
	})
	if err != nil {
		h.unset(path, watchedData)
		return err
	}
	if stat != nil && stat.EphemeralOwner != 0 { // it has no children as long as it lives
		h.mu.Lock()
		defer h.mu.Unlock()
		h.set[path] |= watchedChild
	}
	return nil
}
