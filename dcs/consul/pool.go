package consul

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// pool is the endpoints of a Store, one of them the preferred one, and the connections to them.
type pool struct {
	transport *http.Transport

	mu    sync.Mutex
	list  []*endpoint   // the preferred one first
	moved chan struct{} // closed when another is preferred
}

// endpoint is an agent or a server.
type endpoint struct {
	url    string
	client *api.Client
}

// newPool makes the clients, and no connection. The configuration is a normal one.
func newPool(c Config) (*pool, error) {
	t, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	// A dead peer is noticed by the kernel after some 10 s; until then the deadline of each call counts.
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: time.Second, Count: 5}}
	p := &pool{moved: make(chan struct{}), transport: &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: t, MaxIdleConnsPerHost: 64, IdleConnTimeout: 90 * time.Second,
		DisableCompression: true,
	}}
	client := &http.Client{
		Transport: noting{p.transport},
		// A redirect would carry a write to somebody else, perhaps a second time.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for _, url := range c.Addresses {
		scheme, address, _ := strings.Cut(url, "://")
		made, err := api.NewClient(&api.Config{Address: address, Scheme: scheme, Datacenter: c.Datacenter, Token: c.Token, HttpClient: client})
		if err != nil {
			return nil, err
		}
		p.list = append(p.list, &endpoint{url: url, client: made})
	}
	return p, nil
}

// errFiles is the kind of all errors about files of certificates.
var errFiles = errors.New("certificates")

// tlsConfig is what connections with TLS are made with. The files are read now: CACert for the connections to come,
// Cert and Key again for each of them.
func (c Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.SkipVerify && c.CACert == ""} //nolint:gosec // somebody asked for it by verify: false
	if c.CACert != "" {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, fmt.Errorf("%w: cacert: %w", errFiles, err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: cacert: %s holds no certificate in PEM form", errFiles, c.CACert)
		}
	}
	if c.Cert == "" {
		if c.Key != "" {
			return nil, fmt.Errorf("%w: key is %s and cert is empty; give both or neither", errFiles, c.Key)
		}
		return t, nil
	}
	if _, err := c.certificate(); err != nil {
		return nil, err
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.certificate() }
	return t, nil
}

// certificate reads the client's certificate.
func (c Config) certificate() (*tls.Certificate, error) {
	key := c.Key
	if key == "" {
		key = c.Cert
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, key)
	if err != nil {
		return nil, fmt.Errorf("%w: cert %s with key %s: %w", errFiles, c.Cert, key, err)
	}
	return &pair, nil
}

// all is the endpoints, the preferred one first.
func (p *pool) all() []*endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.list)
}

// first is the preferred endpoint, and a channel that is closed when another is preferred.
func (p *pool) first() (*endpoint, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list[0], p.moved
}

// leave makes e the last of the endpoints.
func (p *pool) leave(e *endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.list, e)
	p.list = append(slices.Delete(p.list, i, i+1), e)
	if i == 0 && len(p.list) > 1 {
		close(p.moved)
		p.moved = make(chan struct{})
	}
}

// close closes the connections that nobody uses; the others end with their calls.
func (p *pool) close() { p.transport.CloseIdleConnections() }

// note is what the transport saw of one call: whether a server may have got the request, and the status of the answer.
type note struct {
	sent   atomic.Bool
	status atomic.Int32 // 0 while there is none
}

type noteKey struct{}

// watch returns a context in which n sees what is sent.
func (n *note) watch(ctx context.Context) context.Context {
	n.sent.Store(false)
	n.status.Store(0)
	return httptrace.WithClientTrace(context.WithValue(ctx, noteKey{}, n),
		&httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { n.sent.Store(true) }})
}

// noting is a transport that notes the status, which the client's error texts do not always tell.
type noting struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t noting) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if n, ok := req.Context().Value(noteKey{}).(*note); ok && err == nil {
		n.status.Store(int32(resp.StatusCode))
	}
	return resp, err
}
