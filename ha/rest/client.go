package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// ClientOptions are how members are asked. The zero value asks without credentials and verifies no certificate, as
// Patroni members do among themselves (reference section 2.10).
type ClientOptions struct {
	Username, Password string
	// TLS is used for https URLs; nil does not verify the server's certificate.
	TLS *tls.Config
}

// Client asks other members. It keeps connections, so that a question in an election costs one round trip.
type Client struct {
	http http.Client
	o    ClientOptions
}

// maxBody bounds what is read of an answer.
const maxBody = 1 << 20

// NewClient returns a client. It may be used from any goroutine.
func NewClient(o ClientOptions) *Client {
	t := o.TLS
	if t == nil {
		t = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // reference section 2.10: members do not verify each other unless ctl.cacert is set
	}
	return &Client{o: o, http: http.Client{Transport: &http.Transport{
		TLSClientConfig:     t,
		DialContext:         (&net.Dialer{Timeout: 500 * time.Millisecond}).DialContext,
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     2 * time.Minute,
	}}}
}

// Status asks one member for its status, at its api_url verbatim (reference section 1.4). Any HTTP status will do, as
// long as the body is a status.
func (c *Client) Status(ctx context.Context, apiURL string) (Status, error) {
	body, _, err := c.do(ctx, http.MethodGet, apiURL, nil)
	if err != nil {
		return Status{}, err
	}
	return parseStatus(body)
}

// Post sends a JSON body to a URL and returns the answer's text and status code.
func (c *Client) Post(ctx context.Context, url string, body []byte) (text string, code int, err error) {
	b, code, err := c.do(ctx, http.MethodPost, url, body)
	return string(b), code, err
}

// Do makes any other request, with a JSON body unless that is nil, and returns the answer's text and status code.
func (c *Client) Do(ctx context.Context, method, url string, body []byte) (text string, code int, err error) {
	b, code, err := c.do(ctx, method, url, body)
	return string(b), code, err
}

func (c *Client) do(ctx context.Context, method, url string, body []byte) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, 0, fmt.Errorf("rest: api_url %q: %w", url, err)
	}
	if c.o.Username != "" {
		req.SetBasicAuth(c.o.Username, c.o.Password)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("rest: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return nil, 0, fmt.Errorf("rest: %s: %w", url, err)
	}
	return b, res.StatusCode, nil
}
