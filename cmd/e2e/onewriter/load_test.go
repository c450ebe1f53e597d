package onewriter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// How much is written, on each node, all the time.
const (
	inserters = 3                      // sessions that insert back to back
	copiers   = 3                      // sessions that COPY for two seconds, back to back
	copyTime  = 2 * time.Second        // of one COPY
	copyStep  = 650 * time.Millisecond // between the starts of two COPYs: the youngest always has more than a second left
	breath    = 2 * time.Millisecond   // between two inserts
	refused   = 15 * time.Millisecond  // until the next try, when a node takes no writes
	patience  = 20 * time.Second       // for an answer: a late acknowledgement must be seen
)

// term is one primacy. A postmaster becomes primary at most once and stays it to its end (the way back to a replica is a
// new postmaster, and restart_after_crash is off), and a session belongs to one postmaster for life. So the node and
// the start time of the session's postmaster name the primacy that acknowledged, although the session may have been
// opened while the server was a replica. One epoch may have several terms on one node (a restart in place); what must
// not interleave are terms on different nodes.
type term struct {
	node  *rig.Node
	start string
}

// ack is one acknowledged statement.
type ack struct {
	sent, at time.Time // on one monotonic clock, of this process
	term     term
	id       int64
}

// load is writers on every node, each connected to that node alone, and what was acknowledged to them.
type load struct {
	scope   context.Context
	end     context.CancelFunc
	running sync.WaitGroup
	next    atomic.Int64

	mu     sync.Mutex
	acks   []ack
	latest map[*rig.Node]ack
	failed map[*rig.Node]int         // statements and connections that failed, other than by being refused on a replica
	copies map[*rig.Node][]time.Time // when the COPYs in flight were sent, one for each session; zero: none
}

func newLoad(nodes []*rig.Node) *load {
	l := &load{latest: map[*rig.Node]ack{}, failed: map[*rig.Node]int{}, copies: map[*rig.Node][]time.Time{}}
	l.scope, l.end = context.WithCancel(context.Background())
	for _, n := range nodes {
		l.attach(n)
	}
	return l
}

// attach starts the writers of a node. The function that it returns ends them.
func (l *load) attach(n *rig.Node) (detach func()) {
	ctx, cancel := context.WithCancel(l.scope)
	l.mu.Lock()
	l.copies[n] = make([]time.Time, copiers)
	l.mu.Unlock()
	for i := range inserters + copiers {
		s := &session{load: l, node: n, copier: i - inserters}
		l.running.Go(func() { s.run(ctx) })
	}
	return cancel
}

func (l *load) stop() {
	l.end()
	l.running.Wait()
}

// forget begins a new record, and returns the first id that belongs to it.
func (l *load) forget() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks = nil
	return l.next.Load() + 1
}

// record is what was acknowledged since forget, in the order of time.
func (l *load) record() []ack {
	l.mu.Lock()
	acks := slices.Clone(l.acks)
	l.mu.Unlock()
	slices.SortFunc(acks, func(a, b ack) int { return a.at.Compare(b.at) })
	return acks
}

// last is the youngest acknowledgement of a node.
func (l *load) last(n *rig.Node) (ack, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.latest[n]
	return a, ok
}

// copying says that the node has a COPY in flight with more than a second left.
func (l *load) copying(n *rig.Node) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.copies[n], func(sent time.Time) bool { return time.Since(sent) < copyTime-time.Second })
}

// session is one client: an inserter, or a copier when copier is not negative.
type session struct {
	load   *load
	node   *rig.Node
	copier int
}

// address is the node alone: inserters come over TCP, copiers over the socket in the file system.
func (s *session) address() string {
	host := "127.0.0.1"
	if s.copier >= 0 {
		host = s.node.C.Root
	}
	return dsn(host, s.node.PGPort)
}

func dsn(host string, port int) string {
	return fmt.Sprintf("host=%s port=%d user=postgres password=super-secret dbname=postgres sslmode=disable", host, port)
}

func (s *session) run(ctx context.Context) {
	for ctx.Err() == nil {
		conn, t, err := connect(ctx, s.address(), s.node)
		if err != nil {
			s.load.answered(s, err, ack{})
			pause(ctx, refused)
			continue
		}
		for err == nil && ctx.Err() == nil {
			err = s.write(ctx, conn, t)
		}
		hangUp(conn)
	}
}

// connect opens a session and asks whose it is.
func connect(ctx context.Context, address string, n *rig.Node) (*pgconn.PgConn, term, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, address)
	if err != nil {
		return nil, term{}, err
	}
	results, err := conn.Exec(ctx, "select pg_postmaster_start_time()").ReadAll()
	if err != nil {
		hangUp(conn)
		return nil, term{}, err
	}
	return conn, term{node: n, start: string(results[0].Rows[0][0])}, nil
}

func hangUp(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}

// write sends one statement, and returns an error when the session has to be replaced.
func (s *session) write(ctx context.Context, conn *pgconn.PgConn, t term) error {
	id := s.load.next.Add(1)
	statement := fmt.Sprintf("insert into acked values (%d)", id)
	if s.copier >= 0 {
		s.load.takeTurn(ctx, s)
		statement = fmt.Sprintf("copy acked from program 'sleep %v; echo %d'", copyTime.Seconds(), id)
	}
	call, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sent := time.Now()
	_, err := conn.Exec(call, statement).ReadAll()
	at := time.Now()
	s.load.answered(s, err, ack{sent: sent, at: at, term: t, id: id})
	var answer *pgconn.PgError
	switch {
	case err == nil && s.copier < 0:
		pause(ctx, breath)
	case err == nil:
	case !errors.As(err, &answer) || conn.IsClosed():
		return err
	default: // it takes no writes, or has no such table yet
		pause(ctx, refused)
	}
	return nil
}

// takeTurn staggers the COPYs of a node.
func (l *load) takeTurn(ctx context.Context, s *session) {
	for ctx.Err() == nil {
		l.mu.Lock()
		youngest := slices.MaxFunc(l.copies[s.node], time.Time.Compare)
		left := copyStep - time.Since(youngest)
		if left <= 0 {
			l.copies[s.node][s.copier] = time.Now()
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		pause(ctx, min(left, refused))
	}
}

// answered notes how a statement ended.
func (l *load) answered(s *session, err error, a ack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.copier >= 0 {
		l.copies[s.node][s.copier] = time.Time{}
	}
	switch {
	case err == nil:
		l.acks = append(l.acks, a)
		l.latest[s.node] = a
	case l.scope.Err() == nil && !readOnly(err):
		l.failed[s.node]++
	}
}

func readOnly(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.Code == "25006"
}

// failures is how much failed on a node since its writers were attached.
func (l *load) failures(n *rig.Node) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed[n]
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
