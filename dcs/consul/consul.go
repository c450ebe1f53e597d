package consul

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/pgregent/dcs"
)

// Store is a dcs.Store on Consul. It is safe for concurrent use.
type Store struct {
	config Config
	prefix string // Config.Prefix without its first '/', and '/'
	pool   *pool

	ctx   context.Context // ends with Close
	close context.CancelFunc

	minTTL  atomic.Int64 // the server's session_ttl_min, in nanoseconds
	started time.Time

	mu      sync.Mutex
	targets map[*target]struct{}
}

var _ dcs.Store = (*Store)(nil)

// What a Consul takes that runs with its defaults: 64 operations of a transaction (128 in newer versions), of which a put
// needs two; 512 KiB for a transaction in JSON (txn_max_req_len), where a value needs four thirds of its size; 10 s for a
// session (session_ttl_min), which ends after twice its time, counted by a timer on the leader.
const (
	maxOps       = 32
	maxValue     = 256 << 10
	minTTL       = 10 * time.Second
	sessionSlack = 3 * time.Second // beside the minimum
)

// Open connects to Consul and reads the prefix once, so that wrong settings are found now: an error names the addresses, and
// what each of them said. It tries until ctx ends, or for Config.Timeout when that has no deadline; an error that only other
// settings can mend is returned at once.
func Open(ctx context.Context, config Config) (*Store, error) {
	config, err := config.normal()
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	s, err := newStore(config)
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	if _, err := s.Read(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("consul: cannot use %s: %w", strings.Join(config.Addresses, ", "), err)
	}
	return s, nil
}

// newStore makes a Store without asking anybody for anything. The configuration is a normal one.
func newStore(config Config) (*Store, error) {
	p, err := newPool(config)
	if err != nil {
		return nil, err
	}
	s := &Store{config: config, prefix: config.Prefix[1:] + "/", pool: p, started: time.Now(), targets: make(map[*target]struct{})}
	s.ctx, s.close = context.WithCancel(context.Background()) //nolint:forbidigo // ends with Close, not with the context of Open
	s.minTTL.Store(int64(minTTL))
	return s, nil
}

// Close implements dcs.Store. Calls that are under way end with dcs.ErrClosed, or dcs.ErrUnknown if they change something.
func (s *Store) Close() error {
	s.close()
	s.pool.close()
	return nil
}

// Limits implements dcs.Store. MinTTL grows when the servers refuse a session because their session_ttl_min is longer.
func (s *Store) Limits() dcs.Limits {
	least := time.Duration(s.minTTL.Load())
	return dcs.Limits{MinTTL: least, MaxValue: maxValue, MaxOps: maxOps, SessionSlack: least + sessionSlack}
}

