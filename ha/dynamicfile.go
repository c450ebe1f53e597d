package ha

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
)

// dynamicFile is the copy of the key `config` in the data directory, as Patroni keeps it there (reference section 4.1): what
// a member that starts goes by until the store has answered. Nothing is decided by it alone, since without the store
// nobody leads; it is the times and the settings that a read-only start uses.
type dynamicFile struct {
	mu      sync.Mutex
	written []byte
	version uint64 // of the key whose value was looked at
	busy    bool
}

const dynamicFileName = "patroni.dynamic.json"

// dataDir is the Controller's data directory; empty when it tells none.
func (n *Node) dataDir() string {
	if d, ok := n.cfg.Postgres.(interface{ DataDir() string }); ok {
		return d.DataDir()
	}
	return ""
}

// loadDynamic takes the copy for the dynamic configuration until the store has answered.
func (n *Node) loadDynamic() {
	dir := n.dataDir()
	if dir == "" {
		return
	}
	b, err := os.ReadFile(filepath.Join(dir, dynamicFileName))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var raw map[string]any
	if err == nil {
		err = json.Unmarshal(b, &raw)
	}
	if err != nil || raw == nil {
		n.log.Warn("the copy of the dynamic configuration is not used", "file", dynamicFileName, "error", err)
		return
	}
	n.dynamic = cluster.ParseDynamic(raw)
	n.ttl.Store(int64(n.dynamic.TTL))
	n.settings = mergeSettings(n.cfg.Local, n.dynamic.PostgreSQL)
	n.copied.written = b
}

// tendDynamic writes the copy when the configuration has changed. It is written beside the loop, which waits for no disk
// (hazard A20), and whole or not at all.
func (n *Node) tendDynamic() {
	c, dir := n.cluster.Config, n.dataDir()
	if dir == "" || !c.Present || c.Err != nil || n.server.Data != postgres.DataReady || n.task != nil {
		return
	}
	f := &n.copied
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy || f.version == c.Version {
		return
	}
	value, err := json.Marshal(c.Raw)
	if f.version = c.Version; err != nil || bytes.Equal(f.written, value) {
		return
	}
	f.busy = true
	go func() {
		err := writeWhole(filepath.Join(dir, dynamicFileName), value)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.busy, f.written = false, value // a failure is not repeated before the next change: the copy is a convenience
		if err != nil {
			n.log.Warn("the copy of the dynamic configuration could not be written", "error", err)
		}
	}()
}

// writeWhole replaces a file in one step.
func writeWhole(path string, value []byte) error {
	t, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path))
	if err != nil {
		return err
	}
	_, err = t.Write(value)
	err = errors.Join(err, t.Close())
	if err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(t.Name()))
	}
	return nil
}
