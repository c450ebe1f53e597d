package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// kind is what a setting's value must be.
type kind int

const (
	kindText kind = iota
	kindInt
	kindBool
	kindList    // of texts
	kindMap     // of anything
	kindOptions // list of texts or of one-entry maps, or a map: as initdb's and pg_basebackup's options
	kindTextOrList
	kindAny
)

func (k kind) String() string {
	return map[kind]string{kindText: "a text", kindInt: "a whole number", kindBool: "true or false", kindList: "a list",
		kindMap: "a mapping", kindOptions: "a list of options", kindTextOrList: "a text or a list", kindAny: "anything"}[k]
}

// schema lists every setting that Patroni's file knows (reference section 4.2), and our own under `pgregent` and `fence`.
func schema() map[string]kind {
	m := map[string]kind{
		"name": kindText, "scope": kindText, "namespace": kindText, "thread_pool_size": kindInt, "thread_stack_size": kindAny,
		"log": kindMap, "tags": kindMap, "ctl.insecure": kindBool,
		"bootstrap.dcs": kindMap, "bootstrap.method": kindText, "bootstrap.initdb": kindOptions, "bootstrap.pg_hba": kindList,
		"bootstrap.post_bootstrap": kindText, "bootstrap.post_init": kindText, "bootstrap.users": kindMap,
		"citus": kindMap, "consul": kindMap, "zookeeper": kindMap, "exhibitor": kindMap, "kubernetes": kindMap, "raft": kindMap, "etcd": kindMap,
		"restapi.listen": kindText, "restapi.connect_address": kindText, "restapi.allowlist": kindList,
		"restapi.allowlist_include_members": kindBool, "restapi.http_extra_headers": kindMap, "restapi.https_extra_headers": kindMap,
		"restapi.request_queue_size": kindInt, "restapi.thread_pool_size": kindInt,
		"restapi.access.credentials": kindList, "restapi.access.certificates": kindMap, "restapi.access.protect_reads": kindBool,
		"restapi.access.audit_log":   kindText,
		"postgresql.use_unix_socket": kindBool, "postgresql.use_unix_socket_repl": kindBool, "postgresql.use_pg_rewind": kindBool,
		"postgresql.use_slots": kindBool, "postgresql.pg_ctl_timeout": kindInt,
		"postgresql.remove_data_directory_on_rewind_failure": kindBool, "postgresql.remove_data_directory_on_diverged_timelines": kindBool,
		"postgresql.create_replica_methods": kindTextOrList, "postgresql.create_replica_method": kindTextOrList,
		"postgresql.basebackup": kindOptions, "postgresql.rewind": kindOptions, "postgresql.bin_name": kindMap,
		"watchdog.mode": kindAny, "watchdog.device": kindText, "watchdog.safety_margin": kindInt, "watchdog.driver": kindText,
		"etcd3.hosts": kindTextOrList, "etcd3.use_proxies": kindBool, "etcd3.port": kindInt,
		"consul.port": kindInt, "consul.verify": kindBool, "consul.checks": kindTextOrList, "consul.register_service": kindBool,
		"consul.service_tags": kindTextOrList, "consul.service_check_interval": kindText,
		"zookeeper.hosts": kindTextOrList, "zookeeper.use_ssl": kindBool, "zookeeper.verify": kindBool, "zookeeper.set_acls": kindMap,
		"zookeeper.auth_data": kindMap, "exhibitor.hosts": kindTextOrList, "exhibitor.port": kindInt, "exhibitor.poll_interval": kindInt,
		"pgregent.state_dir": kindText, "pgregent.guard": kindText,
		"fence": kindAny, "fence.mode": kindText, "fence.cgroup": kindAny, "fence.admission": kindAny, "fence.pid_namespace": kindBool,
	}
	texts := func(prefix string, names ...string) {
		for _, n := range names {
			m[prefix+n] = kindText
		}
	}
	texts("restapi.", "certfile", "keyfile", "keyfile_password", "cafile", "ciphers", "verify_client", "server_tokens")
	texts("restapi.authentication.", "username", "password")
	texts("ctl.", "cacert", "certfile", "keyfile", "keyfile_password")
	texts("ctl.authentication.", "username", "password")
	texts("postgresql.", "listen", "connect_address", "proxy_address", "data_dir", "config_dir", "config_base_name", "custom_conf",
		"bin_dir", "pgpass", "database", "krbsrvname", "pre_promote", "before_stop")
	for _, u := range []string{"superuser", "replication", "rewind"} {
		texts("postgresql.authentication."+u+".", "username", "password", "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert",
			"sslcrl", "sslcrldir", "gssencmode", "channel_binding", "sslnegotiation")
	}
	texts("postgresql.callbacks.", "on_start", "on_stop", "on_restart", "on_reload", "on_role_change")
	for _, v := range []string{"", "_primary", "_replica", "_standby_leader"} {
		m["postgresql.parameters"+v] = kindMap
		m["postgresql.pg_hba"+v], m["postgresql.pg_ident"+v] = kindList, kindList
	}
	m["postgresql.recovery_conf"] = kindMap
	texts("consul.", "host", "url", "scheme", "token", "cacert", "cert", "key", "dc", "consistency", "service_check_tls_server_name")
	texts("zookeeper.", "cacert", "cert", "key", "key_password")
	texts("etcd3.", "host", "url", "proxy", "srv", "srv_suffix", "protocol", "username", "password", "cacert", "cert", "key")
	return m
}

