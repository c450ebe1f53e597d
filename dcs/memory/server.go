// Package memory is a dcs.Store in the memory of one process, for tests, simulations and examples. A Server is shared by
// any number of Stores, each with its own faults. It keeps the whole contract: linearizable reads, transactions,
// versions that are never used again, sessions that expire on the clock that the Server was given.
//
// It is synchronous and deterministic: no call waits for anything, unless the fault Hang is set; there is no randomness;
// and with a ManualClock no goroutine is started. With another clock one goroutine runs while watches and sessions are
// open together, to wake the watches when a session expires.
//
// It survives nothing, serves no other process, and does not model a cluster of servers.
package memory

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// Server holds the keys and sessions. It is safe for concurrent use.
type Server struct {
	clock dcs.Clock

	mu       sync.Mutex
	limits   dcs.Limits
	entries  []entry // in ascending order of key
	revision dcs.Version
	sessions map[string]*session
	opened   uint64 // sessions ever opened, for their IDs
	// earliest is not later than the next end of a session; it is only meaningful when there are sessions.
	earliest time.Duration
	watches  []*watch
	alarm    alarm
	faults   faults
}

// entry is one key. value is never changed in place: a put replaces it.
type entry struct {
	key     string // with prefix
	value   []byte
	version dcs.Version
	session string
}

type session struct {
	id  string
	ttl time.Duration
	end time.Duration // on the server's clock
}

// NewServer returns an empty server whose sessions expire on clock.
func NewServer(clock dcs.Clock) *Server {
	return &Server{
		clock:    clock,
		sessions: make(map[string]*session),
		limits:   dcs.Limits{MinTTL: time.Millisecond, MaxValue: 1 << 20, MaxOps: 128},
	}
}

// SetLimits changes what Limits of every Store returns, and what the server keeps. The default is that of a server that
// expires sessions exactly: MinTTL 1 ms, MaxValue 1 MiB, MaxOps 128, SessionSlack 0. A session that is not renewed ends
// after its ttl plus SessionSlack: the server is as late as it may be.
func (s *Server) SetLimits(l dcs.Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = l
}

// Open returns a new Store for the keys below prefix; a "/" at its end makes no difference, "" is the whole server.
func (s *Server) Open(prefix string) *Store {
	if prefix != "" {
		prefix = strings.TrimRight(prefix, "/") + "/"
	}
	return &Store{server: s, prefix: prefix}
}

// EndSession ends a session early, as a server does that lost it, and says whether it was there.
func (s *Server) EndSession(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if s.sessions[id] == nil {
		return false
	}
	s.end(id)
	s.arm()
	return true
}

// Restart does what a restart of a server with data on disk does to its clients: every watch wakes, and every session
// has its whole ttl again.
func (s *Server) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	for _, ses := range s.sessions {
		ses.end = s.endOf(ses.ttl)
	}
	for _, w := range s.watches {
		w.wake()
	}
}

// find returns where key is, or would be.
func (s *Server) find(key string) (int, bool) { return find(s.entries, key) }

func find(entries []entry, key string) (int, bool) {
	return slices.BinarySearchFunc(entries, key, func(e entry, key string) int { return strings.Compare(e.key, key) })
}

// version of an absent key is dcs.Absent.
func (s *Server) version(key string) dcs.Version {
	if i, ok := s.find(key); ok {
		return s.entries[i].version
	}
	return dcs.Absent
}

func (s *Server) put(key string, value []byte, session string) dcs.Version {
	s.revision++
	e := entry{key: key, value: bytes.Clone(value), version: s.revision, session: session}
	if i, ok := s.find(key); ok {
		s.entries[i] = e
	} else {
		s.entries = slices.Insert(s.entries, i, e)
	}
	s.changed(key)
	return e.version
}

func (s *Server) remove(key string) {
	if i, ok := s.find(key); ok {
		s.entries = slices.Delete(s.entries, i, i+1)
		s.changed(key)
	}
}

// read copies what is below prefix. All values share one allocation, each with no room to grow into the next.
func read(entries []entry, prefix string) dcs.Snapshot {
	from, _ := find(entries, prefix)
	to, size := from, 0
	for ; to < len(entries) && strings.HasPrefix(entries[to].key, prefix); to++ {
		size += len(entries[to].value)
	}
	if from == to {
		return dcs.Snapshot{}
	}
	items, values := make([]dcs.Item, to-from), make([]byte, 0, size)
	for i, e := range entries[from:to] {
		start := len(values)
		values = append(values, e.value...)
		items[i] = dcs.Item{
			Key:     e.key[len(prefix):],
			Value:   values[start:len(values):len(values)],
			Version: e.version,
			Session: e.session,
		}
	}
	return dcs.Snapshot{Items: items}
}

// commit does what a Store below prefix asks.
func (s *Server) commit(prefix string, txn dcs.Txn) (dcs.Result, error) {
	for _, c := range txn.If {
		if at := s.version(prefix + c.Key); at != c.Version {
			return dcs.Result{}, fmt.Errorf("%w: %q is at version %d, not %d", dcs.ErrConflict, c.Key, at, c.Version)
		}
	}
	puts := 0
	for _, o := range txn.Then {
		if o.Session != "" && s.sessions[o.Session] == nil {
			return dcs.Result{}, fmt.Errorf("%w: %q, to which %q is to be bound", dcs.ErrSessionLost, o.Session, o.Key)
		}
		if !o.Delete {
			puts++
		}
	}
	r := dcs.Result{Versions: make(map[string]dcs.Version, puts)}
	for _, o := range txn.Then {
		if o.Delete {
			s.remove(prefix + o.Key)
		} else {
			r.Versions[o.Key] = s.put(prefix+o.Key, o.Value, o.Session)
		}
	}
	return r, nil
}

func (s *Server) open(ttl time.Duration) *session {
	s.opened++
	ttl = max(ttl, s.limits.MinTTL)
	ses := &session{id: fmt.Sprintf("session-%d", s.opened), ttl: ttl, end: s.endOf(ttl)}
	if len(s.sessions) == 0 || ses.end < s.earliest {
		s.earliest = ses.end
	}
	s.sessions[ses.id] = ses
	s.arm()
	return ses
}

func (s *Server) renew(id string) error {
	ses := s.sessions[id]
	if ses == nil {
		return fmt.Errorf("%w: %q", dcs.ErrSessionLost, id)
	}
	ses.end = s.endOf(ses.ttl)
	return nil
}

// end ends a session and takes its keys along.
func (s *Server) end(id string) {
	delete(s.sessions, id)
	s.entries = slices.DeleteFunc(s.entries, func(e entry) bool {
		if e.session != id {
			return false
		}
		s.changed(e.key)
		return true
	})
}

// expire ends the sessions whose time has come. It is the first thing of every call.
func (s *Server) expire() {
	if len(s.sessions) == 0 {
		return
	}
	now := s.clock.Now()
	if now < s.earliest {
		return
	}
	var due []*session
	for _, ses := range s.sessions {
		if ses.end <= now {
			due = append(due, ses)
		}
	}
	for _, ses := range due {
		s.end(ses.id)
	}
	first := true
	for _, ses := range s.sessions {
		if first || ses.end < s.earliest {
			first, s.earliest = false, ses.end
		}
	}
	if len(due) > 0 {
		s.arm()
	}
}

// endOf is when a session ends that is renewed now.
func (s *Server) endOf(ttl time.Duration) time.Duration {
	now := s.clock.Now()
	if end := now + ttl + s.limits.SessionSlack; end > now {
		return end
	}
	return math.MaxInt64 // the sum overflowed
}
