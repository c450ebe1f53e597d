package rig

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
)

// etcd is talked to over its HTTP gateway.
type etcd struct {
	*etcdserver.Cluster
	prefix string
}

func newEtcd(t testing.TB, o Options, prefix string) *etcd {
	args := o.Etcd
	if args == nil {
		args = []string{"--heartbeat-interval=50", "--election-timeout=500"}
	}
	if o.EtcdServers != nil {
		return &etcd{o.EtcdServers, prefix}
	}
	return &etcd{etcdserver.StartWith(t, etcdserver.Options{Members: o.Servers, Args: args}), prefix}
}

func (e *etcd) Section(addrs []string, only bool) string {
	s := "etcd3:\n  hosts: [" + strings.Join(addrs, ", ") + "]"
	if only { // and no further addresses that the members tell
		s += "\n  use_proxies: true"
	}
	return s
}

func (e *etcd) Addrs(int) []string {
	out := make([]string, e.Servers())
	for i := range out {
		out[i] = e.Addr(i)
	}
	return out
}

func (e *etcd) Get(key string) (Key, error) {
	var out struct {
		Kvs []struct {
			Value       []byte `json:"value"`
			ModRevision string `json:"mod_revision"`
			Lease       string `json:"lease"`
		} `json:"kvs"`
	}
	if err := e.ask("/v3/kv/range", map[string]any{"key": e.key(key)}, &out); err != nil {
		return Key{}, err
	}
	if len(out.Kvs) != 1 {
		return Key{}, errAbsent
	}
	kv := out.Kvs[0]
	version, err := strconv.ParseUint(kv.ModRevision, 10, 64)
	return Key{Value: string(kv.Value), Version: version, Session: kv.Lease}, err
}

func (e *etcd) Put(key, value string) error {
	return e.ask("/v3/kv/put", map[string]any{"key": e.key(key), "value": []byte(value)}, nil)
}

func (e *etcd) Delete(key string) error {
	return e.ask("/v3/kv/deleterange", map[string]any{"key": e.key(key)}, nil)
}

func (e *etcd) EndSession(k Key) error {
	return e.ask("/v3/lease/revoke", map[string]any{"ID": k.Session}, nil)
}

func (e *etcd) Requests() (total float64, err error) {
	for i := range e.Servers() {
		text, err := askText(http.MethodGet, e.MetricsURL(i)+"/metrics", nil)
		if err != nil {
			return 0, err
		}
		total += sum(string(text), "grpc_server_msg_received_total{")
	}
	return total, nil
}

func (e *etcd) Servers() int  { return len(e.URLs()) }
func (e *etcd) Agent(int) int { return -1 }
func (e *etcd) key(name string) string {
	return base64.StdEncoding.EncodeToString([]byte(e.prefix + name))
}

// Leader asks each member, since some may be down.
func (e *etcd) Leader() int {
	for i, url := range e.URLs() {
		var out struct {
			Header struct {
				MemberID string `json:"member_id"`
			} `json:"header"`
			Leader string `json:"leader"`
		}
		err := ask(http.MethodPost, url+"/v3/maintenance/status", map[string]any{}, &out)
		if err == nil && out.Leader != "" && out.Leader == out.Header.MemberID {
			return i
		}
	}
	return -1
}

// ask asks the first member that answers.
func (e *etcd) ask(path string, request, reply any) (err error) {
	for _, url := range e.URLs() {
		if err = ask(http.MethodPost, url+path, request, reply); err == nil {
			return nil
		}
	}
	return fmt.Errorf("etcd: %w", err)
}
