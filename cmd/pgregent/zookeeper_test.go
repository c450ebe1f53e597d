package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs/zookeeper"
)

func TestZooKeeperConfig(t *testing.T) {
	got, err := zookeeperConfig(map[string]any{"hosts": []any{"a:1", "b"}, "use_ssl": true, "cacert": "ca", "cert": "c", "key": "k", "key_password": "p",
		"verify": "off", "set_acls": map[string]any{"CN=pg1": []any{"READ", "WRITE"}}, "auth_data": map[string]any{"digest": "u:p"}}, nil)
	require.NoError(t, err)
	require.Equal(t, zookeeper.Config{Hosts: []string{"a:1", "b"}, UseSSL: true, CACert: "ca", Cert: "c", Key: "k", KeyPassword: "p", Insecure: true,
		SetACLs: map[string][]string{"CN=pg1": {"READ", "WRITE"}}, AuthData: map[string]string{"digest": "u:p"}}, got)
	got, err = zookeeperConfig(map[string]any{"hosts": "['a:1','b']"}, nil)
	require.NoError(t, err)
	require.False(t, got.Insecure, "certificates are verified unless that is switched off")
	got, err = zookeeperConfig(nil, map[string]any{"hosts": []any{"x"}, "port": "8181", "poll_interval": 60})
	require.NoError(t, err)
	require.Equal(t, zookeeper.Exhibitor{Hosts: []string{"x"}, Port: 8181, PollInterval: time.Minute}, got.Exhibitor)
	_, err = zookeeperConfig(map[string]any{"set_acls": map[string]any{"CN=pg1": "READ"}}, nil)
	require.ErrorContains(t, err, "expected a list of permissions")
}
