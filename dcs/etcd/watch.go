package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pgregent/pgregent/dcs"
)

const (
	watchSetUp     = 3 * time.Second       // the longest that a member may take to confirm a watch
	watchFirstWait = 50 * time.Millisecond // before a broken stream is made again
	watchMostWait  = 2 * time.Second       // ... after many failures in a row
	watchLag       = 2 * time.Second       // how much later than a Read a watch may learn of a change
)

// watch is one call of Watch. It has one stream at a time, with one watcher on it for each key. The stream begins with
// whatever happens after the server confirmed it, and one wake-up stands for all that was before: so there is no revision
// to resume from, and none that a compaction could have removed.
type watch struct {
	store *Store
	keys  []string // full names; none for all below the prefix
	ch    chan struct{}

	seen   atomic.Int64 // the newest revision that the stream has shown, or began with; 0 while there is none
	behind atomic.Int64 // since when a Read has shown a newer one, in nanoseconds since Store.started; 0 when not
	lagged chan struct{}
}

// Watch implements dcs.Store. It does not wait for the server: one wake-up follows when the watch is set up, now or later.
func (s *Store) Watch(ctx context.Context, keys ...string) (<-chan struct{}, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.ctx.Err() != nil {
		return nil, dcs.ErrClosed
	}
	if len(keys) > maxOps {
		return nil, fmt.Errorf("%w: %d keys to watch, at most %d", dcs.ErrTooLarge, len(keys), maxOps)
	}
	w := &watch{store: s, ch: make(chan struct{}, 1), lagged: make(chan struct{}, 1)}
	for _, k := range keys {
		w.keys = append(w.keys, s.prefix+k)
	}
	s.mu.Lock()
	s.watches[w] = struct{}{}
	s.mu.Unlock()
	go w.run(ctx)
	return w.ch, nil
}

// run keeps a stream until ctx ends.
func (w *watch) run(ctx context.Context) {
	defer close(w.ch)
	defer func() {
		w.store.mu.Lock()
		delete(w.store.watches, w)
		w.store.mu.Unlock()
	}()
	wait := watchFirstWait
	for ctx.Err() == nil && w.store.ctx.Err() == nil {
		e, left := w.store.pool.first()
		worked, err := w.stream(ctx, e, left)
		w.seen.Store(0)
		if ctx.Err() != nil || w.store.ctx.Err() != nil {
			break
		}
		level := slog.LevelDebug
		if worked {
			wait, level = watchFirstWait, slog.LevelInfo
		}
		if !errors.Is(err, errLeft) {
			w.store.config.Logger.Log(ctx, level, "etcd: a watch is set up again", slog.String("endpoint", e.url), slog.Any("error", err))
			w.store.pool.leave(e, err)
			pause(ctx, w.store.ctx, wait)
			wait = min(2*wait, watchMostWait)
		}
	}
	<-ctx.Done() // after Close of the Store, the channel stays open until then
}

// pause waits, or until one of the contexts ends.
func pause(a, b context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-a.Done():
	case <-b.Done():
	case <-timer.C:
	}
}

// Why a stream ends that did not break.
var (
	errLeft   = errors.New("another endpoint is preferred now")
	errLagged = errors.New("the watch lags behind what was read")
	errSetUp  = errors.New("the watch was not confirmed in time")
)

// stream watches at one endpoint until that breaks, or the endpoint is left. worked says whether it was set up.
func (w *watch) stream(ctx context.Context, e *endpoint, left <-chan struct{}) (worked bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.store.ctx, func() { cancel(dcs.ErrClosed) })()
	confirmed := make(chan struct{})
	go func() {
		timer := time.NewTimer(watchSetUp)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-left:
				cancel(errLeft)
			case <-w.lagged:
				cancel(errLagged)
			case <-timer.C:
				select {
				case <-confirmed:
				default:
					cancel(errSetUp)
				}
			}
		}
	}()
	cl, _, err := e.connect()
	if err != nil {
		return false, err
	}
	known := e.pool.tokens.generation()
	if known == 0 {
		if err := e.pool.tokens.renew(ctx, cl, known); err != nil {
			return false, err
		}
		known = e.pool.tokens.generation()
	}
	if err = e.verify(ctx, cl); err == nil {
		worked, err = w.receive(ctx, cl, confirmed)
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case tokenRefused(err):
		err = errors.Join(err, e.pool.tokens.renew(ctx, cl, known))
	case status.Code(err) == codes.Unavailable && !worked:
		e.drop(cl)
	}
	return worked, err
}

