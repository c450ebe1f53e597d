package dcs_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
)

// member is one node's side of the protocol over a memory store, on one clock.
type member struct {
	t       *testing.T
	clock   *memory.ManualClock
	store   *memory.Store
	lease   *dcs.Lease
	session dcs.Session
}

const ttl = 8 * time.Second

func newMember(t *testing.T, clock *memory.ManualClock, srv *memory.Server, name, nonce string) *member {
	m := &member{t: t, clock: clock, store: srv.Open("/service/test")}
	m.lease = dcs.NewLease(dcs.Identity{Name: name, Nonce: nonce, Instance: "test"})
	m.lease.KnowTTL(ttl)
	m.open()
	return m
}

func (m *member) open() {
	s, err := m.store.OpenSession(context.Background(), ttl)
	require.NoError(m.t, err)
	m.session = s
}

func (m *member) look() {
	snap, err := m.store.Read(context.Background())
	require.NoError(m.t, err)
	m.lease.Observe(snap, m.clock.Now())
}

func (m *member) take(fresh bool) error {
	if m.session.Renew(context.Background()) != nil {
		m.open()
	}
	m.look()
	step, err := m.lease.Take(m.clock.Now(), m.clock.Now(), m.session.ID(), ttl, fresh)
	if err != nil {
		return err
	}
	_, err = m.send(step)
	return err
}

func (m *member) renew(ttl time.Duration) (time.Duration, error) {
	sent := m.clock.Now()
	if err := m.session.Renew(context.Background()); err != nil {
		return 0, err
	}
	step, err := m.lease.Renew(sent, m.session.ID(), ttl, nil)
	if err != nil {
		return 0, err
	}
	return m.send(step)
}

func (m *member) send(step dcs.Step) (time.Duration, error) {
	res, err := m.store.Commit(context.Background(), step.Txn)
	return m.lease.Settle(step, res, err), err
}

func (m *member) put(key, value string) {
	_, err := m.store.Commit(context.Background(), dcs.Txn{Then: []dcs.Op{dcs.Put(key, []byte(value))}})
	require.NoError(m.t, err)
}

func (m *member) delete(key string) {
	_, err := m.store.Commit(context.Background(), dcs.Txn{Then: []dcs.Op{dcs.Delete(key)}})
	require.NoError(m.t, err)
}

func (m *member) value(key string) string {
	snap, err := m.store.Read(context.Background())
	require.NoError(m.t, err)
	it, _ := snap.Item(key)
	return string(it.Value)
}

func pair(t *testing.T) (*memory.ManualClock, *memory.Server, *member, *member) {
	clock := memory.NewManualClock()
	srv := memory.NewServer(clock)
	return clock, srv, newMember(t, clock, srv, "a", "nonce-a"), newMember(t, clock, srv, "b", "nonce-b")
}

// A store that lost all its keys is no new cluster for who has seen a record: its holder may serve to its deadline.
func TestStoreThatLostItsKeys(t *testing.T) {
	clock, _, a, b := pair(t)
	require.NoError(t, a.take(true))
	b.look()
	clock.Advance(time.Second)
	a.delete(dcs.KeyLease)
	a.delete(dcs.KeyLeader)
	require.ErrorIs(t, b.take(true), dcs.ErrMayNotTake)
	require.Less(t, clock.Now(), a.lease.Deadline(), "the holder may still serve")
	clock.Advance(ttl - time.Millisecond)
	require.ErrorIs(t, b.take(true), dcs.ErrMayNotTake)
	clock.Advance(time.Millisecond)
	require.Greater(t, clock.Now(), a.lease.Deadline())
	require.NoError(t, b.take(true))
	r, _, ok, err := b.lease.Record()
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 2, r.Epoch, "epochs only grow")
}

