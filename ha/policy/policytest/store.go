package policytest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// store is the model of the distributed store: one linearizable map of versioned keys, and sessions. Every request is
// performed at one instant; what happens on the way to it and back is the network's business.
type store struct {
	w        *World
	items    []dcs.Item // ascending by key; never changed in place, so that a snapshot is a slice header
	revision dcs.Version
	sessions map[string]*session
	opened   int
	slack    time.Duration // how long after its ttl a session ends
}

type session struct {
	id, owner string
	ttl       time.Duration
	expires   time.Duration
	host      *Node
	patroni   bool
}

func newStore(w *World) *store { return &store{w: w, sessions: map[string]*session{}} }

func (s *store) snapshot() dcs.Snapshot { return dcs.Snapshot{Items: s.items} }

func (s *store) item(key string) dcs.Item {
	i, ok := s.find(key)
	if !ok {
		return dcs.Item{}
	}
	return s.items[i]
}

func (s *store) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.items, key, func(it dcs.Item, k string) int { return strings.Compare(it.Key, k) })
}

// commit performs a transaction as dcs.Store.Commit promises it.
func (s *store) commit(by *Node, txn dcs.Txn) (dcs.Result, error) {
	for _, op := range txn.Then {
		if op.Session != "" && s.sessions[op.Session] == nil {
			return dcs.Result{}, dcs.ErrSessionLost
		}
	}
	for _, c := range txn.If {
		if s.item(c.Key).Version != c.Version {
			return dcs.Result{}, dcs.ErrConflict
		}
	}
	before := s.items
	s.items = slices.Clone(s.items)
	s.revision++
	res := dcs.Result{Versions: make(map[string]dcs.Version, len(txn.Then))}
	for _, op := range txn.Then {
		s.apply(op)
		if !op.Delete {
			res.Versions[op.Key] = s.revision
		}
	}
	s.w.storeChanged(by, before)
	return res, nil
}

func (s *store) apply(op dcs.Op) {
	i, ok := s.find(op.Key)
	if op.Delete {
		if ok {
			s.items = slices.Delete(s.items, i, i+1)
		}
		return
	}
	it := dcs.Item{Key: op.Key, Value: op.Value, Version: s.revision, Session: op.Session}
	if ok {
		s.items[i] = it
		return
	}
	s.items = slices.Insert(s.items, i, it)
}

func (s *store) open(n *Node, ttl time.Duration, patroni bool) *session {
	s.opened++
	se := &session{id: "s" + strconv.Itoa(s.opened), owner: n.name, ttl: ttl, host: n, patroni: patroni}
	s.sessions[se.id] = se
	s.keep(se)
	s.watchExpiry(se)
	return se
}

func (s *store) keep(se *session) { se.expires = s.w.now + se.ttl + s.slack }

// watchExpiry schedules the session's end; a session that was kept alive meanwhile is looked at again.
func (s *store) watchExpiry(se *session) {
	s.w.at(se.expires, func() {
		if s.sessions[se.id] != se {
			return
		}
		if s.w.now < se.expires {
			s.watchExpiry(se)
			return
		}
		s.end(se.id)
	})
}

// renew is Session.Renew.
func (s *store) renew(id string) error {
	se := s.sessions[id]
	if se == nil {
		return dcs.ErrSessionLost
	}
	s.keep(se)
	return nil
}

// end ends a session and deletes its keys.
func (s *store) end(id string) {
	if s.sessions[id] == nil {
		return
	}
	delete(s.sessions, id)
	before := s.items
	kept := make([]dcs.Item, 0, len(s.items))
	for _, it := range s.items {
		if it.Session != id {
			kept = append(kept, it)
		}
	}
	if len(kept) == len(before) {
		return
	}
	s.items = kept
	s.revision++
	s.w.storeChanged(nil, before)
}
