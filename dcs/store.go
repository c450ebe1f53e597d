// Package dcs is the distributed configuration store as pgregent needs it: versioned keys that change together in one
// transaction, sessions whose keys vanish with them, and a lease whose safety does not depend on the server's clock.
//
// Store is what a backend implements; it is small, and dcstest proves an implementation. Everything that needs care is
// written once, above it: Client adds time-outs, error context and counters to any Store; Lease is the lease protocol.
//
// The package knows no PostgreSQL: a lease record carries an opaque Note for whoever holds it. It does not queue
// (nothing waits for a key: a loser is told so at once), it does not renew anything in the background (only the loop
// that decides renews, hazard A2), and it does not judge whether a server expired a session in time.
package dcs

import (
	"context"
	"errors"
	"time"
)

// Store is one prefix of one distributed store. All keys are relative to the prefix: "leader", "members/pg1".
//
// Implementations are safe for concurrent use. Every method returns by the deadline of its context, also when the
// server accepts the connection and never answers (hazard: litefs's Renew, anchors.md 4).
//
// Every error is one of three kinds, told apart with errors.Is:
//   - refused, nothing happened: ErrConflict (a condition did not hold), ErrSessionLost (the session has ended);
//   - unknown, it may have happened: ErrUnknown (time-out, connection lost after sending). Read again before acting;
//   - anything else: the request did not happen (malformed, unauthorised, connection refused before sending).
type Store interface {
	// Read returns every key below the prefix as one consistent cut that is at least as new as anything that was
	// acknowledged to anybody before the call began (a linearizable read).
	Read(ctx context.Context) (Snapshot, error)

	// Commit applies txn, all of it or nothing. When a condition does not hold it returns ErrConflict; when a put is
	// bound to a session that has ended it returns ErrSessionLost.
	Commit(ctx context.Context, txn Txn) (Result, error)

	// Watch returns a channel that receives a value soon after any of the keys was put, deleted or expired. It carries
	// no data: events are coalesced, may be spurious, and the truth comes from Read. With no keys, every key counts.
	// The channel is closed when ctx ends, and only then: a broken stream, a compaction or a lost member is mended
	// inside, with one wake-up for whatever may have been missed. An error means that the watch could not be set up.
	Watch(ctx context.Context, keys ...string) (<-chan struct{}, error)

	// OpenSession starts a session that ends, and takes its keys along, when Renew was not called for ttl (or later,
	// see Limits.SessionSlack). ttl is rounded up to what the server can keep, never down.
	OpenSession(ctx context.Context, ttl time.Duration) (Session, error)

	// Limits tells what the backend can keep. MinTTL may grow when the server turns out to keep no session that short.
	Limits() Limits

	// Close frees local resources. It ends no session and may be called twice.
	Close() error
}

// Session is a server-side lifetime for keys. It is safe for concurrent use.
type Session interface {
	// ID names the session as Read shows it in Item.Session. It is never empty and never used again.
	ID() string

	// TTL is the time after the last Renew at which the server ends the session, at the earliest.
	TTL() time.Duration

	// Renew tells the server that the owner lives. It returns ErrSessionLost when the session has ended, and never
	// revives one. Nothing else renews: a backend whose client pings by itself must end the session when Renew was not
	// called for a ttl.
	Renew(ctx context.Context) error

	// Close ends the session and deletes its keys at once. It may be called twice.
	Close(ctx context.Context) error
}

// Version identifies one value of one key: it changes with every put, and a key that was deleted and put again never
// has an old version again. Versions of one key are only compared for equality. The zero Version means absent.
type Version uint64

// Absent as a condition asks that the key does not exist.
const Absent Version = 0

// Item is one key as read.
type Item struct {
	Key     string
	Value   []byte
	Version Version
	Session string // the ID of the session the key is bound to; empty for a permanent key
}

// Snapshot is one consistent cut of all keys below the prefix.
type Snapshot struct {
	Items []Item // in ascending order of Key
}

// Item returns the item under key, and whether there is one.
func (s Snapshot) Item(key string) (Item, bool) {
	for _, it := range s.Items {
		if it.Key == key {
			return it, true
		}
	}
	return Item{}, false
}

// Txn changes several keys at once: when every condition of If holds, every operation of Then is done. No key may
// appear twice in If, nor twice in Then.
type Txn struct {
	If   []Cond
	Then []Op
}

// Cond asks that Key is at Version, or does not exist when Version is Absent.
type Cond struct {
	Key     string
	Version Version
}

// Op puts or deletes one key.
type Op struct {
	Key     string
	Value   []byte
	Session string // the ID of an open session of this Store: the key vanishes with it; empty for a permanent key
	Delete  bool   // delete instead of put; deleting an absent key is no error
}

// Put returns an Op that stores value under key for good.
func Put(key string, value []byte) Op { return Op{Key: key, Value: value} }

// PutSession returns an Op that stores value under key for as long as the session with this ID lives.
func PutSession(key string, value []byte, session string) Op {
	return Op{Key: key, Value: value, Session: session}
}

// Delete returns an Op that removes key.
func Delete(key string) Op { return Op{Key: key, Delete: true} }

// Result is what a committed transaction left.
type Result struct {
	// Versions holds the new version of every key that was put.
	Versions map[string]Version
}

// Limits is what a backend can keep.
type Limits struct {
	MinTTL       time.Duration // the shortest session; OpenSession raises a shorter one
	MaxValue     int           // bytes of one value; 0 when unknown
	MaxOps       int           // conditions plus operations of one transaction; 0 when unknown
	SessionSlack time.Duration // how long after its ttl a session may end, at the latest, with a healthy server
}

// Errors. See Store for what they mean.
var (
	ErrConflict    = errors.New("a condition does not hold")
	ErrSessionLost = errors.New("the session has ended")
	ErrUnknown     = errors.New("the outcome is unknown")
	ErrTooLarge    = errors.New("the value or transaction is larger than the store takes")
	ErrClosed      = errors.New("the store is closed")
)
