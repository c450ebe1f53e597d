package etcd_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
	"github.com/pgregent/pgregent/dcs/etcd"
)

// authority signs certificates.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key, a.file, _ = a.write(t, name, template)
	return a
}

// issue makes a certificate for a server at 127.0.0.1 and for clients, changed as the caller likes.
func (a *authority) issue(t *testing.T, name string, change func(*x509.Certificate)) (cert, key string) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	_, _, cert, key = a.write(t, name, template)
	return cert, key
}

func (a *authority) write(t *testing.T, name string, template *x509.Certificate) (cert *x509.Certificate, key *ecdsa.PrivateKey, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "EC PRIVATE KEY", secret)
	return cert, key, certFile, keyFile
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// cannotOpen asserts that Open fails at once, with a sentence that has the words.
func cannotOpen(t *testing.T, name string, c etcd.Config, words ...string) {
	t.Helper()
	start := time.Now()
	cannotOpenIn(t, 5*time.Second, name, c, words...)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("%s: Open fails after %v only", name, took)
	}
}

// cannotOpenIn is cannotOpen for what may end by itself, so that Open tries for as long as it is let.
func cannotOpenIn(t *testing.T, limit time.Duration, name string, c etcd.Config, words ...string) {
	t.Helper()
	c.Prefix = "/service/x"
	ctx, cancel := within(limit)
	defer cancel()
	s, err := etcd.Open(ctx, c)
	if err == nil {
		_ = s.Close()
		t.Errorf("%s: Open succeeds", name)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: the error is %q, want %q in it", name, err, w)
		}
	}
	t.Logf("%s: %v", name, err)
}

// clientRefused is cannotOpen for a client certificate that the server does not take. With TLS 1.3 it says so after the
// client has finished its side of the handshake and may be writing already; then the connection's reset can overtake
// the alert, and the client only knows that the server hung up. Of several tries one must have heard the reason, and
// the others must name the certificate as a possible one.
func clientRefused(t *testing.T, name string, c etcd.Config, want string) {
	t.Helper()
	c.Prefix = "/service/x"
	var last error
	for range 5 {
		ctx, cancel := within(2 * time.Second)
		s, err := etcd.Open(ctx, c)
		cancel()
		if err == nil {
			_ = s.Close()
			t.Fatalf("%s: Open succeeds", name)
		}
		if strings.Contains(err.Error(), want) {
			t.Logf("%s: %v", name, err)
			return
		}
		if last = err; !strings.Contains(err.Error(), "check cert and key") {
			t.Fatalf("%s: the error is %q, want %q or a hint at cert and key in it", name, err, want)
		}
	}
	t.Errorf("%s: five tries, and none says %q; the last is %q", name, want, last)
}

