package zookeeper

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest/zookeeperserver"
)

// Between the look and the multi of a Commit the key is deleted and created again, so that its counter is what it was; and a
// key appears that had to be absent. Neither is overlooked.
func TestReplacedDuringCommit(t *testing.T) {
	e := zookeeperserver.Start(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := Open(ctx, Config{Hosts: e.Addrs(), Prefix: "/service/x"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	must := func(txn dcs.Txn) dcs.Version {
		t.Helper()
		r, err := s.Commit(ctx, txn)
		if err != nil {
			t.Fatal(err)
		}
		return r.Versions["k"]
	}
	put := dcs.Txn{Then: []dcs.Op{dcs.Put("k", []byte("v"))}}
	at := must(put)
	txns := map[string]dcs.Txn{
		"a put":               {If: []dcs.Cond{{Key: "k", Version: at}}, Then: []dcs.Op{dcs.Put("k", []byte("w"))}},
		"a delete":            {If: []dcs.Cond{{Key: "k", Version: at}}, Then: []dcs.Op{dcs.Delete("k")}},
		"a put of another":    {If: []dcs.Cond{{Key: "k", Version: at}, {Key: "l"}}, Then: []dcs.Op{dcs.Put("m", nil)}},
		"a delete of nothing": {If: []dcs.Cond{{Key: "l"}}, Then: []dcs.Op{dcs.Put("k", nil), dcs.Delete("n")}},
	}
	for name, txn := range txns {
		w, err := s.prepare(txn)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range txn.If { // the version that the key has now, for each of them
			if txn.If[i].Version != dcs.Absent {
				txn.If[i].Version = must(put)
			}
		}
		prefix, nodes, err := w.look(ctx, l)
		if err != nil || w.unmet(nodes) != nil {
			t.Fatalf("%s: %v, %v", name, err, w.unmet(nodes))
		}
		ops, puts, err := w.plan(prefix, nodes)
		if err != nil {
			t.Fatal(err)
		}
		counter := nodes["k"].stat.Version
		must(dcs.Txn{Then: []dcs.Op{dcs.Delete("k")}})
		must(dcs.Txn{Then: []dcs.Op{dcs.Put("l", nil), dcs.Put("n", nil)}})
		for range counter { // the first creates, at 1
			must(put)
		}
		now, err := get(ctx, l, nodes["k"].path)
		if err != nil || now.stat.Version != counter {
			t.Fatalf("%s: the counter is %+v (%v), want %d again", name, now, err, counter)
		}
		if _, done, err := w.commit(ctx, l, ops, puts); done || err != nil {
			t.Errorf("%s: done %v, %v; want that it must look again", name, done, err)
		}
		for {
			_, done, err := w.attempt(ctx)
			if done {
				t.Errorf("%s: done", name)
			}
			if err != nil {
				if !errors.Is(err, dcs.ErrConflict) {
					t.Errorf("%s: %v", name, err)
				}
				break
			}
		}
		must(dcs.Txn{Then: []dcs.Op{dcs.Delete("l"), dcs.Delete("n")}})
	}
}

// The server that is asked may lag behind what the condition is about. So a condition that does not hold at the first look is
// looked at again when the server has all that was acknowledged.
func TestConflictIsFresh(t *testing.T) {
	e := zookeeperserver.Start(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := Open(ctx, Config{Hosts: e.Addrs(), Prefix: "/service/x"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("k", nil)}}); err != nil {
		t.Fatal(err)
	}
	w, err := s.prepare(dcs.Txn{If: []dcs.Cond{{Key: "k", Version: 1}}, Then: []dcs.Op{dcs.Delete("k")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, done, err := w.attempt(ctx); done || err != nil {
		t.Errorf("at the first look: done %v, %v; want another", done, err)
	}
	if _, done, err := w.attempt(ctx); done || !errors.Is(err, dcs.ErrConflict) {
		t.Errorf("at the second look: done %v, %v; want that it is refused", done, err)
	}
}

// A key with others below it can be deleted: it becomes a folder, and again a key.
func TestFolderAgain(t *testing.T) {
	e := zookeeperserver.Start(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := Open(ctx, Config{Hosts: e.Addrs(), Prefix: "/service/x"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	keys := func() (all []string) {
		snap, err := s.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range snap.Items {
			all = append(all, it.Key)
		}
		return all
	}
	for _, step := range []struct {
		op   dcs.Op
		cond dcs.Cond
		want int
	}{
		{dcs.Put("a", nil), dcs.Cond{Key: "a"}, 1}, {dcs.Put("a/b", nil), dcs.Cond{Key: "a/b"}, 2},
		{dcs.Delete("a"), dcs.Cond{Key: "c"}, 1}, {dcs.Put("a", nil), dcs.Cond{Key: "a"}, 2}, {dcs.Delete("a/b"), dcs.Cond{Key: "c"}, 1},
		{dcs.Delete("a"), dcs.Cond{Key: "c"}, 0},
	} {
		if _, err := s.Commit(ctx, dcs.Txn{If: []dcs.Cond{step.cond}, Then: []dcs.Op{step.op}}); err != nil || len(keys()) != step.want {
			t.Errorf("%+v: %v, and the keys are %q, want %d", step.op, err, keys(), step.want)
		}
	}
	_, err = s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("x", []byte(folderMark))}})
	if !errors.Is(err, dcs.ErrMalformed) {
		t.Errorf("a value that is the mark of a folder: %v", err)
	}
	// Below a key that is bound to a session there is nothing.
	ses, err := s.OpenSession(ctx, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.PutSession("e", nil, ses.ID())}}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("e/f", nil)}})
	if !errors.Is(err, dcs.ErrMalformed) && !errors.Is(err, zk.ErrNoChildrenForEphemerals) {
		t.Errorf("a key below one that is bound: %v", err)
	}
}
