package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pgregent/pgregent/dcs"
)

// manner is how often a call may be made.
type manner int

const (
	reading manner = iota // as often as needed: it changes nothing
	again                 // as often as needed: twice is as good as once
	fenced                // as often as needed: only the first can succeed. A refusal after the first may be due to the first
	once                  // must not be made again once the server may have it
)

const (
	mostHedge       = 500 * time.Millisecond // the longest that an endpoint is waited for before the next is asked, too
	leastHedge      = 20 * time.Millisecond  // the shortest
	mostPerEndpoint = 4                      // attempts at the same time
	firstPause      = 50 * time.Millisecond  // after every endpoint has failed
	mostPause       = 500 * time.Millisecond // ... for the fourth time and later
	stragglerOK     = 5 * time.Millisecond   // how long calls that were cancelled are waited for
)

// call is one call to the store, made at one endpoint or several until there is an answer.
type call[R any] struct {
	store  *Store
	manner manner
	do     func(context.Context, *endpoint, *clientv3.Client) (R, error)

	ctx     context.Context
	replies chan reply[R]
	over    chan struct{} // closed when nobody receives replies any more
	running []*attempt
	probed  bool

	tried     map[*endpoint]bool  // and failed, in this round
	last      map[*endpoint]error // the last failure of each
	bars      map[*endpoint]bool  // whether it is known that only a change of settings mends it
	maybe     error               // why the outcome may be unknown, when it may
	rejection error               // what was refused while the outcome may be unknown
	pause     time.Duration
}

// attempt is a call at one endpoint.
type attempt struct {
	endpoint *endpoint
	ctx      context.Context
	cancel   context.CancelCauseFunc
	sent     sent
	fresh    bool // it made the connection
}

// reply is what came of an attempt.
type reply[R any] struct {
	attempt *attempt
	result  R
	err     error
}

// run makes a call. It returns by the end of ctx.
func run[R any](ctx context.Context, s *Store, m manner, do func(context.Context, *endpoint, *clientv3.Client) (R, error)) (R, error) {
	var none R
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if s.ctx.Err() != nil {
		return none, dcs.ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(dcs.ErrClosed) })()
	if _, limited := ctx.Deadline(); !limited {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, s.config.Timeout)
		defer stop()
	}
	c := &call[R]{store: s, manner: m, do: do, ctx: ctx, replies: make(chan reply[R]), over: make(chan struct{}),
		tried: make(map[*endpoint]bool), last: make(map[*endpoint]error), bars: make(map[*endpoint]bool)}
	defer close(c.over)
	r, err := c.loop()
	if err == nil {
		s.discoverSometimes()
	}
	return r, err
}

// loop is the life of a call: an event is a reply, or that a while has passed without one.
func (c *call[R]) loop() (R, error) {
	var none R
	hedge := hedgeAfter(c.ctx)
	timer := time.NewTimer(hedge)
	defer timer.Stop()
	c.start(1)
	for {
		select {
		case r := <-c.replies:
			result, finished, err := c.settle(r)
			if finished {
				return result, err
			}
			started := c.mayStart() && c.start(1)
			if !started && len(c.running) == 0 { // every endpoint has failed in this round
				if c.hopeless() {
					return none, c.failure(nil)
				}
				timer.Reset(c.nextPause())
				continue
			}
			timer.Reset(hedge)
		case <-timer.C:
			c.overdue(hedge)
			timer.Reset(hedge)
		case <-c.ctx.Done():
			return c.ended()
		}
	}
}

// hedgeAfter is a third of the time that is left, so that three endpoints can be tried.
func hedgeAfter(ctx context.Context) time.Duration {
	end, _ := ctx.Deadline()
	return min(max(time.Until(end)/3, leastHedge), mostHedge)
}

// nextPause is how long to wait before all endpoints are tried again.
func (c *call[R]) nextPause() time.Duration {
	c.pause = min(max(2*c.pause, firstPause), mostPause)
	clear(c.tried)
	return c.pause
}

// start makes an attempt at the first of the endpoints that have the fewest running, less than most, and have not failed in
// this round. It says whether there was one.
func (c *call[R]) start(most int) bool {
	var next *endpoint
	for _, e := range c.store.pool.list() {
		if n := c.runs(e); !c.tried[e] && n < most {
			next, most = e, n
		}
	}
	if next == nil {
		return false
	}
	c.attempt(next)
	return true
}

// mayStart says whether another attempt is allowed beside those that run.
func (c *call[R]) mayStart() bool {
	return c.rejection == nil && (c.manner != once || len(c.running) == 0)
}

// runs counts the attempts at an endpoint.
func (c *call[R]) runs(e *endpoint) (n int) {
	for _, a := range c.running {
		if a.endpoint == e {
			n++
		}
	}
	return n
}

func (c *call[R]) attempt(e *endpoint) {
	a := &attempt{endpoint: e}
	a.ctx, a.cancel = context.WithCancelCause(c.ctx)
	c.running = append(c.running, a)
	go func() {
		defer a.cancel(nil)
		result, err := at(a.ctx, a, c.do)
		if err != nil && c.ctx.Err() == nil && errors.Is(context.Cause(a.ctx), errSlow) {
			err = errSlow
		}
		select {
		case c.replies <- reply[R]{a, result, err}:
		case <-c.over:
		}
	}()
}