func TestTLS(t *testing.T) {
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	serverCert, serverKey := ca.issue(t, "server", nil)
	cert, key := ca.issue(t, "client", nil)
	c := etcdserver.StartWith(t, etcdserver.Options{HTTPS: true, Args: []string{
		"--cert-file=" + serverCert, "--key-file=" + serverKey, "--client-cert-auth", "--trusted-ca-file=" + ca.file}})
	good := etcd.Config{Endpoints: c.URLs(), CACert: ca.file, Cert: cert, Key: key}
	s := open(t, good)
	if _, err := put(s, "k", "v", dcs.Absent); err != nil {
		t.Error(err)
	}
	ses := session(t, s, 10*time.Second)
	ctx, cancel := within(limited)
	defer cancel()
	if err := ses.Renew(ctx); err != nil {
		t.Error(err)
	}
	ch, err := s.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	awaken(t, ch, limited, "it was set up")

	with := func(change func(*etcd.Config)) etcd.Config {
		c := good
		change(&c)
		return c
	}
	both := filepath.Join(t.TempDir(), "both.pem")
	var pems []byte
	for _, f := range []string{cert, key} {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		pems = append(pems, text...)
	}
	if err := os.WriteFile(both, pems, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, with(func(c *etcd.Config) { c.Cert, c.Key = both, "" }))
	open(t, with(func(c *etcd.Config) {
		c.Endpoints, c.Protocol = nil, "https"
		c.Hosts = []string{strings.TrimPrefix(good.Endpoints[0], "https://")}
	}))

	strangeCert, strangeKey := stranger.issue(t, "client", nil)
	oldCert, oldKey := ca.issue(t, "old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	cannotOpen(t, "the system's authorities", with(func(c *etcd.Config) { c.CACert = "" }), "authority that is not trusted here; check cacert", c.URLs()[0])
	cannotOpen(t, "a wrong authority", with(func(c *etcd.Config) { c.CACert = stranger.file }), "authority that is not trusted here; check cacert")
	clientRefused(t, "no client certificate", with(func(c *etcd.Config) { c.Cert, c.Key = "", "" }), "asks for a client certificate; set cert and key")
	clientRefused(t, "a stranger's certificate", with(func(c *etcd.Config) { c.Cert, c.Key = strangeCert, strangeKey }), "client certificate")
	clientRefused(t, "an old certificate", with(func(c *etcd.Config) { c.Cert, c.Key = oldCert, oldKey }), "client certificate")
	cannotOpen(t, "the server's other name", with(func(c *etcd.Config) {
		c.Endpoints = []string{strings.Replace(good.Endpoints[0], "127.0.0.1", "localhost", 1)}
	}), "certificate")
	cannotOpen(t, "cacert is not there", with(func(c *etcd.Config) { c.CACert = "/nonexistent/ca" }), "cacert", "/nonexistent/ca")
	cannotOpen(t, "cacert is no certificate", with(func(c *etcd.Config) { c.CACert = key }), "holds no certificate")
	cannotOpen(t, "cert without key", with(func(c *etcd.Config) { c.Key = "" }), "cert "+cert)
	cannotOpen(t, "key without cert", with(func(c *etcd.Config) { c.Cert = "" }), "cert is empty")
	cannotOpenIn(t, time.Second, "no TLS", with(func(c *etcd.Config) {
		c.Endpoints = []string{strings.Replace(good.Endpoints[0], "https", "http", 1)}
	}), "if it uses TLS, set protocol to https")

	plain := etcdserver.Start(t, 1)
	cannotOpenIn(t, time.Second, "TLS where there is none", with(func(e *etcd.Config) {
		e.Endpoints = []string{strings.Replace(plain.URLs()[0], "http", "https", 1)}
	}), "if it does not use TLS, set protocol to http")
}

// Certificates are replaced while the Store is in use, by others of a new authority.
func TestCertificatesReplaced(t *testing.T) {
	ca := newAuthority(t, "ca")
	serverCert, serverKey := ca.issue(t, "server", nil)
	cert, key := ca.issue(t, "client", nil)
	c := etcdserver.StartWith(t, etcdserver.Options{HTTPS: true, Args: []string{
		"--cert-file=" + serverCert, "--key-file=" + serverKey, "--client-cert-auth", "--trusted-ca-file=" + ca.file}})
	s := open(t, etcd.Config{Endpoints: c.URLs(), CACert: ca.file, Cert: cert, Key: key})
	if _, err := put(s, "k", "1", dcs.Absent); err != nil {
		t.Fatal(err)
	}
	next := newAuthority(t, "ca")
	nextServer, nextServerKey := next.issue(t, "server", nil)
	nextCert, nextKey := next.issue(t, "client", nil)
	for from, to := range map[string]string{next.file: ca.file, nextServer: serverCert, nextServerKey: serverKey, nextCert: cert, nextKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	c.Restart(0)
	if _, err := put(s, "k", "2", dcs.Absent); err != nil && !errors.Is(err, dcs.ErrUnknown) {
		t.Errorf("the first call after the change: %v", err)
	}
	if got, err := value(s, "k"); err != nil {
		t.Errorf("with the new certificates: %q, %v", got, err)
	}
}

// secured is a cluster with authentication, where user app may do everything below /service/app/.
func secured(t *testing.T, args ...string) (*etcdserver.Cluster, *clientv3.Client) {
	t.Helper()
	c := etcdserver.StartWith(t, etcdserver.Options{Args: append([]string{"--bcrypt-cost=4"}, args...)})
	raw, err := clientv3.New(clientv3.Config{Endpoints: c.URLs()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	ctx, cancel := within(10 * time.Second)
	defer cancel()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(raw.UserAdd(ctx, "root", "rootpw"))
	must(raw.UserGrantRole(ctx, "root", "root"))
	must(raw.UserAdd(ctx, "app", "apppw"))
	must(raw.RoleAdd(ctx, "app"))
	must(raw.RoleGrantPermission(ctx, "app", "/service/app/", clientv3.GetPrefixRangeEnd("/service/app/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	must(raw.UserGrantRole(ctx, "app", "app"))
	must(raw.AuthEnable(ctx))
	root, err := clientv3.New(clientv3.Config{Endpoints: c.URLs(), Username: "root", Password: "rootpw"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return c, root
}

// everything does one of each call.
func everything(s dcs.Store, ses dcs.Session) error {
	ctx, cancel := within(limited)
	defer cancel()
	_, err := put(s, "k", "v", dcs.Absent)
	if err == nil {
		_, err = value(s, "k")
	}
	if err == nil {
		err = ses.Renew(ctx)
	}
	if err == nil {
		var other dcs.Session
		if other, err = s.OpenSession(ctx, 10*time.Second); err == nil {
			err = other.Close(ctx)
		}
	}
	return err
}

func TestAuth(t *testing.T) {
	c, root := secured(t)
	app := etcd.Config{Endpoints: c.URLs(), Prefix: "/service/app", Username: "app", Password: "apppw"}
	s := open(t, app)
	ses := session(t, s, 60*time.Second)
	if err := everything(s, ses); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch, err := s.Watch(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	awaken(t, ch, limited, "it was set up")

	cannotOpen(t, "a wrong password", etcd.Config{Endpoints: c.URLs(), Username: "app", Password: "x"}, "check username and password", c.URLs()[0])
	cannotOpen(t, "an unknown user", etcd.Config{Endpoints: c.URLs(), Username: "x", Password: "x"}, "check username and password")
	cannotOpen(t, "no user", etcd.Config{Endpoints: c.URLs()}, "set username and password")
	cannotOpen(t, "a prefix of others", etcd.Config{Endpoints: c.URLs(), Username: "app", Password: "apppw"}, "lacks a role")

	still(ch)
	c.Restart(0) // it forgets the tokens
	if err := everything(s, ses); err != nil {
		t.Errorf("after a restart, which makes the token void: %v", err)
	}
	awaken(t, ch, 5*time.Second, "the watch is set up again, with a new token")
	still(ch)
	if _, err := put(s, "k", "w", dcs.Absent); err != nil {
		t.Error(err)
	}
	awaken(t, ch, 5*time.Second, "a put after the restart")

	limit, stop := within(limited)
	defer stop()
	if _, err := root.UserRevokeRole(limit, "app", "app"); err != nil {
		t.Fatal(err)
	}
	_, err = put(s, "k", "x", dcs.Absent)
	if err == nil || errors.Is(err, dcs.ErrUnknown) || !strings.Contains(err.Error(), "lacks a role") {
		t.Errorf("Commit without the role: %v", err)
	}
	if err := ses.Renew(limit); errors.Is(err, dcs.ErrSessionLost) {
		t.Errorf("Renew without the role: %v; that is no loss (hazard C11)", err)
	}
	if _, err := root.UserGrantRole(limit, "app", "app"); err != nil {
		t.Fatal(err)
	}
	if err := everything(s, ses); err != nil {
		t.Errorf("with the role again: %v", err)
	}
}

// A token that nobody used for a while is void.
func TestTokenExpires(t *testing.T) {
	c, _ := secured(t, "--auth-token-ttl=1")
	s := open(t, etcd.Config{Endpoints: c.URLs(), Prefix: "/service/app", Username: "app", Password: "apppw"})
	ses := session(t, s, 60*time.Second)
	for range 2 {
		<-time.After(3 * time.Second)
		if err := everything(s, ses); err != nil {
			t.Errorf("after a pause: %v", err)
		}
	}
}

// User and password in the configuration, and a cluster without authentication, which is then turned on.
func TestAuthTurnedOn(t *testing.T) {
	c := etcdserver.StartWith(t, etcdserver.Options{Args: []string{"--bcrypt-cost=4"}})
	s := open(t, etcd.Config{Endpoints: c.URLs(), Username: "root", Password: "pw"})
	ses := session(t, s, 60*time.Second)
	if err := everything(s, ses); err != nil {
		t.Fatal(err)
	}
	raw, err := clientv3.New(clientv3.Config{Endpoints: c.URLs()})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	ctx, cancel := within(limited)
	defer cancel()
	for _, do := range []func() error{
		func() error { _, err := raw.UserAdd(ctx, "root", "pw"); return err },
		func() error { _, err := raw.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := raw.AuthEnable(ctx); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if err := everything(s, ses); err != nil {
		t.Errorf("after authentication was turned on: %v", err)
	}
}
