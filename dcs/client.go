package dcs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Client is a Store over another Store. It adds what every user of a Store needs and no backend should have to write:
//
//   - a time-out for each call, and the certainty that no call outlives its context by more than 10 ms, also over a
//     backend that ignores it: such a call is abandoned, and counted (CallStats.Abandoned);
//   - errors that say what was being done: "dcs: commit lease,leader: a condition does not hold", still recognised by
//     errors.Is;
//   - the right kind of error when the context ends: a Commit, OpenSession, Renew or session Close that was in flight by
//     then is ErrUnknown, whatever the backend makes of it; one that had not been started is not;
//   - refusal of a malformed Txn (ErrMalformed) or one above Limits (ErrTooLarge) before it is sent;
//   - counters and latencies (Stats).
//
// It retries nothing and caches nothing: only the caller knows whether an unknown outcome may be tried again.
//
// An abandoned call may still be performed later, as any request may that timed out. A session that
// an abandoned OpenSession still brings is closed.
type Client struct {
	store   Store
	timeout time.Duration
	clock   Clock
	stats   counters
}

var _ Store = (*Client)(nil)

// ClientOptions is what may be set on a Client. The zero value is useful.
type ClientOptions struct {
	// Timeout limits each call, in addition to its context; for Watch it limits the setting up. 0 or less: the context
	// alone decides.
	Timeout time.Duration

	// Clock measures latencies. Nil means a ProcessClock.
	Clock Clock
}

// NewClient returns a Client over s. o may be nil. Closing the Client closes s.
func NewClient(s Store, o *ClientOptions) *Client {
	c := &Client{store: s}
	if o != nil {
		c.timeout, c.clock = o.Timeout, o.Clock
	}
	if c.clock == nil {
		c.clock = ProcessClock()
	}
	return c
}

// ErrMalformed says that a Txn breaks the rules that Txn, Cond and Op state. Nothing was sent.
var ErrMalformed = errors.New("the transaction is malformed")

// errAbandoned marks a call that did not return when its context had ended.
var errAbandoned = errors.New("the backend did not return when the context ended")

// Validate returns ErrMalformed, with the reason, when t breaks a rule that holds for every Store: keys are not empty and
// do not begin with '/', no key appears twice in If nor twice in Then, and a Delete has neither value nor session.
func (t Txn) Validate() error {
	for i, c := range t.If {
		if err := validKey(c.Key); err != nil {
			return fmt.Errorf("%w: condition %d: %w", ErrMalformed, i+1, err)
		}
		for _, d := range t.If[:i] {
			if c.Key == d.Key {
				return fmt.Errorf("%w: two conditions on the key %q; keep one", ErrMalformed, c.Key)
			}
		}
	}
	for i, o := range t.Then {
		if err := validKey(o.Key); err != nil {
			return fmt.Errorf("%w: operation %d: %w", ErrMalformed, i+1, err)
		}
		if o.Delete && (o.Session != "" || len(o.Value) != 0) {
			return fmt.Errorf("%w: the delete of %q has a value or a session; leave them empty", ErrMalformed, o.Key)
		}
		for _, p := range t.Then[:i] {
			if o.Key == p.Key {
				return fmt.Errorf("%w: two operations on the key %q; keep one", ErrMalformed, o.Key)
			}
		}
	}
	return nil
}

func validKey(key string) error {
	switch {
	case key == "":
		return errors.New("the key is empty")
	case key[0] == '/':
		return fmt.Errorf("the key %q begins with '/'; keys are relative to the prefix", key)
	}
	return nil
}

// Check returns ErrTooLarge, with the numbers, when t is above l.
func (l Limits) Check(t Txn) error {
	if n := len(t.If) + len(t.Then); l.MaxOps > 0 && n > l.MaxOps {
		return fmt.Errorf("%w: %d conditions and operations, at most %d", ErrTooLarge, n, l.MaxOps)
	}
	for _, o := range t.Then {
		if l.MaxValue > 0 && len(o.Value) > l.MaxValue {
			return fmt.Errorf("%w: the value of %q has %d bytes, at most %d", ErrTooLarge, o.Key, len(o.Value), l.MaxValue)
		}
	}
	return nil
}

// Read implements Store.
func (c *Client) Read(ctx context.Context) (Snapshot, error) {
	return run(ctx, c, CallRead, subject{}, c.store.Read, nil)
}

// Commit implements Store.
func (c *Client) Commit(ctx context.Context, txn Txn) (Result, error) {
	about := subject{txn: &txn}
	err := txn.Validate()
	if err == nil {
		err = c.Limits().Check(txn)
	}
	if err != nil {
		c.stats.refuse(CallCommit)
		return Result{}, wrap(CallCommit, about, err)
	}
	return run(ctx, c, CallCommit, about, func(ctx context.Context) (Result, error) { return c.store.Commit(ctx, txn) }, nil)
}

// Watch implements Store. The time-out limits the setting up, not the life of the watch.
func (c *Client) Watch(ctx context.Context, keys ...string) (<-chan struct{}, error) {
	// The watch lives in a context of its own, which ends with the caller's, or when the setting up took too long.
	watchCtx, cancel := context.WithCancel(ctx)
	ch, err := run(ctx, c, CallWatch, subject{text: strings.Join(keys, ",")},
		func(setup context.Context) (<-chan struct{}, error) {
			stop := context.AfterFunc(setup, cancel)
			ch, err := c.store.Watch(watchCtx, keys...)
			if err == nil && !stop() {
				return nil, context.Cause(setup)
			}
			return ch, err
		}, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	context.AfterFunc(ctx, cancel) // from here on nothing but the caller ends the watch
	return ch, nil
}

// OpenSession implements Store.
func (c *Client) OpenSession(ctx context.Context, ttl time.Duration) (Session, error) {
	late := func(s Session) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ttl)
		defer cancel()
		_ = s.Close(ctx) // nobody knows of it; if this fails, it ends by itself after its ttl
	}
	s, err := run(ctx, c, CallOpenSession, subject{}, func(ctx context.Context) (Session, error) {
		return c.store.OpenSession(ctx, ttl)
	}, late)
	if err != nil {
		return nil, err
	}
	return &clientSession{Session: s, client: c}, nil
}

// Limits implements Store. They are the backend's as it knows them now: it may learn of the server's in use.
func (c *Client) Limits() Limits { return c.store.Limits() }

// Close implements Store.
func (c *Client) Close() error {
	if err := c.store.Close(); err != nil {
		return fmt.Errorf("dcs: close: %w", err)
	}
	return nil
}

// Stats returns the counters as they are now. It may be called at any time and does not wait.
func (c *Client) Stats() Stats { return c.stats.snapshot() }

// clientSession is a session under the same rules as its Client.
type clientSession struct {
	Session
	client *Client
}

// Renew implements Session.
func (s *clientSession) Renew(ctx context.Context) error {
	_, err := run(ctx, s.client, CallRenew, subject{text: s.ID()}, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.Session.Renew(ctx)
	}, nil)
	return err
}

// Close implements Session.
func (s *clientSession) Close(ctx context.Context) error {
	_, err := run(ctx, s.client, CallCloseSession, subject{text: s.ID()}, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.Session.Close(ctx)
	}, nil)
	return err
}
