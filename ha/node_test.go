package ha_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// fakeGuard keeps the guard's rules over a Fake server, on the bubble's clock.
type fakeGuard struct {
	fake  *postgrestest.Fake
	clock dcs.Clock

	mu     sync.Mutex
	state  fence.State
	events chan fence.Event
}

func newGuard(f *postgrestest.Fake, clock dcs.Clock, nonce string) *fakeGuard {
	return &fakeGuard{fake: f, clock: clock, state: fence.State{Nonce: nonce, BootID: "boot"}, events: make(chan fence.Event, 64)}
}

func (g *fakeGuard) Events() <-chan fence.Event { return g.events }
func (g *fakeGuard) Close() error               { return nil }

func (g *fakeGuard) State(context.Context) (fence.State, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.enforce()
	g.state.Postmaster.Running = g.fake.Process() != nil
	return g.state, nil
}

// enforce is the deadline, looked at whenever anybody looks.
func (g *fakeGuard) enforce() {
	if g.state.Open && g.clock.Now() >= g.state.Deadline {
		if p := g.fake.Process(); p != nil && g.state.Postmaster.Primary {
			p.Signal(syscall.SIGKILL)
		}
		g.state.Open = false
	}
}

func (g *fakeGuard) Start(_ context.Context, req fence.StartRequest) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.enforce()
	if req.Primary && (!g.state.Open || req.Epoch != g.state.Epoch) {
		return 0, fence.ErrNoEpoch
	}
	p, err := g.fake.Launch(postgres.Command{Path: req.Path, Args: req.Args})
	if err != nil {
		return 0, err
	}
	g.state.Postmaster = fence.Postmaster{Running: true, PID: p.PID(), Primary: req.Primary, Epoch: req.Epoch}
	go func() {
		<-p.Exited()
		g.events <- fence.Event{Kind: fence.EventExit, PID: p.PID()}
	}()
	return p.PID(), nil
}

func (g *fakeGuard) Stop(ctx context.Context, mode fence.Mode) error {
	p := g.fake.Process()
	if p == nil {
		return nil
	}
	p.Signal(map[fence.Mode]syscall.Signal{fence.ModeFast: syscall.SIGINT, fence.ModeImmediate: syscall.SIGQUIT, fence.ModeKill: syscall.SIGKILL}[mode])
	select {
	case <-p.Exited():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *fakeGuard) Adopt(context.Context, int) error {
	return errors.New("nothing runs beside the fake")
}

func (g *fakeGuard) OpenEpoch(_ context.Context, t fence.Term) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.Epoch <= g.state.Epoch {
		return fence.ErrNoEpoch
	}
	g.state.Epoch, g.state.Open, g.state.Deadline = t.Epoch, true, t.Deadline
	return nil
}

func (g *fakeGuard) Extend(_ context.Context, t fence.Term) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.enforce()
	if !g.state.Open || t.Epoch != g.state.Epoch {
		return fence.ErrNoEpoch
	}
	g.state.Deadline = t.Deadline
	return nil
}

func (g *fakeGuard) Retire(ctx context.Context, epoch uint64) (fence.Proof, error) {
	if err := g.Stop(ctx, fence.ModeFast); err != nil {
		return "", err
	}
	return fence.ProofEmpty, g.CloseEpoch(ctx, epoch)
}

func (g *fakeGuard) CloseEpoch(_ context.Context, epoch uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch == g.state.Epoch {
		g.state.Open = false
	}
	return nil
}

func (g *fakeGuard) AllowPromote(_ context.Context, epoch uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.enforce()
	if !g.state.Open || epoch != g.state.Epoch {
		return fence.ErrNoEpoch
	}
	g.state.Postmaster.Primary, g.state.Postmaster.Epoch = true, epoch
	return nil
}

// bubble is a cluster inside a synctest bubble.
type bubble struct {
	t      *testing.T
	clock  dcs.Clock
	server *memory.Server
	nodes  map[string]*bubbleNode
	// bootstrap is the dynamic configuration that the cluster is created with.
	bootstrap map[string]any
	down      map[string]bool // hosts that nobody reaches
}

type bubbleNode struct {
	name   string
	fake   *postgrestest.Fake
	guard  *fakeGuard
	store  *memory.Store
	node   *ha.Node
	cancel context.CancelFunc
	done   chan error
	events chan callbacks.Event

	scripts *bubbleScripts
}

