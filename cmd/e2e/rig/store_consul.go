package rig

import (
	"net/http"
	"strings"
	"testing"

	"github.com/pgregent/pgregent/dcs/dcstest/consulserver"
)

// consul has an agent beside each daemon, which is how Consul is used.
type consul struct {
	*consulserver.Cluster
	servers, agents int
	prefix          string
}

func newConsul(t testing.TB, o Options, prefix string) *consul {
	c := consulserver.StartWith(t, consulserver.Options{
		Servers: o.Servers, Agents: o.Nodes,
		Config: map[string]any{"telemetry": map[string]any{"prometheus_retention_time": "24h", "disable_hostname": true}},
	})
	return &consul{c, max(o.Servers, 1), o.Nodes, strings.TrimPrefix(prefix, "/")}
}

func (c *consul) Section(addrs []string, _ bool) string {
	return "consul:\n  host: " + addrs[0] + "\n  register_service: true"
}

func (c *consul) Addrs(i int) []string {
	return []string{c.Addr(c.servers + i%max(c.agents, 1))}
}

func (c *consul) Get(key string) (Key, error) {
	var out []struct {
		Value       []byte
		ModifyIndex uint64
		Session     string
	}
	if err := ask(http.MethodGet, c.kv(key)+"?consistent", nil, &out); err != nil {
		return Key{}, err
	}
	if len(out) != 1 {
		return Key{}, errAbsent
	}
	return Key{Value: string(out[0].Value), Version: out[0].ModifyIndex, Session: out[0].Session}, nil
}

func (c *consul) Put(key, value string) error { return ask(http.MethodPut, c.kv(key), value, nil) }

func (c *consul) Delete(key string) error { return ask(http.MethodDelete, c.kv(key), nil, nil) }

func (c *consul) EndSession(k Key) error {
	return ask(http.MethodPut, c.URLs()[0]+"/v1/session/destroy/"+k.Session, nil, nil)
}

// Requests counts what the agents' HTTP interfaces answered.
func (c *consul) Requests() (total float64, err error) {
	for i := range c.agents {
		text, err := askText(http.MethodGet, "http://"+c.Addr(c.servers+i)+"/v1/agent/metrics?format=prometheus", nil)
		if err != nil {
			return 0, err
		}
		total += sum(string(text), "consul_api_http_count")
	}
	return total, nil
}

func (c *consul) Servers() int         { return c.servers }
func (c *consul) Agent(i int) int      { return c.servers + i }
func (c *consul) kv(key string) string { return c.URLs()[0] + "/v1/kv/" + c.prefix + key }
