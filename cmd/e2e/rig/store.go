package rig

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/stretchr/testify/require"
)

// The functions of this file go to the store directly, past every link, over etcd's own HTTP gateway.

// Key is a key of the cluster as it is in the store.
type Key struct {
	Value   string
	Version int64 // its modification revision
	Lease   int64 // the session that it is bound to; 0: none
}

// EtcdPut writes a key below the cluster's prefix.
func (c *Cluster) EtcdPut(key, value string) {
	c.T.Helper()
	require.NoError(c.T, c.etcd("/v3/kv/put", map[string]any{"key": c.key(key), "value": []byte(value)}, nil))
}

// EtcdDelete deletes a key below the cluster's prefix.
func (c *Cluster) EtcdDelete(key string) error {
	return c.etcd("/v3/kv/deleterange", map[string]any{"key": c.key(key)}, nil)
}

// EtcdGet reads a key below the cluster's prefix. An absent one is an error.
func (c *Cluster) EtcdGet(key string) (Key, error) {
	var out struct {
		Kvs []struct {
			Value       []byte `json:"value"`
			ModRevision string `json:"mod_revision"`
			Lease       string `json:"lease"`
		} `json:"kvs"`
	}
	if err := c.etcd("/v3/kv/range", map[string]any{"key": c.key(key)}, &out); err != nil {
		return Key{}, err
	}
	if len(out.Kvs) != 1 {
		return Key{}, errors.New("the key is absent")
	}
	kv := out.Kvs[0]
	version, err := strconv.ParseInt(kv.ModRevision, 10, 64)
	if err != nil {
		return Key{}, err
	}
	k := Key{Value: string(kv.Value), Version: version}
	if kv.Lease != "" {
		k.Lease, err = strconv.ParseInt(kv.Lease, 10, 64)
	}
	return k, err
}

// EtcdRevoke ends a session.
func (c *Cluster) EtcdRevoke(lease int64) error {
	return c.etcd("/v3/lease/revoke", map[string]any{"ID": strconv.FormatInt(lease, 10)}, nil)
}

func (c *Cluster) key(name string) string {
	return base64.StdEncoding.EncodeToString([]byte("/service/" + c.Scope + "/" + name))
}

func (c *Cluster) etcd(path string, request, reply any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	res, err := http.Post(c.Store.URLs()[0]+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd: %s: %s", path, res.Status)
	}
	if reply == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(reply)
}
