package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgregent/pgregent/dcs"
)

// session is a lease.
type session struct {
	store *Store
	lease clientv3.LeaseID
	ttl   time.Duration
	ended atomic.Bool // the server said so; a lease never comes back
}

var _ dcs.Session = (*session)(nil)

// OpenSession implements dcs.Store. The TTL is rounded up to whole seconds; the server makes it longer when it is less than
// one and a half of its election time-outs. An unknown outcome leaves at most a lease without keys, which ends by itself.
func (s *Store) OpenSession(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
	seconds := max(int64(math.Ceil(ttl.Seconds())), s.minTTL.Load())
	resp, err := run(ctx, s, again, func(ctx context.Context, _ *endpoint, cl *clientv3.Client) (*clientv3.LeaseGrantResponse, error) {
		return cl.Grant(ctx, seconds)
	})
	if err != nil {
		return nil, err
	}
	if resp.TTL > seconds {
		s.config.Logger.WarnContext(ctx, "etcd: the servers keep no shorter sessions, because of their election time-out", "asked", seconds, "seconds", resp.TTL)
		s.minTTL.Store(resp.TTL)
	}
	return &session{store: s, lease: resp.ID, ttl: time.Duration(resp.TTL) * time.Second}, nil
}

// ID implements dcs.Session: the lease in 16 hexadecimal digits.
func (n *session) ID() string { return sessionID(int64(n.lease)) }

// TTL implements dcs.Session.
func (n *session) TTL() time.Duration { return n.ttl }

// Renew implements dcs.Session. It proves that the lease lives and nothing about its keys (hazard A7).
func (n *session) Renew(ctx context.Context) error {
	if n.ended.Load() {
		return dcs.ErrSessionLost
	}
	_, err := run(ctx, n.store, again, func(ctx context.Context, e *endpoint, cl *clientv3.Client) (struct{}, error) {
		return struct{}{}, keepAlive(ctx, e, cl, n.lease)
	})
	if errors.Is(err, dcs.ErrSessionLost) {
		n.ended.Store(true)
	}
	return err
}

// keepAlive renews a lease once. Client.KeepAliveOnce does the same, but tries again for ever, without a pause, when the
// server is unavailable.
func keepAlive(ctx context.Context, e *endpoint, cl *clientv3.Client, lease clientv3.LeaseID) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewLeaseClient(cl.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(lease)}); err != nil && !errors.Is(err, io.EOF) {
		return err // at io.EOF the reason comes from Recv
	}
	_ = stream.CloseSend() // so that the stream ends in good order; if that fails, Recv does, too
	resp, err := stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the renewal was not answered: %w", io.ErrUnexpectedEOF)
	case err != nil:
		return err
	}
	if err := e.identify(cl.ActiveConnection(), resp.Header); err != nil {
		return err // another cluster does not know the lease, which says nothing
	}
	if resp.TTL <= 0 {
		return dcs.ErrSessionLost
	}
	return nil
}

// Close implements dcs.Session, by revoking the lease.
func (n *session) Close(ctx context.Context) error {
	if n.ended.Load() {
		return nil
	}
	_, err := run(ctx, n.store, again, func(ctx context.Context, _ *endpoint, cl *clientv3.Client) (struct{}, error) {
		_, err := cl.Revoke(ctx, n.lease)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			err = nil // it has ended already
		}
		return struct{}{}, err
	})
	if err == nil {
		n.ended.Store(true)
	}
	return err
}
