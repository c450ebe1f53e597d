package etcd

import (
	"context"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// foreignError says that an endpoint serves another etcd cluster than those before. A member may advertise an address
// such as http://localhost:2379, at which a different etcd answers here; a lease taken there would be a second one.
type foreignError struct{ got, want uint64 }

// Error implements error.
func (e *foreignError) Error() string {
	return fmt.Sprintf("it belongs to the etcd cluster %x, the others to %x; take it out of the list, or restart this program if the cluster was replaced", e.got, e.want)
}

// staleError says that an answer is older than one before: the member has old data (hazard A13), or the cluster lost some.
type staleError struct{ got, want int64 }

// Error implements error.
func (e *staleError) Error() string {
	return fmt.Sprintf("it answers at revision %d and was at %d before: its data is old, or the cluster has lost some; restart this program if it was restored from a backup", e.got, e.want)
}

// identify checks which cluster an answer comes from. The first answer decides. Another cluster is accepted when all the
// endpoints of the configuration say the same one: then it was replaced.
func (e *endpoint) identify(conn *grpc.ClientConn, header *pb.ResponseHeader) error {
	got := header.GetClusterId()
	p := e.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case got == 0: // an answer without a header
		return nil
	case p.cluster == 0:
		p.cluster = got
	case p.cluster != got:
		p.foreign[e], e.known = got, nil
		if !e.given || slices.ContainsFunc(p.order, func(o *endpoint) bool { return o.given && p.foreign[o] != got }) {
			return &foreignError{got, p.cluster}
		}
		p.config.Logger.Warn("etcd: the cluster was replaced by another", "was", fmt.Sprintf("%x", p.cluster), "now", fmt.Sprintf("%x", got))
		p.cluster, p.revision = got, 0
		clear(p.foreign)
		clear(p.behind)
	}
	delete(p.foreign, e)
	e.works, e.known = true, conn
	return nil
}

// verify makes sure, before the first use of a connection, that it leads to the same cluster as those before. The very
// first connection needs no such question.
func (e *endpoint) verify(ctx context.Context, cl *clientv3.Client) error {
	e.pool.mu.Lock()
	known := e.pool.cluster == 0 || e.known == cl.ActiveConnection()
	e.pool.mu.Unlock()
	if known {
		return nil
	}
	resp, err := pb.NewMaintenanceClient(cl.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return err
	}
	return e.identify(cl.ActiveConnection(), resp.Header)
}

// unary is around every request: it fails when there is no connection (the etcd client would have it wait for one, also
// when there are other endpoints), and its answer must come from the right cluster and not from its past.
func (e *endpoint) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	seen := e.pool.newest()
	if err := invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...); err != nil {
		return err
	}
	r, ok := reply.(interface{ GetHeader() *pb.ResponseHeader })
	if !ok {
		return nil
	}
	if err := e.identify(cc, r.GetHeader()); err != nil || !linearizable(req) {
		return err
	}
	return e.advance(seen, r.GetHeader().GetRevision())
}

// linearizable says whether the answer to a request is as new as anything that was answered before the request was sent.
func linearizable(req any) bool {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return !r.Serializable
	case *pb.TxnRequest:
		return true
	}
	return false
}

// newest is the newest revision of all answers.
func (p *pool) newest() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.revision
}

// advance checks the revision of an answer to a request; seen is newest when it was sent. One that goes back is accepted
// only when all the endpoints of the configuration have insisted, twice each: then the cluster has lost data, and it does
// not help to go on without it.
func (e *endpoint) advance(seen, got int64) error {
	p := e.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if got >= seen {
		delete(p.behind, e)
		p.revision = max(p.revision, got)
		return nil
	}
	p.behind[e]++
	if !e.given || slices.ContainsFunc(p.order, func(o *endpoint) bool { return o.given && p.behind[o] < 2 }) {
		return &staleError{got, seen}
	}
	p.config.Logger.Error("etcd: the cluster has lost data", "was_at_revision", seen, "now_at", got)
	p.revision = got
	clear(p.behind)
	return nil
}

// stream is around the beginning of every stream, which fails when there is no connection.
func stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return streamer(ctx, desc, cc, method, append(opts, grpc.WaitForReady(false))...)
}
