package consulserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Binary is the consul program: the one that PGREGENT_CONSUL names, else the one that .ci/consul.sh put into the cache, else
// consul in the PATH.
func Binary() (string, error) {
	if named := os.Getenv("PGREGENT_CONSUL"); named != "" {
		if !executable(named) {
			return "", fmt.Errorf("PGREGENT_CONSUL is %q, which is not a program", named)
		}
		return named, nil
	}
	if found := cached(); found != "" {
		return found, nil
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if found := filepath.Join(dir, "consul"); executable(found) {
			return found, nil
		}
	}
	return "", errors.New("there is no consul program: run .ci/consul.sh, or name one in PGREGENT_CONSUL")
}

// cached is the newest consul of the cache, or empty. The folder is that of .ci/env.
func cached() string {
	cache := os.Getenv("PGREGENT_CACHE")
	if cache == "" && os.Getuid() == 0 {
		cache = "/var/cache/pgregent"
	}
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		cache = filepath.Join(dir, "pgregent")
	}
	if link := filepath.Join(cache, "bin", "consul"); executable(link) {
		return link
	}
	all, _ := filepath.Glob(filepath.Join(cache, "bin", "consul-[0-9]*[0-9]")) // the pattern is well-formed
	if len(all) == 0 {
		return ""
	}
	return slices.MaxFunc(all, func(a, b string) int { return modTime(a).Compare(modTime(b)) })
}

func modTime(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// freePorts returns addresses on which nobody listens.
func freePorts(n int) ([]string, error) {
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
		if err != nil {
			return nil, fmt.Errorf("a free port: %w", err)
		}
		defer func() { _ = l.Close() }() // all at once, so that no port is given twice
		addrs[i] = l.Addr().String()
	}
	return addrs, nil
}
