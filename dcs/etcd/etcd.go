package etcd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgregent/pgregent/dcs"
)

// Store is a dcs.Store on an etcd cluster. It is safe for concurrent use.
type Store struct {
	config Config
	prefix string // Config.Prefix and '/'
	pool   *pool

	ctx   context.Context // ends with Close
	close context.CancelFunc

	minTTL     atomic.Int64 // seconds
	discovered atomic.Int64 // when the members were last asked for, in nanoseconds since started
	started    time.Time

	mu      sync.Mutex
	watches map[*watch]struct{}
}

var _ dcs.Store = (*Store)(nil)

// What an etcd takes that runs with its defaults: --max-txn-ops, --max-request-bytes (1.5 MiB for all of a request), and the
// shortest lease with --election-timeout=1000, which is one and a half of those, in whole seconds. A lease is looked at
// every 500 ms, and its end is a transaction.
const (
	maxOps       = 128
	maxValue     = 1 << 20
	minTTL       = 2
	sessionSlack = 2 * time.Second
)

// Open connects to the cluster and reads the prefix once, so that wrong settings are found now: an error names the
// endpoints, and what each of them said. It tries until ctx ends, or for Config.Timeout when that has no deadline; an error
// that only other settings can mend is returned at once. A server with known bugs that matter here is logged, see Warnings.
func Open(ctx context.Context, config Config) (*Store, error) {
	config, err := config.normal(ctx)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	if _, err := config.tlsConfig(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	s := newStore(config)
	if err := s.greet(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("etcd: cannot use %s: %w", strings.Join(config.Endpoints, ", "), err)
	}
	return s, nil
}

// newStore makes a Store without asking anybody for anything. The configuration is a normal one.
func newStore(config Config) *Store {
	s := &Store{config: config, prefix: config.Prefix + "/", pool: newPool(config), started: time.Now(), watches: make(map[*watch]struct{})}
	s.ctx, s.close = context.WithCancel(context.Background()) //nolint:forbidigo // ends with Close, not with the context of Open
	s.minTTL.Store(minTTL)
	s.discovered.Store(-int64(discoverEvery))
	return s
}

// greet is the first conversation with the cluster.
func (s *Store) greet(ctx context.Context) error {
	_, err := run(ctx, s, reading, func(ctx context.Context, _ *endpoint, cl *clientv3.Client) (struct{}, error) {
		_, err := cl.Get(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		return struct{}{}, err
	})
	if err != nil {
		return err
	}
	first, _ := s.pool.first()
	if warning := first.warning(ctx); warning != "" {
		s.config.Logger.WarnContext(ctx, "etcd: "+warning)
	}
	return nil
}

// Close implements dcs.Store. Calls that are under way end with dcs.ErrClosed, or dcs.ErrUnknown if they change something.
func (s *Store) Close() error {
	s.close()
	s.pool.close()
	return nil
}

// Endpoints are the URLs that are used, the preferred one first: those of the configuration and, unless UseProxies is set,
// what the members advertise.
func (s *Store) Endpoints() []string {
	list := s.pool.list()
	urls := make([]string, len(list))
	for i, e := range list {
		urls[i] = e.url
	}
	return urls
}

// Limits implements dcs.Store. MinTTL grows when a lease shows that the servers run with a longer election time-out.
func (s *Store) Limits() dcs.Limits {
	return dcs.Limits{MinTTL: time.Duration(s.minTTL.Load()) * time.Second, MaxValue: maxValue, MaxOps: maxOps, SessionSlack: sessionSlack}
}

// Read implements dcs.Store, by one linearizable range.
func (s *Store) Read(ctx context.Context) (dcs.Snapshot, error) {
	resp, err := run(ctx, s, reading, func(ctx context.Context, _ *endpoint, cl *clientv3.Client) (*clientv3.GetResponse, error) {
		return cl.Get(ctx, s.prefix, clientv3.WithPrefix())
	})
	if err != nil {
		return dcs.Snapshot{}, err
	}
	snap := dcs.Snapshot{Items: make([]dcs.Item, 0, len(resp.Kvs))}
	for _, kv := range resp.Kvs {
		it := dcs.Item{Key: strings.TrimPrefix(string(kv.Key), s.prefix), Value: kv.Value, Version: dcs.Version(kv.ModRevision)}
		if kv.Lease != 0 {
			it.Session = sessionID(kv.Lease)
		}
		snap.Items = append(snap.Items, it)
	}
	s.compare(resp)
	return snap, nil
}

// Commit implements dcs.Store, by one transaction.
func (s *Store) Commit(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
	if err := txn.Validate(); err != nil {
		return dcs.Result{}, err
	}
	if err := s.Limits().Check(txn); err != nil {
		return dcs.Result{}, err
	}
	conds, look := s.conditions(txn.If)
	ops, err := s.operations(txn)
	if err != nil {
		return dcs.Result{}, err
	}
	resp, err := run(ctx, s, mannerOf(txn), func(ctx context.Context, _ *endpoint, cl *clientv3.Client) (*clientv3.TxnResponse, error) {
		resp, err := cl.Txn(ctx).If(conds...).Then(ops...).Else(look...).Commit()
		if err == nil && !resp.Succeeded {
			err = conflict(txn.If, resp)
		}
		return resp, err
	})
	if err != nil {
		return dcs.Result{}, err
	}
	result := dcs.Result{Versions: make(map[string]dcs.Version)}
	for _, o := range txn.Then {
		if !o.Delete {
			result.Versions[o.Key] = dcs.Version(resp.Header.Revision)
		}
	}
	return result, nil
}

// conditions are those of a transaction in etcd's words, and reads that show which of them did not hold.
func (s *Store) conditions(list []dcs.Cond) (conds []clientv3.Cmp, look []clientv3.Op) {
	for _, c := range list {
		key := s.prefix + c.Key
		if c.Version == dcs.Absent {
			conds = append(conds, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
		} else {
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(key), "=", int64(c.Version)))
		}
		look = append(look, clientv3.OpGet(key, clientv3.WithKeysOnly()))
	}
	return conds, look
}

// operations are those of a transaction in etcd's words. One without any reads something: etcd would check the conditions
// of an empty one against what the member at hand knows, which may be old.
func (s *Store) operations(txn dcs.Txn) ([]clientv3.Op, error) {
	ops := make([]clientv3.Op, 0, len(txn.Then)+1)
	for _, o := range txn.Then {
		key := s.prefix + o.Key
		switch {
		case o.Delete:
			ops = append(ops, clientv3.OpDelete(key))
		case o.Session == "":
			ops = append(ops, clientv3.OpPut(key, string(o.Value)))
		default:
			lease, err := leaseID(o.Session)
			if err != nil {
				return nil, fmt.Errorf("%w: the put of %q: %w", dcs.ErrMalformed, o.Key, err)
			}
			ops = append(ops, clientv3.OpPut(key, string(o.Value), clientv3.WithLease(lease)))
		}
	}
	if len(ops) == 0 {
		ops = append(ops, clientv3.OpGet(s.prefix, clientv3.WithCountOnly()))
	}
	return ops, nil
}

// mannerOf says whether a transaction may be sent twice. It may when it puts or deletes a key whose version it asks for:
// that version is gone for good after the first time. "Absent" is not enough, because the key may be deleted in between.
func mannerOf(txn dcs.Txn) manner {
	if len(txn.Then) == 0 {
		return again
	}
	for _, c := range txn.If {
		for _, o := range txn.Then {
			if c.Version != dcs.Absent && c.Key == o.Key {
				return fenced
			}
		}
	}
	return once
}

// conflict is the error of a transaction whose conditions did not hold, with the first that did not.
func conflict(list []dcs.Cond, resp *clientv3.TxnResponse) error {
	for i, c := range list {
		if i >= len(resp.Responses) {
			break
		}
		at := dcs.Absent
		if kvs := resp.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
			at = dcs.Version(kvs[0].ModRevision)
		}
		switch {
		case at == c.Version:
		case at == dcs.Absent:
			return fmt.Errorf("%w: %q is absent, not at version %d", dcs.ErrConflict, c.Key, c.Version)
		case c.Version == dcs.Absent:
			return fmt.Errorf("%w: %q is at version %d, not absent", dcs.ErrConflict, c.Key, at)
		default:
			return fmt.Errorf("%w: %q is at version %d, not %d", dcs.ErrConflict, c.Key, at, c.Version)
		}
	}
	return dcs.ErrConflict
}

// sessionID is a lease as etcdctl prints it, in 16 digits.
func sessionID(lease int64) string { return fmt.Sprintf("%016x", uint64(lease)) }

// leaseID is the reverse of sessionID.
func leaseID(session string) (clientv3.LeaseID, error) {
	raw, err := hex.DecodeString(session)
	if err != nil || len(raw) != 8 {
		return 0, fmt.Errorf("%q is no session ID; want 16 hexadecimal digits", session)
	}
	var n uint64
	for _, b := range raw {
		n = n<<8 | uint64(b)
	}
	if n == 0 {
		return 0, errors.New("the session ID 0 means no session")
	}
	return clientv3.LeaseID(n), nil
}
