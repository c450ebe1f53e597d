package ha

import (
	"maps"
	"slices"
	"strings"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
)

// Effect is what a changed setting takes to be in force on a member.
type Effect string

// Effects.
const (
	EffectReload  Effect = "reload"
	EffectRestart Effect = "restart" // a pending restart until somebody restarts it
	EffectAgent   Effect = "agent"   // the agents take it up with their next turn; PostgreSQL is not concerned
	EffectNone    Effect = "none"    // another setting wins, or the server does not know the name
)

// SettingChange is one setting that a change of the dynamic configuration changes on a member.
type SettingChange struct {
	Name     string `json:"name"` // of a parameter, or pg_hba, pg_ident, or a key outside postgresql
	Old, New string // empty: not set
	Effect   Effect `json:"effect"`
	Why      string `json:"why,omitempty"` // of EffectNone
}

// PlanChange says what a change of the key `config` from before to after would do on a member with these local settings, in
// this role: which settings change, and whether each needs a reload or a restart. contexts are the server's own
// pg_settings.context by parameter name (https://www.postgresql.org/docs/current/view-pg-settings.html); a name that is not in
// it and has no dot is not known to the server. It changes nothing and may be called by anybody.
func PlanChange(before, after map[string]any, local postgres.Settings, role postgres.Role, contexts map[string]string) []SettingChange {
	was, will := cluster.ParseDynamic(before), cluster.ParseDynamic(after)
	a := mergeSettings(local, was.PostgreSQL).For(role)
	b := mergeSettings(local, will.PostgreSQL).For(role)
	var out []SettingChange
	for _, name := range union(a.Parameters, b.Parameters) {
		if c := (SettingChange{Name: name, Old: a.Parameters[name], New: b.Parameters[name]}); c.Old != c.New {
			c.Effect, c.Why = effect(name, contexts)
			out = append(out, c)
		}
	}
	out = append(out, overruled(before, after, a.Parameters, b.Parameters)...)
	for name, lists := range map[string][2][]string{"pg_hba": {a.HBA, b.HBA}, "pg_ident": {a.Ident, b.Ident}} {
		if !slices.Equal(lists[0], lists[1]) {
			out = append(out, SettingChange{Name: name, Old: strings.Join(lists[0], "\n"), New: strings.Join(lists[1], "\n"), Effect: EffectReload})
		}
	}
	for _, name := range union(a.RecoveryConf, b.RecoveryConf) {
		if c := (SettingChange{Name: name, Old: a.RecoveryConf[name], New: b.RecoveryConf[name], Effect: EffectReload}); c.Old != c.New {
			out = append(out, c)
		}
	}
	for _, name := range union(before, after) {
		if name != "postgresql" && text(before[name]) != text(after[name]) {
			out = append(out, SettingChange{Name: name, Old: text(before[name]), New: text(after[name]), Effect: EffectAgent})
		}
	}
	slices.SortFunc(out, func(x, y SettingChange) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// effect is what a changed parameter takes.
func effect(name string, contexts map[string]string) (Effect, string) {
	switch context, ok := contexts[strings.ToLower(name)]; {
	case !ok && !strings.Contains(name, "."):
		return EffectNone, "the server does not know it"
	case context == "internal":
		return EffectNone, "it cannot be set"
	case context == "postmaster":
		return EffectRestart, ""
	}
	return EffectReload, ""
}

// overruled are the parameters that the change names and that change nothing, because the member's file wins.
func overruled(before, after map[string]any, was, will map[string]string) []SettingChange {
	a, b := section(section(before, "postgresql"), "parameters"), section(section(after, "postgresql"), "parameters")
	var out []SettingChange
	for _, name := range union(a, b) {
		if text(a[name]) != text(b[name]) && was[name] == will[name] {
			out = append(out, SettingChange{Name: name, Old: was[name], New: will[name], Effect: EffectNone, Why: "the member's own file sets it"})
		}
	}
	return out
}

func union[V any](a, b map[string]V) []string {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return slices.Sorted(maps.Keys(all))
}
