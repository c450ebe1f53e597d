package main

import (
	"context"
	"errors"
	"time"
)

// nodeLost kills agent, guard and PostgreSQL of the leader at once.
func nodeLost(ctx context.Context, b *bench, name string, c *cluster) error {
	l := c.leader()
	next, err := b.failover(ctx, name, c, l)
	if err != nil {
		return err
	}
	lost, err := c.writer.lost(ctx)
	if err != nil {
		return err
	}
	b.rec.add(name, "acknowledged writes lost", kindResult, "", float64(lost)).Note = "asynchronous replication: what walsenders had not sent"
	if next == l {
		return errors.New("the lost node leads")
	}
	if err := l.start(); err != nil {
		return err
	}
	_, err = c.awaitHealthy(ctx, time.Minute)
	return err
}

// failover loses the leader and measures until another takes writes.
func (b *bench) failover(ctx context.Context, name string, c *cluster, l *node) (*node, error) {
	began := time.Now()
	l.lose()
	var next *node
	limit := time.Duration(4*c.times.ttl)*time.Second + 30*time.Second
	err := await(ctx, limit, "another node leads", func() bool {
		next = c.leader()
		return next != nil && next != l
	})
	if err != nil {
		return nil, errors.Join(err, errors.New(c.describe()))
	}
	if err := c.writer.flowing(ctx, time.Now(), 30*time.Second); err != nil {
		return nil, err
	}
	from, to := c.writer.gap(began)
	events := c.events(began)
	b.trace(name, began, events)
	f := b.rec.add(name, "write outage", kindResult, "s", to.Sub(from).Seconds())
	if b.against == "" {
		f.most(float64(c.times.ttl) + 0.5)
	}
	b.rec.phases(name, from,
		mark{"detect", changed(events, next.name, "follower")},
		mark{"wait for the lease, decide", when(events, next.name, "took the lease")},
		mark{"check the line", when(events, next.name, "task begins", "task=promote")},
		mark{"promote", next.probe.first(began, rolePrimary)},
		mark{"first write", to})
	return next, nil
}

func bareRejoinClean(ctx context.Context, b *bench, name string) error {
	_, all, err := b.bareRejoin(ctx, false)
	if err != nil {
		return err
	}
	b.rec.add(name, "bare", kindBare, "s", all).Note = "a crashed primary started as a standby, until it streams"
	return nil
}

func bareRejoinDiverged(ctx context.Context, b *bench, name string) error {
	rewind, all, err := b.bareRejoin(ctx, true)
	if err != nil {
		return err
	}
	b.rec.add(name, "bare pg_rewind", kindBare, "s", rewind).Note = "of a crashed server"
	b.rec.add(name, "bare", kindBare, "s", all).Note = "pg_rewind, start, until it streams"
	return nil
}

// rejoinClean brings a lost leader back that had nothing that the new one lacks.
func rejoinClean(ctx context.Context, b *bench, name string, c *cluster) error {
	limit := 1.0
	return b.rejoin(ctx, name, c, false, &limit)
}

// rejoinDiverged brings one back that had acknowledged what nobody received.
func rejoinDiverged(ctx context.Context, b *bench, name string, c *cluster) error {
	var limit *float64
	if bare := b.rec.find(name, "bare pg_rewind"); bare != nil {
		v := median(bare.Values) + 0.6
		limit = &v
	}
	return b.rejoin(ctx, name, c, true, limit)
}

func (b *bench) rejoin(ctx context.Context, name string, c *cluster, diverged bool, limit *float64) error {
	l := c.leader()
	if err := diverge(ctx, l.data, c.writer, diverged); err != nil {
		return err
	}
	if !diverged { // without a writer there is no outage to measure
		l.lose()
		err := await(ctx, time.Duration(4*c.times.ttl)*time.Second+30*time.Second, "another node leads", func() bool { n := c.leader(); return n != nil && n != l })
		if err != nil {
			return errors.Join(err, errors.New(c.describe()))
		}
	} else if _, err := b.failover(ctx, name+", failover", c, l); err != nil {
		return err
	}
	if err := await(ctx, 30*time.Second, "the other replica streams", func() bool {
		n := c.leader()
		for _, o := range c.others(l) {
			if n == nil || o != n && (o.probe.now().role != roleStreaming || o.probe.now().timeline != n.probe.now().timeline) {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	pause(ctx, 500*time.Millisecond) // the checkpoint after the promotion
	if err := b.comeBack(ctx, name, c, l, "back to streaming", limit); err != nil {
		return err
	}
	if f := b.rec.find(name, "back to streaming"); f != nil {
		f.by("bare")
	}
	return nil
}
