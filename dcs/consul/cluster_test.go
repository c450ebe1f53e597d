package consul_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/consul"
	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/dcs/dcstest/consulserver"
)

// Patroni's settings at ttl 8.
const (
	ttl      = 8 * time.Second
	loopWait = time.Second     // twice as often as the loop
	limited  = 3 * time.Second // retry_timeout
)

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func put(s dcs.Store, key, value string) error {
	ctx, cancel := within(limited)
	defer cancel()
	_, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put(key, []byte(value))}})
	return err
}

// awaken waits for a wake-up.
func awaken(t *testing.T, ch <-chan struct{}, limit time.Duration, why string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(limit):
		t.Fatalf("no wake-up within %v: %s", limit, why)
	}
}

// still receives until there was no wake-up for a while.
func still(ch <-chan struct{}) {
	for {
		select {
		case <-ch:
		case <-time.After(300 * time.Millisecond):
			return
		}
	}
}

// holder does what the loop of a leader does: it renews session and lease, opens another session when that is lost, and
// notes how close it came to its deadline.
type holder struct {
	t     *testing.T
	store dcs.Store
	clock dcs.Clock
	lease *dcs.Lease
	ses   dcs.Session

	mu       sync.Mutex
	sessions int
	failures int           // loops that renewed nothing
	least    time.Duration // the shortest that was left of a deadline when it was renewed
	worst    time.Duration // the longest time between two renewals
	lost     error
}

// hold makes s the leader's, and keeps it so until stop is called, which returns when the loop has ended.
func hold(t *testing.T, s dcs.Store) (h *holder, stop func()) {
	t.Helper()
	h = &holder{t: t, store: dcs.NewClient(s, nil), clock: dcs.ProcessClock(), least: time.Hour,
		lease: dcs.NewLease(dcs.Identity{Name: "pg1", Instance: "test", Nonce: "nonce-1"})}
	if err := h.step(); err != nil {
		t.Fatalf("the lease was not taken: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(loopWait)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			err := h.step()
			tick.Reset(loopWait)
			h.mu.Lock()
			switch {
			case errors.Is(err, dcs.ErrNotHeld), errors.Is(err, dcs.ErrForeignKey):
				h.lost = err
			case err != nil:
				h.failures++
				tick.Reset(100 * time.Millisecond)
				t.Logf("a loop without renewal: %v", err)
			}
			h.mu.Unlock()
		}
	}()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-done }) }
	t.Cleanup(stop)
	return h, stop
}

