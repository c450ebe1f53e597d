package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/zookeeper"
	"github.com/pgregent/pgregent/ha/cluster"
)

func openZooKeeper(ctx context.Context, c *config.Config, prefix string, log *slog.Logger) (dcs.Store, error) {
	z, err := zookeeperConfig(c.Section("zookeeper"), c.Section("exhibitor"))
	if err != nil {
		return nil, err
	}
	z.Prefix, z.Logger = prefix, log
	return zookeeper.Open(ctx, z)
}

// zookeeperConfig reads the section zookeeper, or exhibitor instead of it (reference section 4.2), whose types were checked.
func zookeeperConfig(s, exhibitor map[string]any) (zookeeper.Config, error) {
	text := func(key string) string {
		if s[key] == nil {
			return ""
		}
		return fmt.Sprint(s[key])
	}
	z := zookeeper.Config{
		Hosts: hostList(s["hosts"]), UseSSL: cluster.ParseBool(s["use_ssl"]), CACert: text("cacert"), Cert: text("cert"), Key: text("key"),
		KeyPassword: text("key_password"), Insecure: s["verify"] != nil && !cluster.ParseBool(s["verify"]),
		Exhibitor: zookeeper.Exhibitor{Hosts: hostList(exhibitor["hosts"])},
	}
	acls, _ := s["set_acls"].(map[string]any)
	for principal, list := range acls {
		names, ok := list.([]any)
		if !ok {
			return z, fmt.Errorf("set_acls: %s has %v, expected a list of permissions", principal, list)
		}
		if z.SetACLs == nil {
			z.SetACLs = make(map[string][]string)
		}
		for _, n := range names {
			z.SetACLs[principal] = append(z.SetACLs[principal], fmt.Sprint(n))
		}
	}
	auth, _ := s["auth_data"].(map[string]any)
	for scheme, credential := range auth {
		if z.AuthData == nil {
			z.AuthData = make(map[string]string)
		}
		z.AuthData[scheme] = fmt.Sprint(credential)
	}
	var err error
	if z.Exhibitor.Port, err = number(exhibitor, "port"); err != nil {
		return z, err
	}
	seconds, err := number(exhibitor, "poll_interval")
	z.Exhibitor.PollInterval = time.Duration(seconds) * time.Second
	return z, err
}

// number reads a whole number; 0 when there is none.
func number(s map[string]any, key string) (int, error) {
	if s[key] == nil {
		return 0, nil
	}
	n, err := strconv.Atoi(fmt.Sprint(s[key]))
	if err != nil {
		return 0, fmt.Errorf("%s is %v, expected a whole number", key, s[key])
	}
	return n, nil
}
