package zookeeper_test

import (
	"context"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest/certs"
	"github.com/pgregent/pgregent/dcs/dcstest/zookeeperserver"
	"github.com/pgregent/pgregent/dcs/zookeeper"
)

// The servers demand a certificate of the client and have one of their own; both are checked.
func TestTLS(t *testing.T) {
	ours, foreign := certs.New(t), certs.New(t)
	ours.Server("server")
	ours.Client("client")
	e := zookeeperserver.StartWith(t, zookeeperserver.Options{TLS: true, Config: []string{
		"ssl.keyStore.location=" + ours.File("server.pem"), "ssl.keyStore.type=PEM",
		"ssl.trustStore.location=" + ours.File("ca.crt"), "ssl.trustStore.type=PEM",
		"ssl.hostnameVerification=false", "ssl.clientAuth=need",
		"authProvider.x509=org.apache.zookeeper.server.auth.X509AuthenticationProvider",
	}})
	good := zookeeper.Config{Hosts: e.SecureAddrs(), Prefix: "/service/test", UseSSL: true, CACert: ours.File("ca.crt"), Cert: ours.File("client.pem"),
		SetACLs: map[string][]string{"CN=client": {"ALL"}}}
	s := open(t, good)
	ses := session(t, s, 10*time.Second)
	ctx, cancel := within(limited)
	defer cancel()
	if _, err := s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.PutSession("leader", []byte("pg1"), ses.ID())}}); err != nil {
		t.Fatal(err)
	}
	if acl, _, err := raw(t, e.Addrs()).GetACL("/service/test/leader"); err == nil && (len(acl) != 1 || acl[0].Scheme != "x509" || acl[0].ID != "CN=client") {
		t.Errorf("leader has the ACL %v", acl)
	}
	for want, change := range map[string]func(*zookeeper.Config){
		"unknown authority":                func(c *zookeeper.Config) { c.CACert = foreign.File("ca.crt") },
		"no session or a TLS error":        func(c *zookeeper.Config) { c.Cert = "" },
		"no session, without certificates": func(c *zookeeper.Config) { c.UseSSL, c.CACert, c.Cert = false, "", "" },
	} {
		c := good
		change(&c)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := zookeeper.Open(ctx, c)
		cancel()
		if err == nil || want == "unknown authority" && !contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	insecure := good
	insecure.CACert, insecure.Insecure = "", true
	if it, err := item(open(t, insecure), "leader"); err != nil || it.Session != ses.ID() {
		t.Errorf("without verification: %+v, %v", it, err)
	}
}
