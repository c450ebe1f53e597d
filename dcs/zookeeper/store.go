package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgregent/pgregent/dcs"
)

// Store is a dcs.Store on a ZooKeeper ensemble. It is safe for concurrent use.
type Store struct {
	config Config
	prefix string // the node of Config.Prefix
	acl    []zk.ACL
	hub    *hub

	ctx     context.Context // ends with Close
	close   context.CancelFunc
	running sync.WaitGroup
	closing atomic.Bool // Close was called

	minTTL atomic.Int64

	mu       sync.Mutex
	hosts    []string
	current  *link         // what carries all but sessions; nil while there is none
	changed  chan struct{} // closed, and replaced, when current changes
	last     map[string]error
	sessions map[string]*session
}

var _ dcs.Store = (*Store)(nil)

const (
	// What a server takes with its default of jute.maxbuffer, 0xfffff bytes for a request; the rest is for names.
	maxValue = 1_000_000
	maxBytes = 1_040_000 // of all values of a transaction
	maxOps   = 128

	// minTTL is the shortest session that is asked for. A server keeps none shorter than two of its ticks, which are 2 s by
	// default; Open finds out.
	minTTL = time.Second

	// The end of a session is rounded up to a tick, and a follower tells the leader every half a tick who was heard of.
	sessionSlack = 2 * time.Second

	// mainTTL is the time-out of the shared connection: after two thirds without an answer it is given up.
	mainTTL = 4 * time.Second
)

// Open connects to the ensemble and reads the prefix once, so that wrong settings are found now: an error names the hosts,
// and what each of them said. It tries until ctx ends, or for Config.Timeout when that has no deadline.
func Open(ctx context.Context, config Config) (*Store, error) {
	config, err := config.normal()
	if err != nil {
		return nil, fmt.Errorf("zookeeper: %w", err)
	}
	s := &Store{config: config, prefix: encodePrefix(config.Prefix), hosts: config.Hosts, changed: make(chan struct{}),
		last: make(map[string]error), sessions: make(map[string]*session)}
	if s.acl, err = config.acls(); err != nil {
		return nil, fmt.Errorf("zookeeper: %w", err)
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	s.ctx, s.close = context.WithCancel(context.Background()) //nolint:forbidigo // ends with Close, not with the context of Open
	s.minTTL.Store(int64(minTTL))
	s.hub = newHub(s)
	if len(s.hosts) == 0 {
		found, err := config.Exhibitor.find(ctx)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("zookeeper: %w", err)
		}
		s.setHosts(found)
		s.running.Go(func() { config.Exhibitor.poll(s.ctx, s) })
	}
	s.running.Go(s.keep)
	s.running.Go(s.hub.run)
	if err := s.greet(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("zookeeper: cannot use %s: %w", strings.Join(s.Hosts(), ", "), err)
	}
	return s, nil
}

// greet is the first conversation: whether the prefix can be read, and how short a session may be.
func (s *Store) greet(ctx context.Context) error {
	if _, err := s.Read(ctx); err != nil {
		return err
	}
	probe, err := s.OpenSession(ctx, minTTL)
	if err != nil {
		return err
	}
	_ = probe.Close(ctx) // if this fails, it ends by itself, and holds nothing
	return nil
}

// Close implements dcs.Store. Calls that are under way end with dcs.ErrClosed, or dcs.ErrUnknown if they change something.
func (s *Store) Close() error {
	s.mu.Lock()
	l := s.current
	s.mu.Unlock()
	if !s.closing.Swap(true) && l != nil {
		l.bye(100 * time.Millisecond)
	}
	s.close()
	s.running.Wait()
	return nil
}

// Hosts are the hosts as they are known now.
func (s *Store) Hosts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.hosts...)
}

func (s *Store) setHosts(hosts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts = hosts
}

// rotation is the hosts with the one that works first.
func (s *Store) rotation() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	good := ""
	if s.current != nil {
		good = s.current.server()
	}
	all := make([]string, 0, len(s.hosts))
	for _, h := range s.hosts {
		if h == good {
			all = append([]string{h}, all...)
		} else {
			all = append(all, h)
		}
	}
	return all
}

// Limits implements dcs.Store. MinTTL is what the servers granted when less was asked for.
func (s *Store) Limits() dcs.Limits {
	least := time.Duration(s.minTTL.Load())
	return dcs.Limits{MinTTL: least, MaxValue: maxValue, MaxOps: maxOps, SessionSlack: max(sessionSlack, least)}
}

// limit sees to it that a call ends.
func (s *Store) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, limited := ctx.Deadline(); limited {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.config.Timeout)
}

