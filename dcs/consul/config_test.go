package consul

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestConfigAddresses(t *testing.T) {
	for _, c := range []struct {
		give Config
		want string
	}{
		{Config{}, "http://127.0.0.1:8500"},
		{Config{Host: "consul.local"}, "http://consul.local:8500"},
		{Config{Host: "10.0.0.1:8600"}, "http://10.0.0.1:8600"},
		{Config{Host: "10.0.0.1", Port: 8600, Scheme: "https"}, "https://10.0.0.1:8600"},
		{Config{Host: "10.0.0.1:8601", Port: 8600}, "http://10.0.0.1:8601"},
		{Config{Host: "::1"}, "http://[::1]:8500"},
		{Config{Host: "[::1]:8600"}, "http://[::1]:8600"},
		{Config{URL: "https://consul.local"}, "https://consul.local:8500"},
		{Config{URL: "http://consul.local:8600/", Scheme: "https"}, "http://consul.local:8600"},
		{Config{Addresses: []string{"a:1", "https://b:2", "a:1"}}, "http://a:1 https://b:2"},
	} {
		c.give.Prefix = "/service/x"
		got, err := c.give.normal()
		if err != nil || strings.Join(got.Addresses, " ") != c.want {
			t.Errorf("%+v: %q, %v, want %s", c.give, got.Addresses, err, c.want)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	for want, c := range map[string]Config{
		"prefix is empty":                 {},
		"does not begin with '/'":         {Prefix: "service/x"},
		"has an empty part":               {Prefix: "/service//x"},
		"has an empty part; want":         {Prefix: "/service/x/"},
		`scheme is "ftp"`:                 {Prefix: "/x", Scheme: "ftp"},
		"port is 70000":                   {Prefix: "/x", Port: 70000},
		"checks holds":                    {Prefix: "/x", Checks: []string{"a", ""}},
		"keep one":                        {Prefix: "/x", Addresses: []string{"a"}, Host: "b"},
		`url is "consul:8500"`:            {Prefix: "/x", URL: "consul:8500"},
		"has the scheme":                  {Prefix: "/x", URL: "unix://socket"},
		"has a path":                      {Prefix: "/x", URL: "http://consul/v1"},
		"see token":                       {Prefix: "/x", URL: "http://me:secret@consul"},
		"an address is not a URL":         {Prefix: "/x", URL: "http://me:secret@consul:port"},
		`the port is "x"`:                 {Prefix: "/x", Host: "consul:x"},
		"names no host":                   {Prefix: "/x", URL: "http://:8500"},
		"cacert: open /nowhere":           {Prefix: "/x", CACert: "/nowhere"},
		"holds no certificate":            {Prefix: "/x", CACert: "config_test.go"},
		"cert is empty":                   {Prefix: "/x", Key: "key.pem"},
		"cert /nowhere with key /nowhere": {Prefix: "/x", Cert: "/nowhere"},
	} {
		n, err := c.normal()
		if err == nil {
			_, err = n.tlsConfig()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v, want %q in it, and no password", c, err, want)
		}
	}
}

// As with Patroni, an authority is asked for its opinion also when verify is false.
func TestConfigVerify(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, authority(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		give Config
		skip bool
	}{{Config{}, false}, {Config{SkipVerify: true}, true}, {Config{SkipVerify: true, CACert: file}, false}} {
		got, err := c.give.tlsConfig()
		if err != nil || got.InsecureSkipVerify != c.skip || got.MinVersion != tls.VersionTLS12 {
			t.Errorf("%+v: %v, %v", c.give, got, err)
		}
	}
}

func TestServiceEntry(t *testing.T) {
	v := Service{Scope: "Batman.db_1 ü", Member: "pg1", ConnURL: "postgres://10.0.0.5:5433/postgres", APIURL: "https://api.local/patroni",
		Role: "standby_leader", Tags: []string{"b", "a"}, TLSServerName: "pg1"}
	r, err := v.registration()
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "Batman.db_1 ü/pg1" || r.Name != "batman-db-1-u0252" || r.Address != "10.0.0.5" || r.Port != 5433 || !r.EnableTagOverride {
		t.Errorf("%+v", r)
	}
	if !slices.Equal(r.Tags, []string{"a", "b", "standby-leader"}) {
		t.Errorf("tags %q", r.Tags)
	}
	if k := r.Check; k.HTTP != "https://api.local/standby-leader" || k.Interval != "5s" || k.DeregisterCriticalServiceAfter != "2m30s" || k.TLSServerName != "pg1" {
		t.Errorf("check %+v", k)
	}
	v.Role = "primary"
	if r, err = v.registration(); err != nil || !slices.Equal(r.Tags, []string{"a", "b", "primary", "master"}) {
		t.Errorf("tags of the primary %q, %v", r.Tags, err)
	}
	if !slices.Equal(v.Tags, []string{"b", "a"}) {
		t.Error("the caller's tags were changed")
	}
	for want, change := range map[string]func(*Service){
		"the role is":   func(v *Service) { v.Role = "uninitialized" },
		"names no host": func(v *Service) { v.ConnURL = "postgres://me:secret@" },
		"the API's URL": func(v *Service) { v.APIURL = "" },
	} {
		w := v
		change(&w)
		if _, err := w.registration(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	if name := serviceName(strings.Repeat("x", 300)); len(name) != 230 {
		t.Errorf("a long name has %d characters", len(name))
	}
}
