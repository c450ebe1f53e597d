package consul_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/consul"
	"github.com/pgregent/pgregent/dcs/dcstest/certs"
	"github.com/pgregent/pgregent/dcs/dcstest/consulserver"
)

// TestTokens: the rights that docs/consul.md names are enough for everything, and a token that lacks them is told so, as
// refused and not as unknown.
func TestTokens(t *testing.T) {
	const root = "11111111-2222-3333-4444-555555555555"
	c := consulserver.StartWith(t, consulserver.Options{Servers: 1, Agents: 1, Config: map[string]any{
		"acl": map[string]any{"enabled": true, "default_policy": "deny", "tokens": map[string]string{"initial_management": root, "agent": root}}}})
	admin, err := api.NewClient(&api.Config{Address: c.Addr(0), Token: root})
	if err != nil {
		t.Fatal(err)
	}
	token := func(name, rules string) string {
		t.Helper()
		if _, _, err := admin.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil); err != nil {
			t.Fatal(err)
		}
		tok, _, err := admin.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: name}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return tok.SecretID
	}
	const rights = `key_prefix "service/orders/" { policy = "write" }
		session_prefix "" { policy = "write" }
		service "orders" { policy = "write" }`
	member := token("member", rights+`
		service "consul" { policy = "read" }
		node_prefix "" { policy = "read" }`)
	least := token("least", rights)
	reader := token("reader", `key_prefix "service/orders/" { policy = "read" }`)
	config := consul.Config{Addresses: []string{c.Addr(1)}, Prefix: "/service/orders"}
	with := func(token string) *consul.Store { t.Helper(); c := config; c.Token = token; return open(t, c) }

	s := with(member)
	ctx, cancel := within(limited)
	defer cancel()
	ses, err := s.OpenSession(ctx, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: "leader", Version: dcs.Absent}}, Then: []dcs.Op{dcs.PutSession("leader", []byte("pg1"), ses.ID()), dcs.Put("members/pg1", []byte("{}"))}}); err != nil {
		t.Fatal(err)
	}
	wake, err := s.Watch(ctx, "leader")
	if err != nil {
		t.Fatal(err)
	}
	if err := ses.Renew(ctx); err != nil {
		t.Fatal(err)
	}
	r := consul.NewRegistrar(s)
	if err := r.Update(ctx, consul.Service{Scope: "orders", Member: "pg1", ConnURL: "postgres://10.0.0.5:5432/postgres", APIURL: "http://10.0.0.5:8008/patroni", Role: "primary"}); err != nil {
		t.Error(err)
	}

	read := with(reader)
	if snap, err := read.Read(ctx); err != nil || len(snap.Items) != 2 {
		t.Errorf("the reader sees %+v, %v", snap, err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || errors.Is(err, dcs.ErrUnknown) || errors.Is(err, dcs.ErrConflict) || errors.Is(err, dcs.ErrSessionLost) || !strings.Contains(err.Error(), "token") {
			t.Errorf("%s: %v; want a refusal that names the token", what, err)
		}
	}
	_, err = read.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("config", []byte("{}"))}})
	refused("a put by the reader", err)
	_, err = read.OpenSession(ctx, 10*time.Second)
	refused("a session of the reader", err)
	short, cancel2 := within(3 * time.Second)
	defer cancel2()
	wrong := config
	wrong.Token = "99999999-2222-3333-4444-555555555555"
	_, err = consul.Open(short, wrong)
	refused("a token that nobody gave", err)
	none := config
	none.Token = ""
	_, err = consul.Open(short, none)
	refused("no token, which Consul answers with an empty listing", err)

	if err := ses.Close(ctx); err != nil {
		t.Fatal(err)
	}
	awaken(t, wake, limited, "the end of the session")

	// Of a node that has left the catalog, until its agent is registered again.
	agent, err := api.NewClient(&api.Config{Address: c.Addr(1), Token: root})
	if err != nil {
		t.Fatal(err)
	}
	name, err := agent.Agent().NodeName()
	if err != nil {
		t.Fatal(err)
	}
	poor := with(least)
	for range 2 {
		if _, err := admin.Catalog().Deregister(&api.CatalogDeregistration{Node: name}, nil); err != nil {
			t.Fatal(err)
		}
		brief, cancel3 := within(300 * time.Millisecond)
		_, err := poor.OpenSession(brief, 10*time.Second)
		cancel3()
		if err != nil && !strings.Contains(err.Error(), "node_prefix") {
			t.Errorf("a token that may not look for another node is told %v", err)
		}
		brief, cancel3 = within(300 * time.Millisecond)
		if _, err := s.OpenSession(brief, 10*time.Second); err != nil {
			t.Errorf("a session while the agent's node is not in the catalog: %v", err)
		}
		cancel3()
	}
}

// TestCertificates: agents that demand a certificate of the client.
func TestCertificates(t *testing.T) {
	ours, foreign := certs.New(t), certs.New(t)
	ours.Server("server")
	ours.Client("client")
	foreign.Client("client")
	c := consulserver.StartWith(t, consulserver.Options{HTTPS: true, Config: map[string]any{"tls": map[string]any{
		"https": map[string]any{"ca_file": ours.File("ca.crt"), "cert_file": ours.File("server.crt"), "key_file": ours.File("server.key"), "verify_incoming": true}}}})
	good := consul.Config{Host: c.SecureAddr(0), Scheme: "https", CACert: ours.File("ca.crt"), Cert: ours.File("client.pem"), Prefix: "/service/orders"}
	s := open(t, good)
	if err := put(s, "config", "{}"); err != nil {
		t.Fatal(err)
	}
	both := good
	both.Cert, both.Key = ours.File("client.crt"), ours.File("client.key")
	open(t, both)
	for want, change := range map[string]func(*consul.Config){
		"it refuses the client's certificate; check cert and key: ": func(c *consul.Config) { c.Cert = "" },
		"unknown certificate authority":                             func(c *consul.Config) { c.Cert = foreign.File("client.pem") },
		"check cacert":                                              func(c *consul.Config) { c.CACert = foreign.File("ca.crt") },
		"HTTP request to an HTTPS":                                  func(c *consul.Config) { c.Scheme, c.CACert, c.Cert = "http", "", "" },
	} {
		c := good
		change(&c)
		ctx, cancel := within(3 * time.Second)
		start := time.Now()
		_, err := consul.Open(ctx, c)
		cancel()
		if took := time.Since(start); err == nil || !strings.Contains(err.Error(), want) || took > time.Second {
			t.Errorf("%v after %v; want %q at once", err, took, want)
		}
	}
}

// The servers keep no session as short as is asked for. Who uses the Store through a Client, as the loop does, learns how long
// they are, or would take the session for one that is to be replaced, again and again.
func TestLongestMinimum(t *testing.T) {
	c := consulserver.StartWith(t, consulserver.Options{Servers: 1, Config: map[string]any{"session_ttl_min": "30s"}})
	s := dcs.NewClient(open(t, consul.Config{Addresses: c.URLs()}), nil)
	ctx, cancel := within(limited)
	defer cancel()
	ses, err := s.OpenSession(ctx, ttl)
	if err != nil {
		t.Fatal(err)
	}
	if l := s.Limits(); ses.TTL() != 30*time.Second || l.MinTTL != ses.TTL() {
		t.Errorf("the session's TTL is %v, and the shortest %v; want 30s", ses.TTL(), l.MinTTL)
	}
}
