package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/pgregent/dcs"
)

// session is a session of Consul.
type session struct {
	store *Store
	id    string
	ttl   time.Duration
	ended atomic.Bool // the server said so; a session never comes back
}

var _ dcs.Session = (*session)(nil)

// OpenSession implements dcs.Store. The TTL is rounded up to whole seconds, and up to the servers' minimum. An unknown
// outcome leaves at most a session without keys, which ends by itself.
func (s *Store) OpenSession(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
	for {
		least := time.Duration(s.minTTL.Load())
		asked := max((ttl + time.Second - 1).Truncate(time.Second), least)
		// The server ends it after twice what it is told.
		told := max((asked+1)/2, least).Round(time.Millisecond)
		id, err := run(ctx, s, again, func(ctx context.Context, cl *api.Client) (string, error) { return s.create(ctx, cl, told) })
		if bound, ok := shortestOf(err); ok && bound > least {
			s.config.Logger.WarnContext(ctx, "consul: the servers keep no shorter sessions (session_ttl_min)", "asked", told, "shortest", bound)
			s.minTTL.CompareAndSwap(int64(least), int64(bound))
			continue
		}
		if err != nil {
			return nil, err
		}
		return &session{store: s, id: id, ttl: asked}, nil
	}
}

// create makes a session that lives for twice ttl.
func (s *Store) create(ctx context.Context, cl *api.Client, ttl time.Duration) (string, error) {
	entry := &api.SessionEntry{
		Name: s.config.SessionName, Behavior: api.SessionBehaviorDelete, TTL: ttl.String(),
		LockDelay: time.Millisecond, // without one Consul takes 15 s
		Checks:    s.config.Checks,
	}
	make := cl.Session().CreateNoChecks // a failing health check of the node would end the session
	if len(entry.Checks) > 0 {
		make = cl.Session().Create
	}
	id, _, err := make(entry, new(api.WriteOptions).WithContext(ctx))
	if err != nil && len(entry.Checks) == 0 && strings.Contains(err.Error(), "Missing node registration") {
		if entry.Node = serverNode(ctx, cl); entry.Node != "" {
			id, _, err = make(entry, new(api.WriteOptions).WithContext(ctx))
		} else {
			err = later("the agent is not in the catalog, and no other node is to be seen (a token needs service \"consul\" and node_prefix \"\" with read for that): %w", err)
		}
	}
	switch _, bound := shortestOf(err); {
	case bound:
		return "", fmt.Errorf("%w: %w", errNever, err)
	case err == nil && id == "":
		return "", fmt.Errorf("%w: its answer names no session", errNotConsul)
	}
	return id, err
}

// serverNode is the node of one of the servers, or empty when nobody says. A session belongs to a node of the catalog, that of
// the agent asked unless another is named. An agent that was restarted has left the catalog and takes seconds to come back to
// it, which a leader does not have (hazard A8); without checks, any node does.
func serverNode(ctx context.Context, cl *api.Client) string {
	servers, _, err := cl.Catalog().Service("consul", "", new(api.QueryOptions).WithContext(ctx))
	if err != nil || len(servers) == 0 {
		return ""
	}
	return servers[rand.IntN(len(servers))].Node
}

func shortestOf(err error) (time.Duration, bool) {
	if err == nil {
		return 0, false
	}
	return shortest(err)
}

// ID implements dcs.Session: a UUID, as Consul made it.
func (n *session) ID() string { return n.id }

// TTL implements dcs.Session.
func (n *session) TTL() time.Duration { return n.ttl }

// errRenewLater says that a server did not know a session that exists.
var errRenewLater = errors.New("the server is behind and does not know the session yet")

// Renew implements dcs.Session. It proves that the session lives and nothing about its keys (hazard A7). A server that does
// not know the session may have been replaced as the leader without noticing, so that is asked for again, consistently.
func (n *session) Renew(ctx context.Context) error {
	if n.ended.Load() {
		return dcs.ErrSessionLost
	}
	_, err := run(ctx, n.store, again, func(ctx context.Context, cl *api.Client) (struct{}, error) {
		entry, _, err := cl.Session().Renew(n.id, new(api.WriteOptions).WithContext(ctx))
		if err != nil || entry != nil {
			return struct{}{}, err
		}
		entry, meta, err := cl.Session().Info(n.id, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
		switch {
		case err != nil:
			return struct{}{}, later("%w", err)
		case entry != nil:
			return struct{}{}, later("%w", errRenewLater)
		}
		if err := trustworthy(meta); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, dcs.ErrSessionLost
	})
	if errors.Is(err, dcs.ErrSessionLost) {
		n.ended.Store(true)
	}
	return err
}

// Close implements dcs.Session.
func (n *session) Close(ctx context.Context) error {
	if n.ended.Load() {
		return nil
	}
	_, err := run(ctx, n.store, again, func(ctx context.Context, cl *api.Client) (struct{}, error) {
		_, err := cl.Session().Destroy(n.id, new(api.WriteOptions).WithContext(ctx)) // no error when it has ended already
		return struct{}{}, err
	})
	if err == nil {
		n.ended.Store(true)
	}
	return err
}
