package ha

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
)

// errorsIs is errors.Is for an error that may be nil.
func errorsIs(err, target error) bool { return err != nil && errors.Is(err, target) }

// Limits of an observation.
const (
	observeLimit = 3 * time.Second        // one look at PostgreSQL
	observeWait  = 100 * time.Millisecond // how long a turn waits for the look that it asked for; a hung server costs it once
	observeEvery = time.Second            // without being asked: a replica that lost its leader is to notice
	observeStale = 4 * time.Second        // an older look says nothing any more
	askLimit     = 700 * time.Millisecond // one peer's answer
	probeLimit   = 2 * time.Second        // the leader's account of its WAL
	askPause     = 100 * time.Millisecond // between two questions to the same: an answer, or a refusal, may come at once
)

// observer looks at PostgreSQL beside the loop, so that a hung server never delays a renewal (invariant I21).
type observer struct {
	node  *Node
	kicks chan struct{}

	mu    sync.Mutex
	last  postgres.Status
	begun time.Duration // when the look that gave last was begun
	busy  time.Duration // when the look that is under way was begun; 0: none is
	fresh chan struct{} // closed and replaced with every new look
}

func newObserver(n *Node) *observer {
	return &observer{node: n, kicks: make(chan struct{}, 1), fresh: make(chan struct{}), begun: -observeStale}
}

// kick asks for a new look; several before one begins are one.
func (o *observer) kick() {
	select {
	case o.kicks <- struct{}{}:
	default:
	}
}

func (o *observer) run(ctx context.Context) {
	for {
		timer := o.node.clock.Timer(observeEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-o.kicks:
		case <-timer.C():
		}
		timer.Stop()
		begun := o.node.clock.Now()
		o.mu.Lock()
		o.busy = begun
		o.mu.Unlock()
		call, cancel := context.WithTimeout(ctx, observeLimit)
		s := o.node.cfg.Postgres.Observe(call)
		cancel()
		if ctx.Err() != nil {
			return
		}
		o.mu.Lock()
		changed := materially(o.last, s)
		late := o.node.clock.Now()-begun > observeWait
		o.last, o.begun, o.busy = s, begun, 0
		close(o.fresh)
		o.fresh = make(chan struct{})
		o.mu.Unlock()
		if changed || late {
			o.node.post(ctx, func() {}) // the turn that asked has gone on without this, or none did
		}
	}
}

// materially says whether a decision may depend on the difference.
func materially(a, b postgres.Status) bool {
	return a.Answered != b.Answered || a.Role != b.Role || a.Data != b.Data || a.Timeline != b.Timeline || a.Streaming != b.Streaming
}

// latest returns the newest look and when it was begun, waiting a moment for the one that was just asked for. A look
// that is too old is returned with its SQL part emptied: unknown is not false.
func (o *observer) latest(ctx context.Context, asked time.Duration) (postgres.Status, time.Duration) {
	timer := time.NewTimer(observeWait)
	defer timer.Stop()
	for waiting := true; ; {
		o.mu.Lock()
		last, begun, busy, fresh := o.last, o.begun, o.busy, o.fresh
		o.mu.Unlock()
		now := o.node.clock.Now()
		hung := busy != 0 && now-busy > observeWait
		if begun >= asked || ctx.Err() != nil {
			return last, begun
		}
		if !waiting || hung {
			if now-begun > observeStale {
				return postgres.Status{Data: last.Data, DataErr: last.DataErr, Control: last.Control,
					Err: errors.New("postgresql has not answered for " + observeStale.String())}, begun
			}
			return last, begun
		}
		select {
		case <-fresh:
		case <-ctx.Done():
		case <-timer.C:
			waiting = false
		}
	}
}

// now looks at once, for a task that needs to know before it goes on.
func (o *observer) now(ctx context.Context) postgres.Status {
	call, cancel := context.WithTimeout(ctx, observeLimit)
	defer cancel()
	return o.node.cfg.Postgres.Observe(call)
}

// answer is what a peer said last.
type answer struct {
	sent   time.Duration
	status rest.Status
	err    error
}

// askPeers asks every other member at once, and wakes the loop when all have answered or the time is over. The time is
// short, so that a dead host does not stretch an election (design section 9).
func (n *Node) askPeers(ctx context.Context) {
	if n.asking || (n.asked != 0 && n.clock.Now()-n.asked < askPause) {
		return
	}
	known := n.cluster.Known(n.dynamic.FailsafeMode)
	members := make([]cluster.Member, 0, len(known))
	for _, m := range known {
		if m.Name != n.cfg.Name && m.APIURL != "" {
			members = append(members, m)
		}
	}
	n.asking = true
	sent := n.clock.Now()
	n.asked = sent
	go func() {
		got := n.Ask(ctx, members)
		n.post(ctx, func() {
			n.asking = false
			for _, a := range got {
				n.answers[a.Member] = answer{sent: sent, status: a.Status, err: a.Err}
			}
		})
	}()
}

