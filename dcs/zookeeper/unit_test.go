package zookeeper

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgregent/pgregent/dcs"
)

func TestPaths(t *testing.T) {
	s := &Store{prefix: encodePrefix("/service/a b%2F")}
	if s.prefix != "/service/a b%252F" {
		t.Errorf("the prefix is %q", s.prefix)
	}
	for key, want := range map[string]string{
		"leader": "leader", "members/pg1": "members/pg1", "per%cent": "per%25cent", "100%": "100%", "a%zz": "a%zz", ".": "%2E", "a/..": "a/%2E%2E",
		"..x": "..x", "ü": "ü", "🙂": "%F0%9F%99%82", "a\x01": "a%01", "\xff": "%FF", "%\x01": "%%01",
	} {
		path, err := s.pathOf(key)
		if err != nil || path != s.prefix+"/"+want || s.keyOf(path) != key {
			t.Errorf("%q: %q, %v, and back %q; want %q", key, path, err, s.keyOf(path), want)
		}
	}
	for _, key := range []string{"a//b", "a/"} {
		if _, err := s.pathOf(key); !errors.Is(err, dcs.ErrMalformed) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func FuzzPaths(f *testing.F) {
	f.Add("members/%41\x00🙂")
	f.Fuzz(func(t *testing.T, key string) {
		s := &Store{prefix: "/p"}
		path, err := s.pathOf(key)
		if err == nil && s.keyOf(path) != key {
			t.Errorf("%q: %q, and back %q", key, path, s.keyOf(path))
		}
	})
}

func TestWrongConfig(t *testing.T) {
	good := Config{Prefix: "/service/x", Hosts: []string{"a"}}
	if got, err := good.normal(); err != nil || !slices.Equal(got.Hosts, []string{"a:2181"}) {
		t.Errorf("%v, %v", got.Hosts, err)
	}
	for want, change := range map[string]func(*Config){
		"the prefix is empty":        func(c *Config) { c.Prefix = "" },
		"does not begin with '/'":    func(c *Config) { c.Prefix = "x" },
		"no host is given":           func(c *Config) { c.Hosts = nil },
		"keep one":                   func(c *Config) { c.Exhibitor.Hosts = []string{"e"} },
		"the port is \"x\"":          func(c *Config) { c.Hosts = []string{"a:x"} },
		"no name before the port":    func(c *Config) { c.Hosts = []string{":1"} },
		"the port of Exhibitor is 0": func(c *Config) { c.Hosts, c.Exhibitor.Hosts = nil, []string{"e"} },
		"permission \"SWIM\"":        func(c *Config) { c.SetACLs = map[string][]string{"CN=x": {"SWIM"}} },
		"has no permission":          func(c *Config) { c.SetACLs = map[string][]string{"CN=x": nil} },
		"auth_data: a scheme":        func(c *Config) { c.AuthData = map[string]string{"digest": ""} },
		"cacert: open":               func(c *Config) { c.UseSSL, c.CACert = true, "/none" },
		"cert is empty; give both":   func(c *Config) { c.UseSSL, c.Key = true, "/none" },
		"cert: open":                 func(c *Config) { c.UseSSL, c.Cert = true, "/none" },
	} {
		c := good
		change(&c)
		if _, err := Open(context.Background(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q in it", err, want)
		}
	}
}

func TestACLForms(t *testing.T) {
	got, err := Config{SetACLs: map[string][]string{"CN=pg1": {"CREATE", "READ"}, "digest:u:h": {"all"}}}.acls()
	want := []zk.ACL{{Perms: zk.PermCreate | zk.PermRead, Scheme: "x509", ID: "CN=pg1"}, {Perms: zk.PermAll, Scheme: "digest", ID: "u:h"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func TestHosts(t *testing.T) {
	got, err := splitHosts([]string{"a, b:1", "::1", "[::2]:3", ""}, 2181)
	if want := []string{"a:2181", "b:1", "[::1]:2181", "[::2]:3"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// What an error of the library means for a Commit.
func TestKinds(t *testing.T) {
	s := &Store{last: map[string]error{}}
	ctx := context.Background()
	newLink := func() *link {
		l := &link{}
		l.ctx, l.stop = context.WithCancelCause(ctx)
		return l
	}
	for _, err := range []error{zk.ErrConnectionClosed, zk.ErrClosing, zk.ErrNoServer, zk.ErrSessionMoved, fmt.Errorf("x: %w", errNoAnswer)} {
		if !lost(err) || !retry(err) {
			t.Errorf("%v is not taken for a lost connection", err)
		}
	}
	for _, err := range []error{zk.ErrBadVersion, zk.ErrNodeExists, zk.ErrNoNode, zk.ErrNotEmpty, zk.ErrNoAuth} {
		if lost(err) || retry(err) {
			t.Errorf("%v is taken for a lost connection", err)
		}
		if !decided(err) {
			t.Errorf("%v is not taken for a refusal", err)
		}
	}
	for _, err := range []error{zk.ErrAPIError, zk.ErrShortBuffer, errors.New("unknown error: -7"), errors.New("1 answers to 2 operations")} {
		if decided(err) {
			t.Errorf("%v is taken for a refusal", err)
		}
	}
	w := &write{store: s, session: &session{}}
	l := newLink()
	if err := w.trouble(ctx, l, zk.ErrSessionExpired); !errors.Is(err, dcs.ErrSessionLost) || l.ctx.Err() == nil {
		t.Errorf("an expired session: %v", err)
	}
	w.session = nil
	if err := w.trouble(ctx, newLink(), zk.ErrSessionExpired); err != nil {
		t.Errorf("the expired session of the shared connection, which holds nothing: %v", err)
	}
	if err := w.trouble(ctx, newLink(), zk.ErrNoAuth); !errors.Is(err, zk.ErrNoAuth) || errors.Is(err, dcs.ErrUnknown) {
		t.Errorf("no permission: %v", err)
	}
	if err := w.outcome(dcs.ErrConflict); !errors.Is(err, dcs.ErrConflict) {
		t.Errorf("a refusal: %v", err)
	}
	w.maybe = zk.ErrConnectionClosed
	for _, err := range []error{dcs.ErrConflict, dcs.ErrSessionLost, context.DeadlineExceeded} {
		got := w.outcome(err)
		if !errors.Is(got, dcs.ErrUnknown) || errors.Is(got, dcs.ErrConflict) || errors.Is(got, dcs.ErrSessionLost) {
			t.Errorf("%v after an attempt that may have happened: %v", err, got)
		}
	}
}

// The head of each message is seen, however the bytes come.
func TestWire(t *testing.T) {
	message := func(length int, rest ...byte) []byte {
		b := append([]byte{0, 0, byte(length >> 8), byte(length)}, rest...)
		return append(b, make([]byte, 4+length-len(b))...)
	}
	stream := slices.Concat(
		message(36, 0, 0, 0, 0, 0, 0, 0x0f, 0xa0, 0, 0, 0, 0, 0, 0, 0, 7), message(16, 0, 0, 0, 1), message(300, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 44), message(16, 0xff, 0xff, 0xff, 0xfe, 1), message(16, 0, 0, 0, 9))
	for _, size := range []int{1, 3, 4, 16, 20, 21, len(stream)} {
		var ttl time.Duration
		var id int64
		closed := 0
		w := &wire{greeted: func(d time.Duration, session int64) { ttl, id = d, session }, closed: func() { closed++ }, closing: true, closeXid: 9}
		for part := range slices.Chunk(stream, size) {
			w.look(part)
		}
		if ttl != 4*time.Second || id != 7 || closed != 1 || w.zxid != 300 {
			t.Errorf("in pieces of %d: ttl %v, session %d, closed %d times", size, ttl, id, closed)
		}
	}
}

func TestExhibitor(t *testing.T) {
	var answer atomic.Value
	answer.Store(`{"servers":["10.0.0.2","10.0.0.1"],"port":2181}`)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/exhibitor/v1/cluster/list" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(answer.Load().(string)))
	}))
	defer server.Close()
	u, _ := url.Parse(server.URL)
	port, _ := strconv.Atoi(u.Port())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	e := Exhibitor{Hosts: []string{"127.0.0.2.invalid", u.Hostname()}, Port: port, PollInterval: 10 * time.Millisecond}
	got, err := e.find(ctx)
	if want := []string{"10.0.0.1:2181", "10.0.0.2:2181"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("%q, %v; want %q", got, err, want)
	}
	s := &Store{hosts: got}
	s.config, _ = Config{Prefix: "/p", Hosts: got}.normal()
	polls, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Hosts = e.Hosts[1:]
		e.poll(polls, s)
	}()
	answer.Store(`{"servers":["10.0.0.3"],"port":2182}`)
	for !slices.Equal(s.Hosts(), []string{"10.0.0.3:2182"}) && ctx.Err() == nil {
		<-time.After(time.Millisecond)
	}
	for _, bad := range []string{"", "[]", `{"servers":[],"port":2181}`, `{"servers":["x"],"port":0}`} {
		answer.Store(bad)
		if _, err := e.ask(ctx, server.URL+exhibitorPath); err == nil {
			t.Errorf("%q is taken for an answer", bad)
		}
	}
	if _, err := e.ask(ctx, server.URL); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("the wrong path: %v", err)
	}
	stop()
	<-done
	if got := s.Hosts(); !slices.Equal(got, []string{"10.0.0.3:2182"}) {
		t.Errorf("the hosts are %q after answers that were none", got)
	}
}

func TestDecrypt(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der := x509.MarshalPKCS1PrivateKey(key)
	//lint:ignore SA1019 see decrypt
	block, err := x509.EncryptPEMBlock(rand.Reader, "RSA PRIVATE KEY", der, []byte("canary"), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(block)
	plain, err := decrypt(text, "canary")
	if b, _ := pem.Decode(plain); err != nil || b == nil || !slices.Equal(b.Bytes, der) {
		t.Errorf("decrypt: %v", err)
	}
	for password, want := range map[string]string{"": "key_password is empty", "wrong": "does not decrypt it"} {
		if _, err := decrypt(text, password); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %q: %v, want %q", password, err, want)
		}
	}
	if _, err := decrypt(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY"}), "x"); err == nil {
		t.Error("an encrypted PKCS #8 key is taken for a plain one")
	}
}
