package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Config says which cluster to use and how. Prefix is required, and one of Endpoints, Proxy, URL, SRV, Hosts and Host. The
// fields named like settings of Patroni's section etcd3 mean what they mean there (reference section 4.2).
type Config struct {
	// Prefix is the path above all keys, "/service/orders": it begins with '/' and does not end with it.
	Prefix string

	// Endpoints are client URLs or host:port. It is for programs; the settings below are for files, and may not be given
	// beside it.
	Endpoints []string

	// Proxy is the URL of something in front of etcd that passes gRPC on, such as "etcd grpc-proxy" or a TCP load
	// balancer. It implies UseProxies. A proxy that speaks only HTTP/1 cannot be used.
	Proxy string

	// URL is one client URL. It may contain user and password.
	URL string

	// SRV is a domain whose DNS records _etcd-client-ssl._tcp, _etcd-client._tcp, _etcd-ssl._tcp or _etcd._tcp (the first
	// that there are) name the endpoints; those with ssl are used with TLS. SRVSuffix x makes that
	// _etcd-client-ssl-x._tcp and so on. Records of the peers (_etcd-server) are not used.
	SRV       string
	SRVSuffix string

	// Hosts are host:port or host; an element may hold several, separated by commas. Host is a single one.
	Hosts []string
	Host  string

	// Port is the port of Hosts and Host that name none; 0 means 2379.
	Port int

	// Protocol is "http" (also when empty) or "https", for Endpoints, Hosts and Host that are no URLs.
	Protocol string

	// UseProxies keeps to the endpoints given: the members are not asked for. Otherwise the URLs that members advertise are
	// used as well, after those given.
	UseProxies bool

	// Username and Password are those of an etcd user. They replace what URL contains.
	Username string
	Password string

	// CACert is a PEM file with the authorities that the servers' certificates are checked against; empty means those of
	// the system. Cert and Key are PEM files of the client's certificate and its key; when Key is empty, Cert holds both.
	// The files are read again for each new connection, so they may be replaced at any time (hazard C11).
	CACert string
	Cert   string
	Key    string

	// Timeout limits a call whose context has no deadline; 0 means 10 s.
	Timeout time.Duration

	// Logger gets what happens beside the calls, such as endpoints that are left and known bugs of the servers. Nil
	// discards.
	Logger *slog.Logger

	lookup lookupFunc // of SRV records; nil means that of the system
}

// lookupFunc is net.Resolver.LookupSRV.
type lookupFunc func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)

const (
	defaultPort    = 2379
	defaultTimeout = 10 * time.Second
)

// normal checks c and brings it into the form that the rest of the package uses: Endpoints are URLs, all that only leads
// to them is empty, and no default is left open.
func (c Config) normal(ctx context.Context) (Config, error) {
	if err := checkPrefix(c.Prefix); err != nil {
		return c, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.lookup == nil {
		c.lookup = new(net.Resolver).LookupSRV
	}
	if c.Protocol != "" && c.Protocol != "http" && c.Protocol != "https" {
		return c, fmt.Errorf("protocol is %q; want http or https", c.Protocol)
	}
	if c.Port < 0 || c.Port > 65535 {
		return c, fmt.Errorf("port is %d; want 1 to 65535", c.Port)
	}
	given, err := c.source(ctx)
	if err != nil {
		return c, err
	}
	c.Endpoints = nil
	for _, text := range given {
		if err := c.addEndpoint(text); err != nil {
			return c, err
		}
	}
	switch {
	case c.Username != "" && c.Password == "":
		return c, fmt.Errorf("username is %q and password is empty; give both or neither", c.Username)
	case c.Username == "" && c.Password != "":
		return c, errors.New("password is given and username is not; give both or neither")
	}
	c.UseProxies = c.UseProxies || c.Proxy != ""
	return c, nil
}

// source is the list of endpoints as they were given, from the one setting that counts. Patroni takes the first that it
// finds when there are several; so do we, in the order below, and say what was not used.
func (c *Config) source(ctx context.Context) ([]string, error) {
	sources := []struct {
		name string
		set  bool
		list func() ([]string, error)
	}{
		{"endpoints", len(c.Endpoints) > 0, func() ([]string, error) { return c.Endpoints, nil }},
		{"proxy", c.Proxy != "", func() ([]string, error) { return []string{c.Proxy}, nil }},
		{"url", c.URL != "", func() ([]string, error) { return []string{c.URL}, nil }},
		{"srv", c.SRV != "", func() ([]string, error) { return c.fromSRV(ctx) }},
		{"hosts", len(c.Hosts) > 0, func() ([]string, error) { return splitList(c.Hosts), nil }},
		{"host", c.Host != "", func() ([]string, error) { return []string{c.Host}, nil }},
	}
	var names []string
	var list func() ([]string, error)
	for _, s := range sources {
		if !s.set {
			continue
		}
		if list == nil {
			list = s.list
		}
		names = append(names, s.name)
	}
	switch {
	case list == nil:
		return nil, errors.New("no endpoint is given; set one of host, hosts, url, proxy and srv")
	case len(names) > 1 && names[0] == "endpoints":
		return nil, fmt.Errorf("Endpoints is given beside %s; keep one", strings.Join(names[1:], ", "))
	case len(names) > 1:
		c.Logger.WarnContext(ctx, "etcd: only one setting names the endpoints", "used", names[0], "not_used", strings.Join(names[1:], ", "))
	}
	all, err := list()
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s names no endpoint", names[0])
	}
	return all, err
}

