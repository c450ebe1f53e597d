package ha

import (
	"fmt"
	"maps"
	"reflect"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
)

// protected are the parameters that only the dynamic configuration sets, because all members must agree on them
// (reference section 4.6).
func protected(name string) bool {
	switch name {
	case "wal_level", "hot_standby", "max_connections", "max_wal_senders", "max_prepared_transactions",
		"max_locks_per_transaction", "max_replication_slots", "max_worker_processes", "track_commit_timestamp",
		"wal_log_hints":
		return true
	}
	return false
}

// mergeSettings lays the local settings over the dynamic configuration's `postgresql` section (reference section 4.1):
// parameter by parameter the local one wins, except for the protected ones; a list that is given locally replaces.
func mergeSettings(local postgres.Settings, dynamic map[string]any) postgres.Settings {
	s := local
	s.Parameters = map[string]string{}
	for k, v := range section(dynamic, "parameters") {
		s.Parameters[k] = text(v)
	}
	for k, v := range local.Parameters {
		if !protected(k) {
			s.Parameters[k] = v
		}
	}
	if s.HBA == nil {
		s.HBA = list(dynamic["pg_hba"])
	}
	if s.Ident == nil {
		s.Ident = list(dynamic["pg_ident"])
	}
	if rc := section(dynamic, "recovery_conf"); len(rc) > 0 {
		merged := map[string]string{}
		for k, v := range rc {
			merged[k] = text(v)
		}
		maps.Copy(merged, local.RecoveryConf)
		s.RecoveryConf = merged
	}
	if _, ok := s.Parameters["wal_retrieve_retry_interval"]; !ok && s.RecoveryConf["restore_command"] == "" {
		// PostgreSQL's own 5 s would be most of the time that a member needs to come back.
		s.Parameters["wal_retrieve_retry_interval"] = "500ms"
	}
	s.UseSlots = true
	if v, ok := dynamic["use_slots"]; ok {
		s.UseSlots = cluster.ParseBool(v)
	}
	if v, ok := dynamic["use_pg_rewind"]; ok && !local.UseRewind {
		s.UseRewind = cluster.ParseBool(v)
	}
	return s
}

func section(m map[string]any, key string) map[string]any {
	s, _ := m[key].(map[string]any)
	return s
}

func list(v any) []string {
	items, ok := v.([]any)
	if !ok {
		return nil
	}
	out := make([]string, 0, len(items))
	for _, it := range items {
		out = append(out, text(it))
	}
	return out
}

// text is a parameter as postgresql.conf takes it.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		if v {
			return "on"
		}
		return "off"
	case float64:
		if v == float64(int64(v)) {
			return fmt.Sprint(int64(v))
		}
		return fmt.Sprint(v)
	case nil:
		return ""
	}
	return fmt.Sprint(v)
}

func sameDynamic(a, b cluster.Dynamic) bool { return reflect.DeepEqual(a, b) }
