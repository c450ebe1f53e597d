package local

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// withDefaults checks what can be checked without running anything, and fills in the optional fields.
func (c Config) withDefaults() (Config, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = bootTime
	}
	c.Database = cmpOr(c.Database, "postgres")
	c.ConfigBaseName = cmpOr(c.ConfigBaseName, "postgresql")
	c.VerifyBackup = cmpOr(c.VerifyBackup, "sizes")
	checks := []func(*Config) error{checkNames, checkPaths, checkAccounts, checkOptions, checkAddresses}
	for _, check := range checks {
		if err := check(&c); err != nil {
			return c, fmt.Errorf("local: %w", err)
		}
	}
	return c, nil
}

func cmpOr(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func checkNames(c *Config) error {
	if c.Name == "" {
		return errors.New("Config.Name is empty: give this member a name that no other member has")
	}
	if c.Scope == "" {
		return errors.New("Config.Scope is empty: give the cluster's name")
	}
	for field, value := range map[string]string{"Name": c.Name, "Scope": c.Scope, "Database": c.Database} {
		if i := strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
			return fmt.Errorf("%s has a control character at byte %d: remove it", field, i)
		}
	}
	if strings.ContainsAny(c.ConfigBaseName, "/\x00") {
		return fmt.Errorf("ConfigBaseName is %q: give a file name without a folder", c.ConfigBaseName)
	}
	if !slices.Contains([]string{"sizes", "checksums", "off"}, c.VerifyBackup) {
		return fmt.Errorf("VerifyBackup is %q: choose sizes, checksums or off", c.VerifyBackup)
	}
	return nil
}

// checkPaths makes every path absolute and follows a symbolic link at DataDir, so that renaming replaces the
// directory and not the link to it (hazard D8).
func checkPaths(c *Config) error {
	if c.DataDir == "" {
		return errors.New("DataDir is empty: give the absolute path of the data directory")
	}
	if !filepath.IsAbs(c.DataDir) {
		return fmt.Errorf("DataDir is %q: give an absolute path", c.DataDir)
	}
	c.DataDir = filepath.Clean(c.DataDir)
	if c.DataDir == "/" {
		return errors.New("DataDir is /: give a directory of its own")
	}
	given := c.DataDir
	if real, err := filepath.EvalSymlinks(c.DataDir); err == nil {
		c.DataDir = real
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("DataDir %s: %w", c.DataDir, err)
	}
	c.ConfigDir = cmpOr(c.ConfigDir, given)
	if filepath.Clean(c.ConfigDir) == given {
		c.ConfigDir = c.DataDir
	}
	c.StateDir = cmpOr(c.StateDir, c.DataDir+".pgregent")
	if c.PGPass == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return fmt.Errorf("PGPass is empty and there is no home directory to put pgpass into: set PGPass to an absolute path: %w", err)
		}
		c.PGPass = filepath.Join(home, "pgpass")
	}
	for field, path := range map[string]*string{"ConfigDir": &c.ConfigDir, "StateDir": &c.StateDir, "PGPass": &c.PGPass, "ServerLog": &c.ServerLog, "BinDir": &c.BinDir} {
		if *path == "" {
			continue
		}
		if !filepath.IsAbs(*path) {
			return fmt.Errorf("%s is %q: give an absolute path", field, *path)
		}
		*path = filepath.Clean(*path)
	}
	if within(c.StateDir, c.DataDir) {
		return fmt.Errorf("StateDir %s is inside DataDir: a rewind or a new copy would destroy it; put it beside the data directory", c.StateDir)
	}
	if within(c.PGPass, c.DataDir) {
		return fmt.Errorf("PGPass %s is inside DataDir: a base backup would hand out the passwords; put it elsewhere", c.PGPass)
	}
	info, err := os.Stat(c.PGPass)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("PGPass %s is not a regular file: give the path of a file", c.PGPass)
	}
	return nil
}

// within says whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+string(filepath.Separator))
}

