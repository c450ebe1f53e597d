package consul

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config says which Consul to use and how. Prefix is required. The fields named like settings of Patroni's section consul
// mean what they mean there (reference section 4.2); its consistency has no field, as reads are always consistent.
type Config struct {
	// Prefix is the path above all keys, "/service/orders": it begins with '/' and does not end with it.
	Prefix string

	// Addresses are agents or servers, as URLs or host:port, the preferred one first. It is for programs; the settings below
	// are for files, and may not be given beside it. Consul drops sessions of an agent that leaves the cluster; a Store that
	// has several addresses opens a session at whichever answers.
	Addresses []string

	// URL is the agent's URL, "https://127.0.0.1:8501". Host is host or host:port; empty means 127.0.0.1. Port is the port
	// of Host when that names none; 0 means 8500. Scheme is "http" (also when empty) or "https".
	URL    string
	Host   string
	Port   int
	Scheme string

	// Token is the ACL token. It needs key and session rights to write, for Service those to write the service, and those to read
	// the service "consul" and the nodes, so that a session can be opened while the agent's node is not in the catalog.
	Token string

	// Datacenter is whose keys are used (Patroni's dc); empty means the agent's own.
	Datacenter string

	// CACert is a PEM file with the authorities that the agent's certificate is checked against; empty means those of the
	// system. Cert and Key are PEM files of the client's certificate and its key; when Key is empty, Cert holds both. The
	// client's files are read again for each new connection. SkipVerify accepts any certificate
	// (Patroni's verify: false) when CACert is empty.
	CACert     string
	Cert       string
	Key        string
	SkipVerify bool

	// Checks are health checks of the agent's node whose failure ends the sessions, such as serfHealth. Empty means none,
	// which is what a store for leaders wants.
	Checks []string

	// SessionName is shown by Consul beside the sessions; Patroni writes <scope>-<member>.
	SessionName string

	// Timeout limits a call whose context has no deadline; 0 means 10 s.
	Timeout time.Duration

	// Logger gets what happens beside the calls. Nil discards.
	Logger *slog.Logger
}

const (
	defaultPort    = 8500
	defaultTimeout = 10 * time.Second
)

// normal checks c and brings it into the form that the rest of the package uses: Addresses are URLs, all that only leads
// to them is empty, and no default is left open.
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
	if c.Scheme != "" && c.Scheme != "http" && c.Scheme != "https" {
		return c, fmt.Errorf("scheme is %q; want http or https", c.Scheme)
	}
	if c.Port < 0 || c.Port > 65535 {
		return c, fmt.Errorf("port is %d; want 1 to 65535", c.Port)
	}
	if slices.Contains(c.Checks, "") {
		return c, errors.New("checks holds an empty name")
	}
	given := c.Addresses
	switch {
	case len(given) > 0 && (c.URL != "" || c.Host != ""):
		return c, errors.New("url or host is given beside addresses; keep one")
	case len(given) > 0:
	case c.URL != "":
		if !strings.Contains(c.URL, "://") {
			return c, fmt.Errorf("url is %q; want http://host:port or https://host:port", c.URL)
		}
		given = []string{c.URL}
	case c.Host != "":
		given = []string{c.Host}
	default:
		given = []string{"127.0.0.1"}
	}
	c.Addresses = nil
	for _, text := range given {
		address, err := c.address(text)
		if err != nil {
			return c, err
		}
		if !slices.Contains(c.Addresses, address) {
			c.Addresses = append(c.Addresses, address)
		}
	}
	c.URL, c.Host, c.Port, c.Scheme = "", "", 0, ""
	return c, nil
}

// address brings one into the form scheme://host:port.
func (c Config) address(text string) (string, error) {
	scheme := c.Scheme
	if scheme == "" {
		scheme = "http"
	}
	if !strings.Contains(text, "://") {
		host, port, err := splitHostPort(text, c.Port)
		if err != nil {
			return "", fmt.Errorf("the address %q: %w", text, err)
		}
		return scheme + "://" + net.JoinHostPort(host, port), nil
	}
	u, err := url.Parse(text)
	if err != nil {
		// The message of url.Parse repeats the URL, and with it a password.
		return "", errors.New("an address is not a URL; want http://host:port or https://host:port")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("the address %s has the scheme %q; want http or https", u.Redacted(), u.Scheme)
	case u.User != nil:
		return "", fmt.Errorf("the address %s has a user; Consul knows tokens only, see token", u.Redacted())
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("the address %s has a path; want http://host:port or https://host:port", u.Redacted())
	}
	host, port, err := splitHostPort(u.Host, c.Port)
	if err != nil || host == "" {
		return "", fmt.Errorf("the address %s names no host and port; want http://host:port or https://host:port", u.Redacted())
	}
	return u.Scheme + "://" + net.JoinHostPort(host, port), nil
}

func checkPrefix(prefix string) error {
	switch {
	case prefix == "":
		return errors.New("the prefix is empty; want /namespace/scope")
	case prefix[0] != '/':
		return fmt.Errorf("the prefix %q does not begin with '/'; want /namespace/scope", prefix)
	case strings.HasSuffix(prefix, "/") || strings.Contains(prefix, "//"):
		return fmt.Errorf("the prefix %q has an empty part; want /namespace/scope", prefix)
	}
	return nil
}

// splitHostPort takes "host", "host:port", "::1", "[::1]" and "[::1]:port".
func splitHostPort(text string, port int) (host, portText string, err error) {
	if port == 0 {
		port = defaultPort
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	if _, err := netip.ParseAddr(bare); err == nil || !strings.Contains(text, ":") {
		return bare, strconv.Itoa(port), nil
	}
	host, portText, err = net.SplitHostPort(text)
	if err != nil {
		return "", "", err
	}
	if n, err := strconv.Atoi(portText); err != nil || n < 1 || n > 65535 {
		return "", "", fmt.Errorf("the port is %q; want 1 to 65535", portText)
	}
	return host, portText, nil
}
