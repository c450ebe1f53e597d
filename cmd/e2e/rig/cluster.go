// Package rig is what the end-to-end suites share: clusters of real daemons over a real store, and what can happen to
// them. It is for tests on Linux only. Functions that take no error end the test that owns the cluster when they fail.
package rig

import (
	"cmp"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// Cluster is daemons over a real store, each from a Patroni YAML file.
type Cluster struct {
	T     testing.TB
	Root  string // the cluster's folder
	Bin   string // PostgreSQL's programs
	Scope string
	DCS   string // bootstrap.dcs, indented YAML
	Store Store
	Nodes []*Node

	options Options
	added   int
}

// Options is what a cluster is made of.
type Options struct {
	PG             string              // major version
	Nodes          int                 // named pg1, pg2, ...
	DCS            string              // bootstrap.dcs, indented YAML
	Scope          string              // empty: demo
	Store          string              // one of Stores; empty: etcd
	Servers        int                 // of the store; 0: one
	Etcd           []string            // arguments of etcd; nil: short times
	EtcdServers    *etcdserver.Cluster // an etcd that several clusters use; nil: one of its own
	Links          bool                // put a proxy between each daemon and the store
	MaxConnections int                 // 0: 50
	Parameters     []string            // lines of postgresql.parameters
	API            string              // appended to restapi, each line after a line break and indented
	Extra          string              // appended to each file
	Prefix         []string            // a program that runs the daemon, with its arguments
	Attr           func(*exec.Cmd)
	Dir            func(name string) string // where a node's data directory is made; nil or empty: in the cluster's folder
}

// New makes a store and the files of the nodes, and starts none of them.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.MaxConnections == 0 {
		o.MaxConnections = 50
	}
	c := &Cluster{T: t, Root: t.TempDir(), Bin: postgrestest.Binaries(t, o.PG), Scope: cmp.Or(o.Scope, "demo"), DCS: o.DCS, options: o}
	c.Store = newStore(t, o, c.Scope)
	for i := range o.Nodes {
		c.Nodes = append(c.Nodes, c.Add(fmt.Sprintf("pg%d", i+1)))
	}
	return c
}

// Add makes a further node, which is not in Nodes.
func (c *Cluster) Add(name string) *Node {
	c.added++
	id := name
	if c.added > c.options.Nodes {
		id = fmt.Sprintf("%s-%d", name, c.added) // of a second node with the name of another, too
	}
	dir := c.Root
	if c.options.Dir != nil {
		dir = cmp.Or(c.options.Dir(name), dir)
	}
	d := &Node{
		C: c, Name: name, id: id, File: filepath.Join(c.Root, id+".yml"), Data: filepath.Join(dir, id),
		PGPort: postgrestest.FreePort(c.T), APIPort: postgrestest.FreePort(c.T),
		store: c.Store.Addrs(c.added - 1), Program: append(append([]string{}, c.options.Prefix...), Program("pgregent"), "run"), Attr: c.options.Attr,
	}
	if c.options.Links {
		d.Link = dcstest.NewProxy(c.T, d.store[0])
	}
	d.Write(c.options.Extra)
	c.T.Cleanup(func() { d.Destroy() })
	return d
}

// Healthy says that there is one primary and that the others stream.
func (c *Cluster) Healthy() bool {
	primaries, replicas := 0, 0
	for _, d := range c.Nodes {
		switch {
		case d.Primary():
			primaries++
		case d.Streaming():
			replicas++
		}
	}
	return primaries == 1 && replicas == len(c.Nodes)-1
}

// Leader is the node that says that it leads, nil when none does.
func (c *Cluster) Leader() *Node {
	for _, d := range c.Nodes {
		if d.Primary() {
			return d
		}
	}
	return nil
}

// StartAll starts all nodes and waits until the cluster is healthy.
func (c *Cluster) StartAll() time.Duration {
	c.T.Helper()
	for _, d := range c.Nodes {
		d.Start()
	}
	return c.AwaitHealthy(60 * time.Second)
}

// AwaitHealthy waits until the cluster is healthy, and returns how long that took.
func (c *Cluster) AwaitHealthy(within time.Duration) time.Duration {
	c.T.Helper()
	return Eventually(c.T, within, "one primary and all others streaming", c.Healthy)
}

// Others are all nodes but one.
func (c *Cluster) Others(d *Node) []*Node {
	var out []*Node
	for _, o := range c.Nodes {
		if o != d {
			out = append(out, o)
		}
	}
	return out
}

// Eventually waits for an event with a deadline, looking often, and returns how long that took.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	if !Await(within, ok) {
		t.Fatalf("%s: not within %v", what, within)
	}
	return time.Since(began)
}

// Await is Eventually for who goes on without the event.
func Await(within time.Duration, ok func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !ok(); <-tick.C {
		if time.Since(began) > within {
			return false
		}
	}
	return true
}
