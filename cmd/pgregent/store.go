package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/etcd"
	"github.com/pgregent/pgregent/ha/cluster"
)

// openStore opens the store that the file names, at the cluster's prefix /<namespace>/<scope> (reference section 1.1).
func openStore(ctx context.Context, c *config.Config, log *slog.Logger) (dcs.Store, error) {
	e, err := etcdConfig(c.Section("etcd3"))
	if err != nil {
		return nil, fmt.Errorf("etcd3: %w", err)
	}
	var parts []string
	for _, p := range strings.Split(c.Namespace+"/"+c.Scope, "/") {
		if p != "" {
			parts = append(parts, p)
		}
	}
	e.Prefix, e.Logger = "/"+strings.Join(parts, "/"), log
	store, err := etcd.Open(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("etcd3: %w", err)
	}
	return dcs.NewClient(store, nil), nil
}

// etcdConfig reads the section etcd3 (reference section 4.2), whose types were checked.
func etcdConfig(s map[string]any) (etcd.Config, error) {
	text := func(key string) string {
		if s[key] == nil {
			return ""
		}
		return fmt.Sprint(s[key])
	}
	e := etcd.Config{
		Host: text("host"), URL: text("url"), Proxy: text("proxy"), SRV: text("srv"), SRVSuffix: text("srv_suffix"), Protocol: text("protocol"),
		Username: text("username"), Password: text("password"), CACert: text("cacert"), Cert: text("cert"), Key: text("key"),
		UseProxies: cluster.ParseBool(s["use_proxies"]),
	}
	switch hosts := s["hosts"].(type) {
	case []any:
		for _, h := range hosts {
			e.Hosts = append(e.Hosts, fmt.Sprint(h))
		}
	case string:
		e.Hosts = []string{strings.Trim(hosts, "[]")}
	}
	if p := text("port"); p != "" {
		port, err := strconv.Atoi(p)
		if err != nil || port < 1 || port > 65535 {
			return etcd.Config{}, fmt.Errorf("port is %q, expected a number from 1 to 65535", p)
		}
		e.Port = port
	}
	return e, nil
}
