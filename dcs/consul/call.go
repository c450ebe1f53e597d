package consul

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

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
	mostHedge    = 500 * time.Millisecond // the longest that an answer is waited for before the call is made again
	leastHedge   = 20 * time.Millisecond  // the shortest
	mostAttempts = 4                      // at the same time
	firstPause   = 25 * time.Millisecond  // after every endpoint has failed
	mostPause    = 400 * time.Millisecond // ... for the fifth time and later
	stragglerOK  = 5 * time.Millisecond   // how long calls that were cancelled are waited for
)

// call is one call to the store, made at one endpoint or several until there is an answer.
type call[R any] struct {
	store  *Store
	manner manner
	do     func(context.Context, *api.Client) (R, error)

	ctx     context.Context
	replies chan reply[R]
	over    chan struct{} // closed when nobody receives replies any more
	running []*attempt

	tried     map[*endpoint]bool  // and failed, in this round
	last      map[*endpoint]error // the last failure of each
	bars      map[*endpoint]bool  // whether only a change of settings mends it
	maybe     error               // why the outcome may be unknown, when it may
	rejection error               // what was refused while the outcome may be unknown
	pause     time.Duration
}

// attempt is a call at one endpoint.
type attempt struct {
	endpoint *endpoint
	cancel   context.CancelCauseFunc
	note     note
}

// reply is what came of an attempt.
type reply[R any] struct {
	attempt *attempt
	result  R
	err     error
}

// errSlow is why an attempt is given up, or its endpoint left.
var errSlow = errors.New("it did not answer in time")

// run makes a call. It returns by the end of ctx.
func run[R any](ctx context.Context, s *Store, m manner, do func(context.Context, *api.Client) (R, error)) (R, error) {
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
	return c.loop()
}

// loop is the life of a call: an event is a reply, or that a while has passed without one.
func (c *call[R]) loop() (R, error) {
	var none R
	hedge := hedgeAfter(c.ctx)
	timer := time.NewTimer(hedge)
	defer timer.Stop()
	c.start()
	for {
		select {
		case r := <-c.replies:
			result, finished, err := c.settle(r)
			if finished {
				return result, err
			}
			started := c.mayStart() && c.start()
			if !started && len(c.running) == 0 { // every endpoint has failed in this round
				if c.hopeless() {
					return none, c.failure(nil)
				}
				c.pause = min(max(2*c.pause, firstPause), mostPause)
				timer.Reset(c.pause)
				continue
			}
			timer.Reset(hedge)
		case <-timer.C:
			c.overdue()
			timer.Reset(hedge)
		case <-c.ctx.Done():
			return c.ended()
		}
	}
}

// hedgeAfter is a third of the time that is left, so that three attempts fit.
func hedgeAfter(ctx context.Context) time.Duration {
	end, _ := ctx.Deadline()
	return min(max(time.Until(end)/3, leastHedge), mostHedge)
}

// start makes an attempt at the first of the endpoints that have the fewest running and have not failed in this round. It
// says whether there was one.
func (c *call[R]) start() bool {
	if len(c.running) >= mostAttempts {
		return false
	}
	var next *endpoint
	fewest := mostAttempts
	for _, e := range c.store.pool.all() {
		n := 0
		for _, a := range c.running {
			if a.endpoint == e {
				n++
			}
		}
		if !c.tried[e] && n < fewest {
			next, fewest = e, n
		}
	}
	if next == nil {
		return false
	}
	a := &attempt{endpoint: next}
	ctx, cancel := context.WithCancelCause(c.ctx)
	a.cancel = cancel
	c.running = append(c.running, a)
	go func() {
		defer cancel(nil)
		result, err := c.do(a.note.watch(ctx), next.client)
		if err != nil && c.ctx.Err() == nil && errors.Is(context.Cause(ctx), errSlow) {
			err = errSlow
		}
		select {
		case c.replies <- reply[R]{a, result, err}:
		case <-c.over:
		}
	}()
	return true
}

// mayStart says whether another attempt is allowed beside those that run.
func (c *call[R]) mayStart() bool {
	return c.rejection == nil && (c.manner != once || len(c.running) == 0)
}

