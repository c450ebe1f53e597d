package zookeeper

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-zookeeper/zk"

	"github.com/pgregent/pgregent/dcs"
)

// write is one call of Commit.
//
// # Why a version is not taken for another
//
// A condition names an mzxid, and a multi can only ask for a node's counter. The look before it finds the counter that goes
// with the mzxid. Let g be the counter of the prefix, read before the look, and checked or written by the multi. Every Commit
// that creates or deletes a node writes the prefix in the same multi. So if the multi succeeds, no Commit has created or
// deleted a node since the look: a node with the counter that was seen is the node that was seen, at the mzxid that was
// seen, and a node that was absent is absent. The counter of the prefix itself only grows while it exists; whoever deletes
// the prefix ("patronictl remove") deletes all keys with it.
//
// Other software does not write the prefix. That Patroni deletes a node and creates it again between the look and the multi (a
// round trip) is seen when the counters differ: it creates at 0, and each key that a Commit has put is at 1 or more, so
// for leader, which Patroni only creates, they differ always. A key that Patroni creates in that time is seen when the
// Txn puts it, and when it only asks that it is absent, it may be taken for one that was created just after.
type write struct {
	store   *Store
	txn     dcs.Txn
	session *session // that keys are bound to; nil when there is none
	paths   map[string]string

	blind bool  // the next attempt needs no look
	fresh *link // the link whose server is known to be new enough for a refusal
	maybe error // why an attempt may have happened, when it may
}