// addEndpoint adds one to Endpoints, as a URL, unless it is there.
func (c *Config) addEndpoint(text string) error {
	if !strings.Contains(text, "://") {
		host, port, err := splitHostPort(text, c.Port)
		if err != nil {
			return fmt.Errorf("the endpoint %q: %w", text, err)
		}
		protocol := "http"
		if c.Protocol != "" {
			protocol = c.Protocol
		}
		text = protocol + "://" + net.JoinHostPort(host, port)
	}
	u, err := url.Parse(text)
	if err != nil {
		// The message of url.Parse repeats the URL, and with it a password.
		return errors.New("an endpoint is not a URL; want http://host:port or https://host:port")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("the endpoint %s has the scheme %q; want http or https", u.Redacted(), u.Scheme)
	case u.Hostname() == "":
		return fmt.Errorf("the endpoint %s has no host; want http://host:port or https://host:port", u.Redacted())
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("the endpoint %s has a path; want http://host:port or https://host:port", u.Redacted())
	}
	if u.User != nil && c.Username == "" && c.Password == "" {
		c.Username = u.User.Username()
		c.Password, _ = u.User.Password()
	}
	port := u.Port()
	if port == "" {
		port = strconv.Itoa(defaultPort)
	}
	clean := u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port)
	for _, e := range c.Endpoints {
		if e == clean {
			return nil
		}
	}
	c.Endpoints = append(c.Endpoints, clean)
	return nil
}

// fromSRV asks DNS.
func (c *Config) fromSRV(ctx context.Context) ([]string, error) {
	suffix := ""
	if c.SRVSuffix != "" {
		suffix = "-" + c.SRVSuffix
	}
	var failures []error
	for _, kind := range []struct{ service, protocol string }{
		{"etcd-client-ssl", "https"}, {"etcd-client", "http"}, {"etcd-ssl", "https"}, {"etcd", "http"},
	} {
		_, records, err := c.lookup(ctx, kind.service+suffix, "tcp", c.SRV)
		if err != nil && !notFound(err) {
			failures = append(failures, err)
		}
		var all []string
		for _, r := range records {
			host := net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
			all = append(all, kind.protocol+"://"+host)
		}
		if len(all) > 0 {
			return all, nil
		}
	}
	if len(failures) > 0 {
		return nil, fmt.Errorf("srv: DNS does not answer for %s: %w", c.SRV, errors.Join(failures...))
	}
	return nil, fmt.Errorf("srv: %s has no record _etcd-client-ssl%s._tcp, _etcd-client%[2]s._tcp, _etcd-ssl%[2]s._tcp or _etcd%[2]s._tcp",
		c.SRV, suffix)
}

func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
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

// splitList separates what commas separate.
func splitList(list []string) []string {
	var all []string
	for _, element := range list {
		for part := range strings.SplitSeq(element, ",") {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
	}
	return all
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