// settle takes a reply in, and says whether it ends the call.
func (c *call[R]) settle(r reply[R]) (result R, finished bool, err error) {
	c.forget(r.attempt)
	e := r.attempt.endpoint
	v, why := judge(r.err, r.attempt.note.sent.Load(), int(r.attempt.note.status.Load()))
	if v != done {
		why = fmt.Errorf("%s: %w", e.url, why)
	}
	switch v {
	case done:
		for _, slow := range c.running {
			if slow.endpoint != e {
				c.store.pool.leave(slow.endpoint)
			}
		}
		return r.result, true, nil
	case refused:
		if c.manner != fenced || c.maybe == nil && !c.anySent() {
			return result, true, why
		}
		c.rejection = why
		if c.maybe == nil {
			c.maybe = errors.New("it was sent twice")
		}
		if len(c.running) > 0 {
			return result, false, nil // one of them may still say that it succeeded
		}
		return result, true, c.failure(nil)
	case unknown:
		c.maybe, c.last[e], c.tried[e] = why, why, true
		c.store.pool.leave(e)
		return result, c.manner == once || c.rejection != nil && len(c.running) == 0, c.failure(nil)
	default:
		c.tried[e], c.last[e], c.bars[e] = true, why, v == barred
		c.store.pool.leave(e)
		return result, c.rejection != nil && len(c.running) == 0, c.failure(nil)
	}
}

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
		if a.note.sent.Load() {
			return true
		}
	}
	return false
}

// overdue is called when there was no reply for a while: ask another endpoint, too, or one that failed a while ago, or the
// same again. A server passes requests on to a leader that is dead for as long as it has not noticed, and then waits for
// an answer that does not come, where a new request would be answered. A call that must not be made twice waits on, unless
// it has not been sent. Connections that nobody uses at the moment may be as dead as that of the call, so new ones are made.
func (c *call[R]) overdue() {
	c.store.pool.close()
	switch {
	case c.rejection != nil: // only waiting for what was sent before
	case c.mayStart():
		clear(c.tried)
		c.start()
	case !c.running[0].note.sent.Load():
		c.running[0].cancel(errSlow) // its reply says whether it was sent in this moment; if not, the next endpoint is tried
	}
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
			e := r.attempt.endpoint
			switch v, why := judge(r.err, r.attempt.note.sent.Load(), int(r.attempt.note.status.Load())); v {
			case done:
				return r.result, nil // in the last moment
			case unknown:
				c.maybe = cause
				c.last[e] = fmt.Errorf("%s: no answer", e.url)
			case refused:
				if c.manner != fenced || c.maybe == nil && !c.anySent() {
					return none, fmt.Errorf("%s: %w", e.url, why)
				}
				c.maybe = cause
			default:
				if c.last[e] == nil {
					c.last[e] = fmt.Errorf("%s: no connection yet", e.url)
				}
			}
			if errors.Is(cause, context.DeadlineExceeded) {
				c.store.pool.leave(e)
				c.store.pool.close()
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
	for _, e := range c.store.pool.all() {
		if !c.bars[e] {
			return false
		}
	}
	return true
}

// failure is the error of the call: of the kind dcs.ErrUnknown when it may have happened, and with what each endpoint
// said last. cause is why the context ended, if it did.
func (c *call[R]) failure(cause error) error {
	var all failures
	if cause != nil {
		all = append(all, cause)
	}
	for _, e := range c.store.pool.all() {
		if err := c.last[e]; err != nil {
			all = append(all, err)
		}
	}
	if c.rejection != nil { // in words only: this is not the refusal that errors.Is would take it for
		all = append(all, errors.New(c.rejection.Error()+", perhaps because of the first attempt"))
	}
	if c.maybe != nil && c.manner != reading {
		return fmt.Errorf("%w: %w", dcs.ErrUnknown, all)
	}
	return all
}

// failures is several errors in one line.
type failures []error

// Error implements error.
func (f failures) Error() string {
	words := make([]string, len(f))
	for i, err := range f {
		words[i] = err.Error()
	}
	return strings.Join(words, "; ")
}

// Unwrap is for errors.Is and errors.As.
func (f failures) Unwrap() []error { return f }
