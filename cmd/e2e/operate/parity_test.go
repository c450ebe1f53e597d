package operate

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
)

// settle is how long the answers to a request that changes nothing may differ: what is behind them is at most a loop old.
const settle = 1500 * time.Millisecond

// side is one of the two clusters.
type side struct {
	name string
	*rig.Cluster
	born os.FileInfo // of pg2's data directory
}

// parity drives both clusters through the same situations.
type parity struct {
	t            *testing.T
	theirs, ours *side
	used         map[int]bool // differences that were met
	requests     int
	lost         bool // the clusters could not be brought into the same state
}

// exchange is one request of a situation.
type exchange struct {
	on     string // pg1 or pg2
	method string
	path   string
	body   string
	as     credential
	header map[string]string
	raw    bool // as written, without Content-Length
}

// key names the exchange in the table of differences.
func (e exchange) key(situation string) string {
	key := strings.Join([]string{situation, e.on, e.method, e.path}, " ")
	if e.body != "" {
		key += " " + e.body
	}
	return key + string(e.as)
}

// safe says that the exchange changes nothing, so that it can be repeated.
func (e exchange) safe() bool {
	return e.method == http.MethodGet || e.method == http.MethodHead || e.method == http.MethodOptions
}

// situation is a state that both clusters are brought into, and what is asked there.
type situation struct {
	name      string
	arrange   func(*side) // nil: nothing
	exchanges []exchange
}

// TestParity sends the same requests to a real Patroni and to pgregent, each with a cluster of two in the same state, and
// compares status, content type and body. What is meant to differ is in the table of differences.
func TestParity(t *testing.T) {
	rig.Patroni(t, "patroni")
	p := &parity{t: t, used: map[int]bool{}}
	store := etcdserver.StartWith(t, etcdserver.Options{Members: 1, Args: []string{"--heartbeat-interval=50", "--election-timeout=500"}})
	p.theirs, p.ours = newSide(t, "theirs", store), newSide(t, "ours", store)
	for _, d := range p.theirs.Nodes {
		d.RunPatroni()
	}
	p.both(func(s *side) {
		s.Nodes[0].Start()
		rig.Eventually(t, steady, s.name+": pg1 leads", s.Nodes[0].Primary)
		s.Nodes[1].Start()
		s.AwaitHealthy(steady)
		s.write()
	})
	for _, s := range situations() {
		if p.lost {
			t.Fatalf("the clusters are not in the same state, %q and what follows was not asked", s.name)
		}
		t.Run(s.name, func(t *testing.T) {
			p.t = t
			if s.arrange != nil {
				p.both(s.arrange)
			}
			for _, e := range s.exchanges {
				p.exchange(s.name, e)
			}
		})
	}
	p.theirs.T, p.ours.T = t, t
	for i, d := range differences() {
		if !p.used[i] {
			t.Errorf("the difference %q %s was not met: take it out of the table", d.requests, d.field)
		}
	}
	t.Logf("%d requests, %d intended differences", p.requests, len(differences()))
}

func newSide(t *testing.T, name string, store *etcdserver.Cluster) *side {
	return &side{name: name, Cluster: rig.New(t, rig.Options{
		PG: "15", Nodes: 2, DCS: patroniTimes + "\n    failsafe_mode: false", Scope: name, EtcdServers: store,
		Extra: fastCopy + "tags:\n  color: blue\n  speed: 5\n  clonefrom: true\n",
		API:   "\n  authentication: {username: admin, password: let-me-in}",
	})}
}

// both does something to both clusters at once.
func (p *parity) both(do func(*side)) {
	p.t.Helper()
	var wg sync.WaitGroup
	for _, s := range []*side{p.theirs, p.ours} {
		wg.Go(func() {
			s.T = p.t
			do(s)
		})
	}
	wg.Wait()
	if p.t.Failed() {
		p.lost = true
		p.t.FailNow()
	}
}

// exchange sends one request to both and compares.
func (p *parity) exchange(situation string, e exchange) {
	p.t.Helper()
	p.requests++
	key := e.key(situation)
	var found []finding
	equal := func() bool {
		var theirs, ours answer
		var wg sync.WaitGroup
		wg.Go(func() { theirs = p.theirs.send(e) })
		wg.Go(func() { ours = p.ours.send(e) })
		wg.Wait()
		found = compare(key, theirs, ours)
		for _, f := range found {
			if f.difference < 0 {
				return false
			}
		}
		return true
	}
	if e.safe() {
		rig.Await(settle, equal)
	} else {
		equal()
	}
	for _, f := range found {
		if f.difference >= 0 {
			p.used[f.difference] = true
			continue
		}
		p.t.Errorf("%s\n\t%s\n\tPatroni:  %s\n\tpgregent: %s", key, f.field, f.theirs, f.ours)
	}
}

func (s *side) node(name string) *rig.Node {
	for _, d := range s.Nodes {
		if d.Name == name {
			return d
		}
	}
	s.T.Fatalf("no node %s", name)
	return nil
}

// await waits until the answer of GET /patroni of a node fits.
func (s *side) await(node, what string, ok func(map[string]any) bool) {
	rig.Eventually(s.T, steady, fmt.Sprintf("%s: %s: %s", s.name, node, what), func() bool {
		code, body := s.node(node).Get("/patroni")
		return code != 0 && ok(body)
	})
}

// must sends a request that is to succeed.
func (s *side) must(node, method, path, body string) string {
	a := s.send(exchange{on: node, method: method, path: path, body: body})
	if a.err != nil || a.status/100 != 2 {
		s.T.Errorf("%s: %s %s %s: %d %s %v", s.name, node, method, path, a.status, a.body, a.err)
	}
	return a.body
}

// write moves the position of the WAL, on both nodes.
func (s *side) write() {
	l := s.Leader()
	require.NotNil(s.T, l)
	sql(s.T, l, "create table if not exists moved(i int)", "insert into moved values (1)")
	for _, d := range s.Others(l) {
		s.await(d.Name, "has replayed", func(b map[string]any) bool {
			x, _ := b["xlog"].(map[string]any)
			return x != nil && x["replayed_timestamp"] != nil
		})
	}
}

// awaitCode waits until a node answers a path with a code.
func (s *side) awaitCode(node, path string, code int) {
	rig.Eventually(s.T, steady, fmt.Sprintf("%s: %s answers %s with %d", s.name, node, path, code), func() bool {
		got, _ := s.node(node).Get(path)
		return got == code
	})
}
