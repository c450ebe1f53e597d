package rest

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// runsCommands says that a setting of the dynamic configuration makes PostgreSQL or the node run a program, load a
// library, write where it is told, or let somebody in who then can: changing it needs the role admin.
func runsCommands(path []string) bool {
	if len(path) == 0 {
		return true
	}
	last := path[len(path)-1]
	switch path[0] {
	case "standby_cluster":
		return commandParameter(last) || strings.HasPrefix(path[min(1, len(path)-1)], "create_replica_method")
	case "postgresql":
	default:
		return slices.Contains(path, "command")
	}
	if len(path) == 1 {
		return false // it becomes a mapping or stops being one: what is inside is listed by itself
	}
	switch section := path[1]; {
	case strings.HasPrefix(section, "parameters"):
		return len(path) > 2 && commandParameter(path[2])
	case section == "recovery_conf":
		return len(path) > 2 && commandParameter(path[2])
	case strings.HasPrefix(section, "pg_hba"), strings.HasPrefix(section, "pg_ident"):
		return true
	case strings.HasPrefix(section, "create_replica_method"):
		return true
	}
	if slices.Contains([]string{"callbacks", "pre_promote", "before_stop", "bin_dir", "bin_name", "custom_conf", "config_dir", "data_dir",
		"authentication", "pgpass", "basebackup", "rewind"}, path[1]) {
		return true
	}
	// A mapping that is not known is a replica method: command, and whatever its program takes.
	return len(path) > 2
}

// commandParameter says that a parameter of PostgreSQL names a command, a library or a file that PostgreSQL writes or
// believes.
func commandParameter(name string) bool {
	name = strings.ToLower(strings.TrimSpace(name))
	for _, suffix := range []string{"_command", "_library", "_libraries", "_library_path", "_program"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return slices.Contains([]string{"jit_provider", "dynamic_library_path", "extension_control_path", "log_directory", "log_filename", "external_pid_file", "config_file",
		"hba_file", "ident_file", "data_directory", "include", "include_dir", "include_if_exists", "primary_conninfo",
		"allow_system_table_mods", "unix_socket_directories", "unix_socket_permissions", "unix_socket_group"}, name)
}

// what a setting of the dynamic configuration must be.
type settingKind int

const (
	settingInt settingKind = iota
	settingBool
	settingSync
	settingDuration
	settingMap
	settingList
)

func (k settingKind) String() string {
	return []string{"a whole number without a unit", "true or false", "true, false or quorum", "a number of seconds, or a duration as 30min", "a mapping", "a list"}[k]
}

// settingKinds are the settings with a known type (reference section 4.4). Others are taken as they are: Patroni's list
// grows.
func settingKinds() map[string]settingKind {
	m := map[string]settingKind{"member_slots_ttl": settingDuration, "synchronous_mode": settingSync, "postgresql": settingMap,
		"standby_cluster": settingMap, "slots": settingMap, "permanent_slots": settingMap, "permanent_replication_slots": settingMap,
		"ignore_slots": settingList, "postgresql.recovery_conf": settingMap, "postgresql.callbacks": settingMap,
		"postgresql.use_slots": settingBool, "postgresql.use_pg_rewind": settingBool}
	for _, k := range []string{"ttl", "loop_wait", "retry_timeout", "maximum_lag_on_failover", "maximum_lag_on_syncnode", "max_timelines_history",
		"primary_start_timeout", "master_start_timeout", "primary_stop_timeout", "master_stop_timeout", "primary_race_backoff", "synchronous_node_count"} {
		m[k] = settingInt
	}
	for _, k := range []string{"pause", "failsafe_mode", "check_timeline", "synchronous_mode_strict"} {
		m[k] = settingBool
	}
	for _, v := range []string{"", "_primary", "_replica", "_standby_leader"} {
		m["postgresql.parameters"+v], m["postgresql.pg_hba"+v], m["postgresql.pg_ident"+v] = settingMap, settingList, settingList
	}
	return m
}

// checkSettings refuses a setting of a wrong type, where Patroni stores it and goes on with the default. null is always
// right: it deletes.
func checkSettings(m map[string]any) *refusal {
	kinds := settingKinds()
	check := func(path string, v any) *refusal {
		if k, ok := kinds[path]; ok && v != nil && !k.fits(v) {
			return bad("%s: must be %s", path, k)
		}
		return nil
	}
	for _, k := range sortedKeys(m) {
		if no := check(k, m[k]); no != nil {
			return no
		}
	}
	postgresql, _ := m["postgresql"].(map[string]any)
	for _, k := range sortedKeys(postgresql) {
		if no := check("postgresql."+k, postgresql[k]); no != nil {
			return no
		}
		parameters, _ := postgresql[k].(map[string]any)
		if !strings.HasPrefix(k, "parameters") && k != "recovery_conf" {
			continue
		}
		for _, p := range sortedKeys(parameters) {
			if !parameterName(p) {
				return bad("postgresql.%s.%s: is no name of a parameter", k, name(p))
			}
			switch parameters[p].(type) {
			case map[string]any, []any:
				return bad("postgresql.%s.%s: must be a text, a number or a switch", k, name(p))
			}
		}
	}
	return nil
}

// parameterName says that a name can stand in postgresql.conf, so that no other line hides in it.
func parameterName(s string) bool {
	for i, r := range s {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r != '.' && r != '$' && r != '-' && (r < '0' || r > '9')) {
			return false
		}
	}
	return s != "" && len(s) < 128
}

func (k settingKind) fits(v any) bool {
	text, isText := v.(string)
	if n, ok := v.(json.Number); ok {
		text, isText = n.String(), true
	}
	b, isBool := v.(bool)
	switch k {
	case settingInt:
		f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		_, hex := strconv.ParseInt(strings.TrimSpace(text), 0, 64)
		return isText && (err == nil && f > -1e15 && f < 1e15 || hex == nil)
	case settingBool:
		return isBool || isText && isSwitch(text)
	case settingSync:
		return isBool || isText && (isSwitch(text) || strings.EqualFold(text, "quorum"))
	case settingDuration:
		_, ok := parseSeconds(text)
		return isText && ok
	case settingMap:
		_, ok := v.(map[string]any)
		return ok
	case settingList:
		_, ok := v.([]any)
		return ok
	}
	return b
}

func isSwitch(s string) bool {
	return slices.Contains([]string{"on", "off", "true", "false", "yes", "no", "1", "0"}, strings.ToLower(s))
}
