// Command customstore shows how a store of one's own is written and used: a table in PostgreSQL. Start it twice, with
// different names, and stop either of them:
//
//	customstore -dsn 'host=10.0.0.9 dbname=lease' -name a
//
// It keeps the lease protocol of package dcs without PostgreSQL to fence: who holds the lease prints so. A program that
// runs a node gives the same Store to ha.Config, as examples/embed does with etcd:
//
//	store, err := Open(ctx, dsn, "/service/orders")
//	node, err := ha.New(ha.Config{Store: dcs.NewClient(store, nil), ...})
//
// # What it is for
//
// For reading, and for a small site that has one PostgreSQL server outside of its clusters and nothing else. That server
// is one: while it is down, the clusters have no store, and each of them has failsafe mode or is read-only after the
// ttl. It must not be a member of a cluster that it is the store of. A stand-by that is promoted by hand may lack the last
// writes, so only after all who use the store were stopped. Sessions end by the server's wall clock: a step of it ends
// them early or late, which costs time and is no danger, since the lease does not depend on them.
//
// The conformance test beside this file runs the whole suite of dcs/dcstest on it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

func main() {
	dsn := flag.String("dsn", "", "connection string of the PostgreSQL server")
	name := flag.String("name", "a", "member name")
	ttl := flag.Duration("ttl", 4*time.Second, "time to live of the lease, 1 s at least")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	store, err := Open(ctx, *dsn, "/service/demo")
	if err == nil {
		defer store.Close()
		err = compete(ctx, dcs.NewClient(store, &dcs.ClientOptions{Timeout: *ttl / 4}), *name, *ttl, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "customstore:", err)
		os.Exit(1)
	}
}

// member is one who wants the lease. What it prints, a program that serves would act upon.
type member struct {
	store dcs.Store
	lease *dcs.Lease
	clock dcs.Clock
	ttl   time.Duration
	out   io.Writer
	ses   dcs.Session
	said  string
}

// compete takes the lease when the rules allow it, renews it, and releases it when ctx ends.
func compete(ctx context.Context, store dcs.Store, name string, ttl time.Duration, out io.Writer) error {
	nonce := fmt.Sprintf("%s-%d-%d", name, os.Getpid(), time.Now().UnixNano())
	m := &member{store: store, clock: dcs.Boottime(), ttl: ttl, out: out}
	m.lease = dcs.NewLease(dcs.Identity{Name: name, Nonce: nonce})
	m.lease.KnowTTL(ttl)
	for ctx.Err() == nil {
		m.round(ctx)
		pause(ctx, ttl/4)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), ttl)
	defer cancel()
	return m.leave(last)
}

// round is one look and one step.
func (m *member) round(ctx context.Context) {
	sent := m.clock.Now() // before anything is sent: the deadline counts from here
	if epoch, open := m.lease.Open(); open && sent >= m.lease.Deadline() {
		m.lease.Close() // by now nothing may be served any more; here nothing ever was
		m.say("epoch %d is over, it was not renewed in time", epoch)
	}
	err := m.step(ctx, sent)
	record, _, _, _ := m.lease.Record()
	switch {
	case err == nil:
		m.say("holds the lease, epoch %d", record.Epoch)
	case errors.Is(err, dcs.ErrMayNotTake):
		m.say("waits, %s holds the lease", record.Holder)
	default:
		m.say("%v", err)
	}
}

func (m *member) step(ctx context.Context, sent time.Duration) (err error) {
	if m.ses == nil {
		if m.ses, err = m.store.OpenSession(ctx, m.ttl); err != nil {
			return err
		}
	} else if err = m.ses.Renew(ctx); errors.Is(err, dcs.ErrSessionLost) {
		m.ses = nil // a new one next time; the lease does not depend on it
		return err
	} else if err != nil {
		return err
	}
	snap, err := m.store.Read(ctx)
	if err != nil {
		return err
	}
	m.lease.Observe(snap, m.clock.Now())
	var step dcs.Step
	if _, open := m.lease.Open(); open {
		step, err = m.lease.Renew(sent, m.ses.ID(), m.ttl, nil)
	} else {
		_, known := snap.Item(dcs.KeyLease)
		step, err = m.lease.Take(m.clock.Now(), sent, m.ses.ID(), m.ttl, !known)
	}
	if err != nil {
		return err
	}
	result, err := m.store.Commit(ctx, step.Txn)
	m.lease.Settle(step, result, err)
	return err
}

// leave releases the lease, so that nobody has to wait for its ttl, and ends the session.
func (m *member) leave(ctx context.Context) error {
	if _, open := m.lease.Open(); open {
		snap, err := m.store.Read(ctx)
		if err != nil {
			return err
		}
		m.lease.Observe(snap, m.clock.Now())
		m.lease.Close()
		step, err := m.lease.Release(dcs.ProofEmpty, nil)
		if err != nil {
			return err
		}
		result, err := m.store.Commit(ctx, step.Txn)
		m.lease.Settle(step, result, err)
		if err != nil {
			return err
		}
		m.say("released the lease")
	}
	if m.ses == nil {
		return nil
	}
	return m.ses.Close(ctx)
}

// say prints what is new.
func (m *member) say(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != m.said {
		m.said = text
		fmt.Fprintln(m.out, text)
	}
}
