package etcd

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestEndpoints(t *testing.T) {
	for _, c := range []struct {
		name   string
		config Config
		want   []string
	}{
		{"host", Config{Host: "etcd1"}, []string{"http://etcd1:2379"}},
		{"host with port", Config{Host: "etcd1:4001"}, []string{"http://etcd1:4001"}},
		{"host and port", Config{Host: "10.0.0.1", Port: 4001}, []string{"http://10.0.0.1:4001"}},
		{"https", Config{Host: "etcd1", Protocol: "https"}, []string{"https://etcd1:2379"}},
		{"hosts", Config{Hosts: []string{"a:1", "b"}, Port: 7}, []string{"http://a:1", "http://b:7"}},
		{"hosts in one text", Config{Hosts: []string{"a:1, b:2,c"}}, []string{"http://a:1", "http://b:2", "http://c:2379"}},
		{"hosts as URLs", Config{Hosts: []string{"https://a:1"}}, []string{"https://a:1"}},
		{"IPv6", Config{Hosts: []string{"::1", "[::1]", "[::1]:5", "[fe80::1]"}}, []string{"http://[::1]:2379", "http://[::1]:5", "http://[fe80::1]:2379"}},
		{"url", Config{URL: "https://etcd1"}, []string{"https://etcd1:2379"}},
		{"url with slash", Config{URL: "http://etcd1:1/"}, []string{"http://etcd1:1"}},
		{"proxy", Config{Proxy: "http://etcd1:1"}, []string{"http://etcd1:1"}},
		{"proxy before url", Config{Proxy: "http://a:1", URL: "http://b:1", Host: "c"}, []string{"http://a:1"}},
		{"hosts before host", Config{Hosts: []string{"a"}, Host: "b"}, []string{"http://a:2379"}},
		{"endpoints", Config{Endpoints: []string{"a:1", "http://a:1", "https://b"}}, []string{"http://a:1", "https://b:2379"}},
	} {
		c.config.Prefix = "/service/x"
		got, err := c.config.normal(context.Background())
		if err != nil || !slices.Equal(got.Endpoints, c.want) {
			t.Errorf("%s: %q, %v, want %q", c.name, got.Endpoints, err, c.want)
		}
		if got.UseProxies != (c.config.Proxy != "") {
			t.Errorf("%s: UseProxies is %v", c.name, got.UseProxies)
		}
	}
}

func TestBadConfig(t *testing.T) {
	ok := Config{Prefix: "/service/x", Host: "a"}
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no endpoint", func(c *Config) { c.Host = "" }, "set one of host, hosts, url, proxy and srv"},
		{"no host in hosts", func(c *Config) { c.Hosts = []string{" , "} }, "hosts names no endpoint"},
		{"two ways", func(c *Config) { c.Endpoints = []string{"b"} }, "Endpoints is given beside host"},
		{"no prefix", func(c *Config) { c.Prefix = "" }, "prefix is empty"},
		{"prefix without slash", func(c *Config) { c.Prefix = "service/x" }, "does not begin with '/'"},
		{"prefix with slash at the end", func(c *Config) { c.Prefix = "/service/x/" }, "empty part"},
		{"only a slash", func(c *Config) { c.Prefix = "/" }, "empty part"},
		{"protocol", func(c *Config) { c.Protocol = "grpc" }, `protocol is "grpc"; want http or https`},
		{"scheme", func(c *Config) { c.Host = "ftp://a:1" }, "want http or https"},
		{"path", func(c *Config) { c.Host = "http://a:1/v3" }, "has a path"},
		{"no host", func(c *Config) { c.Host = "http://:1" }, "has no host"},
		{"port", func(c *Config) { c.Port = 70000 }, "port is 70000"},
		{"port of a host", func(c *Config) { c.Host = "a:b" }, `the port is "b"`},
		{"user without password", func(c *Config) { c.Username = "u" }, "give both or neither"},
		{"password without user", func(c *Config) { c.Password = "p" }, "give both or neither"},
		{"not a URL", func(c *Config) { c.Host = "http://u:secret@[::1" }, "not a URL"},
	} {
		bad := ok
		c.change(&bad)
		_, err := bad.normal(context.Background())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the password: %v", c.name, err)
		}
	}
}

func TestUserInURL(t *testing.T) {
	got, err := Config{Prefix: "/x", URL: "http://u:p@a:1"}.normal(context.Background())
	if err != nil || got.Username != "u" || got.Password != "p" || got.Endpoints[0] != "http://a:1" {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = Config{Prefix: "/x", URL: "http://u:p@a:1", Username: "v", Password: "q"}.normal(context.Background())
	if err != nil || got.Username != "v" || got.Password != "q" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestSRV(t *testing.T) {
	records := map[string][]*net.SRV{
		"_etcd-client-ssl._tcp.both":     {{Target: "a.both.", Port: 2379}, {Target: "b.both.", Port: 2380}},
		"_etcd-client._tcp.both":         {{Target: "c.both.", Port: 1}},
		"_etcd-client._tcp.plain":        {{Target: "a.plain.", Port: 2379}},
		"_etcd-client-blue._tcp.colours": {{Target: "a.colours.", Port: 2379}},
		"_etcd._tcp.old":                 {{Target: "a.old.", Port: 2379}},
	}
	broken := errors.New("no answer")
	lookup := func(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
		if name == "broken" {
			return "", nil, broken
		}
		found := records["_"+service+"._"+proto+"."+name]
		if found == nil {
			return "", nil, &net.DNSError{IsNotFound: true}
		}
		return "", found, nil
	}
	for _, c := range []struct {
		domain, suffix string
		want           []string
	}{
		{"both", "", []string{"https://a.both:2379", "https://b.both:2380"}},
		{"plain", "", []string{"http://a.plain:2379"}},
		{"colours", "blue", []string{"http://a.colours:2379"}},
		{"old", "", []string{"http://a.old:2379"}},
	} {
		got, err := Config{Prefix: "/x", SRV: c.domain, SRVSuffix: c.suffix, lookup: lookup}.normal(context.Background())
		if err != nil || !slices.Equal(got.Endpoints, c.want) {
			t.Errorf("%s: %q, %v, want %q", c.domain, got.Endpoints, err, c.want)
		}
	}
	_, err := Config{Prefix: "/x", SRV: "broken", lookup: lookup}.normal(context.Background())
	if !errors.Is(err, broken) {
		t.Errorf("DNS is silent: %v", err)
	}
	_, err = Config{Prefix: "/x", SRV: "none", SRVSuffix: "red", lookup: lookup}.normal(context.Background())
	if err == nil || !strings.Contains(err.Error(), "none has no record _etcd-client-ssl-red._tcp, _etcd-client-red._tcp") {
		t.Errorf("no records: %v", err)
	}
}
