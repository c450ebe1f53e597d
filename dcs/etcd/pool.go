package etcd

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/pgregent/pgregent/dcs"
)

// pool is the endpoints, the preferred one first.
type pool struct {
	config Config
	tokens *tokens

	mu     sync.Mutex
	order  []*endpoint
	closed bool

	cluster uint64               // the ID of the etcd cluster; 0 before the first answer
	foreign map[*endpoint]uint64 // of those that last answered for another cluster

	revision int64             // the newest of all answers
	behind   map[*endpoint]int // how often in a row an endpoint's answers were older
}

// endpoint is one URL and the connection to it.
type endpoint struct {
	pool  *pool
	url   string
	given bool // by the configuration, not by a member

	// Guarded by pool.mu.
	client *clientv3.Client // nil when there is no connection
	known  *grpc.ClientConn // that over which the endpoint has answered for the right cluster
	works  bool             // it has answered since it was left
	left   chan struct{}    // closed when another endpoint became preferred to this one; then a new one
}

func newPool(c Config) *pool {
	p := &pool{config: c, tokens: newTokens(c.Username, c.Password), foreign: make(map[*endpoint]uint64), behind: make(map[*endpoint]int)}
	for _, url := range c.Endpoints {
		p.order = append(p.order, &endpoint{pool: p, url: url, given: true, left: make(chan struct{})})
	}
	return p
}

// list is the endpoints in the order in which to try them.
func (p *pool) list() []*endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.order)
}

// first is the preferred endpoint, and a channel that is closed when it is left.
func (p *pool) first() (*endpoint, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.order[0], p.order[0].left
}

// leave puts an endpoint behind the others, because it failed or did not answer.
func (p *pool) leave(e *endpoint, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.order, e)
	if i < 0 || len(p.order) == 1 || p.closed {
		return
	}
	p.order = append(slices.Delete(p.order, i, i+1), e)
	close(e.left)
	e.left = make(chan struct{})
	if i == 0 && e.works {
		p.config.Logger.Warn("etcd: leaving an endpoint", slog.String("endpoint", e.url), slog.String("next", p.order[0].url), slog.Any("error", why))
	}
	e.works = false
}

// members replaces the endpoints that members named by others. Those of the configuration stay: what members advertise
// may be of no use from here, such as etcd's default http://localhost:2379.
func (p *pool) members(urls []string) {
	var gone []*clientv3.Client
	defer func() {
		for _, cl := range gone {
			_ = cl.Close()
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.order = slices.DeleteFunc(p.order, func(e *endpoint) bool {
		drop := !e.given && !slices.Contains(urls, e.url)
		if drop {
			delete(p.foreign, e)
			delete(p.behind, e)
		}
		if drop && e.client != nil {
			gone = append(gone, e.client)
			e.client = nil
		}
		return drop
	})
	for _, url := range urls {
		if !slices.ContainsFunc(p.order, func(e *endpoint) bool { return e.url == url }) {
			p.order = append(p.order, &endpoint{pool: p, url: url, left: make(chan struct{})})
		}
	}
}

// close closes all connections, for good.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	var all []*clientv3.Client
	for _, e := range p.order {
		if e.client != nil {
			all = append(all, e.client)
			e.client = nil
		}
	}
	p.mu.Unlock()
	for _, cl := range all {
		_ = cl.Close() // the error is that its context has ended
	}
}

// connect returns the connection, which may have to be made still: gRPC makes it when it is used. fresh says that nobody had
// asked for it before.
func (e *endpoint) connect() (cl *clientv3.Client, fresh bool, err error) {
	e.pool.mu.Lock()
	defer e.pool.mu.Unlock()
	switch {
	case e.pool.closed:
		return nil, false, dcs.ErrClosed
	case e.client != nil:
		return e.client, false, nil
	}
	if cl, err = e.dial(); err != nil {
		return nil, true, err
	}
	e.client = cl
	return cl, true, nil
}

// drop gives up a connection that could not be made, unless that happened already. The next connect tries at once, with
// the certificates as they are then, where gRPC would wait for longer and longer.
func (e *endpoint) drop(cl *clientv3.Client) {
	e.pool.mu.Lock()
	same := cl != nil && e.client == cl
	if same {
		e.client = nil
	}
	e.pool.mu.Unlock()
	if same {
		_ = cl.Close() // the error is that its context has ended
	}
}

// dial makes a client for one endpoint. It does not connect yet.
//
// PermitWithoutStream stays off: etcd takes pings on a connection without a request or watch for an attack, and closes it
// after the third. With requests to send, a dead connection is noticed by their own deadlines.
func (e *endpoint) dial() (*clientv3.Client, error) {
	tlsConf, err := e.pool.config.tlsConfig()
	if err != nil {
		return nil, err
	}
	conf := clientv3.Config{
		Endpoints:            []string{e.url},
		TLS:                  tlsConf,          // not used when the URL is http
		DialKeepAliveTime:    10 * time.Second, // gRPC's least
		DialKeepAliveTimeout: 3 * time.Second,  // and, as TCP_USER_TIMEOUT, for what the peer's kernel does not take
		MaxUnaryRetries:      1,                // one attempt: trying again is decided in call.go
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithNoProxy(), // HTTPS_PROXY in the environment is not meant for this
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
				MinConnectTimeout: 5 * time.Second,
			}),
			grpc.WithChainUnaryInterceptor(e.unary),
			grpc.WithChainStreamInterceptor(stream),
			grpc.WithStatsHandler(sentHandler{}),
		},
	}
	if e.pool.tokens.user != "" {
		conf.DialOptions = append(conf.DialOptions, grpc.WithPerRPCCredentials(e.pool.tokens))
	}
	return clientv3.New(conf)
}