// at makes one attempt, with a token when one is needed. A token that is refused is replaced once: the server has done
// nothing then.
func at[R any](ctx context.Context, a *attempt, do func(context.Context, *endpoint, *clientv3.Client) (R, error)) (result R, err error) {
	e := a.endpoint
	cl, fresh, err := e.connect()
	a.fresh = fresh
	if err != nil {
		return result, err
	}
	defer func() {
		if status.Code(err) == codes.Unavailable && !a.sent.flag.Load() {
			e.drop(cl) // the connection was not made
		}
	}()
	t := e.pool.tokens
	known := t.generation()
	if known == 0 {
		if err := t.renew(ctx, cl, known); err != nil {
			return result, err
		}
		known = t.generation()
	}
	for again := false; ; again = true {
		a.sent.flag.Store(false)
		err = e.verify(ctx, cl)
		if err == nil {
			result, err = do(a.sent.watch(ctx), e, cl)
		}
		if again || t.user == "" || !tokenRefused(err) {
			return result, err
		}
		if err := t.renew(ctx, cl, known); err != nil {
			return result, err
		}
	}
}

// settle takes a reply in, and says whether it ends the call.
func (c *call[R]) settle(r reply[R]) (result R, finished bool, err error) {
	c.forget(r.attempt)
	e := r.attempt.endpoint
	v, why := judge(r.err, r.attempt.sent.flag.Load())
	if v != done {
		why = fmt.Errorf("%s: %w", e.url, why)
	}
	switch v {
	case done:
		for _, slow := range c.running {
			if slow.endpoint != e {
				c.store.pool.leave(slow.endpoint, errSlow)
			}
		}
		return r.result, true, nil
	case refused:
		if c.manner != fenced || c.maybe == nil && !c.anySent() {
			return result, true, why
		}
		c.rejection = why
		if c.maybe == nil {
			c.maybe = errors.New("it was sent to two endpoints")
		}
		if len(c.running) > 0 {
			return result, false, nil // one of them may still say that it succeeded
		}
		return result, true, c.failure(nil)
	case unknown:
		c.maybe, c.last[e], c.tried[e] = why, why, true
		c.store.pool.leave(e, r.err)
		return result, c.manner == once, c.failure(nil)
	default:
		c.tried[e] = true
		if !c.bars[e] { // or keep to what is known: what a server says about a certificate may get lost when it hangs up
			// An older connection may have failed with certificates that have been replaced since.
			c.last[e], c.bars[e] = why, v == barred && (r.attempt.fresh || r.attempt.sent.flag.Load())
		}
		c.store.pool.leave(e, r.err)
		return result, false, nil
	}
}

// errSlow is why an endpoint is left that was overtaken.
var errSlow = errors.New("it did not answer in time")

func (c *call[R]) forget(a *attempt) {
	for i := range c.running {
		if c.running[i] == a {
			c.running = append(c.running[:i], c.running[i+1:]...)
			return
		}
	}
}

// anySent says whether an attempt that runs may have reached its server.
func (c *call[R]) anySent() bool {
	for _, a := range c.running {
		if a.sent.flag.Load() {
			return true
		}
	}
	return false
}

// overdue is called when there was no reply for a while: ask another endpoint, too, or one that failed a while ago, or the
// same again. A follower passes requests on to a leader that is dead for as long as it has not noticed, and then waits for
// an answer that does not come, where a new request would be answered. A call that must not be made twice waits on, as long
// as the endpoint lives.
func (c *call[R]) overdue(hedge time.Duration) {
	switch {
	case c.rejection != nil: // only waiting for what was sent before
	case c.mayStart():
		clear(c.tried)
		c.start(mostPerEndpoint)
	case !c.running[0].sent.flag.Load():
		c.running[0].cancel(errSlow) // its reply says whether it was sent in this moment; if not, the next endpoint is tried
	case !c.probed:
		c.probed = true
		a := c.running[0]
		go func() {
			ctx, cancel := context.WithTimeout(c.ctx, hedge)
			defer cancel()
			if !a.endpoint.alive(ctx) && c.ctx.Err() == nil {
				a.cancel(errSlow)
			}
		}()
	}
}

// alive asks an endpoint for something that it can answer by itself, without a leader.
func (e *endpoint) alive(ctx context.Context) bool {
	cl, _, err := e.connect()
	if err != nil {
		return false
	}
	_, err = pb.NewKVClient(cl.ActiveConnection()).Range(ctx, &pb.RangeRequest{Key: []byte{0}, Serializable: true, CountOnly: true})
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return false
	}
	return true // also when it is an error: somebody answered
}

// ended is called when the context has ended.
func (c *call[R]) ended() (R, error) {
	var none R
	cause := context.Cause(c.ctx)
	straggler := time.NewTimer(stragglerOK)
	defer straggler.Stop()
	for len(c.running) > 0 {
		select {
		case r := <-c.replies:
			c.forget(r.attempt)
			switch v, why := judge(r.err, r.attempt.sent.flag.Load()); v {
			case done:
				return r.result, nil // in the last moment
			case unknown:
				c.maybe = cause
				c.last[r.attempt.endpoint] = fmt.Errorf("%s: no answer", r.attempt.endpoint.url)
			case refused:
				if c.manner != fenced || c.maybe == nil && !c.anySent() {
					return none, fmt.Errorf("%s: %w", r.attempt.endpoint.url, why)
				}
				c.maybe = cause
			default:
				if c.last[r.attempt.endpoint] == nil {
					c.last[r.attempt.endpoint] = fmt.Errorf("%s: no connection yet", r.attempt.endpoint.url)
				}
			}
			if errors.Is(cause, context.DeadlineExceeded) {
				c.store.pool.leave(r.attempt.endpoint, errSlow)
			}
		case <-straggler.C:
			c.maybe = cause
			return none, c.failure(cause)
		}
	}
	return none, c.failure(cause)
}

// hopeless says that all endpoints are known to fail until somebody changes settings.
func (c *call[R]) hopeless() bool {
	if c.maybe != nil {
		return false
	}
	for _, e := range c.store.pool.list() {
		if !c.bars[e] {
			return false
		}
	}
	return true
}
