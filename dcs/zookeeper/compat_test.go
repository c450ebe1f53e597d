package zookeeper_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest/zookeeperserver"
	"github.com/pgregent/pgregent/dcs/zookeeper"
)

func contains(s, sub string) bool { return strings.Contains(s, sub) }

// raw is a client of ZooKeeper without this package.
func raw(t *testing.T, addrs []string) *zk.Conn {
	t.Helper()
	c, events, err := zk.Connect(addrs, 10*time.Second, zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for end := time.After(10 * time.Second); ; {
		select {
		case e := <-events:
			if e.State == zk.StateHasSession {
				return c
			}
		case <-end:
			t.Fatal("no connection")
		}
	}
}

// Patroni's layout: its nodes are keys, its folders are none, ours are where it looks, with nothing added, and its leader is
// never taken for ours.
func TestPatroniLayout(t *testing.T) {
	e := zookeeperserver.Start(t, 1)
	p := raw(t, e.Addrs())
	all := zk.WorldACL(zk.PermAll)
	for _, dir := range []string{"/service", "/service/test", "/service/test/members"} {
		if _, err := p.Create(dir, nil, 0, all); err != nil {
			t.Fatal(err)
		}
	}
	for path, flags := range map[string]int32{"leader": zk.FlagEphemeral, "members/pg1": zk.FlagEphemeral, "config": 0} {
		if _, err := p.Create("/service/test/"+path, []byte("of Patroni"), flags, all); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, zookeeper.Config{Hosts: e.Addrs()})
	ctx, cancel := within(limited)
	defer cancel()
	snap, err := s.Read(ctx)
	if err != nil || len(snap.Items) != 3 || snap.Items[0].Key != "config" || snap.Items[1].Session == "" || snap.Items[2].Key != "members/pg1" {
		t.Fatalf("Read: %+v, %v", snap, err)
	}
	theirs := snap.Items[1].Version
	ses := session(t, s, 10*time.Second)
	r, err := s.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: "leader", Version: theirs}},
		Then: []dcs.Op{dcs.PutSession("leader", []byte("pg2"), ses.ID()), dcs.Put("lease", []byte("ours"))}})
	if err != nil {
		t.Fatal(err)
	}
	data, stat, err := p.Get("/service/test/leader")
	if err != nil || string(data) != "pg2" || stat.Version == 0 || sixteen(stat.EphemeralOwner) != ses.ID() {
		t.Errorf("leader is %q, %+v, %v; want ours, not at version 0, bound to %s", data, stat, err, ses.ID())
	}
	// Patroni takes over: the node is deleted, and created again at version 0.
	if err := p.Delete("/service/test/leader", -1); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Create("/service/test/leader", []byte("pg1"), zk.FlagEphemeral, all); err != nil {
		t.Fatal(err)
	}
	for _, at := range []dcs.Version{theirs, r.Versions["leader"]} {
		_, err := s.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: "leader", Version: at}}, Then: []dcs.Op{dcs.Delete("leader")}})
		if !errors.Is(err, dcs.ErrConflict) {
			t.Errorf("a delete at a version from before: %v", err)
		}
	}
}

func sixteen(id int64) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for shift := 60; shift >= 0; shift -= 4 {
		b.WriteByte(digits[uint64(id)>>shift&15])
	}
	return b.String()
}

// With set_acls, only who has auth_data may touch the keys; the others are told so, and nothing else.
func TestACLs(t *testing.T) {
	e := zookeeperserver.Start(t, 1)
	owner := zookeeper.Config{Hosts: e.Addrs(), AuthData: map[string]string{"digest": "user:canary"},
		SetACLs: map[string][]string{"digest:" + zk.DigestACL(zk.PermAll, "user", "canary")[0].ID: {"ALL"}}}
	s := open(t, owner)
	ses := session(t, s, 10*time.Second)
	ctx, cancel := within(limited)
	defer cancel()
	_, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("config", []byte("v")), dcs.PutSession("leader", []byte("pg1"), ses.ID())}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ses.Renew(ctx); err != nil {
		t.Errorf("Renew: %v", err)
	}
	acl, _, err := raw(t, e.Addrs()).GetACL("/service/test")
	if err == nil && (len(acl) != 1 || acl[0].Scheme != "digest") {
		t.Errorf("the folder has %v", acl)
	}
	_, err = zookeeper.Open(ctx, zookeeper.Config{Hosts: e.Addrs(), Prefix: "/service/test"})
	if err == nil || !errors.Is(err, zk.ErrNoAuth) || contains(err.Error(), "canary") {
		t.Errorf("Open without credentials: %v", err)
	}
	if again := open(t, owner); again != nil {
		if it, err := item(again, "config"); err != nil || string(it.Value) != "v" {
			t.Errorf("config is %q, %v", it.Value, err)
		}
	}
}
