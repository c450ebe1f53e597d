package zookeeper

import (
	"fmt"

	"github.com/go-zookeeper/zk"

	"github.com/pgregent/pgregent/dcs"
)

// plan is a transaction as operations of one multi, for the nodes as they were seen. puts tells for each key that is put
// which operation's answer has its version.
func (w *write) plan(prefix *node, nodes map[string]*node) (ops []any, puts map[string]int, err error) {
	p := planner{acl: w.store.acl, puts: make(map[string]int)}
	if w.session != nil {
		p.owner = w.session.id
	}
	changed := make(map[string]bool)
	for _, o := range w.txn.Then {
		changed[o.Key] = true
		if err := p.change(o, w.paths[o.Key], nodes[o.Key]); err != nil {
			return nil, nil, err
		}
	}
	for _, c := range w.txn.If {
		// A key that is changed is checked there. An absent one without a node is what the prefix vouches for.
		if n := nodes[c.Key]; n != nil && !changed[c.Key] {
			p.add(&zk.CheckVersionRequest{Path: n.path, Version: n.stat.Version})
		}
	}
	if p.moved {
		p.add(&zk.SetDataRequest{Path: w.store.prefix, Data: []byte(folderMark), Version: prefix.stat.Version})
	} else {
		p.add(&zk.CheckVersionRequest{Path: w.store.prefix, Version: prefix.stat.Version})
	}
	return p.ops, p.puts, nil
}

// creates says whether a transaction does nothing but put keys that it wants to be absent. That can be asked for without a
// look: ZooKeeper creates no node that is there.
func creates(txn dcs.Txn) bool {
	absent := make(map[string]bool)
	for _, c := range txn.If {
		absent[c.Key] = c.Version == dcs.Absent
	}
	for _, o := range txn.Then {
		if o.Delete || !absent[o.Key] {
			return false
		}
	}
	return len(txn.If) == len(txn.Then)
}

// planCreation is the plan of a transaction that creates. Nothing is known of the prefix, and it is only to be counted up.
func (w *write) planCreation() (ops []any, puts map[string]int) {
	p := planner{acl: w.store.acl, puts: make(map[string]int)}
	for _, o := range w.txn.Then {
		_ = p.change(o, w.paths[o.Key], nil) // of an absent node it has nothing to complain
	}
	p.add(&zk.SetDataRequest{Path: w.store.prefix, Data: []byte(folderMark), Version: -1})
	return p.ops, p.puts
}

// planner collects operations.
type planner struct {
	acl   []zk.ACL
	owner int64 // of keys that are bound
	ops   []any
	puts  map[string]int
	moved bool // a node is created or deleted
}

func (p *planner) add(op any) { p.ops = append(p.ops, op) }

// change adds one operation of a transaction.
func (p *planner) change(o dcs.Op, path string, n *node) error {
	if o.Delete {
		p.remove(path, n)
		return nil
	}
	var owner int64
	var flags int32
	if o.Session != "" {
		owner, flags = p.owner, zk.FlagEphemeral
	}
	version := int32(0)
	switch {
	case n != nil && n.stat.EphemeralOwner == owner:
		version = n.stat.Version
	case n != nil && n.stat.NumChildren > 0:
		return fmt.Errorf("%w: %q is bound to a session, and there are keys below it, which ZooKeeper does not take", dcs.ErrMalformed, o.Key)
	default:
		if n != nil { // what it is bound to cannot be changed
			p.add(&zk.DeleteRequest{Path: path, Version: n.stat.Version})
		}
		p.add(&zk.CreateRequest{Path: path, Acl: p.acl, Flags: flags})
		p.moved = true
	}
	p.puts[o.Key] = len(p.ops)
	p.add(&zk.SetDataRequest{Path: path, Data: o.Value, Version: version})
	return nil
}

// remove deletes a key that is there. One with children becomes a folder.
func (p *planner) remove(path string, n *node) {
	switch {
	case !n.isKey():
	case n.stat.NumChildren > 0:
		p.add(&zk.SetDataRequest{Path: path, Data: []byte(folderMark), Version: n.stat.Version})
	default:
		p.add(&zk.DeleteRequest{Path: path, Version: n.stat.Version})
		p.moved = true
	}
}
