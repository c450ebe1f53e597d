package ha

import (
	"fmt"
	"maps"
	"reflect"
	"strings"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
)

// protected are the parameters that only the dynamic configuration sets, because all members must agree on them
// (reference section 4.6).
func protected(name string) bool {
	p, ok := postgres.ProtectedParameter(name)
	return ok && !p.FileOnly
}

// mergeSettings lays the local settings over the dynamic configuration's `postgresql` section (reference section 4.1):
// parameter by parameter the local one wins, except for the protected ones; a list that is given locally replaces. The
// same holds for each role's part (reference section 5.20).
func mergeSettings(local postgres.Settings, dynamic map[string]any) postgres.Settings {
	s := local
	s.Parameters = mergeParameters(local.Parameters, section(dynamic, "parameters"))
	s.HBA, s.Ident = mergeList(local.HBA, dynamic["pg_hba"]), mergeList(local.Ident, dynamic["pg_ident"])
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
	s.Roles = mergeRoles(local.Roles, dynamic)
	s.UseSlots = true
	if v, ok := dynamic["use_slots"]; ok {
		s.UseSlots = cluster.ParseBool(v)
	}
	if v, ok := dynamic["use_pg_rewind"]; ok && !local.UseRewind {
		s.UseRewind = cluster.ParseBool(v)
	}
	return s
}

// mergeParameters takes the protected parameters from the dynamic configuration alone.
func mergeParameters(local map[string]string, dynamic map[string]any) map[string]string {
	merged := map[string]string{}
	for k, v := range dynamic {
		merged[strings.ToLower(k)] = text(v)
	}
	for k, v := range local {
		if !protected(k) {
			merged[strings.ToLower(k)] = v
		}
	}
	return merged
}

func mergeList(local []string, dynamic any) []string {
	if local != nil {
		return local
	}
	return list(dynamic)
}

// mergeRoles merges what applies in one role only. nil: nothing does.
func mergeRoles(local map[string]postgres.RoleSettings, dynamic map[string]any) map[string]postgres.RoleSettings {
	var out map[string]postgres.RoleSettings
	for _, role := range [...]string{cluster.RolePrimary, cluster.RoleReplica, cluster.RoleStandbyLeader} {
		l := local[role]
		r := postgres.RoleSettings{
			HBA: mergeList(l.HBA, dynamic["pg_hba_"+role]), Ident: mergeList(l.Ident, dynamic["pg_ident_"+role]),
		}
		if d := section(dynamic, "parameters_"+role); len(d)+len(l.Parameters) > 0 {
			r.Parameters = mergeParameters(l.Parameters, d)
		}
		if r.Parameters == nil && r.HBA == nil && r.Ident == nil {
			continue
		}
		if out == nil {
			out = map[string]postgres.RoleSettings{}
		}
		out[role] = r
	}
	return out
}

// roleName is the name under which a role has settings of its own.
func roleName(r postgres.Role) string {
	if r == postgres.RolePrimary {
		return cluster.RolePrimary
	}
	return cluster.RoleReplica
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
