// Package config reads what a pgregent daemon is told: Patroni's YAML file and PATRONI_* variables (reference sections
// 4.1 to 4.3). It reports wrong types with key, value and expectation, names unknown keys, and refuses settings that
// change safety and are not supported (design section 2).
//
// It contacts nothing and checks nothing about the machine: whether a port is free or a program exists is found out by
// who uses it.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/local"
)

// Config is the whole local configuration.
type Config struct {
	Name, Scope, Namespace string
	RestAPI                RestAPI
	Ctl                    Ctl
	PostgreSQL             local.Config
	ProxyAddress           string
	Scripts                Scripts
	Local                  postgres.Settings
	Tags                   cluster.Tags
	Bootstrap              map[string]any // bootstrap.dcs
	HasBootstrap           bool
	StateDir               string
	GuardProgram           string
	Fence                  Fence
	LogLevel               slog.Level
	LogJSON                bool
	LogDir                 string

	tree map[string]any
}

// Ctl is how other members and tools are contacted.
type Ctl struct {
	Insecure                  bool
	CACert, CertFile, KeyFile string
	KeyPassword               string
	Username, Password        string
}

// Section returns a mapping of the merged tree, for the store backends: "etcd3".
func (c *Config) Section(name string) map[string]any {
	m, _ := c.tree[name].(map[string]any)
	return m
}

// Stores are the sections that can name the store.
func Stores() []string { return []string{"etcd3", "consul", "zookeeper", "exhibitor"} }

// Store is the section that names the store; empty when there is none.
func (c *Config) Store() string {
	for _, s := range Stores() {
		if len(c.Section(s)) > 0 {
			return s
		}
	}
	return ""
}

// checkStore asks for one store. Two are refused: nobody could tell which of them decides.
func (c *Config) checkStore() error {
	var found []string
	for _, s := range Stores() {
		if len(c.Section(s)) > 0 {
			found = append(found, s)
		}
	}
	switch all := strings.Join(Stores(), ", "); len(found) {
	case 0:
		return fmt.Errorf("no store is configured: one of the sections %s is needed", all)
	case 1:
		return nil
	default:
		return fmt.Errorf("more than one store is configured: %s; keep one", strings.Join(found, ", "))
	}
}

// Load reads a file (or a folder of *.yml and *.yaml files, merged in sorted order) and lays the environment over it.
// Warnings name what is ignored. The error names every setting that is wrong, one line each.
func Load(path string, environ []string) (c *Config, warnings []string, err error) {
	tree, warnings, errs := gather(path, environ)
	if len(errs) == 0 {
		c, errs = build(tree)
		errs = append(errs, refuse(tree)...)
		warnings = append(warnings, c.peerWarnings()...)
	}
	if len(errs) > 0 {
		return nil, warnings, errors.Join(errs...)
	}
	return c, warnings, nil
}

// gather reads file and environment into one tree, and checks names and types.
func gather(path string, environ []string) (tree map[string]any, warnings []string, errs []error) {
	tree = map[string]any{}
	var err error
	if path != "" {
		tree, err = readTree(path)
	} else if doc := lookup(environ, "PATRONI_CONFIGURATION"); doc != "" {
		tree, err = parseTree("PATRONI_CONFIGURATION", []byte(doc))
		environ = nil // reference section 4.1: a whole document is not overridden
	}
	if err != nil {
		return nil, nil, []error{err}
	}
	env, warnings, errs := environment(environ)
	merge(tree, env)
	w, e := check(tree)
	return tree, append(warnings, w...), append(errs, e...)
}

func lookup(environ []string, name string) string {
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

func readTree(path string) (map[string]any, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be read: %w", err)
	}
	files := []string{path}
	if info.IsDir() {
		files = nil
		for _, pattern := range []string{"*.yml", "*.yaml"} {
			found, _ := filepath.Glob(filepath.Join(path, pattern))
			files = append(files, found...)
		}
		slices.Sort(files)
	}
	tree := map[string]any{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("the configuration cannot be read: %w", err)
		}
		t, err := parseTree(f, b)
		if err != nil {
			return nil, err
		}
		merge(tree, t)
	}
	return tree, nil
}

func parseTree(name string, b []byte) (map[string]any, error) {
	var tree map[string]any
	if err := yaml.Unmarshal(b, &tree); err != nil {
		return nil, fmt.Errorf("%s is not a YAML mapping: %w", name, err)
	}
	if tree == nil {
		return nil, fmt.Errorf("%s is empty", name)
	}
	return tree, nil
}

// reader takes typed values out of the tree.
type reader struct{ tree map[string]any }

