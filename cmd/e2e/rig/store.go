package rig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Store is a real store: how daemons are told of it, what tests look at and do in it directly, past every link, and what
// happens to its servers.
type Store interface {
	// Section is the part of a daemon's file that selects the store at these addresses. only: the daemon is to go
	// nowhere else, so that a link is the only way.
	Section(addrs []string, only bool) string
	// Addrs is where the i-th daemon finds the store.
	Addrs(i int) []string

	// Get reads a key of the cluster. An absent one is an error.
	Get(key string) (Key, error)
	// Put writes a key of the cluster.
	Put(key, value string) error
	// Delete deletes a key of the cluster, if there is one.
	Delete(key string) error
	// EndSession ends the session that a key is bound to.
	EndSession(k Key) error

	// Requests is how many requests of clients the servers have answered, or a number that grows with it.
	Requests() (float64, error)

	// Servers are numbered from 0; the local agents of daemons, where a store has them, follow.
	Servers() int
	// Agent is the number of the i-th daemon's own agent, -1 when this store has none.
	Agent(i int) int
	// Leader is the number of the server that leads.
	Leader() int
	// Kill ends a server with SIGKILL.
	Kill(i int)
	// Restart starts a server again, also one that was killed, and waits until it serves.
	Restart(i int)
	// Freeze stops a server with SIGSTOP.
	Freeze(i int)
	// Thaw lets it go on.
	Thaw(i int)
}

// Key is a key of the cluster as it is in the store.
type Key struct {
	Value   string
	Version uint64
	Session string // that it is bound to; empty: none
}

// Stores are the kinds of Options.Store.
func Stores() []string { return []string{"etcd", "consul", "zookeeper"} }

// newStore starts the store.
func newStore(t testing.TB, o Options, scope string) Store {
	t.Helper()
	prefix := "/service/" + scope + "/"
	switch o.Store {
	case "", "etcd":
		return newEtcd(t, o, prefix)
	case "consul":
		return newConsul(t, o, prefix)
	case "zookeeper":
		return newZooKeeper(t, o, prefix)
	}
	require.FailNow(t, "there is no store "+o.Store, "expected one of %v", Stores())
	return nil
}

// FreezeAll freezes every server.
func FreezeAll(s Store) {
	for i := range s.Servers() {
		s.Freeze(i)
	}
}

// ThawAll lets every server go on.
func ThawAll(s Store) {
	for i := range s.Servers() {
		s.Thaw(i)
	}
}

var errAbsent = errors.New("the key is absent")

var client = http.Client{Timeout: 5 * time.Second} //nolint:gochecknoglobals // keeps connections

// ask makes a request of a store's HTTP interface and decodes a JSON answer into reply, unless that is nil.
func ask(method, url string, request, reply any) error {
	text, err := askText(method, url, request)
	if err != nil || reply == nil {
		return err
	}
	return json.Unmarshal(text, reply)
}

func askText(method, url string, request any) ([]byte, error) {
	var body io.Reader
	switch r := request.(type) {
	case nil:
	case string:
		body = strings.NewReader(r)
	default:
		b, err := json.Marshal(request)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode == http.StatusNotFound:
		return nil, errAbsent
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, res.Status, text)
	}
	return text, nil
}

// sum adds up the samples of a Prometheus text whose lines begin with prefix.
func sum(text, prefix string) (total float64) {
	for line := range strings.Lines(text) {
		var value float64
		if i := strings.LastIndexByte(strings.TrimSpace(line), ' '); i > 0 && strings.HasPrefix(line, prefix) {
			if _, err := fmt.Sscan(line[i:], &value); err == nil {
				total += value
			}
		}
	}
	return total
}