// Commit implements dcs.Store.
func (s *Store) Commit(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
	if err := s.usable(ctx); err != nil {
		return dcs.Result{}, err
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	w, err := s.prepare(txn)
	if err != nil {
		return dcs.Result{}, err
	}
	if len(txn.Then) == 0 {
		return dcs.Result{}, s.check(ctx, txn.If)
	}
	for {
		result, done, err := w.attempt(ctx)
		if done || err != nil {
			return result, w.outcome(err)
		}
	}
}

// prepare checks a transaction as far as that needs no server.
func (s *Store) prepare(txn dcs.Txn) (*write, error) {
	if err := txn.Validate(); err != nil {
		return nil, err
	}
	if err := s.Limits().Check(txn); err != nil {
		return nil, err
	}
	w := &write{store: s, txn: txn, paths: make(map[string]string)}
	var bytes int
	for _, c := range txn.If {
		if err := w.add(c.Key); err != nil {
			return nil, err
		}
	}
	for _, o := range txn.Then {
		if err := w.add(o.Key); err != nil {
			return nil, err
		}
		if string(o.Value) == folderMark {
			return nil, fmt.Errorf("%w: the value of %q is the mark of a folder", dcs.ErrMalformed, o.Key)
		}
		bytes += len(o.Value)
		if o.Session == "" {
			continue
		}
		n, err := s.sessionOf(o.Session)
		if err != nil {
			return nil, fmt.Errorf("the put of %q: %w", o.Key, err)
		}
		if w.session != nil && w.session != n {
			return nil, fmt.Errorf("%w: keys are bound to two sessions; in ZooKeeper a transaction belongs to one", dcs.ErrMalformed)
		}
		w.session = n
	}
	w.blind = creates(txn)
	if bytes > maxBytes {
		return nil, fmt.Errorf("%w: the values have %d bytes together, at most %d", dcs.ErrTooLarge, bytes, maxBytes)
	}
	return w, nil
}

func (w *write) add(key string) (err error) {
	w.paths[key], err = w.store.pathOf(key)
	return err
}

// check is a transaction that only asks.
func (s *Store) check(ctx context.Context, list []dcs.Cond) error {
	snap, err := s.Read(ctx)
	if err != nil {
		return err
	}
	for _, c := range list {
		it, _ := snap.Item(c.Key)
		if it.Version != c.Version {
			return conflict(c, it.Version)
		}
	}
	return nil
}

// conflict says which condition does not hold.
func conflict(c dcs.Cond, at dcs.Version) error {
	switch {
	case at == dcs.Absent:
		return fmt.Errorf("%w: %q is absent, not at version %d", dcs.ErrConflict, c.Key, c.Version)
	case c.Version == dcs.Absent:
		return fmt.Errorf("%w: %q is at version %d, not absent", dcs.ErrConflict, c.Key, at)
	}
	return fmt.Errorf("%w: %q is at version %d, not %d", dcs.ErrConflict, c.Key, at, c.Version)
}

// outcome is the error of the call: after an attempt that may have happened, nothing is certain.
func (w *write) outcome(err error) error {
	if err == nil || w.maybe == nil {
		return err
	}
	if errors.Is(err, dcs.ErrUnknown) {
		return err
	}
	// In words only: this is not the refusal that errors.Is would take it for.
	return fmt.Errorf("%w: %w; then: %s", dcs.ErrUnknown, w.maybe, err.Error())
}

// connect waits for the connection that the transaction needs.
func (w *write) connect(ctx context.Context) (*link, error) {
	if w.session == nil {
		return w.store.acquire(ctx)
	}
	if err := w.session.usable(ctx); err != nil {
		return nil, err
	}
	return w.session.link, nil
}

// attempt looks, and then does what the look allows. It is to be called again when it is neither done nor has failed.
func (w *write) attempt(ctx context.Context) (r dcs.Result, done bool, err error) {
	l, err := w.connect(ctx)
	if err != nil {
		return r, false, err
	}
	if w.blind {
		w.blind = false
		ops, puts := w.planCreation()
		return w.commit(ctx, l, ops, puts)
	}
	prefix, nodes, err := w.look(ctx, l)
	if err != nil {
		return r, false, w.trouble(ctx, l, err)
	}
	if err := w.unmet(nodes); err != nil || prefix == nil {
		if prefix == nil { // its counter is needed
			return r, false, w.makeFolders(ctx, l)
		}
		if w.fresh == l {
			return r, false, err
		}
		// It may be the server that lags behind.
		if err := w.store.barrier(ctx, l); err != nil {
			return r, false, w.trouble(ctx, l, err)
		}
		w.fresh = l
		return r, false, nil
	}
	ops, puts, err := w.plan(prefix, nodes)
	if err != nil {
		return r, false, err
	}
	return w.commit(ctx, l, ops, puts)
}

// commit sends the multi and judges what comes of it, as attempt does.
func (w *write) commit(ctx context.Context, l *link, ops []any, puts map[string]int) (r dcs.Result, done bool, err error) {
	answers, err := w.send(ctx, l, ops)
	switch {
	case err == nil:
		r.Versions = make(map[string]dcs.Version)
		for key, i := range puts {
			r.Versions[key] = dcs.Version(answers[i].Stat.Mzxid)
		}
		return r, true, nil
	case errors.Is(err, zk.ErrBadVersion), errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrNotEmpty):
		w.fresh = l // a refusal is a transaction, which this server now has
		return r, false, nil
	case errors.Is(err, zk.ErrNoNode):
		w.fresh = l
		return r, false, w.makeFolders(ctx, l)
	case lost(err):
		w.maybe = err
		if !w.fenced() {
			return r, false, fmt.Errorf("%w: %w", dcs.ErrUnknown, w.maybe)
		}
		w.leave(ctx, l, err)
		return r, false, nil
	case !decided(err):
		return r, false, fmt.Errorf("%w: %s: %w", dcs.ErrUnknown, l.server(), err)
	}
	return r, false, w.trouble(ctx, l, err)
}