// Ask asks members for their status, all at once, each for less than a second. The answers are in the members' order.
func (n *Node) Ask(ctx context.Context, members []cluster.Member) []rest.Answer {
	got := make([]rest.Answer, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			call, cancel := context.WithTimeout(ctx, askLimit)
			defer cancel()
			s, err := n.cfg.Peers.Status(call, m.APIURL)
			got[i] = rest.Answer{Member: m.Name, Status: s, Err: err}
		})
	}
	wg.Wait()
	return got
}

func (n *Node) peersView(now time.Duration) []policy.Peer {
	var peers []policy.Peer
	for _, m := range n.cluster.Known(n.dynamic.FailsafeMode) {
		if m.Name == n.cfg.Name {
			continue
		}
		p := policy.Peer{Name: m.Name, Tags: m.Tags, Patroni: m.Pgregent == "", Voteless: m.NoVote, Connected: n.connected(m.Name)}
		if m.APIURL == "" {
			p.Asked = true // nobody can ask it, so nobody waits for its answer
		} else if a, ok := n.answers[m.Name]; ok {
			p.Asked, p.Age, p.Answered = true, now-a.sent, a.err == nil
			if a.err == nil {
				fillPeer(&p, a.status)
			}
		}
		peers = append(peers, p)
	}
	return peers
}

// connected says that a member streams from the server here.
func (n *Node) connected(member string) bool {
	return slices.ContainsFunc(n.server.Walsenders, func(w postgres.Walsender) bool {
		return w.ApplicationName == member && w.State == "streaming"
	})
}

func fillPeer(p *policy.Peer, s rest.Status) {
	p.InRecovery, p.Running = s.InRecovery, s.HasPosition
	p.End.Timeline, p.End.LSN = s.Timeline, max(s.Received, s.Replayed)
	if !s.InRecovery {
		p.End.LSN = max(p.End.LSN, s.Location)
	}
	if s.Tags != nil {
		p.Tags = s.Tags
	}
	p.Unfit = s.WatchdogFailed
	g := s.Pgregent
	p.Patroni = g == nil
	if g == nil {
		return
	}
	p.Unfit = p.Unfit || g.Unfit != ""
	p.Promotions, p.History = g.Promotions, g.WALHistory()
	if g.StoreAge >= 0 {
		p.StoreAge = time.Duration(g.StoreAge * float64(time.Second))
	} else {
		p.StoreAge = time.Hour
	}
	if g.End.LSN != 0 && g.End.LSN > p.End.LSN {
		p.End = g.End
	}
}

// line is the leader's account of its own WAL.
type line struct {
	member string
	sent   time.Duration
	got    postgres.Line
	err    error
	asked  bool
}

// probe asks a member over the replication protocol where its WAL comes from and ends.
func (n *Node) probe(ctx context.Context, member string) {
	if n.probing != "" || (n.line.asked && n.line.member == member && n.clock.Now()-n.line.sent < askPause) {
		return
	}
	m, ok := n.cluster.Member(member)
	host, port := m.HostPort()
	if !ok || host == "" {
		return
	}
	n.probing = member
	sent := n.clock.Now()
	go func() {
		call, cancel := context.WithTimeout(ctx, probeLimit)
		defer cancel()
		got, err := n.cfg.Postgres.Identify(call, postgres.Source{Name: member, Host: host, Port: port})
		n.post(ctx, func() {
			n.probing = ""
			n.line = line{member: member, sent: sent, got: got, err: err, asked: true}
		})
	}()
}

func (n *Node) lineView(now time.Duration) policy.Line {
	l := n.line
	if !l.asked {
		return policy.Line{}
	}
	v := policy.Line{Member: l.member, Age: now - l.sent, Known: l.err == nil}
	if l.err != nil {
		v.Problem = l.err.Error()
		return v
	}
	v.SystemID, v.Replica = l.got.SystemID, l.got.Replica
	v.Branch = cluster.Branch{History: l.got.History, End: l.got.Position}
	// The identities of its promotions stand in the lease record when it is the holder.
	if r, _, ok, _ := n.lease.Record(); ok && r.Holder == l.member {
		if note, ok := n.note(); ok {
			v.Branch.Promotions = noteAll(note)
		}
	}
	return v
}