// Read implements dcs.Store, by one recursive listing. The leader makes sure that it still is the leader before it answers.
//
// An empty answer is proved by a second question: to whom has no token, Consul does not tell that it left out what may not be
// read. A single key that may not be read is refused.
func (s *Store) Read(ctx context.Context) (dcs.Snapshot, error) {
	pairs, err := run(ctx, s, reading, func(ctx context.Context, cl *api.Client) (api.KVPairs, error) {
		pairs, meta, err := cl.KV().List(s.prefix, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
		if err != nil {
			return nil, err
		}
		if err := trustworthy(meta); err != nil || len(pairs) > 0 {
			return pairs, err
		}
		_, _, err = cl.KV().Get(s.prefix, new(api.QueryOptions).WithContext(ctx))
		return nil, err
	})
	if err != nil {
		return dcs.Snapshot{}, err
	}
	snap := dcs.Snapshot{Items: make([]dcs.Item, 0, len(pairs))}
	for _, kv := range pairs {
		key, ok := strings.CutPrefix(kv.Key, s.prefix)
		if !ok || key == "" { // the folder itself, as the web interface makes it
			continue
		}
		snap.Items = append(snap.Items, dcs.Item{Key: key, Value: kv.Value, Version: dcs.Version(kv.ModifyIndex), Session: kv.Session})
	}
	slices.SortFunc(snap.Items, func(a, b dcs.Item) int { return strings.Compare(a.Key, b.Key) })
	s.compare(snap)
	return snap, nil
}

// trustworthy tells an answer of Consul from one of somebody else, and a whole one from one that lacks what the token may
// not see.
func trustworthy(meta *api.QueryMeta) error {
	switch {
	case meta.LastIndex == 0: // Consul sends one with every answer, "not found" included
		return fmt.Errorf("%w: its answer has no X-Consul-Index", errNotConsul)
	case meta.ResultsFilteredByACLs:
		return fmt.Errorf("%w: the token may not read every key below the prefix (set token)", errNever)
	}
	return nil
}

// Commit implements dcs.Store, by one transaction.
func (s *Store) Commit(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
	if err := txn.Validate(); err != nil {
		return dcs.Result{}, err
	}
	if err := s.Limits().Check(txn); err != nil {
		return dcs.Result{}, err
	}
	ops, err := s.operations(txn)
	if err != nil {
		return dcs.Result{}, err
	}
	resp, err := run(ctx, s, mannerOf(txn), func(ctx context.Context, cl *api.Client) (*api.TxnResponse, error) {
		// Without operations that write it is a read for Consul, and must be a consistent one: a server that has just been elected
		// answers others from what it has applied so far. What the txn asks for does not tell: of a key that has to be absent
		// there is nothing to delete.
		ok, resp, _, err := cl.Txn().Txn(ops, (&api.QueryOptions{RequireConsistent: len(ops) == len(txn.If)}).WithContext(ctx))
		if err == nil && !ok {
			err = judgeTxn(resp.Errors, len(txn.If))
		}
		return resp, err
	})
	if err != nil {
		return dcs.Result{}, err
	}
	return s.result(txn, resp)
}

// result is what a transaction left. Its puts have one version.
func (s *Store) result(txn dcs.Txn, resp *api.TxnResponse) (dcs.Result, error) {
	result := dcs.Result{Versions: make(map[string]dcs.Version)}
	versions := make(map[string]uint64)
	for _, r := range resp.Results {
		if r != nil && r.KV != nil {
			versions[r.KV.Key] = r.KV.ModifyIndex // that of a condition comes before
		}
	}
	for _, o := range txn.Then {
		if o.Delete {
			continue
		}
		v := versions[s.prefix+o.Key]
		if v == 0 {
			return dcs.Result{}, fmt.Errorf("%w: the answer does not tell the version of %q", dcs.ErrUnknown, o.Key)
		}
		result.Versions[o.Key] = dcs.Version(v)
	}
	return result, nil
}

// operations are those of a transaction in Consul's words, the conditions first. Consul performs them in order, and all of
// them at one index.
func (s *Store) operations(txn dcs.Txn) (api.TxnOps, error) {
	var ops api.TxnOps
	add := func(op api.KVTxnOp) { ops = append(ops, &api.TxnOp{KV: &op}) }
	absent := make(map[string]bool)
	for _, c := range txn.If {
		if !utf8.ValidString(c.Key) {
			return nil, fmt.Errorf("%w: the key %q is not UTF-8", dcs.ErrMalformed, c.Key)
		}
		if c.Version == dcs.Absent {
			absent[c.Key] = true
			add(api.KVTxnOp{Verb: api.KVCheckNotExists, Key: s.prefix + c.Key})
		} else {
			add(api.KVTxnOp{Verb: api.KVCheckIndex, Key: s.prefix + c.Key, Index: uint64(c.Version)})
		}
	}
	for _, o := range txn.Then {
		if !utf8.ValidString(o.Key) {
			return nil, fmt.Errorf("%w: the key %q is not UTF-8", dcs.ErrMalformed, o.Key)
		}
		if !absent[o.Key] { // see the package's documentation
			add(api.KVTxnOp{Verb: api.KVDelete, Key: s.prefix + o.Key})
		}
		switch {
		case o.Delete:
		case o.Session == "":
			add(api.KVTxnOp{Verb: api.KVSet, Key: s.prefix + o.Key, Value: o.Value})
		default:
			add(api.KVTxnOp{Verb: api.KVLock, Key: s.prefix + o.Key, Value: o.Value, Session: o.Session})
		}
	}
	if len(ops) == 0 { // nothing to ask for and nothing to do; there must be an answer all the same
		add(api.KVTxnOp{Verb: api.KVGetTree, Key: s.prefix + "\x00"})
	}
	return ops, nil
}

// mannerOf says how often a transaction may be made. One that changes a key whose version it asks for can succeed only
// once, as that version is gone for good. "Absent" is not enough, because the key may be deleted in between.
func mannerOf(txn dcs.Txn) manner {
	if len(txn.Then) == 0 {
		return reading
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