func checkAccounts(c *Config) error {
	if c.Rewind.Username == "" && c.Rewind != (Credentials{}) {
		return errors.New("Rewind.Username is empty although Rewind is set: name the account, or leave Rewind out to use the superuser")
	}
	accounts := map[string]Credentials{"Superuser": c.Superuser, "Replication": c.Replication}
	if c.Rewind.Username == "" {
		c.Rewind = c.Superuser
	} else {
		accounts["Rewind"] = c.Rewind
	}
	for field, a := range accounts {
		switch {
		case a.Username == "":
			return fmt.Errorf("%s.Username is empty: name the account", field)
		case a.NoPassword && a.Password != "":
			return fmt.Errorf("%s has a Password and NoPassword: choose one", field)
		case a.Password == "" && !a.NoPassword && a.SSLCert == "":
			return fmt.Errorf("%s.Password is empty: set it, or set NoPassword when the server lets this account in without one", field)
		case strings.ContainsAny(a.Username+a.Password, "\x00\n\r"):
			return fmt.Errorf("%s has a line break or a zero byte in its name or password: a password file cannot hold that", field)
		}
	}
	if c.Superuser.Username == c.Replication.Username && c.Superuser.Password != c.Replication.Password {
		return fmt.Errorf("Config.Superuser and Replication are both user %q with different passwords: make them equal or use two users", c.Superuser.Username)
	}
	if c.Rewind.Username == c.Superuser.Username && c.Rewind.Password != c.Superuser.Password ||
		c.Rewind.Username == c.Replication.Username && c.Rewind.Password != c.Replication.Password {
		return fmt.Errorf("Config.Rewind is user %q, which has another password elsewhere: make them equal or use two users", c.Rewind.Username)
	}
	return nil
}

// The options that would contradict what this package passes itself (reference section 4.2).
func forbiddenOptions() map[string][]string {
	return map[string][]string{
		"InitdbOptions":     {"pgdata", "nosync", "no-sync", "pwfile", "pwprompt", "username", "sync-only", "version", "help"},
		"BasebackupOptions": {"pgdata", "format", "wal-method", "xlog-method", "gzip", "version", "help", "dbname", "host", "port", "username", "password", "no-password", "target"},
		"RewindOptions":     {"target-pgdata", "source-pgdata", "source-server", "write-recovery-conf", "dry-run", "restore-target-wal", "config-file", "no-ensure-shutdown", "version", "help"},
	}
}

func checkOptions(c *Config) error {
	given := map[string]*[]string{"InitdbOptions": &c.InitdbOptions, "BasebackupOptions": &c.BasebackupOptions, "RewindOptions": &c.RewindOptions}
	for field, forbidden := range forbiddenOptions() {
		var args []string
		for _, option := range *given[field] {
			option = strings.TrimPrefix(option, "--")
			name, value, _ := strings.Cut(option, "=")
			if name == "" || strings.HasPrefix(name, "-") || strings.ContainsAny(name, " \t\x00") {
				return fmt.Errorf("%s has %q: write the long name of an option, or name=value", field, option)
			}
			if slices.Contains(forbidden, name) {
				return fmt.Errorf("%s has %q, which this program sets itself: remove it", field, name)
			}
			if field == "BasebackupOptions" && name == "compress" && !strings.HasPrefix(value, "server-") {
				return fmt.Errorf("%s has compress=%q: a plain copy can only be compressed on the way, write compress=server-gzip", field, value)
			}
			args = append(args, "--"+option)
		}
		*given[field] = args
	}
	return nil
}

func checkAddresses(c *Config) error {
	if c.Listen == "" {
		return errors.New("Config.Listen is empty: give host:port")
	}
	hosts, port, err := splitListen(c.Listen)
	if err != nil {
		return fmt.Errorf("Config.Listen is %q: %w", c.Listen, err)
	}
	if len(hosts) == 0 {
		return fmt.Errorf("Config.Listen is %q: name at least one host, or * for all", c.Listen)
	}
	if c.Connect == "" {
		c.Connect = net.JoinHostPort(localHost(hosts), strconv.Itoa(port))
	}
	if _, _, err := splitHostPort(c.Connect); err != nil {
		return fmt.Errorf("Config.Connect is %q: %w", c.Connect, err)
	}
	return nil
}

// splitListen takes "host,host:port" apart. An IPv6 address is written in brackets, or without a port.
func splitListen(s string) (hosts []string, port int, err error) {
	list, portText := s, "5432"
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") && (strings.Count(s, ":") == 1 || s[max(i-1, 0)] == ']' || strings.ContainsAny(s, ",")) {
		list, portText = s[:i], s[i+1:]
	}
	port, err = strconv.Atoi(portText)
	if err != nil || port < 1 || port > 65535 {
		return nil, 0, fmt.Errorf("the port %q is not a number from 1 to 65535", portText)
	}
	for host := range strings.SplitSeq(list, ",") {
		host = strings.Trim(strings.TrimSpace(host), "[]")
		if host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts, port, nil
}

// splitHostPort takes "host:port" apart.
func splitHostPort(s string) (host string, port int, err error) {
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("write host:port: %w", err)
	}
	port, err = strconv.Atoi(portText)
	if err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("the port %q is not a number from 1 to 65535", portText)
	}
	return host, port, nil
}

// localHost is the address for a TCP connection to the own server: localhost when it listens there, else the first
// address (the rule of Patroni, so that both reach the server alike).
func localHost(hosts []string) string {
	for _, h := range hosts {
		switch strings.ToLower(h) {
		case "*", "localhost", "0.0.0.0", "127.0.0.1":
			return "localhost"
		}
	}
	return hosts[0]
}
