package zookeeper

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Config says which ensemble to use and how. Prefix is required, and either Hosts or Exhibitor. The fields named like
// settings of Patroni's section zookeeper mean what they mean there (reference sections 1.9 and 4.2).
type Config struct {
	// Prefix is the path above all keys, "/service/orders": it begins with '/' and does not end with it.
	Prefix string

	// Hosts are host:port or host, for port 2181; an element may hold several, separated by commas.
	Hosts []string

	// Exhibitor finds the hosts when Hosts is empty.
	Exhibitor Exhibitor

	// UseSSL connects with TLS, at the server's secureClientPort.
	UseSSL bool

	// CACert is a PEM file with the authorities that the servers' certificates are checked against; empty means those of
	// the system. Cert and Key are PEM files of the client's certificate and its key; when Key is empty, Cert holds both.
	// KeyPassword decrypts a key in the traditional form of OpenSSL ("Proc-Type: 4,ENCRYPTED"). Cert and Key are read again
	// for each new connection.
	CACert, Cert, Key, KeyPassword string

	// Insecure accepts any certificate of a server; it is the opposite of Patroni's verify. Otherwise the certificate must
	// also name the host as it is given here, which Patroni does not ask for.
	Insecure bool

	// SetACLs are the permissions on nodes that are created, by principal: {"CN=pg1": {"CREATE", "READ"}}. A principal is
	// scheme:id, or an id of the scheme x509. Empty means that everybody may do everything.
	SetACLs map[string][]string

	// AuthData are credentials by scheme: {"digest": "user:password"}.
	AuthData map[string]string

	// Timeout limits a call whose context has no deadline; 0 means 10 s.
	Timeout time.Duration

	// Logger gets what happens beside the calls. Nil discards.
	Logger *slog.Logger

	dial func(ctx context.Context, host string) (net.Conn, error) // made by normal
}

const (
	defaultPort    = 2181
	defaultTimeout = 10 * time.Second
)

// normal checks c and leaves no default open: Hosts are host:port.
func (c Config) normal() (Config, error) {
	if err := checkPrefix(c.Prefix); err != nil {
		return c, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if _, err := c.acls(); err != nil {
		return c, err
	}
	for scheme, credential := range c.AuthData {
		if scheme == "" || credential == "" {
			return c, errors.New("auth_data: a scheme or a credential is empty; want scheme: credential, such as digest: user:password")
		}
	}
	var err error
	if c.Hosts, err = splitHosts(c.Hosts, defaultPort); err != nil {
		return c, err
	}
	switch {
	case len(c.Hosts) == 0 && len(c.Exhibitor.Hosts) == 0:
		return c, errors.New("no host is given; set hosts")
	case len(c.Hosts) > 0 && len(c.Exhibitor.Hosts) > 0:
		return c, errors.New("hosts are given and Exhibitor is to find them; keep one")
	}
	if c.Exhibitor, err = c.Exhibitor.normal(); err != nil {
		return c, err
	}
	return c, c.makeDial()
}

// makeDial decides how connections are made.
func (c *Config) makeDial() error {
	if !c.UseSSL {
		c.dial = func(ctx context.Context, host string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", host)
		}
		return nil
	}
	t, err := c.tlsConfig()
	if err != nil {
		return err
	}
	c.dial = func(ctx context.Context, host string) (net.Conn, error) {
		return (&tls.Dialer{Config: t}).DialContext(ctx, "tcp", host)
	}
	return nil
}

// splitHosts separates what commas separate and adds the port where none is.
func splitHosts(list []string, port int) ([]string, error) {
	var all []string
	for _, element := range list {
		for text := range strings.SplitSeq(element, ",") {
			if text = strings.TrimSpace(text); text == "" {
				continue
			}
			host, err := splitHost(text, port)
			if err != nil {
				return nil, fmt.Errorf("the host %q: %w", text, err)
			}
			all = append(all, host)
		}
	}
	return all, nil
}

// splitHost takes "host", "host:port", "::1", "[::1]" and "[::1]:port".
func splitHost(text string, port int) (string, error) {
	bare := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	if _, err := netip.ParseAddr(bare); err == nil || !strings.Contains(text, ":") {
		return net.JoinHostPort(bare, strconv.Itoa(port)), nil
	}
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		return "", err
	}
	if n, err := strconv.Atoi(number); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("the port is %q; want 1 to 65535", number)
	}
	if host == "" {
		return "", errors.New("there is no name before the port; want host:port")
	}
	return net.JoinHostPort(host, number), nil
}