func (r reader) at(path string) any {
	var v any = r.tree
	for p := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func (r reader) text(path string) string {
	v := r.at(path)
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

func (r reader) bool(path string) bool { return cluster.ParseBool(r.at(path)) }

func (r reader) table(path string) map[string]any {
	m, _ := r.at(path).(map[string]any)
	return m
}

func (r reader) texts(path string) map[string]string {
	m := r.table(path)
	if m == nil {
		return nil
	}
	out := map[string]string{}
	for k, v := range m {
		out[k] = scalar(v)
	}
	return out
}

func scalar(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		if v {
			return "on"
		}
		return "off"
	}
	return fmt.Sprint(v)
}

func (r reader) list(path string) []string {
	items, ok := r.at(path).([]any)
	if !ok {
		return nil
	}
	out := make([]string, 0, len(items))
	for _, it := range items {
		out = append(out, fmt.Sprint(it))
	}
	return out
}

// options reads a list of "name", {name: value}, or a mapping, as "name" and "name=value".
func (r reader) options(path string) []string {
	var out []string
	add := func(m map[string]any) {
		keys := make([]string, 0, len(m))
		for k := range m {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			if b, ok := m[k].(bool); ok {
				if b {
					out = append(out, k)
				}
				continue
			}
			out = append(out, k+"="+fmt.Sprint(m[k]))
		}
	}
	switch v := r.at(path).(type) {
	case []any:
		for _, it := range v {
			if m, ok := it.(map[string]any); ok {
				add(m)
				continue
			}
			out = append(out, fmt.Sprint(it))
		}
	case map[string]any:
		add(v)
	}
	return out
}

// build makes the typed configuration out of a tree whose types are right.
func build(tree map[string]any) (*Config, []error) {
	r := reader{tree}
	var errs []error
	need := func(path string) string {
		v := r.text(path)
		if v == "" {
			errs = append(errs, fmt.Errorf("%s is missing", path))
		}
		return v
	}
	c := &Config{
		Name: need("name"), Scope: need("scope"), Namespace: r.text("namespace"), tree: tree,
		Ctl: Ctl{
			Insecure: r.bool("ctl.insecure"), CACert: r.text("ctl.cacert"), CertFile: r.text("ctl.certfile"), KeyFile: r.text("ctl.keyfile"),
			KeyPassword: r.text("ctl.keyfile_password"), Username: r.text("ctl.authentication.username"), Password: r.text("ctl.authentication.password"),
		},
		Tags: cluster.Tags(r.table("tags")), ProxyAddress: r.text("postgresql.proxy_address"),
		Bootstrap: r.table("bootstrap.dcs"), HasBootstrap: r.table("bootstrap") != nil,
		GuardProgram: r.text("pgregent.guard"), LogJSON: r.text("log.type") == "json", LogDir: r.text("log.dir"),
	}
	if c.Namespace == "" {
		c.Namespace = "service"
	}
	var more []error
	c.RestAPI, more = restAPI(r)
	errs = append(errs, more...)
	if c.Ctl.Username == "" {
		c.Ctl.Username, c.Ctl.Password = c.RestAPI.Username, c.RestAPI.Password
	}
	if err := c.checkPeers(); err != nil {
		errs = append(errs, err)
	}
	c.LogLevel = level(r.text("log.level"))
	c.PostgreSQL = buildPostgreSQL(r, need)
	c.PostgreSQL.Name, c.PostgreSQL.Scope = c.Name, c.Scope
	c.StateDir = c.PostgreSQL.StateDir
	c.Local = postgres.Settings{
		Parameters: r.texts("postgresql.parameters"), HBA: r.list("postgresql.pg_hba"), Ident: r.list("postgresql.pg_ident"),
		RecoveryConf: r.texts("postgresql.recovery_conf"), UseSlots: true, UseRewind: r.bool("postgresql.use_pg_rewind"),
		Roles: roles(r),
	}
	for path, addr := range map[string]string{"restapi.listen": c.RestAPI.Listen, "restapi.connect_address": c.RestAPI.Connect} {
		if err := address(path, addr); err != nil && addr != "" {
			errs = append(errs, err)
		}
	}
	var wrong []error
	c.Fence, wrong = buildFence(r)
	errs = append(errs, wrong...)
	c.Scripts, wrong = buildScripts(r)
	errs = append(errs, wrong...)
	var err error
	if c.PostgreSQL.PostBootstrapTimeout, err = r.seconds("pgregent.timeouts.post_bootstrap", postBootstrapTimeout); err != nil {
		errs = append(errs, err)
	}
	if err := c.checkStore(); err != nil {
		errs = append(errs, err)
	}
	return c, errs
}

// roles is what the file sets for one role only (reference section 5.20).
func roles(r reader) map[string]postgres.RoleSettings {
	out := map[string]postgres.RoleSettings{}
	for _, role := range []string{cluster.RolePrimary, cluster.RoleReplica, cluster.RoleStandbyLeader} {
		s := postgres.RoleSettings{
			Parameters: r.texts("postgresql.parameters_" + role),
			HBA:        r.list("postgresql.pg_hba_" + role), Ident: r.list("postgresql.pg_ident_" + role),
		}
		if len(s.Parameters) > 0 || s.HBA != nil || s.Ident != nil {
			out[role] = s
		}
	}
	return out
}

func address(path, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		if p, perr := strconv.Atoi(port); perr != nil || p < 1 || p > 65535 {
			err = fmt.Errorf("the port %q is no number from 1 to 65535", port)
		}
	}
	if err != nil {
		return fmt.Errorf("%s is %q, expected host:port: %w", path, addr, err)
	}
	return nil
}

