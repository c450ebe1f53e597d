package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/etcd"
	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// world is many clusters in this process: real loops and real store clients over simulated servers.
type world struct {
	loopWait time.Duration
	members  map[string]*member
	clusters []*group
	watched  *delays

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// group is one cluster.
type group struct{ members []*member }

// member is one node.
type member struct {
	name  string
	fake  *postgrestest.Fake
	store dcs.Store
	node  *ha.Node
	err   error // of its Run, once it has ended
}

// newWorld makes n clusters of three and starts them.
func newWorld(ctx context.Context, addr, dir string, n int, times map[string]any) (*world, error) {
	w := &world{members: map[string]*member{}, watched: &delays{}, loopWait: time.Duration(times["loop_wait"].(int)) * time.Second}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.cancel = cancel
	for i := range n {
		g := &group{}
		fakes := map[string]*postgrestest.Fake{}
		for j := range 3 {
			m := &member{name: fmt.Sprintf("c%dm%d", i, j), fake: postgrestest.NewFake()}
			m.fake.Update(func(s *postgrestest.FakeState) { s.StartTime = 100 * time.Millisecond })
			fakes[m.name], w.members[m.name] = m.fake, m
			g.members = append(g.members, m)
		}
		postgrestest.Join(fakes)
		w.clusters = append(w.clusters, g)
		for _, m := range g.members {
			if err := w.open(ctx, m, addr, fmt.Sprintf("/service/c%d", i), filepath.Join(dir, m.name), times); err != nil {
				cancel()
				return w, err
			}
		}
	}
	for _, m := range w.members {
		w.done.Go(func() { m.err = m.node.Run(run) })
	}
	return w, nil
}

func (w *world) open(ctx context.Context, m *member, addr, prefix, dir string, times map[string]any) error {
	store, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{addr}, Prefix: prefix})
	if err != nil {
		return err
	}
	m.store = &timed{Store: dcs.NewClient(store, nil), delays: w.watched, loopWait: w.loopWait}
	clock := dcs.Boottime()
	m.node, err = ha.New(ha.Config{
		Name: m.name, Scope: prefix, APIURL: "http://" + m.name + "/patroni", ConnURL: "postgres://" + m.name + ":5432/postgres", StateDir: dir,
		Store: m.store, Postgres: m.fake, Guard: newGuard(m.fake, clock, "nonce-"+m.name), Peers: w, Clock: clock, Bootstrap: times,
	})
	return err
}

// Status asks another member's report directly; there is no network between members.
func (w *world) Status(_ context.Context, apiURL string) (rest.Status, error) {
	u, err := url.Parse(apiURL)
	if err != nil {
		return rest.Status{}, err
	}
	m := w.members[u.Hostname()]
	if m == nil {
		return rest.Status{}, errors.New("no such member")
	}
	r := m.node.Report()
	s := r.Server
	return rest.Status{
		Name: r.Name, State: r.State, Role: r.Role, HasPosition: s.Answered, InRecovery: s.Role != postgres.RolePrimary, Timeline: s.Timeline,
		Location: s.Current, Received: s.Received, Replayed: s.Replayed,
		Pgregent: &rest.PgregentStatus{StoreAge: time.Since(r.ClusterAt).Seconds(), End: r.End, WasPrimary: r.WasPrimary, Promotions: r.Promotions},
	}, nil
}

// Post hands a request to another member's handler.
func (w *world) Post(ctx context.Context, to string, body []byte) (string, int, error) {
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	m := w.members[req.URL.Hostname()]
	if m == nil {
		return "", 0, errors.New("no such member")
	}
	rec := httptest.NewRecorder()
	rest.Handler(m.node).ServeHTTP(rec, req)
	return rec.Body.String(), rec.Code, nil
}

// leader is the member that takes writes, nil when none does.
func (g *group) leader() *member {
	for _, m := range g.members {
		if r := m.node.Report(); r.Writable && time.Now().Before(r.LeaderUntil) {
			return m
		}
	}
	return nil
}

// healthy counts the clusters with one leader and two replicas that stream.
func (w *world) healthy() int {
	n := 0
	for _, g := range w.clusters {
		ok := g.leader() != nil
		for _, m := range g.members {
			ok = ok && (m == g.leader() || m.node.Report().Server.Streaming)
		}
		if ok {
			n++
		}
	}
	return n
}

// write lets every leader write, so that positions in the store change as they do in life.
func (w *world) write() {
	for _, g := range w.clusters {
		if l := g.leader(); l != nil {
			l.fake.Write(8192)
		}
	}
}

// epochs adds up the epochs of all leases: it grows with every change of a leader.
func (w *world) epochs() (sum uint64) {
	for _, g := range w.clusters {
		var epoch uint64
		for _, m := range g.members {
			epoch = max(epoch, m.node.Report().Epoch)
		}
		sum += epoch
	}
	return sum
}

// loops adds up a counter of all members.
func (w *world) counter(name string) (sum float64) {
	for _, m := range w.members {
		sum += m.node.Report().Counters[name]
	}
	return sum
}

// stop ends all members in order.
func (w *world) stop() error {
	w.cancel()
	w.done.Wait()
	var errs []error
	for _, m := range w.members {
		errs = append(errs, m.err)
		if m.store != nil {
			errs = append(errs, m.store.Close())
		}
	}
	return errors.Join(errs...)
}

// delays collects how late turns began, and how long store calls took.
type delays struct {
	mu          sync.Mutex
	on          bool
	late, calls []float64 // milliseconds
	commits     int
}

func (d *delays) note(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.on {
		f()
	}
}

// begin forgets what was collected, and collects from now on.
func (d *delays) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.on, d.late, d.calls, d.commits = true, nil, nil, 0
}

// timed is a store that is watched. The loop reads once in every turn, so two reads are never more than a loop_wait and
// a turn apart; what is more than a loop_wait is the delay of the loop.
type timed struct {
	dcs.Store
	delays   *delays
	loopWait time.Duration
	last     time.Time // of the loop's goroutine
}

// Read implements dcs.Store.
func (t *timed) Read(ctx context.Context) (dcs.Snapshot, error) {
	began := time.Now()
	late := began.Sub(t.last) - t.loopWait
	first := t.last.IsZero()
	t.last = began
	s, err := t.Store.Read(ctx)
	t.delays.note(func() {
		if !first {
			t.delays.late = append(t.delays.late, max(ms(late), 0))
		}
		t.delays.calls = append(t.delays.calls, ms(time.Since(began)))
	})
	return s, err
}

// Commit implements dcs.Store.
func (t *timed) Commit(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
	began := time.Now()
	r, err := t.Store.Commit(ctx, txn)
	t.delays.note(func() {
		t.delays.calls = append(t.delays.calls, ms(time.Since(began)))
		t.delays.commits++
	})
	return r, err
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
