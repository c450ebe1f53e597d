package ha

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
)

// dynamicFile is Patroni's copy of the key `config` in the data directory: what counts until the store has answered
// (reference sections 4.1 and 7). The file that another program wrote there is read too.
const dynamicFile = "patroni.dynamic.json"

// dynamicPath is where it is; empty: the Controller does not tell its data directory.
func (n *Node) dynamicPath() string {
	if d, ok := n.cfg.Postgres.(interface{ DataDir() string }); ok && d.DataDir() != "" {
		return filepath.Join(d.DataDir(), dynamicFile)
	}
	return ""
}

// readDynamicFile takes the configuration that was last in force here, before the store is asked. Without a file, or
// with one that is damaged, `bootstrap.dcs` stays in force.
func (n *Node) readDynamicFile() {
	path := n.dynamicPath()
	if path == "" {
		return
	}
	b, err := os.ReadFile(path)
	var raw map[string]any
	if err == nil {
		err = json.Unmarshal(b, &raw)
	}
	if err == nil && raw == nil {
		err = errors.New("it holds no settings")
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		n.log.Warn("the copy of the dynamic configuration cannot be used; the store will tell", "file", path, "error", err)
		return
	}
	if why := unusable(raw); why != "" {
		n.log.Warn("the copy of the dynamic configuration cannot be used; the store will tell", "file", path, "error", why)
		return
	}
	n.dynamic = cluster.ParseDynamic(raw)
	n.ttl.Store(int64(n.dynamic.TTL))
	n.settings = mergeSettings(n.cfg.Local, n.dynamic.PostgreSQL)
	n.log.Info("the dynamic configuration is the last one that was in force here, until the store answers", "file", path)
}

// tendDynamicFile keeps the copy as the key is. The directory must hold a whole cluster: nothing is put into one that is
// about to be made.
func (n *Node) tendDynamicFile() {
	c := n.cluster.Config
	it, ok := n.snap.Item(cluster.KeyConfig)
	if !ok || c.Err != nil || n.server.Data != postgres.DataReady || n.task != nil {
		return
	}
	path := n.dynamicPath()
	if path == "" || bytes.Equal(it.Value, n.published.dynamic) {
		return
	}
	value := bytes.Clone(it.Value)
	n.published.dynamic = value // with an error too: the next change tries again
	go func() {                 // a disk that hangs must not hold the loop
		if err := writeBeside(path, value); err != nil {
			n.log.Warn("the copy of the dynamic configuration could not be written", "file", path, "error", err)
		}
	}()
}

// writeBeside replaces a file by a new one, with the permissions that its folder gives to others (reference section 7).
func writeBeside(path string, b []byte) error {
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(filepath.Dir(path)); err == nil && info.Mode().Perm()&0o040 != 0 {
		mode = 0o640
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+dynamicFile)
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

// unusable is why a dynamic configuration is not taken over at all: then the old one stays in force (reference section
// 4.1). Empty: it is.
func unusable(raw map[string]any) string {
	pg, _ := raw["postgresql"].(map[string]any)
	if p := pg["parameters"]; p != nil {
		if _, ok := p.(map[string]any); !ok {
			return fmt.Sprintf("postgresql.parameters is %v, expected a mapping", p)
		}
	}
	return ""
}