// decided says that the servers have refused a multi, by one of the codes that they give before it is performed. When in
// doubt, as about an answer that cannot be read, the outcome is unknown.
func decided(err error) bool {
	for _, kind := range []error{zk.ErrNoNode, zk.ErrNodeExists, zk.ErrBadVersion, zk.ErrNotEmpty, zk.ErrNoAuth, zk.ErrInvalidACL,
		zk.ErrAuthFailed, zk.ErrBadArguments, zk.ErrNoChildrenForEphemerals, zk.ErrSessionExpired} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// send commits the multi. One that may be sent again waits for a share of the time only.
func (w *write) send(ctx context.Context, l *link, ops []any) ([]zk.MultiResponse, error) {
	limit := on[[]zk.MultiResponse]
	if w.fenced() {
		limit = asks[[]zk.MultiResponse]
	}
	return limit(ctx, l, func(c *zk.Conn) ([]zk.MultiResponse, error) {
		answers, err := c.Multi(ops...)
		if err == nil && len(answers) != len(ops) {
			err = fmt.Errorf("%d answers to %d operations", len(answers), len(ops))
		}
		return answers, err
	})
}

// fenced says whether the transaction may be sent twice: when it puts or deletes a key whose version it asks for. That
// version is gone for good after the first time. "Absent" is not enough, because the key may be deleted in between.
func (w *write) fenced() bool {
	for _, c := range w.txn.If {
		for _, o := range w.txn.Then {
			if c.Version != dcs.Absent && c.Key == o.Key {
				return true
			}
		}
	}
	return false
}

// trouble is what a failed request means for the call: nil when it is worth another attempt.
func (w *write) trouble(ctx context.Context, l *link, err error) error {
	switch {
	case errors.Is(err, zk.ErrSessionExpired) && w.session != nil:
		l.stop(dcs.ErrSessionLost)
		return dcs.ErrSessionLost
	case retry(err):
		w.leave(ctx, l, err)
		if ctx.Err() != nil {
			return fmt.Errorf("nothing was written: %w", err)
		}
		return nil
	case errors.Is(err, zk.ErrNoChildrenForEphemerals):
		return fmt.Errorf("%w: a key lies below one that is bound to a session, which ZooKeeper does not take", dcs.ErrMalformed)
	}
	return fmt.Errorf("%s: %w", l.server(), err)
}

// leave gives a connection up that does not answer; see on for a caller that has gone away.
func (w *write) leave(ctx context.Context, l *link, err error) {
	w.fresh = nil
	switch {
	case cancelled(ctx):
	case l.keep:
		l.cut()
	default:
		l.stop(err)
	}
}

// look reads the prefix, and then the nodes that the transaction is about; nil for those that are absent.
func (w *write) look(ctx context.Context, l *link) (prefix *node, nodes map[string]*node, err error) {
	if prefix, err = get(ctx, l, w.store.prefix); err != nil {
		return nil, nil, err
	}
	keys := make([]string, 0, len(w.paths))
	for key := range w.paths {
		keys = append(keys, key)
	}
	list, err := gather(ctx, keys, func(ctx context.Context, key string) (*node, error) { return get(ctx, l, w.paths[key]) })
	if err != nil {
		return nil, nil, err
	}
	nodes = make(map[string]*node, len(keys))
	for i, key := range keys {
		nodes[key] = list[i]
	}
	return prefix, nodes, nil
}

// unmet is the first condition that does not hold.
func (w *write) unmet(nodes map[string]*node) error {
	for _, c := range w.txn.If {
		if at := nodes[c.Key].version(); at != c.Version {
			return conflict(c, at)
		}
	}
	return nil
}

// makeFolders makes the prefix and what its keys lie in. That is outside of the transaction: a folder is no key.
func (w *write) makeFolders(ctx context.Context, l *link) error {
	dirs := append(foldersOf(w.store.prefix), w.store.prefix)
	seen := make(map[string]bool)
	for _, o := range w.txn.Then {
		if o.Delete {
			continue
		}
		for _, dir := range foldersOf(w.paths[o.Key]) {
			if len(dir) > len(w.store.prefix) && !seen[dir] {
				seen[dir] = true
				dirs = append(dirs, dir)
			}
		}
	}
	if err := w.store.mkdirs(ctx, l, dirs); err != nil {
		return w.trouble(ctx, l, err)
	}
	return nil
}