func level(s string) slog.Level {
	switch strings.ToUpper(s) {
	case "DEBUG":
		return slog.LevelDebug
	case "WARN", "WARNING":
		return slog.LevelWarn
	case "ERROR", "FATAL", "CRITICAL":
		return slog.LevelError
	}
	return slog.LevelInfo
}

func buildPostgreSQL(r reader, need func(string) string) local.Config {
	p := local.Config{
		DataDir: need("postgresql.data_dir"), BinDir: r.text("postgresql.bin_dir"), BinNames: r.texts("postgresql.bin_name"),
		ConfigDir: r.text("postgresql.config_dir"), ConfigBaseName: r.text("postgresql.config_base_name"), CustomConf: r.text("postgresql.custom_conf"),
		StateDir: r.text("pgregent.state_dir"), Listen: need("postgresql.listen"), Connect: r.text("postgresql.connect_address"),
		UseUnixSocket: r.bool("postgresql.use_unix_socket"), UseUnixSocketRepl: r.bool("postgresql.use_unix_socket_repl"),
		Database: r.text("postgresql.database"), KerberosService: r.text("postgresql.krbsrvname"), PGPass: r.text("postgresql.pgpass"),
		InitdbOptions: r.options("bootstrap.initdb"), BootstrapHBA: r.list("bootstrap.pg_hba"), PostBootstrap: r.text("bootstrap.post_bootstrap"),
		BasebackupOptions: r.options("postgresql.basebackup"), RewindOptions: r.options("postgresql.rewind"),
		Superuser: credentials(r, "superuser"), Replication: credentials(r, "replication"), Rewind: credentials(r, "rewind"),
	}
	if p.PostBootstrap == "" {
		p.PostBootstrap = r.text("bootstrap.post_init")
	}
	delete(p.BinNames, "pg_ctl") // nothing here runs them
	delete(p.BinNames, "pg_controldata")
	delete(p.BinNames, "pg_isready")
	for _, path := range []*string{&p.DataDir, &p.ConfigDir, &p.StateDir, &p.PGPass} {
		if *path != "" && !filepath.IsAbs(*path) {
			if abs, err := filepath.Abs(*path); err == nil {
				*path = abs
			}
		}
	}
	return p
}

func credentials(r reader, user string) local.Credentials {
	at := func(name string) string { return r.text("postgresql.authentication." + user + "." + name) }
	c := local.Credentials{
		Username: at("username"), Password: at("password"), SSLMode: at("sslmode"), SSLCert: at("sslcert"), SSLKey: at("sslkey"),
		SSLPassword: at("sslpassword"), SSLRootCert: at("sslrootcert"), SSLCRL: at("sslcrl"), SSLCRLDir: at("sslcrldir"),
		GSSEncMode: at("gssencmode"), ChannelBinding: at("channel_binding"), SSLNegotiation: at("sslnegotiation"),
	}
	// A file without a password relies on pg_hba.conf, as with Patroni.
	c.NoPassword = c.Username != "" && c.Password == ""
	return c
}

// refuse lists the settings that change safety and are not supported: they are never ignored (design section 2).
func refuse(tree map[string]any) []error {
	r := reader{tree}
	var errs []error
	no := func(path, why string) { errs = append(errs, fmt.Errorf("%s is not supported: %s", path, why)) }
	if r.at("citus") != nil {
		no("citus", "this version runs no Citus clusters; remove the section or keep this cluster on Patroni")
	}
	for _, s := range []string{"kubernetes", "raft", "etcd"} {
		if r.at(s) != nil {
			no(s, "this version supports the stores "+strings.Join(Stores(), ", ")+" only")
		}
	}
	if m := r.text("bootstrap.method"); m != "" && m != "initdb" {
		no("bootstrap.method = "+m, "this version creates clusters with initdb only")
	}
	for _, k := range []string{"postgresql.create_replica_methods", "postgresql.create_replica_method"} {
		if m := fmt.Sprint(r.at(k)); r.at(k) != nil && m != "[basebackup]" && m != "basebackup" {
			no(k+" = "+m, "this version creates replicas with pg_basebackup only")
		}
	}
	for _, w := range cluster.ParseDynamic(r.table("bootstrap.dcs")).Unsupported {
		errs = append(errs, fmt.Errorf("bootstrap.dcs: %s", w))
	}
	return errs
}