// Status asks another node's report directly: a network would not stand still in a bubble.
func (b *bubble) Status(_ context.Context, apiURL string) (rest.Status, error) {
	u, err := url.Parse(apiURL)
	if err != nil {
		return rest.Status{}, err
	}
	n := b.nodes[u.Hostname()]
	if n == nil || n.node == nil || b.down[u.Hostname()] {
		return rest.Status{}, errors.New("connection refused")
	}
	r := n.node.Report()
	s := r.Server
	return rest.Status{
		Name: r.Name, State: r.State, Role: r.Role, HasPosition: s.Answered, InRecovery: s.Role != postgres.RolePrimary, Timeline: s.Timeline,
		Location: s.Current, Received: s.Received, Replayed: s.Replayed,
		Pgregent: &rest.PgregentStatus{StoreAge: time.Since(r.ClusterAt).Seconds(), End: r.End, WasPrimary: r.WasPrimary, Promotions: r.Promotions, Unfit: r.Unfit},
	}, nil
}

// Post hands a request to another node's real handler.
func (b *bubble) Post(ctx context.Context, to string, body []byte) (string, int, error) {
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	n := b.nodes[req.URL.Hostname()]
	if n == nil || n.node == nil || b.down[req.URL.Hostname()] {
		return "", 0, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	rest.Handler(n.node).ServeHTTP(w, req)
	return w.Body.String(), w.Code, nil
}

func newBubble(t *testing.T, names ...string) *bubble {
	return newBubbleWith(t, nil, names...)
}

func newBubbleWith(t *testing.T, bootstrap map[string]any, names ...string) *bubble {
	b := &bubble{t: t, clock: dcs.ProcessClock(), nodes: map[string]*bubbleNode{}, bootstrap: bootstrap, down: map[string]bool{}}
	b.server = memory.NewServer(b.clock)
	fakes := map[string]*postgrestest.Fake{}
	for _, name := range names {
		fakes[name] = b.make(name)
	}
	postgrestest.Join(fakes)
	for _, name := range names {
		b.start(name)
	}
	return b
}

// make makes a node that is not started.
func (b *bubble) make(name string) *postgrestest.Fake {
	f := postgrestest.NewFake()
	f.Update(func(s *postgrestest.FakeState) { s.StartTime = 100 * time.Millisecond })
	b.nodes[name] = &bubbleNode{name: name, fake: f, guard: newGuard(f, b.clock, "nonce-"+name), store: b.server.Open("/service/demo"),
		events: make(chan callbacks.Event, 100), scripts: &bubbleScripts{}}
	return f
}

func (b *bubble) start(name string) {
	n := b.nodes[name]
	node, err := ha.New(ha.Config{
		Name: name, Scope: "demo", APIURL: "http://" + name + "/patroni", ConnURL: "postgres://" + name + ":5432/postgres", StateDir: b.t.TempDir(),
		Store: n.store, Postgres: n.fake, Guard: n.guard, Peers: b, Clock: b.clock, Bootstrap: b.bootstrap,
		Scripts:   n.scripts,
		Callbacks: []callbacks.Callback{callbacks.Func(func(_ context.Context, e callbacks.Event) error { n.events <- e; return nil })},
	})
	require.NoError(b.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	n.node, n.cancel, n.done = node, cancel, make(chan error, 1)
	go func() { n.done <- node.Run(ctx) }()
}

// stop ends every node in order.
func (b *bubble) stop() {
	for _, n := range b.nodes {
		n.store.Clear()
		n.cancel()
	}
	for _, n := range b.nodes {
		require.NoError(b.t, <-n.done)
		known := ha.Counters()
		for name := range n.node.Report().Counters {
			name, _, _ = strings.Cut(name, "{")
			require.Contains(b.t, known, name, "Counters describes every counter")
		}
	}
}

func (b *bubble) leader() *bubbleNode {
	for _, n := range b.nodes {
		if r := n.node.Report(); r.Writable && time.Now().Before(r.LeaderUntil) {
			return n
		}
	}
	return nil
}

// until lets the bubble's time pass until ok, at most for a while.
func (b *bubble) until(what string, within time.Duration, ok func() bool) time.Duration {
	b.t.Helper()
	began := time.Now()
	for !ok() {
		require.Less(b.t, time.Since(began), within, "%s: %s", what, b.status())
		<-time.After(50 * time.Millisecond)
		synctest.Wait()
	}
	return time.Since(began)
}

func (b *bubble) status() string {
	out := ""
	for _, n := range b.nodes {
		r := n.node.Report()
		out += fmt.Sprintf("\n%s: %s/%s, %s: %s", n.name, r.State, r.Role, r.Reason, r.Detail)
	}
	return out
}

func (b *bubble) healthy() bool {
	l := b.leader()
	for _, n := range b.nodes {
		if l == nil || (n != l && !n.node.Report().Server.Streaming) {
			return false
		}
	}
	return true
}

func TestBootstrapAndSwitchover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, "a", "b", "c")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		old := b.leader()
		require.True(t, old.fake.Write(100))
		c, err := old.node.ReadCluster(t.Context())
		require.NoError(t, err)
		f := c.Failover
		f.Leader = old.name
		require.NoError(t, old.node.WriteFailover(t.Context(), f, nil))
		took := b.until("another leads", 10*time.Second, func() bool { l := b.leader(); return l != nil && l != old })
		require.Less(t, took, 2*time.Second)
		require.EqualValues(t, 2, b.leader().fake.State().Timeline)
		b.until("healthy again", 20*time.Second, b.healthy)
		e := <-b.leader().events
		for e.Action != callbacks.OnRoleChange {
			e = <-b.leader().events
		}
		require.Equal(t, "primary", e.Role)
		require.EqualValues(t, 2, e.Epoch)
	})
}

