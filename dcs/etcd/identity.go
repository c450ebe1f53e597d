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
		p.cluster = got
		clear(p.foreign)
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
// when there are other endpoints), and its answer must come from the right cluster.
func (e *endpoint) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if err := invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...); err != nil {
		return err
	}
	if r, ok := reply.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		return e.identify(cc, r.GetHeader())
	}
	return nil
}

// stream is around the beginning of every stream, which fails when there is no connection.
func stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return streamer(ctx, desc, cc, method, append(opts, grpc.WaitForReady(false))...)
}
