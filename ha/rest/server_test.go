package rest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// authority issues certificates for tests.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.make("test CA", nil)
	a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) make(cn string, parent *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	require.NoError(a.t, err)
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: parent == nil, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	signer, by := key, c
	if parent != nil {
		signer, by = parent.key, parent.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), signer)
	require.NoError(a.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return cert, key
}

func (a *authority) write(name, kind string, der []byte) string {
	path := filepath.Join(a.dir, name)
	require.NoError(a.t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// issue writes name.pem and name.key.
func (a *authority) issue(name, cn string) (certFile, keyFile string) {
	cert, key := a.make(cn, a)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	return a.write(name+".pem", "CERTIFICATE", cert.Raw), a.write(name+".key", "PRIVATE KEY", der)
}

// serve starts a server and returns its address.
func serve(t *testing.T, h http.Handler, c *tls.Config) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	if c != nil {
		l = tls.NewListener(l, c)
	}
	s := NewServer(h, nil)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return address
}

// A certificate is replaced while the server serves; client certificates are asked for as verify_client says.
func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	certFile, keyFile := ca.issue("server", "first")
	clientCert, clientKey := ca.issue("client", "ops.example")
	pair, err := tls.LoadX509KeyPair(clientCert, clientKey)
	require.NoError(t, err)
	pool, err := LoadPool("x", filepath.Join(ca.dir, "ca.pem"))
	require.NoError(t, err)
	o := TLSOptions{CertFile: certFile, KeyFile: keyFile, CAFile: filepath.Join(ca.dir, "ca.pem"), VerifyClient: "optional"}
	side, err := NewTLS(o)
	require.NoError(t, err)
	n := primaryNode()
	address := serve(t, NewHandler(n, Options{ClientCert: true}), side.Config())

	ask := func(method, path string, certs ...tls.Certificate) (int, string, error) {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+address+path, nil)
		require.NoError(t, err)
		res, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = res.Body.Close() }()
		return res.StatusCode, res.TLS.PeerCertificates[0].Subject.CommonName, nil
	}
	code, cn, err := ask("GET", "/primary")
	require.NoError(t, err)
	require.Equal(t, []any{200, "first"}, []any{code, cn})
	code, _, err = ask("POST", "/reload")
	require.NoError(t, err)
	require.Equal(t, 403, code)
	code, _, err = ask("POST", "/reload", pair)
	require.NoError(t, err)
	require.Equal(t, 202, code)

	ca.issue("server", "second")
	_, cn, err = ask("GET", "/primary")
	require.NoError(t, err)
	require.Equal(t, "first", cn, "not before a reload")
	require.NoError(t, side.Reload(o))
	_, cn, err = ask("GET", "/primary")
	require.NoError(t, err)
	require.Equal(t, "second", cn)

	o.VerifyClient = "required"
	require.NoError(t, side.Reload(o))
	_, _, err = ask("GET", "/primary")
	require.Error(t, err)
	code, _, err = ask("GET", "/primary", pair)
	require.NoError(t, err)
	require.Equal(t, 200, code)

	require.NoError(t, os.WriteFile(keyFile, []byte("nonsense"), 0o600))
	require.ErrorContains(t, side.Reload(o), "restapi.certfile and keyfile")
	_, cn, err = ask("GET", "/primary", pair)
	require.NoError(t, err)
	require.Equal(t, "second", cn, "what is wrong leaves the old in force")

	for _, bad := range []TLSOptions{{CertFile: "/none"}, {CertFile: certFile, KeyFile: clientKey}, {CertFile: clientCert, KeyFile: clientKey, VerifyClient: "maybe"},
		{CertFile: clientCert, KeyFile: clientKey, VerifyClient: "required"}, {CertFile: clientCert, KeyFile: clientKey, Ciphers: "nothing"},
		{CertFile: clientCert, KeyFile: clientKey, CAFile: clientKey}} {
		_, err := NewTLS(bad)
		require.ErrorContains(t, err, "restapi.", bad)
	}
}

