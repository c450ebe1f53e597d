package local

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pgregent/pgregent/postgres"
)

// protected is a parameter that standbys and pg_rewind depend on, so it is passed on the postmaster's command line
// and checked (reference section 4.6).
type protected struct {
	name, value string // value is the default
	accept      func(string) bool
	inFileOnly  bool
}

// protectedParameters lists them in the order of the command line.
func protectedParameters() []protected {
	return []protected{
		{name: "wal_level", value: "replica", accept: oneOf("replica", "logical")},
		{name: "hot_standby", value: "on", accept: isTrue},
		{name: "max_connections", value: "100", accept: atLeast(25)},
		{name: "max_wal_senders", value: "10", accept: atLeast(3)},
		{name: "max_prepared_transactions", value: "0", accept: atLeast(0)},
		{name: "max_locks_per_transaction", value: "64", accept: atLeast(32)},
		{name: "track_commit_timestamp", value: "off", accept: isBool},
		{name: "max_replication_slots", value: "10", accept: atLeast(4)},
		{name: "max_worker_processes", value: "8", accept: atLeast(2)},
		{name: "wal_log_hints", value: "on", accept: isBool},
		{name: "wal_keep_size", value: "128MB", accept: atLeast16MB, inFileOnly: true},
	}
}

func oneOf(values ...string) func(string) bool {
	return func(v string) bool { return slices.Contains(values, strings.ToLower(v)) }
}

func atLeast(least int) func(string) bool {
	return func(v string) bool {
		n, err := strconv.Atoi(strings.TrimSpace(v))
		return err == nil && n >= least && n <= 1<<30
	}
}

// parseBool reads a boolean as PostgreSQL does: unique prefixes count.
func parseBool(v string) (value, ok bool) {
	v = strings.ToLower(strings.TrimSpace(v))
	for word, value := range map[string]bool{"true": true, "yes": true, "on": true, "1": true, "false": false, "no": false, "off": false, "0": false} {
		if v == word || v != "" && v != "o" && strings.HasPrefix(word, v) {
			return value, true
		}
	}
	return false, false
}

func isBool(v string) bool { _, ok := parseBool(v); return ok }
func isTrue(v string) bool { value, ok := parseBool(v); return ok && value }

// atLeast16MB checks wal_keep_size, whose plain numbers are megabytes.
func atLeast16MB(v string) bool {
	v = strings.TrimSpace(v)
	digits := strings.TrimRight(v, "kKMGTB ")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return false
	}
	switch strings.TrimSpace(v[len(digits):]) {
	case "":
	case "B":
		n /= 1 << 20
	case "kB":
		n /= 1 << 10
	case "MB":
	case "GB":
		n *= 1 << 10
	case "TB":
		n *= 1 << 20
	default:
		return false
	}
	return n >= 16
}

// isRecoveryParameter says that a name belongs to the recovery section: it is written for replicas only, and removed
// from postgresql.auto.conf (reference section 7).
func isRecoveryParameter(name string) bool {
	switch name {
	case "archive_cleanup_command", "promote_trigger_file", "trigger_file", "standby_mode", "recovery_end_command", "recovery_min_apply_delay",
		"recovery_target", "recovery_target_action", "recovery_target_inclusive", "recovery_target_lsn",
		"recovery_target_name", "recovery_target_time", "recovery_target_timeline", "recovery_target_xid",
		"restore_command", "primary_conninfo", "primary_slot_name":
		return true
	}
	return false
}

// serverParameters makes the parameters of postgresql.conf from the settings: names in lower case, the protected ones
// checked and filled in, recovery parameters moved to recovery, and what this program sets itself left out.
func (s *Server) serverParameters(settings postgres.Settings) (parameters, recovery map[string]string) {
	parameters, recovery = map[string]string{}, map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(settings.Parameters)) {
		value := settings.Parameters[name]
		name = strings.ToLower(name)
		switch {
		case name == "listen_addresses" || name == "port" || name == "cluster_name":
			// these come from Listen and Scope
		case name == "config_file" || name == "data_directory":
			s.log.Warn("a parameter is left out because this program sets it", "name", name)
		case name == "wal_keep_segments":
			if n, err := strconv.Atoi(strings.TrimSpace(value)); err == nil && settings.Parameters["wal_keep_size"] == "" {
				parameters["wal_keep_size"] = strconv.Itoa(16*n) + "MB"
			}
		case isRecoveryParameter(name):
			recovery[name] = value
		default:
			parameters[name] = value
		}
	}
	for name, value := range settings.RecoveryConf {
		recovery[strings.ToLower(name)] = value
	}
	for _, p := range protectedParameters() {
		value, given := parameters[p.name]
		if p.name == "wal_level" && strings.EqualFold(value, "hot_standby") {
			value = "replica" // the name of PostgreSQL 9.5 and before
		}
		if given && !p.accept(value) {
			s.log.Warn("a parameter has a value that is not accepted, the default is used", "name", p.name, "value", value, "default", p.value)
			given = false
		}
		if !given {
			value = p.value
		}
		parameters[p.name] = value
	}
	parameters["listen_addresses"] = strings.Join(s.hosts, ",")
	parameters["port"] = strconv.Itoa(s.port)
	parameters["cluster_name"] = s.cfg.Scope
	return parameters, recovery
}

// raise raises parameters that a standby must not have lower than its primary had them: it would not start, or its
// replay would pause (reference section 4.6). It works on a copy.
func raise(parameters map[string]string, control map[string]int) map[string]string {
	out := maps.Clone(parameters)
	for name, inControl := range map[string]string{
		"max_connections": "max_connections", "max_worker_processes": "max_worker_processes", "max_wal_senders": "max_wal_senders",
		"max_prepared_transactions": "max_prepared_xacts", "max_locks_per_transaction": "max_locks_per_xact",
	} {
		have, err := strconv.Atoi(strings.TrimSpace(out[name]))
		if need := control[inControl]; err == nil && have < need {
			out[name] = strconv.Itoa(need)
		}
	}
	return out
}