// step is one loop.
func (h *holder) step() error {
	ctx, cancel := within(limited)
	defer cancel()
	snap, err := h.store.Read(ctx)
	if err != nil {
		return err
	}
	h.lease.Observe(snap, h.clock.Now())
	sent := h.clock.Now()
	if err := h.keepSession(ctx); err != nil {
		return err
	}
	var step dcs.Step
	_, open := h.lease.Open()
	if open {
		step, err = h.lease.Renew(sent, h.ses.ID(), ttl, nil)
	} else {
		step, err = h.lease.Take(h.clock.Now(), sent, h.ses.ID(), ttl, true)
	}
	if err != nil {
		return err
	}
	result, err := h.store.Commit(ctx, step.Txn)
	before, last := h.lease.Deadline(), h.lease.Renewed()
	h.lease.Settle(step, result, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.clock.Now(); err == nil && open {
		h.least, h.worst = min(h.least, before-now), max(h.worst, now-last)
	}
	return err
}

func (h *holder) keepSession(ctx context.Context) error {
	if h.ses != nil {
		err := h.ses.Renew(ctx)
		if !errors.Is(err, dcs.ErrSessionLost) {
			return err
		}
	}
	ses, err := h.store.OpenSession(ctx, ttl)
	if err == nil {
		h.ses = ses
		h.mu.Lock()
		h.sessions++
		h.mu.Unlock()
	}
	return err
}

// prompt is the longest time between renewals that the guard does not notice. An election of Consul may take longer; then failsafe
// mode has to answer for the leader, and nobody else can take the lease as long as it is renewed within its ttl.
func prompt() time.Duration { return dcs.Validity(ttl) - dcs.FenceHeadStart(ttl) }

// wants asserts that the lease was renewed at least so often and could be nobody else's, and is what the store says.
func (h *holder) wants(t *testing.T, s dcs.Store, sessions int, often time.Duration) {
	t.Helper()
	ctx, cancel := within(limited)
	defer cancel()
	snap, err := s.Read(ctx)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	item, _ := snap.Item(dcs.KeyLease)
	record, err := dcs.ParseRecord(item.Value)
	leader, _ := snap.Item(dcs.KeyLeader)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || record.Epoch != 1 || record.Holder != "pg1" || h.lost != nil {
		t.Errorf("the record is %s (%v, %v), want that of the first epoch", item.Value, err, h.lost)
	}
	if string(leader.Value) != "pg1" || leader.Session != h.ses.ID() {
		t.Errorf("the leader key is %+v, want one of the session %s", leader, h.ses.ID())
	}
	if h.sessions != sessions {
		t.Errorf("%d sessions were opened, want %d", h.sessions, sessions)
	}
	if h.worst > often {
		t.Errorf("there were %v between two renewals, want at most %v", h.worst, often)
	}
	t.Logf("the longest time between renewals was %v, the least left of a deadline %v, loops without renewal %d", h.worst, h.least, h.failures)
}

// waits lets the holder go on for a while.
func waits(d time.Duration) { <-time.After(d) }

// The leader of the servers is killed, frozen, restarted: no session ends, no leadership is in danger. The Store knows one
// server, which is not the leader, as it would know the agent of its machine.
func TestServerLeaderLost(t *testing.T) {
	for _, how := range []string{"killed", "frozen", "restarted"} {
		t.Run(how, func(t *testing.T) {
			c := consulserver.Start(t, 3)
			leader := c.Leader()
			local := (leader + 1) % 3
			s := open(t, consul.Config{Addresses: c.URLs()[local : local+1]})
			h, stop := hold(t, s)
			waits(2 * loopWait)
			switch how {
			case "killed":
				c.Kill(leader)
			case "frozen":
				c.Freeze(leader)
			default:
				c.Restart(leader)
			}
			waits(8 * time.Second)
			switch how {
			case "killed":
				c.Restart(leader)
			case "frozen":
				c.Thaw(leader)
			}
			waits(3 * time.Second)
			stop()
			h.wants(t, s, 1, ttl)
		})
	}
}

// The Store knows all servers, and the one that it uses stops: it goes on at another.
func TestServerLost(t *testing.T) {
	c := consulserver.Start(t, 3)
	for i := range 3 {
		urls := append(append([]string{}, c.URLs()[i:]...), c.URLs()[:i]...)
		s := open(t, consul.Config{Addresses: urls, Prefix: fmt.Sprintf("/service/lost%d", i)})
		h, stop := hold(t, s)
		waits(2 * loopWait)
		c.Freeze(i)
		waits(5 * time.Second)
		c.Thaw(i)
		waits(2 * time.Second)
		stop()
		h.wants(t, s, 1, ttl)
	}
}

// The agent of the machine is restarted: it leaves the cluster, which ends the sessions opened at it at once (hazard A8).
// Or an operator ends the session (A10). Either way another is opened, and the leader stays.
func TestSessionTaken(t *testing.T) {
	c := consulserver.StartWith(t, consulserver.Options{Servers: 1, Agents: 1})
	const agent = 1
	direct := open(t, consul.Config{Addresses: c.URLs()})
	s := open(t, consul.Config{Addresses: []string{c.Addr(agent)}})
	h, stop := hold(t, s)
	waits(2 * loopWait)
	raw, err := api.NewClient(&api.Config{Address: c.Addr(0)})
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	id := h.ses.ID()
	h.mu.Unlock()
	if _, err := raw.Session().Destroy(id, nil); err != nil {
		t.Fatal(err)
	}
	waits(3 * time.Second)
	h.wants(t, direct, 2, prompt())
	start := time.Now()
	c.Restart(agent)
	t.Logf("the agent was restarted in %v", time.Since(start))
	waits(5 * time.Second)
	stop()
	h.wants(t, direct, 3, prompt())
}

// A question that hangs at a frozen leader does not keep a watch from waking, because the loop reads.
func TestWatchLeavesFrozenLeader(t *testing.T) {
	c := consulserver.Start(t, 3)
	leader := c.Leader()
	s := open(t, consul.Config{Addresses: c.URLs()[(leader+1)%3 : (leader+1)%3+1]})
	other := open(t, consul.Config{Addresses: c.URLs()[(leader+2)%3 : (leader+2)%3+1]})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	one, err := s.Watch(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	awaken(t, one, 5*time.Second, "it was set up")
	awaken(t, all, 5*time.Second, "it was set up")
	still(one)
	still(all)
	c.Freeze(leader)
	start := time.Now()
	for put(other, "k", "v") != nil {
		if time.Since(start) > 30*time.Second {
			t.Fatal("no put succeeds while the leader is frozen")
		}
	}
	t.Logf("a put succeeded after %v", time.Since(start))
	stopReading := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case <-stopReading:
				return
			case <-time.After(500 * time.Millisecond):
				ctx, cancel := within(limited)
				_, _ = s.Read(ctx)
				cancel()
			}
		}
	})
	awaken(t, one, 15*time.Second, "a put after the election")
	awaken(t, all, 15*time.Second, "a put after the election")
	t.Logf("both watches woke after %v", time.Since(start))
	close(stopReading)
	reading.Wait()
}

