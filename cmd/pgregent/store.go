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
	var parts []string
	for _, p := range strings.Split(c.Namespace+"/"+c.Scope, "/") {
		if p != "" {
			parts = append(parts, p)
		}
	}
	prefix := "/" + strings.Join(parts, "/")
	var store dcs.Store
	var err error
	switch name := c.Store(); name {
	case "etcd3":
		store, err = openEtcd(ctx, c.Section(name), prefix, log)
	case "consul":
		store, err = openConsul(ctx, c, prefix, log)
	case "zookeeper", "exhibitor":
		store, err = openZooKeeper(ctx, c, prefix, log)
	default:
		err = fmt.Errorf("no store is configured, want one of %s", strings.Join(config.Stores(), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Store(), err)
	}
	return dcs.NewClient(store, nil), nil
}

func openEtcd(ctx context.Context, section map[string]any, prefix string, log *slog.Logger) (dcs.Store, error) {
	e, err := etcdConfig(section)
	if err != nil {
		return nil, err
	}
	e.Prefix, e.Logger = prefix, log
	return etcd.Open(ctx, e)
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
	e.Hosts = hostList(s["hosts"])
	if p := text("port"); p != "" {
		port, err := strconv.Atoi(p)
		if err != nil || port < 1 || port > 65535 {
			return etcd.Config{}, fmt.Errorf("port is %q, expected a number from 1 to 65535", p)
		}
		e.Port = port
	}
	return e, nil
}

// hostList reads a text or a list.
func hostList(v any) (all []string) {
	switch hosts := v.(type) {
	case []any:
		for _, h := range hosts {
			all = append(all, fmt.Sprint(h))
		}
	case string:
		all = []string{strings.Trim(hosts, "[]")}
	}
	return all
}