// check walks the tree against the schema: wrong types are errors with key, value and expectation; unknown keys are
// warnings, with the known key they may have meant.
func check(tree map[string]any) (warnings []string, errs []error) {
	known := schema()
	inner := map[string]bool{}
	for k := range known {
		for i, r := range k {
			if r == '.' {
				inner[k[:i]] = true
			}
		}
	}
	var walk func(prefix string, m map[string]any)
	walk = func(prefix string, m map[string]any) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			path, v := prefix+name, m[name]
			k, leaf := known[path]
			table, _ := v.(map[string]any)
			switch {
			case leaf && (table == nil || !inner[path]):
				if v != nil && !fits(k, v) {
					errs = append(errs, fmt.Errorf("%s is %s, expected %s", path, show(path, v), k))
				}
			case inner[path]:
				if table == nil && v != nil {
					errs = append(errs, fmt.Errorf("%s is %s, expected a mapping", path, show(path, v)))
				}
				walk(path+".", table)
			default:
				w := fmt.Sprintf("%s is not a known setting and is ignored", path)
				if near := nearest(path, known); near != "" {
					w += "; did you mean " + near + "?"
				}
				warnings = append(warnings, w)
			}
		}
	}
	walk("", tree)
	return warnings, errs
}

// show prints a value, but no secret.
func show(path string, v any) string {
	if strings.Contains(path, "password") || strings.Contains(path, "token") {
		return "not of the right type"
	}
	if s, ok := v.(string); ok {
		return strconv.Quote(s)
	}
	return fmt.Sprint(v)
}

func fits(k kind, v any) bool {
	switch v := v.(type) {
	case string:
		switch k {
		case kindInt:
			_, err := strconv.ParseInt(strings.TrimSpace(v), 0, 64)
			return err == nil
		case kindBool:
			_, ok := parseBool(v)
			return ok
		}
		return k == kindText || k == kindTextOrList || k == kindAny
	case bool:
		return k == kindBool || k == kindAny
	case int, int64, uint64:
		return k == kindInt || k == kindText || k == kindAny
	case float64:
		return k == kindText || k == kindAny
	case []any:
		return k == kindList || k == kindOptions || k == kindTextOrList || k == kindAny
	case map[string]any:
		return k == kindMap || k == kindOptions || k == kindAny
	}
	return false
}

func parseBool(s string) (value, ok bool) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "on", "true", "yes", "1":
		return true, true
	case "off", "false", "no", "0":
		return false, true
	}
	return false, false
}

// nearest is a known key that differs in at most two letters.
func nearest(path string, known map[string]kind) string {
	best, at := "", 3
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if d := distance(path, k); d < at {
			best, at = k, d
		}
	}
	return best
}

// distance is the number of single-letter edits between two short texts.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			last, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, last+cost)
		}
	}
	return row[len(b)]
}