// What a new cluster's configuration says of PostgreSQL is in force on every member from the first run on, also where the
// store gives back exactly what the file of this member says.
func TestBootstrapConfigurationIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubbleWith(t, map[string]any{"postgresql": map[string]any{
			"use_pg_rewind": true, "parameters": map[string]any{"work_mem": "7MB", "max_connections": "120"}}}, "a", "b")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		b.until("configured", 20*time.Second, func() bool {
			for _, n := range b.nodes {
				s := n.fake.Settings()
				if !s.UseRewind || s.Parameters["work_mem"] != "7MB" || s.Parameters["max_connections"] != "120" {
					return false
				}
			}
			return true
		})
	})
}

// The store hangs for the leader alone: it ends before another may begin (invariants I1, I2).
func TestLeaderCutFromTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubbleWith(t, map[string]any{"failsafe_mode": false}, "a", "b", "c")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		old := b.leader()
		old.store.Inject(memory.Hang, 0)
		var ended, began time.Time
		b.until("another leads", 30*time.Second, func() bool {
			if ended.IsZero() && !old.fake.Write(1) {
				ended = time.Now()
			}
			for _, n := range b.nodes {
				if n != old && n.fake.Write(1) {
					began = time.Now()
				}
			}
			require.False(t, ended.IsZero() && !began.IsZero(), "two nodes take writes")
			return !began.IsZero()
		})
		require.False(t, ended.IsZero())
		t.Logf("no writer for %v", began.Sub(ended))
		old.store.Clear()
		b.until("the old leader comes back", 30*time.Second, b.healthy)
	})
}

func TestPostgresCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, "a", "b")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		l := b.leader()
		l.fake.Process().Signal(syscall.SIGKILL)
		took := b.until("it takes writes again", 5*time.Second, func() bool { return l.fake.Write(1) })
		require.Less(t, took, time.Second)
		require.EqualValues(t, 1, l.fake.State().Timeline, "restarted in place")
	})
}

// A hung server costs no renewal: the loop waits for store calls only (invariant I21).
func TestHungPostgresDoesNotStopTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, "a", "b")
		defer b.stop()
		b.until("healthy", 20*time.Second, b.healthy)
		l := b.leader()
		l.fake.Delay("Observe", time.Hour)
		for range 20 {
			<-time.After(time.Second)
			synctest.Wait()
			require.Less(t, time.Since(l.node.Report().LoopAt), 3*time.Second)
			require.True(t, l.node.Report().IsLeader, b.status())
		}
		l.fake.Delay("Observe", 0)
		b.until("all is well", 20*time.Second, b.healthy)
	})
}

func TestNewRefuses(t *testing.T) {
	_, err := ha.New(ha.Config{Name: "a/b"})
	for _, field := range []string{"Config.Name", "Config.Store", "Config.Postgres", "Config.ConnURL", "Config.StateDir"} {
		require.ErrorContains(t, err, field)
	}
}