func TestTakeAndRenew(t *testing.T) {
	clock, _, a, b := pair(t)
	require.NoError(t, a.take(true))
	require.Equal(t, "a", a.value(dcs.KeyLeader))
	require.Equal(t, dcs.Validity(ttl), a.lease.Deadline(), "the deadline counts from before the request")

	clock.Advance(2 * time.Second)
	deadline, err := a.renew(ttl)
	require.NoError(t, err)
	require.Equal(t, 2*time.Second+dcs.Validity(ttl), deadline)
	require.ErrorIs(t, b.take(false), dcs.ErrMayNotTake)
}

// R4b: the very version must have been known for the record's own ttl since its first read arrived.
func TestTakerWaitsOutTheRecord(t *testing.T) {
	clock, _, a, b := pair(t)
	require.NoError(t, a.take(true))
	clock.Advance(3 * time.Second)
	b.look() // first seen now
	clock.Advance(4 * time.Second)
	_, err := a.renew(ttl)
	require.NoError(t, err)
	b.look() // another version: the wait begins anew
	clock.Advance(ttl - time.Millisecond)
	b.look()
	require.Equal(t, time.Millisecond, b.lease.Takeable(clock.Now(), false).In)
	clock.Advance(time.Millisecond)
	b.look()
	require.NoError(t, b.take(false))
	require.Equal(t, "b", b.value(dcs.KeyLeader))
	epoch, open := b.lease.Open()
	require.True(t, open)
	require.EqualValues(t, 2, epoch)

	a.look()
	require.Equal(t, dcs.StandingLost, a.lease.Standing(a.session.ID()))
}

// R4d: an absent record is waited for, unless the cluster is new.
func TestAbsentRecordIsWaitedFor(t *testing.T) {
	clock, _, a, b := pair(t)
	require.NoError(t, a.take(true))
	b.look()
	b.delete(dcs.KeyLease)
	b.delete(dcs.KeyLeader)
	require.ErrorIs(t, b.take(false), dcs.ErrMayNotTake)
	clock.Advance(ttl)
	require.NoError(t, b.take(false))
	epoch, _ := b.lease.Open()
	require.EqualValues(t, 2, epoch, "one more than the highest known")
}

// A process whose guard was replaced goes on under another identity and forgets neither epoch nor ttl.
func TestRememberAcrossGuards(t *testing.T) {
	clock, _, a, _ := pair(t)
	a.lease.KnowTTL(20 * time.Second)
	require.NoError(t, a.take(true))
	last := a.lease
	a.lease = dcs.NewLease(dcs.Identity{Name: "a", Nonce: "another"})
	a.lease.Remember(last)
	a.delete(dcs.KeyLease)
	a.delete(dcs.KeyLeader)
	a.look()
	clock.Advance(ttl)
	require.ErrorIs(t, a.take(false), dcs.ErrMayNotTake)
	clock.Advance(12 * time.Second)
	require.NoError(t, a.take(false))
	epoch, _ := a.lease.Open()
	require.EqualValues(t, 2, epoch)
}

// A garbage record is nobody's: it is waited for like an absent one, and never ends a process.
func TestGarbageRecord(t *testing.T) {
	clock, _, a, _ := pair(t)
	for _, garbage := range []string{"", "{", "[]", `{"epoch":-1}`, `{"epoch":3}`, `{"epoch":3,"state":"held"}`, "\xff"} {
		a.put(dcs.KeyLease, garbage)
		require.ErrorIs(t, a.take(true), dcs.ErrMayNotTake, garbage)
		_, _, ok, err := a.lease.Record()
		require.False(t, ok)
		require.Error(t, err, garbage)
	}
	clock.Advance(ttl)
	require.NoError(t, a.take(true))
}