// receive sets a stream up and turns what comes into wake-ups.
func (w *watch) receive(ctx context.Context, cl *clientv3.Client, confirmed chan struct{}) (worked bool, err error) {
	// A member without a leader ends the stream, so that it can be made at another.
	stream, err := pb.NewWatchClient(cl.ActiveConnection()).Watch(clientv3.WithRequireLeader(ctx))
	if err != nil {
		return false, err
	}
	requests := w.requests()
	for _, r := range requests {
		err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err // at io.EOF the reason comes from Recv
		}
	}
	for missing := len(requests); ; {
		resp, err := stream.Recv()
		if err != nil {
			return missing == 0, err
		}
		if resp.Canceled {
			return missing == 0, canceled(resp)
		}
		if resp.Created {
			missing--
			if missing == 0 {
				close(confirmed)
			}
		}
		if missing > 0 || !resp.Created && len(resp.Events) == 0 {
			continue
		}
		w.saw(resp)
		select {
		case w.ch <- struct{}{}:
		default: // there is a wake-up already
		}
	}
}

// requests are what to watch.
func (w *watch) requests() []*pb.WatchCreateRequest {
	if len(w.keys) == 0 {
		prefix := w.store.prefix
		return []*pb.WatchCreateRequest{{Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix))}}
	}
	all := make([]*pb.WatchCreateRequest, len(w.keys))
	for i, k := range w.keys {
		all[i] = &pb.WatchCreateRequest{Key: []byte(k)}
	}
	return all
}

// canceled is why the server ended a watch.
func canceled(resp *pb.WatchResponse) error {
	if resp.CompactRevision != 0 {
		return fmt.Errorf("it fell behind: %w", rpctypes.ErrCompacted)
	}
	for _, known := range [...]error{rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision, rpctypes.ErrUserEmpty, rpctypes.ErrPermissionDenied} {
		if strings.Contains(resp.CancelReason, known.Error()) {
			return known
		}
	}
	return fmt.Errorf("the server ended it: %s", resp.CancelReason)
}

// saw notes what the stream has shown.
func (w *watch) saw(resp *pb.WatchResponse) {
	newest := w.seen.Load()
	if newest == 0 {
		newest = resp.Header.GetRevision()
	}
	for _, event := range resp.Events {
		newest = max(newest, event.Kv.ModRevision)
	}
	w.seen.Store(newest)
	w.behind.Store(0)
}

// compare looks for watches that have not shown what a Read has: etcd has lost events and stalled streams while all else
// went on (hazard C4). It costs no request.
func (s *Store) compare(read *clientv3.GetResponse) {
	now := int64(time.Since(s.started))
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watches {
		seen := w.seen.Load()
		if seen == 0 || w.newest(read.Kvs) <= seen {
			w.behind.Store(0)
			continue
		}
		if w.behind.CompareAndSwap(0, now) || now-w.behind.Load() < int64(watchLag) {
			continue
		}
		w.behind.Store(0)
		select {
		case w.lagged <- struct{}{}:
		default:
		}
	}
}

// newest is the newest revision of the watched keys.
func (w *watch) newest(kvs []*mvccpb.KeyValue) int64 {
	var newest int64
	for _, kv := range kvs {
		watched := len(w.keys) == 0
		for _, k := range w.keys {
			watched = watched || k == string(kv.Key)
		}
		if watched {
			newest = max(newest, kv.ModRevision)
		}
	}
	return newest
}
