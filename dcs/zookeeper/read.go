package zookeeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-zookeeper/zk"

	"github.com/pgregent/pgregent/dcs"
)

// folderMark is the data of a node that is a folder and no key, although it was written.
const folderMark = "pgregent: this node is a folder\n"

// node is a node as read.
type node struct {
	path string
	data []byte
	stat zk.Stat
}

// isKey says whether a node is a key, see the package comment. A nil node is absent.
func (n *node) isKey() bool {
	return n != nil && (n.stat.Version > 0 || len(n.data) > 0) && string(n.data) != folderMark
}

// version is that of the key, or Absent.
func (n *node) version() dcs.Version {
	if !n.isKey() {
		return dcs.Absent
	}
	return dcs.Version(n.stat.Mzxid)
}

// Read implements dcs.Store.
func (s *Store) Read(ctx context.Context) (dcs.Snapshot, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	var last error
	for {
		l, err := s.acquire(ctx)
		if err != nil {
			return dcs.Snapshot{}, because(err, last)
		}
		if err = s.barrier(ctx, l); err == nil {
			var nodes []*node
			if nodes, err = s.collect(ctx, l); err == nil {
				return s.snapshot(nodes), nil
			}
		}
		if !retry(err) || errors.Is(err, errChanged) {
			return dcs.Snapshot{}, fmt.Errorf("%s: %w", l.server(), err)
		}
		if !cancelled(ctx) {
			l.stop(err) // and the next connection is to another server
		}
		last = err
	}
}

// retry says that another connection may lead to an answer.
func retry(err error) bool { return lost(err) || errors.Is(err, zk.ErrSessionExpired) }

// because adds what went wrong before to what ended a call.
func because(err, last error) error {
	if last == nil || errors.Is(err, dcs.ErrClosed) {
		return err
	}
	return failures{err, last}
}

func (s *Store) snapshot(nodes []*node) dcs.Snapshot {
	var snap dcs.Snapshot
	for _, n := range nodes {
		if n.path == s.prefix || !n.isKey() {
			continue
		}
		it := dcs.Item{Key: s.keyOf(n.path), Value: n.data, Version: n.version()}
		if n.stat.EphemeralOwner != 0 {
			it.Session = sessionID(n.stat.EphemeralOwner)
		}
		snap.Items = append(snap.Items, it)
	}
	slices.SortFunc(snap.Items, func(a, b dcs.Item) int { return strings.Compare(a.Key, b.Key) })
	return snap
}

// errChanged says that something changed while it was looked at.
var errChanged = errors.New("it changed while it was read")

// collect returns every node from the prefix down, all of them as they were at one moment. A node's mzxid is its last change,
// its czxid its creation, and its pzxid the last creation or end of a child.
//
// Mostly that moment is the zxid that the server was known to have before the first look: a node that was read later, and
// whose three are no newer, was at that zxid what it is now. If something changed meanwhile, all nodes are looked at again:
// what is the same twice was the same between the first look at all of them and the second.
func (s *Store) collect(ctx context.Context, l *link) ([]*node, error) {
	for {
		z := l.zxid()
		nodes, err := s.walk(ctx, l)
		if err == nil && !older(nodes, z) {
			err = s.verify(ctx, l, nodes)
		}
		if !errors.Is(err, errChanged) {
			return nodes, err
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w: %w: %w", errNoAnswer, errChanged, context.Cause(ctx))
		}
	}
}

// older says that no node has changed after z.
func older(nodes []*node, z int64) bool {
	for _, n := range nodes {
		if max(n.stat.Czxid, n.stat.Mzxid, n.stat.Pzxid) > z {
			return false
		}
	}
	return true
}

// walk reads the tree, level by level.
func (s *Store) walk(ctx context.Context, l *link) (all []*node, err error) {
	for level := []string{s.prefix}; len(level) > 0; {
		nodes, err := gather(ctx, level, func(ctx context.Context, path string) (*node, error) { return get(ctx, l, path) })
		if err != nil {
			return nil, err
		}
		var parents []*node
		for _, n := range nodes {
			switch {
			case n == nil && len(all) == 0:
				return nil, nil // there is no prefix
			case n == nil:
				return nil, errChanged
			case n.stat.NumChildren > 0:
				parents = append(parents, n)
			}
		}
		all = append(all, nodes...)
		names, err := gather(ctx, parents, func(ctx context.Context, n *node) ([]string, error) { return children(ctx, l, n) })
		if err != nil {
			return nil, err
		}
		level = slices.Concat(names...)
	}
	return all, nil
}

// verify looks at all nodes again.
func (s *Store) verify(ctx context.Context, l *link, nodes []*node) error {
	_, err := gather(ctx, nodes, func(ctx context.Context, n *node) (struct{}, error) {
		there, stat, err := exists(ctx, l, n.path)
		if err == nil && (!there || stat.Czxid != n.stat.Czxid || stat.Mzxid != n.stat.Mzxid || stat.Pzxid != n.stat.Pzxid) {
			err = errChanged
		}
		return struct{}{}, err
	})
	return err
}

// get reads one node; nil when it does not exist.
func get(ctx context.Context, l *link, path string) (*node, error) {
	n, err := asks(ctx, l, func(c *zk.Conn) (*node, error) {
		data, stat, err := c.Get(path)
		if err != nil {
			return nil, err
		}
		return &node{path: path, data: bytes.Clone(data), stat: *stat}, nil
	})
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil
	}
	return n, err
}

// children are the paths of a node's children, if they are still those that belong to it.
func children(ctx context.Context, l *link, n *node) ([]string, error) {
	paths, err := asks(ctx, l, func(c *zk.Conn) ([]string, error) {
		names, stat, err := c.Children(n.path)
		if err == nil && stat.Pzxid != n.stat.Pzxid {
			err = errChanged
		}
		for i := range names {
			names[i] = n.path + "/" + names[i]
		}
		return names, err
	})
	if errors.Is(err, zk.ErrNoNode) {
		err = errChanged
	}
	return paths, err
}

// gather asks for all of list at the same time, and returns the first error.
func gather[T, R any](ctx context.Context, list []T, ask func(context.Context, T) (R, error)) ([]R, error) {
	results := make([]R, len(list))
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, v := range list {
		wg.Go(func() { results[i], errs[i] = ask(ctx, v) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, errChanged) {
			return nil, err
		}
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}