// keep keeps the shared connection, until Close.
func (s *Store) keep() {
	var order []string
	for failed := 0; !s.closing.Load(); {
		if len(order) == 0 {
			order = s.Hosts()
		}
		host := order[0]
		order = order[1:]
		l, err := s.open(s.ctx, host)
		s.publish(l, host, err)
		if err != nil {
			failed++
			if n := len(s.Hosts()); failed%n == 0 {
				pause(s.ctx, min(firstPause<<min(failed/n-1, 8), mostPause))
			}
			continue
		}
		failed = 0
		s.hub.use(l)
		<-l.ctx.Done()
		if !s.closing.Load() {
			s.config.Logger.InfoContext(s.ctx, "zookeeper: the connection is lost", "host", host, "error", context.Cause(l.ctx))
		}
		s.publish(nil, host, context.Cause(l.ctx))
		<-l.gone
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// publish makes l the current link.
func (s *Store) publish(l *link, host string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = l
	if err != nil {
		s.last[host] = err
	} else {
		clear(s.last)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// open connects to one host for the shared link.
func (s *Store) open(ctx context.Context, host string) (*link, error) {
	l, err := newLink(s, mainTTL, false, func() []string { return []string{host} }, s.hub.heard)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit+2*helloLimit)
	defer cancel()
	if err = l.await(ctx); err == nil {
		err = s.authenticate(ctx, l)
	}
	if err != nil {
		l.stop(err)
		<-l.gone
		return nil, err
	}
	return l, nil
}

// authenticate sends the credentials. The library sends them again on each connection that the link makes.
func (s *Store) authenticate(ctx context.Context, l *link) error {
	for scheme, credential := range s.config.AuthData {
		_, err := on(ctx, l, func(c *zk.Conn) (struct{}, error) { return struct{}{}, c.AddAuth(scheme, []byte(credential)) })
		if err != nil {
			return fmt.Errorf("%s: auth_data of the scheme %s: %w", l.server(), scheme, err)
		}
	}
	return nil
}

// acquire waits for the shared link.
func (s *Store) acquire(ctx context.Context) (*link, error) {
	for {
		s.mu.Lock()
		l, changed := s.current, s.changed
		s.mu.Unlock()
		if err := s.usable(ctx); err != nil {
			return nil, err
		}
		if l != nil && l.ctx.Err() == nil {
			return l, nil
		}
		select {
		case <-ctx.Done():
		case <-s.ctx.Done():
		case <-changed:
		}
	}
}

// usable says why a call must end now, with what the hosts said when it had to wait for them.
func (s *Store) usable(ctx context.Context) error {
	switch {
	case s.closing.Load():
		return dcs.ErrClosed
	case ctx.Err() == nil:
		return nil
	}
	all := failures{context.Cause(ctx)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.hosts {
		if err := s.last[h]; err != nil {
			all = append(all, err)
		}
	}
	return all
}

const (
	mostShare  = time.Second // the longest that one server is waited for when another could be asked
	leastShare = 50 * time.Millisecond
)

// share is a third of the time that is left, so that three servers can be tried.
func share(ctx context.Context) (context.Context, context.CancelFunc) {
	d := mostShare
	if end, limited := ctx.Deadline(); limited {
		d = min(max(time.Until(end)/3, leastShare), mostShare)
	}
	return context.WithTimeout(ctx, d)
}

// asks makes a request that may be made again.
func asks[R any](ctx context.Context, l *link, f func(*zk.Conn) (R, error)) (R, error) {
	ctx, cancel := share(ctx)
	defer cancel()
	return on(ctx, l, f)
}

// barrier returns when the link's server has all that was acknowledged to anybody before the call. The check changes nothing,
// and is committed by the quorum like every multi, also when it fails: a refusal is a transaction, too.
func (s *Store) barrier(ctx context.Context, l *link) error {
	_, err := asks(ctx, l, func(c *zk.Conn) (struct{}, error) {
		_, err := c.Multi(&zk.CheckVersionRequest{Path: s.prefix, Version: -1})
		return struct{}{}, err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return err
}

// mkdirs makes folders, the outermost first. Those that are there already stay.
func (s *Store) mkdirs(ctx context.Context, l *link, dirs []string) error {
	for _, dir := range dirs {
		_, err := asks(ctx, l, func(c *zk.Conn) (string, error) { return c.Create(dir, nil, 0, s.acl) })
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			// Whoever may not create what is there already is told so first.
			if there, _, _ := exists(ctx, l, dir); there {
				continue
			}
			return fmt.Errorf("the folder %s: %w", dir, err)
		}
	}
	return nil
}

func exists(ctx context.Context, l *link, path string) (bool, *zk.Stat, error) {
	type answer struct {
		there bool
		stat  *zk.Stat
	}
	a, err := asks(ctx, l, func(c *zk.Conn) (answer, error) {
		there, stat, err := c.Exists(path)
		return answer{there, stat}, err
	})
	return a.there, a.stat, err
}
