package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pgregent/pgregent/dcs"
)

// behaviour is what an endpoint does with one call. It may use sending to say that the server has the request.
type behaviour func(ctx context.Context) (string, error)

// sending marks the request of ctx as sent.
func sending(ctx context.Context) {
	if s, ok := ctx.Value(sentKey{}).(*sent); ok {
		s.flag.Store(true)
	}
}

func answers(text string) behaviour {
	return func(ctx context.Context) (string, error) { sending(ctx); return text, nil }
}

// fails fails before it is sent.
func fails(context.Context) (string, error) { return "", status.Error(codes.Unavailable, "fake") }

// breaks fails after it was sent.
func breaks(err error) behaviour {
	return func(ctx context.Context) (string, error) { sending(ctx); return "", err }
}

// silent has the request and never answers.
func silent(ctx context.Context) (string, error) { sending(ctx); <-ctx.Done(); return "", ctx.Err() }

// hole does not even take the request.
func hole(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }

// slow answers late.
func slow(d time.Duration, then behaviour) behaviour {
	return func(ctx context.Context) (string, error) {
		sending(ctx)
		select {
		case <-time.After(d):
			return then(ctx)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// inTurn behaves differently each time.
func inTurn(list ...behaviour) behaviour {
	var n atomic.Int64
	return func(ctx context.Context) (string, error) { return list[min(int(n.Add(1)), len(list))-1](ctx) }
}

// fake is a Store whose endpoints behave as said. Nothing listens there.
func fake(t *testing.T, behave ...behaviour) (s *Store, do func(context.Context, *endpoint, *clientv3.Client) (string, error), calls *[8]atomic.Int64) {
	t.Helper()
	var c Config
	c.Prefix, c.UseProxies = "/x", true
	for i := range behave {
		c.Endpoints = append(c.Endpoints, fmt.Sprintf("127.0.0.1:%d", i+1)) // ports of nobody
	}
	c, err := c.normal(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s = newStore(c)
	t.Cleanup(func() { _ = s.Close() })
	calls = new([8]atomic.Int64)
	return s, func(ctx context.Context, e *endpoint, _ *clientv3.Client) (string, error) {
		var i int
		if _, err := fmt.Sscanf(e.url, "http://127.0.0.1:%d", &i); err != nil {
			return "", err
		}
		calls[i-1].Add(1)
		return behave[i-1](ctx)
	}, calls
}

func TestRun(t *testing.T) {
	const limit = 600 * time.Millisecond
	gone := status.Error(codes.Unavailable, "the connection broke")
	for _, c := range []struct {
		name   string
		manner manner
		behave []behaviour
		want   string
		kind   error         // of the error; nil for none
		not    error         // what the error must not be
		words  string        // in the error
		within time.Duration // at most
		after  time.Duration // at least
		calls  []int64       // of each endpoint; -1 for any number
	}{
		{name: "the first answers", manner: once, behave: []behaviour{answers("a"), answers("b")}, want: "a", within: 100 * time.Millisecond, calls: []int64{1, 0}},
		{name: "the first refuses connections", manner: once, behave: []behaviour{fails, answers("b")}, want: "b",
			within: 100 * time.Millisecond, calls: []int64{1, 1}},
		{name: "all refuse connections for a while", manner: once, want: "b", within: limit, calls: []int64{2, 2},
			behave: []behaviour{inTurn(fails), inTurn(fails, answers("b"))}},
		{name: "reading, the first is silent", manner: reading, behave: []behaviour{silent, answers("b")}, want: "b",
			after: 150 * time.Millisecond, within: 350 * time.Millisecond, calls: []int64{1, 1}},
		{name: "reading, two are silent", manner: reading, behave: []behaviour{silent, silent, answers("c")}, want: "c", within: 550 * time.Millisecond, calls: []int64{1, 1, 1}},
		{name: "reading, all are silent", manner: reading, behave: []behaviour{silent, silent}, kind: context.DeadlineExceeded, not: dcs.ErrUnknown,
			words: "http://127.0.0.1:2: no answer", after: limit, within: limit + 50*time.Millisecond, calls: []int64{-1, -1}},
		{name: "reading, the second time is answered", manner: reading, behave: []behaviour{inTurn(silent, answers("a")), silent}, want: "a",
			after: 350 * time.Millisecond, within: 550 * time.Millisecond, calls: []int64{2, 1}},
		{name: "reading, the first breaks", manner: reading, behave: []behaviour{breaks(gone), answers("b")}, want: "b", within: 100 * time.Millisecond, calls: []int64{1, 1}},
		{name: "once, the first breaks after sending", manner: once, behave: []behaviour{breaks(gone), answers("b")}, kind: dcs.ErrUnknown,
			words: "the connection broke", within: 100 * time.Millisecond, calls: []int64{1, 0}},
		{name: "once, the first is dead after sending", manner: once, behave: []behaviour{silent, answers("b")}, kind: dcs.ErrUnknown, within: 450 * time.Millisecond, calls: []int64{1, 0}},
		{name: "once, the first takes no connection", manner: once, behave: []behaviour{hole, answers("b")}, want: "b", within: 350 * time.Millisecond, calls: []int64{1, 1}},
		{name: "once, nobody takes a connection", manner: once, behave: []behaviour{hole}, kind: context.DeadlineExceeded, not: dcs.ErrUnknown, within: limit + 50*time.Millisecond, calls: []int64{-1}},
		{name: "again, the first is silent", manner: again, behave: []behaviour{silent, answers("b")}, want: "b", within: 350 * time.Millisecond, calls: []int64{1, 1}},
		{name: "again, all break", manner: again, behave: []behaviour{breaks(gone), breaks(gone)}, kind: dcs.ErrUnknown, within: limit + 50*time.Millisecond, calls: []int64{-1, -1}},
		{name: "again, refused by the second", manner: again, behave: []behaviour{silent, breaks(dcs.ErrSessionLost)}, kind: dcs.ErrSessionLost, not: dcs.ErrUnknown, within: 350 * time.Millisecond},
		{name: "fenced, refused at once", manner: fenced, behave: []behaviour{breaks(dcs.ErrConflict), answers("b")}, kind: dcs.ErrConflict, not: dcs.ErrUnknown,
			words: "http://127.0.0.1:1", within: 100 * time.Millisecond, calls: []int64{1, 0}},
		{name: "fenced, the first is silent", manner: fenced, behave: []behaviour{silent, answers("b")}, want: "b", within: 350 * time.Millisecond},
		{name: "fenced, the first breaks, the second meets it", manner: fenced, behave: []behaviour{breaks(gone), breaks(dcs.ErrConflict)}, kind: dcs.ErrUnknown, not: dcs.ErrConflict,
			words: "perhaps because of the first attempt", within: 100 * time.Millisecond, calls: []int64{1, 1}},
		{name: "fenced, the first is silent, the second meets it", manner: fenced, behave: []behaviour{silent, breaks(dcs.ErrConflict)}, kind: dcs.ErrUnknown, not: dcs.ErrConflict,
			within: limit + 50*time.Millisecond, calls: []int64{1, 1}},
		{name: "fenced, the second meets the first, which then answers", manner: fenced, want: "a", within: 450 * time.Millisecond,
			behave: []behaviour{slow(300*time.Millisecond, answers("a")), breaks(dcs.ErrConflict)}},
		{name: "reading, the first is silent, the second comes back", manner: reading, behave: []behaviour{silent, inTurn(fails, answers("b"))},
			want: "b", after: 350 * time.Millisecond, within: 550 * time.Millisecond, calls: []int64{1, 2}},
		{name: "barred everywhere", manner: reading, behave: []behaviour{breaks(status.Error(codes.Unimplemented, "HTTP")), breaks(status.Error(codes.Unimplemented, "HTTP"))},
			words: "does not speak the API of etcd", within: 100 * time.Millisecond, calls: []int64{1, 1}},
		{name: "barred at one", manner: reading, behave: []behaviour{breaks(status.Error(codes.Unimplemented, "HTTP")), answers("b")}, want: "b", within: 100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, do, calls := fake(t, c.behave...)
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			start := time.Now()
			got, err := run(ctx, s, c.manner, do)
			took := time.Since(start)
			if got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
			if (err == nil) != (c.want != "") || c.kind != nil && !errors.Is(err, c.kind) || c.not != nil && errors.Is(err, c.not) {
				t.Errorf("the error is %v, want the kind %v and not %v", err, c.kind, c.not)
			}
			if err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("the error is %q, want %q in it", err, c.words)
			}
			if took > c.within || took < c.after {
				t.Errorf("took %v, want %v to %v", took, c.after, c.within)
			}
			for i, want := range c.calls {
				if n := calls[i].Load(); want >= 0 && n != want {
					t.Errorf("endpoint %d got %d calls, want %d", i+1, n, want)
				}
			}
		})
	}
}

// The next call goes to the endpoint that answered.
func TestRunRemembers(t *testing.T) {
	s, do, calls := fake(t, silent, answers("b"))
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		if got, err := run(ctx, s, reading, do); got != "b" {
			t.Errorf("got %q, %v", got, err)
		}
		cancel()
	}
	if n := calls[0].Load(); n != 1 {
		t.Errorf("the silent endpoint got %d calls, want 1", n)
	}
}

func TestRunEnds(t *testing.T) {
	s, do, _ := fake(t, silent)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := run(ctx, s, once, do); !errors.Is(err, context.Canceled) || errors.Is(err, dcs.ErrUnknown) {
		t.Errorf("a context that has ended: %v", err)
	}
	for _, m := range []manner{reading, once} {
		s, do, _ := fake(t, silent)
		time.AfterFunc(50*time.Millisecond, func() { _ = s.Close() })
		start := time.Now()
		_, err := run(context.Background(), s, m, do)
		if !errors.Is(err, dcs.ErrClosed) || errors.Is(err, dcs.ErrUnknown) != (m == once) || time.Since(start) > time.Second {
			t.Errorf("manner %d, closed while it runs: %v after %v", m, err, time.Since(start))
		}
		if _, err := run(context.Background(), s, m, do); !errors.Is(err, dcs.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	s, do, _ = fake(t, silent)
	s.config.Timeout = 50 * time.Millisecond
	if _, err := run(context.Background(), s, once, do); !errors.Is(err, dcs.ErrUnknown) {
		t.Errorf("a context without a deadline: %v", err)
	}
}

func TestMembers(t *testing.T) {
	s, _, _ := fake(t, silent, silent)
	p := s.pool
	urls := func() string {
		var all []string
		for _, e := range p.list() {
			all = append(all, strings.TrimPrefix(e.url, "http://127.0.0.1:"))
		}
		return strings.Join(all, " ")
	}
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() { p.members([]string{"http://127.0.0.1:2", "http://127.0.0.1:3"}) }, "1 2 3"},
		{func() { p.leave(p.list()[0], errSlow) }, "2 3 1"},
		{func() { p.members([]string{"http://127.0.0.1:4"}) }, "2 1 4"},
		{func() { p.members(nil) }, "2 1"},
		{func() { p.leave(&endpoint{pool: p, left: make(chan struct{})}, errSlow) }, "2 1"},
	} {
		step.do()
		if got := urls(); got != step.want {
			t.Errorf("the endpoints are %s, want %s", got, step.want)
		}
	}
	first, left := p.first()
	p.leave(first, errSlow)
	select {
	case <-left:
	default:
		t.Error("who watches at an endpoint does not learn that it is left")
	}
}

// Another cluster is refused, unless all endpoints of the configuration are of it.
func TestIdentify(t *testing.T) {
	s, _, _ := fake(t, silent, silent)
	s.pool.members([]string{"http://127.0.0.1:3"})
	list := s.pool.list()
	one, two, found := list[0], list[1], list[2]
	for i, step := range []struct {
		e       *endpoint
		cluster uint64
		ok      bool
	}{
		{one, 0, true}, {one, 7, true}, {two, 7, true}, {found, 7, true}, {found, 8, false},
		{one, 8, false}, {one, 7, true}, {two, 8, false}, {one, 9, false}, {one, 8, true}, // from here on it is 8
		{two, 8, true}, {found, 8, true}, {two, 7, false}, {found, 7, false}, {one, 8, true},
	} {
		err := step.e.identify(nil, &pb.ResponseHeader{ClusterId: step.cluster})
		if (err == nil) != step.ok {
			t.Errorf("step %d: %s answers for cluster %d: %v", i, step.e.url, step.cluster, err)
		}
		for _, sent := range []bool{false, true} {
			v, _ := judge(err, sent)
			if want := map[bool]verdict{false: barred, true: unknown}[sent]; err != nil && v != want {
				t.Errorf("sent %v: verdict %d, want %d", sent, v, want)
			}
		}
	}
}

// An answer from the past is refused, unless all endpoints of the configuration insist.
func TestAdvance(t *testing.T) {
	s, _, _ := fake(t, silent, silent)
	s.pool.members([]string{"http://127.0.0.1:3"})
	list := s.pool.list()
	one, two, found := list[0], list[1], list[2]
	for i, step := range []struct {
		e         *endpoint
		seen, got int64
		ok        bool
		newest    int64
	}{
		{one, 0, 5, true, 5}, {two, 5, 5, true, 5}, {two, 5, 9, true, 9},
		{one, 5, 6, true, 9}, // asked before 9 was known
		{one, 9, 8, false, 9}, {one, 9, 8, false, 9}, {two, 9, 10, true, 10}, {one, 10, 8, false, 10},
		{two, 10, 8, false, 10}, {one, 10, 11, true, 11}, // one is well again
		{two, 11, 8, false, 11}, {one, 11, 3, false, 11}, {found, 11, 3, false, 11}, {found, 11, 3, false, 11}, {one, 11, 3, true, 3},
		{two, 3, 3, true, 3}, {one, 3, 2, false, 3},
	} {
		if err := step.e.advance(step.seen, step.got); (err == nil) != step.ok || s.pool.newest() != step.newest {
			t.Errorf("step %d: %v, newest %d; want accepted %v, newest %d", i, err, s.pool.newest(), step.ok, step.newest)
		}
	}
	if v, _ := judge(&staleError{1, 2}, true); v != unknown {
		t.Errorf("verdict %d, want unknown", v)
	}
}
