package zookeeper_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest/zookeeperserver"
	"github.com/pgregent/pgregent/dcs/zookeeper"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.make("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// make writes name.pem, with the key and the certificate, and name.crt with the certificate alone.
func (a *authority) make(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	must := func(err error) {
		if err != nil {
			a.t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	must(err)
	cert, err := x509.ParseCertificate(der)
	must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	must(os.WriteFile(a.file(name+".crt"), public, 0o600))
	must(os.WriteFile(a.file(name+".pem"), append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), public...), 0o600))
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// The servers demand a certificate of the client and have one of their own; both are checked.
func TestTLS(t *testing.T) {
	ours, foreign := newAuthority(t), newAuthority(t)
	ours.make("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	ours.make("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	e := zookeeperserver.StartWith(t, zookeeperserver.Options{TLS: true, Config: []string{
		"ssl.keyStore.location=" + ours.file("server.pem"), "ssl.keyStore.type=PEM",
		"ssl.trustStore.location=" + ours.file("ca.crt"), "ssl.trustStore.type=PEM",
		"ssl.hostnameVerification=false", "ssl.clientAuth=need",
		"authProvider.x509=org.apache.zookeeper.server.auth.X509AuthenticationProvider",
	}})
	good := zookeeper.Config{Hosts: e.SecureAddrs(), Prefix: "/service/test", UseSSL: true, CACert: ours.file("ca.crt"), Cert: ours.file("client.pem"),
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
		"unknown authority":                func(c *zookeeper.Config) { c.CACert = foreign.file("ca.crt") },
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