// The catalog shows what Update said, and nothing is asked when nothing changes.
func TestRegistrar(t *testing.T) {
	c := consulserver.StartWith(t, consulserver.Options{Servers: 1, Agents: 1})
	proxy := dcstest.NewProxy(t, c.Addr(1))
	s := open(t, consul.Config{Addresses: []string{proxy.Addr()}})
	raw, err := api.NewClient(&api.Config{Address: c.Addr(1)})
	if err != nil {
		t.Fatal(err)
	}
	r := consul.NewRegistrar(s)
	v := consul.Service{Scope: "or_ders", Member: "pg1", ConnURL: "postgres://10.0.0.5:5433/postgres", APIURL: "http://10.0.0.5:8008/patroni",
		Role: "replica", Tags: []string{"blue"}}
	update := func(v consul.Service) error {
		ctx, cancel := within(limited)
		defer cancel()
		return r.Update(ctx, v)
	}
	shown := func() *api.AgentService { t.Helper(); return entry(t, raw, "or_ders/pg1") }
	if err := update(v); err != nil {
		t.Fatal(err)
	}
	if e := shown(); e == nil || e.Service != "or-ders" || e.Port != 5433 || fmt.Sprint(e.Tags) != "[blue replica]" {
		t.Errorf("the entry is %+v", e)
	}
	checks, err := raw.Agent().Checks()
	if err != nil || len(checks) != 1 {
		t.Errorf("checks %+v, %v", checks, err)
	}
	if established(t, []*dcstest.Proxy{proxy}) == 0 {
		t.Error("the conformance suite could not see connections that are left")
	}
	proxy.SetMode(dcstest.Refuse)
	if err := update(v); err != nil {
		t.Errorf("nothing changed, but it asked: %v", err)
	}
	v.Role = "primary"
	ctx, cancel := within(300 * time.Millisecond)
	err = r.Update(ctx, v)
	cancel()
	if err == nil {
		t.Error("no error, and no agent")
	}
	proxy.SetMode(dcstest.Pass)
	if err := update(v); err != nil {
		t.Fatal(err)
	}
	if e := shown(); e == nil || fmt.Sprint(e.Tags) != "[blue primary master]" {
		t.Errorf("the entry is %+v", e)
	}
	v.Stopped = true
	for range 2 {
		if err := update(v); err != nil {
			t.Fatal(err)
		}
		r.Forget()
		if e := shown(); e != nil {
			t.Errorf("the server is stopped, and the entry is %+v", e)
		}
	}
}

// entry is what an agent's catalog has under a service ID; nil for nothing.
func entry(t *testing.T, agent *api.Client, id string) *api.AgentService {
	t.Helper()
	all, err := agent.Agent().Services()
	if err != nil {
		t.Fatal(err)
	}
	return all[id]
}