// R5: the dead holder's key goes with our take only when it hangs on the session that its record names.
func TestTakeRemovesOnlyTheReplacedHoldersKey(t *testing.T) {
	clock, srv, a, b := pair(t)
	require.NoError(t, a.take(true))
	b.look()
	// The same name under another session: another program runs there now (world Y4).
	swapped := srv.Open("/service/test")
	s, err := swapped.OpenSession(context.Background(), time.Hour)
	require.NoError(t, err)
	_, err = swapped.Commit(context.Background(), dcs.Txn{Then: []dcs.Op{dcs.PutSession(dcs.KeyLeader, []byte("a"), s.ID())}})
	require.NoError(t, err)
	clock.Advance(ttl)
	require.ErrorIs(t, b.take(false), dcs.ErrMayNotTake)
	require.NoError(t, s.Close(context.Background()))
	require.NoError(t, b.take(false))
}

// R6: a key found with our name is written anew; only our own put's version counts.
func TestRenewPutsAnAbsentLeader(t *testing.T) {
	_, _, a, _ := pair(t)
	require.NoError(t, a.take(true))
	a.delete(dcs.KeyLeader)
	_, err := a.renew(ttl)
	require.ErrorIs(t, err, dcs.ErrConflict, "a renewal without the key does not count")
	a.look()
	require.Equal(t, dcs.StandingMine, a.lease.Standing(a.session.ID()))
	_, err = a.renew(ttl)
	require.NoError(t, err)
	require.Equal(t, "a", a.value(dcs.KeyLeader))
}

// R2: another member's `leader` ends it, although the record is ours.
func TestForeignLeader(t *testing.T) {
	_, _, a, b := pair(t)
	require.NoError(t, a.take(true))
	_, err := b.store.Commit(context.Background(), dcs.Txn{Then: []dcs.Op{dcs.PutSession(dcs.KeyLeader, []byte("p"), b.session.ID())}})
	require.NoError(t, err)
	_, err = a.renew(ttl)
	require.ErrorIs(t, err, dcs.ErrConflict)
	a.look()
	require.Equal(t, dcs.StandingForeign, a.lease.Standing(a.session.ID()))
	_, err = a.renew(ttl)
	require.ErrorIs(t, err, dcs.ErrForeignKey)
}

// R3: an unknown outcome leaves the old deadline; our own late write is recognised; no read yields a deadline.
func TestUnknownRenewal(t *testing.T) {
	clock, _, a, _ := pair(t)
	require.NoError(t, a.take(true))
	before := a.lease.Deadline()
	clock.Advance(time.Second)
	a.store.Inject(memory.LoseReply, 1, dcs.CallCommit)
	deadline, err := a.renew(ttl)
	require.ErrorIs(t, err, dcs.ErrUnknown)
	require.Zero(t, deadline)
	require.Equal(t, before, a.lease.Deadline())
	a.look()
	require.Equal(t, dcs.StandingMine, a.lease.Standing(a.session.ID()), "it was our own write")
	require.Equal(t, before, a.lease.Deadline(), "a read is no renewal")
	deadline, err = a.renew(ttl)
	require.NoError(t, err)
	require.Equal(t, time.Second+dcs.Validity(ttl), deadline)
}

// R4, last sentence: a take with an unknown outcome opened no epoch, and is taken again at once under R4c.
func TestUnknownTake(t *testing.T) {
	_, _, a, _ := pair(t)
	a.store.Inject(memory.LoseReply, 1, dcs.CallCommit)
	require.ErrorIs(t, a.take(true), dcs.ErrUnknown)
	_, open := a.lease.Open()
	require.False(t, open)
	a.look()
	require.True(t, a.lease.Unreleased())
	require.NoError(t, a.take(false))
	epoch, open := a.lease.Open()
	require.True(t, open)
	require.EqualValues(t, 2, epoch)
}