// Keys that OpenSSL encrypted, in its two ways.
func TestEncryptedKeys(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not here")
	}
	ca := newAuthority(t)
	certFile, keyFile := ca.issue("server", "x")
	for i, args := range [][]string{{"pkcs8", "-topk8", "-v2", "aes-256-cbc"}, {"pkcs8", "-topk8", "-v2", "aes128", "-v2prf", "hmacWithSHA512"},
		{"pkcs8", "-topk8", "-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA1"}, {"pkcs8", "-topk8", "-v2", "des3"}, {"pkcs8", "-topk8"}, {"ec", "-aes128"}} {
		out := filepath.Join(ca.dir, fmt.Sprintf("encrypted%d.key", i))
		b, err := exec.CommandContext(t.Context(), openssl, append(args, "-in", keyFile, "-out", out, "-passout", "pass:canary")...).CombinedOutput()
		require.NoError(t, err, string(b))
		_, err = LoadKeyPair("restapi", certFile, out, "canary")
		require.NoError(t, err, args)
		for _, wrong := range []string{"wrong", ""} {
			_, err = LoadKeyPair("restapi", certFile, out, wrong)
			require.Error(t, err, args)
			require.NotContains(t, err.Error(), "canary")
		}
	}
}

func TestCiphers(t *testing.T) {
	first := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for list, want := range map[string][]uint16{
		"": nil, "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256": first, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": first,
		"ECDHE+AESGCM:!ECDSA:!aNULL:@STRENGTH": {first[1], first[0]}, "TLS_AES_256_GCM_SHA384:AES256-SHA": {tls.TLS_RSA_WITH_AES_256_CBC_SHA},
	} {
		got, err := cipherSuites(list)
		require.NoError(t, err, list)
		require.Equal(t, want, got, list)
	}
	got, err := cipherSuites("HIGH:!aNULL:!MD5:!SHA1")
	require.NoError(t, err)
	require.Len(t, got, 8)
	for _, bad := range []string{"x", "!AES", "HIGH:!HIGH"} {
		_, err := cipherSuites(bad)
		require.Error(t, err, bad)
	}
}

// HTTP/1.1 with kept connections and a length; HTTP/1.0 as HAProxy's checks send it.
func TestKeepAlive(t *testing.T) {
	address := serve(t, Handler(primaryNode()), nil)
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	r := bufio.NewReader(conn)
	for range 3 {
		_, err = fmt.Fprint(conn, "GET /primary HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		res, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, 200, res.StatusCode)
		require.False(t, res.Close)
		require.EqualValues(t, len(b), res.ContentLength)
	}
	_, err = fmt.Fprint(conn, "OPTIONS /replica HTTP/1.0\r\n\r\n")
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(b), "HTTP/1.0 503 "), string(b))
}

// A client that does not come to an end is cut off; what is too large is not read.
func TestSlowAndLargeRequests(t *testing.T) {
	n := primaryNode()
	s := NewServer(NewHandler(n, Options{}), nil)
	s.ReadHeaderTimeout, s.ReadTimeout = 100*time.Millisecond, 200*time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = s.Serve(l) }()
	defer func() { _ = s.Close() }()
	for _, begin := range []string{"", "GET /", "POST /reload HTTP/1.1\r\nHost: x\r\n", "POST /restart HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
		"GET /patroni HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"} {
		conn, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = fmt.Fprint(conn, begin)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, conn) // until the server ends it
		require.NoError(t, err, begin)
		_ = conn.Close()
	}
	require.Zero(t, n.changes())
	res, err := http.Post("http://"+l.Addr().String()+"/restart", "", strings.NewReader(strings.Repeat(" ", 10<<20))) //nolint:noctx // a test
	if err == nil {                                                                                                   // or the server has ended the connection first
		require.Equal(t, 413, res.StatusCode)
		_ = res.Body.Close()
	}
	require.Zero(t, n.changes())
}

// A request that waits for the cluster outlives the limits for slow clients.
func TestPatience(t *testing.T) {
	n := primaryNode()
	n.then = func(n *fakeNode) {
		time.AfterFunc(500*time.Millisecond, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.cluster.Leader.Name = "b"
		})
	}
	s := NewServer(NewHandler(n, Options{}), nil)
	s.ReadTimeout, s.WriteTimeout = 100*time.Millisecond, 200*time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = s.Serve(l) }()
	defer func() { _ = s.Close() }()
	text, code, err := NewClient(ClientOptions{}).Post(t.Context(), "http://"+l.Addr().String()+"/switchover", []byte(`{"leader":"a"}`))
	require.NoError(t, err)
	require.Equal(t, 200, code, text)
}
