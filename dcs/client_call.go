package dcs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// subject is what a call is about, made into words only when there is an error.
type subject struct {
	text string
	txn  *Txn
}

func (s subject) String() string {
	if s.txn == nil {
		return s.text
	}
	keys := make([]string, 0, len(s.txn.Then)+len(s.txn.If))
	for _, o := range s.txn.Then {
		keys = append(keys, o.Key)
	}
	if len(keys) == 0 {
		for _, c := range s.txn.If {
			keys = append(keys, c.Key)
		}
	}
	return strings.Join(keys, ",")
}

// wrap says what was being done: "dcs: commit lease,leader: cause".
func wrap(call Call, about subject, err error) error {
	if s := about.String(); s != "" {
		return fmt.Errorf("dcs: %s %s: %w", call, s, err)
	}
	return fmt.Errorf("dcs: %s: %w", call, err)
}

// changes says whether a call may change something on the server, so that its outcome can be unknown.
func (c Call) changes() bool { return c != CallRead && c != CallWatch }

// grace is how long after its context has ended a call is waited for, so that the backend's own answer counts, which may
// know more ("not sent"). Every backend that keeps the contract answers within it.
const grace = 10 * time.Millisecond

// run makes one call: limited, counted, its error put in context. late, when not nil, gets the result of an abandoned
// call that succeeded after all.
func run[R any](ctx context.Context, c *Client, call Call, about subject, do func(context.Context) (R, error), late func(R)) (R, error) {
	var none R
	if err := ctx.Err(); err != nil { // nothing was sent, and nothing will be
		c.stats.refuse(call)
		return none, wrap(call, about, err)
	}
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.timeout,
			fmt.Errorf("no answer within %v: %w", c.timeout, context.DeadlineExceeded))
		defer cancel()
	}
	start := c.clock.Now()
	r, err := guarded(ctx, do, late)
	err = classify(ctx, call, err)
	c.stats.end(call, outcomeOf(err), errors.Is(err, errAbandoned), c.clock.Now()-start)
	if err != nil {
		return none, wrap(call, about, err)
	}
	return r, nil
}

// guarded calls do and returns when it does, or when ctx has ended and the grace is over, whichever is first. A context
// that cannot end needs no guard and costs no goroutine.
func guarded[R any](ctx context.Context, do func(context.Context) (R, error), late func(R)) (R, error) {
	if ctx.Done() == nil {
		return do(ctx)
	}
	type reply struct {
		r   R
		err error
	}
	replies := make(chan reply, 1)
	var settled atomic.Bool // set by whoever is first: the reply, or giving up on it
	go func() {
		r, err := do(ctx)
		switch {
		case settled.CompareAndSwap(false, true):
			replies <- reply{r, err}
		case err == nil && late != nil:
			late(r)
		}
	}()
	select {
	case p := <-replies:
		return p.r, p.err
	case <-ctx.Done():
	}
	wait := time.NewTimer(grace)
	defer wait.Stop()
	select {
	case p := <-replies:
		return p.r, p.err
	case <-wait.C:
	}
	if settled.CompareAndSwap(false, true) {
		var none R
		return none, fmt.Errorf("%w: %w", errAbandoned, context.Cause(ctx))
	}
	p := <-replies
	return p.r, p.err
}

// classify makes ErrUnknown of an error that may mean "sent, and never heard of again". It does not trust a backend with
// that once the context has ended: to take a refusal for unknown costs a read, the reverse costs a second writer.
func classify(ctx context.Context, call Call, err error) error {
	switch {
	case err == nil || !call.changes() || definite(err):
		return err
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	default:
		return err
	}
}

// definite says that err is of a kind that no ended context can make less certain, or is ErrUnknown already.
func definite(err error) bool {
	for _, kind := range [...]error{ErrUnknown, ErrConflict, ErrSessionLost, ErrTooLarge, ErrMalformed, ErrClosed} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