// R8: close, then release; whatever the outcome of the release, the epoch is dead.
func TestRelease(t *testing.T) {
	_, _, a, b := pair(t)
	require.NoError(t, a.take(true))
	_, err := a.lease.Release(dcs.ProofEmpty, nil)
	require.ErrorIs(t, err, dcs.ErrNotClosed)
	a.lease.Close()
	_, err = a.renew(ttl)
	require.ErrorIs(t, err, dcs.ErrNotHeld, "a closed epoch is not renewed")

	step, err := a.lease.Release(dcs.ProofShutdown, json.RawMessage(`{"target":"b"}`))
	require.NoError(t, err)
	a.store.Inject(memory.LoseRequest, 1, dcs.CallCommit)
	_, err = a.send(step)
	require.ErrorIs(t, err, dcs.ErrUnknown)
	a.look()
	require.True(t, a.lease.Unreleased(), "it is released again")
	step, err = a.lease.Release(dcs.ProofShutdown, json.RawMessage(`{"target":"b"}`))
	require.NoError(t, err)
	_, err = a.send(step)
	require.NoError(t, err)
	require.Empty(t, a.value(dcs.KeyLeader))

	b.look()
	r, _, ok, _ := b.lease.Record()
	require.True(t, ok)
	require.JSONEq(t, `{"target":"b"}`, string(r.Note))
	require.NoError(t, b.take(false), "a proof needs no waiting")
}

// R9: a late put of `leader` by a node that does not hold the record is taken away by that node.
func TestOrphan(t *testing.T) {
	clock, _, a, b := pair(t)
	require.NoError(t, a.take(true))
	require.NoError(t, b.session.Renew(context.Background()))
	a.delete(dcs.KeyLeader)
	_, err := b.store.Commit(context.Background(), dcs.Txn{Then: []dcs.Op{dcs.PutSession(dcs.KeyLeader, []byte("b"), b.session.ID())}})
	require.NoError(t, err)
	b.look()
	require.True(t, b.lease.Orphan(b.session.ID()))
	step, err := b.lease.DropOrphan(b.session.ID())
	require.NoError(t, err)
	_, err = b.send(step)
	require.NoError(t, err)
	require.Empty(t, a.value(dcs.KeyLeader))
	clock.Advance(0)
}

// R10: a lower ttl shortens the guard's deadline before it is written; a higher one needs nothing.
func TestLoweringTTL(t *testing.T) {
	clock, _, a, _ := pair(t)
	require.NoError(t, a.take(true))
	clock.Advance(time.Second)
	step, err := a.lease.Renew(clock.Now(), a.session.ID(), 4*time.Second, nil)
	require.NoError(t, err)
	require.Equal(t, time.Second+dcs.Validity(4*time.Second), step.Shorten)
	a.store.Inject(memory.LoseReply, 1, dcs.CallCommit)
	_, err = a.send(step)
	require.ErrorIs(t, err, dcs.ErrUnknown)
	require.Equal(t, step.Shorten, a.lease.Deadline(), "the shorter deadline stands, whatever the outcome")
}

// R11: a restarted agent resumes by the guard's nonce, and writes `leader` anew under its new session.
func TestResume(t *testing.T) {
	clock, srv, a, _ := pair(t)
	require.NoError(t, a.take(true))
	epoch, _ := a.lease.Open()
	again := newMember(t, clock, srv, "a", "nonce-a")
	again.lease.Resume(epoch, true, a.lease.Deadline())
	again.look()
	require.Equal(t, dcs.StandingMine, again.lease.Standing(again.session.ID()))
	_, err := again.renew(ttl)
	require.NoError(t, err)
	snap, err := again.store.Read(context.Background())
	require.NoError(t, err)
	leader, _ := snap.Item(dcs.KeyLeader)
	require.Equal(t, again.session.ID(), leader.Session)

	other := newMember(t, clock, srv, "a", "another-guard") // A15: the name is not the identity
	require.ErrorIs(t, other.take(false), dcs.ErrMayNotTake)
}

// The published table: lease.md section 2.
func TestValidity(t *testing.T) {
	for ttl, want := range map[int]float64{3: 2.00, 4: 2.82, 8: 6.10, 10: 7.73, 20: 15.91, 30: 24.10} {
		require.InDelta(t, want, dcs.Validity(time.Duration(ttl)*time.Second).Seconds(), 0.006, "ttl %d", ttl)
	}
}
