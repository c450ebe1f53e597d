package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// LoadTool reads what a command-line tool needs, which may be much less than a daemon's file: the store, and scope. A
// storeURL that is not empty replaces the stores of the file: [scheme://]host[:port][/namespace] (reference section 3.1).
func LoadTool(path, storeURL string, environ []string) (c *Config, warnings []string, err error) {
	tree, warnings, errs := gather(path, environ)
	if len(errs) > 0 {
		return nil, warnings, errors.Join(errs...)
	}
	if storeURL != "" {
		if err := replaceStore(tree, storeURL); err != nil {
			return nil, warnings, err
		}
	}
	c, _ = build(tree)
	if c.Scope == "" {
		return nil, warnings, errors.New("scope is missing: the cluster's name")
	}
	if err := c.checkStore(); err != nil {
		return nil, warnings, err
	}
	return c, warnings, nil
}

// storePorts are the ports that stores listen on when none is named.
func storePorts() map[string]int {
	return map[string]int{"etcd3": 2379, "consul": 8500, "zookeeper": 2181, "exhibitor": 8181}
}

func replaceStore(tree map[string]any, text string) error {
	if !strings.Contains(text, "//") {
		text = "//" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("the store's URL: %w", err)
	}
	port := 0
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil {
			return fmt.Errorf("the store's URL has the port %q", p)
		}
	}
	scheme := u.Scheme
	switch scheme {
	case "etcd": // API v2 is gone; whoever has it in a script means etcd
		scheme = "etcd3"
	case "":
		scheme = "etcd3"
		for s, p := range storePorts() {
			if p == port {
				scheme = s
			}
		}
	}
	standard, ok := storePorts()[scheme]
	if !ok {
		return fmt.Errorf("Unknown dcs scheme: %s", scheme) //lint:ignore ST1005 patronictl's words
	}
	if port == 0 {
		port = standard
	}
	host := u.Hostname()
	if host == "" {
		host = "localhost"
	}
	for _, s := range append(Stores(), "etcd", "kubernetes", "raft") {
		delete(tree, s)
	}
	address := net.JoinHostPort(host, strconv.Itoa(port))
	switch scheme {
	case "zookeeper":
		tree[scheme] = map[string]any{"hosts": []any{address}}
	case "exhibitor":
		tree[scheme] = map[string]any{"hosts": []any{host}, "port": port}
	default:
		tree[scheme] = map[string]any{"host": address}
	}
	if p := strings.TrimSpace(u.Path); p != "" && p != "/" {
		tree["namespace"] = p
	}
	return nil
}
