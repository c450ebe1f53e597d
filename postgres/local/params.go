package local

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pgregent/pgregent/postgres"
)

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
		case !isParameterName(name):
			s.log.Warn("a parameter is left out because no parameter can have its name", "name", name)
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
		if name = strings.ToLower(name); isParameterName(name) {
			recovery[name] = value
		}
	}
	for _, p := range postgres.ProtectedParameters() {
		value, given := parameters[p.Name]
		if given && !p.Accept(value) {
			s.log.Warn("a parameter has a value that is not accepted, the default is used", "name", p.Name, "value", value, "default", p.Default)
			given = false
		}
		if !given {
			value = p.Default
		}
		if p.Name == "wal_level" && strings.EqualFold(value, "hot_standby") {
			value = "replica" // the name of PostgreSQL 9.5 and before
		}
		parameters[p.Name] = value
	}
	parameters["listen_addresses"] = strings.Join(s.hosts, ",")
	parameters["port"] = strconv.Itoa(s.port)
	parameters["cluster_name"] = s.cfg.Scope
	return parameters, recovery
}

// standbyParameters are the parameters that a standby must not have lower than the primary whose WAL it replays, and
// their names in pg_control.
func standbyParameters() map[string]string {
	return map[string]string{
		"max_connections": "max_connections", "max_worker_processes": "max_worker_processes", "max_wal_senders": "max_wal_senders",
		"max_prepared_transactions": "max_prepared_xacts", "max_locks_per_transaction": "max_locks_per_xact",
	}
}

// raised adds to what waits for a restart the parameters that this server was started with, because pg_control demanded
// it, above what its configuration says: PostgreSQL itself would tell so only after the next reload.
func raised(pending map[string]postgres.Change, inForce map[string]int, parameters map[string]string) map[string]postgres.Change {
	for name, have := range inForce {
		want, err := strconv.Atoi(strings.TrimSpace(parameters[name]))
		if _, known := pending[name]; err != nil || known || have == want {
			continue
		}
		if pending == nil {
			pending = map[string]postgres.Change{}
		}
		pending[name] = postgres.Change{Old: strconv.Itoa(have), New: strconv.Itoa(want)}
	}
	return pending
}

// tooLow says which parameter of a standby is lower than pg_control has it from the primary: PostgreSQL pauses the replay
// and goes on only after a restart.
func tooLow(inForce, control map[string]int) string {
	for _, name := range slices.Sorted(maps.Keys(inForce)) {
		if need := control[standbyParameters()[name]]; inForce[name] < need {
			return fmt.Sprintf("%s is %d, and the primary has %d", name, inForce[name], need)
		}
	}
	return ""
}

// isParameterName says that a name can be one, custom ones with their prefix included. It goes into postgresql.conf as it is:
// a line break in it would smuggle in other parameters, past whoever checked this one.
func isParameterName(name string) bool {
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r == '_'
		if !letter && (i == 0 || (r < '0' || r > '9') && r != '.' && r != '$') {
			return false
		}
	}
	return name != ""
}

// raise raises parameters that a standby must not have lower than its primary had them: it would not start, or its
// replay would pause (reference section 4.6). It works on a copy.
func raise(parameters map[string]string, control map[string]int) map[string]string {
	out := maps.Clone(parameters)
	for name, inControl := range standbyParameters() {
		have, err := strconv.Atoi(strings.TrimSpace(out[name]))
		if need := control[inControl]; err == nil && have < need {
			out[name] = strconv.Itoa(need)
		}
	}
	return out
}
