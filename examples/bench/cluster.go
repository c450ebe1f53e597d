package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgregent/pgregent/examples/internal/lab"
)

// times are the cluster's three, in seconds.
type times struct{ ttl, loopWait, retry int }

// cluster is three daemons with a writer and a probe per node.
type cluster struct {
	b      *bench
	times  times
	dir    string
	etcd   *lab.Etcd
	nodes  []*node
	writer *writer
}

// newCluster makes a store and the files of three nodes, and starts none of them.
func (b *bench) newCluster(t times) (*cluster, error) {
	dir, err := os.MkdirTemp(b.dir, "c")
	if err != nil {
		return nil, err
	}
	c := &cluster{b: b, times: t, dir: dir}
	if c.etcd, err = lab.StartEtcd(dir); err != nil {
		return nil, err
	}
	for i := range 3 {
		n := &node{c: c, name: fmt.Sprintf("pg%d", i+1)}
		n.data = filepath.Join(dir, n.name)
		for _, p := range []*int{&n.port, &n.api} {
			if *p, err = lab.FreePort(); err != nil {
				c.close()
				return nil, err
			}
		}
		if err := n.write(); err != nil {
			c.close()
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

// start starts the daemons and waits until one takes writes and the others stream from it; it returns how long that took.
func (c *cluster) start(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	for _, n := range c.nodes {
		n.probe = watchServer(c.dir, n.port)
		if err := n.start(); err != nil {
			return 0, err
		}
	}
	at, err := c.awaitHealthy(ctx, time.Minute)
	if err != nil {
		return 0, err
	}
	return at.Sub(began), c.startWriter(ctx)
}

// close ends everything, and leaves nothing behind.
func (c *cluster) close() {
	if c.writer != nil {
		c.writer.stop()
	}
	for _, n := range c.nodes {
		if n.probe != nil {
			n.probe.stop()
		}
		n.lose()
	}
	if c.etcd != nil {
		c.etcd.Stop()
	}
	_ = os.RemoveAll(c.dir)
}

// leader is the node that takes writes, nil when none does.
func (c *cluster) leader() *node {
	for _, n := range c.nodes {
		if n.probe.now().role == rolePrimary {
			return n
		}
	}
	return nil
}

// others are all nodes but one.
func (c *cluster) others(n *node) (out []*node) {
	for _, o := range c.nodes {
		if o != n {
			out = append(out, o)
		}
	}
	return out
}

// healthySince says when the cluster became what it is, if that is healthy: one primary, and the others stream on its
// timeline.
func (c *cluster) healthySince() (at time.Time, ok bool) {
	l := c.leader()
	if l == nil {
		return at, false
	}
	p := l.probe.now()
	at = p.at
	for _, n := range c.others(l) {
		s := n.probe.now()
		if s.role != roleStreaming || s.timeline != p.timeline {
			return at, false
		}
		if s.at.After(at) {
			at = s.at
		}
	}
	return at, true
}

// awaitHealthy waits until the cluster is healthy, and returns since when it is.
func (c *cluster) awaitHealthy(ctx context.Context, within time.Duration) (at time.Time, err error) {
	err = await(ctx, within, "one primary and two streaming replicas", func() (ok bool) {
		at, ok = c.healthySince()
		return ok
	})
	if err != nil {
		err = errors.Join(err, errors.New(c.describe()))
	}
	return at, err
}

func (c *cluster) describe() string {
	var b strings.Builder
	for _, n := range c.nodes {
		s := n.probe.now()
		fmt.Fprintf(&b, "%s: %s, timeline %d; log:\n%s\n", n.name, s.role, s.timeline, n.tail(15))
	}
	return b.String()
}

// await looks every few milliseconds until ok.
func await(ctx context.Context, within time.Duration, what string, ok func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !ok(); {
		if time.Since(began) > within {
			return fmt.Errorf("%s: not within %v", what, within)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
