package ha

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
)

// PlanSQL asks a server for what PlanChange wants to know of its parameters: one row of five texts for each, in the
// order of the fields of Parameter, the name first. It needs no privileges.
const PlanSQL = `SELECT name, setting, COALESCE(unit, ''), vartype, context FROM pg_catalog.pg_settings ORDER BY name`

// Parameter is what a running server says of one of its parameters (a row of PlanSQL).
type Parameter struct {
	Setting string // the value in force, in Unit
	Unit    string // "8kB", "ms", ...; empty: none
	Type    string // bool, integer, real, string, enum
	Context string // internal, postmaster, sighup, backend, superuser-backend, superuser, user
}

// Effect is what it takes to bring a changed setting into force.
type Effect string

// Effects, the weakest first.
const (
	EffectNone    Effect = "nothing" // the value in force stays as it is: the local file wins, or both mean the same
	EffectLoop    Effect = "at once" // the agent reads it with its next turn; PostgreSQL is not told
	EffectReload  Effect = "reload"  // PostgreSQL reads its files again
	EffectRestart Effect = "restart" // pending_restart until PostgreSQL is restarted
)

// PlannedChange is one setting that differs.
type PlannedChange struct {
	// Name is a PostgreSQL parameter, or the path of another setting in the dynamic configuration ("ttl",
	// "postgresql.pg_hba").
	Name string `json:"name"`
	// Old and New are the values as they are written; empty: absent.
	Old    string `json:"old_value"`
	New    string `json:"new_value"`
	Effect Effect `json:"effect"`
	// Why explains an effect that the name does not: empty when there is nothing to say.
	Why string `json:"why,omitempty"`
}

// Plan is what a change of the configuration would do on one member.
type Plan struct {
	Changes []PlannedChange `json:"changes"` // by name: parameters first
	// Reload says that PostgreSQL would read its files again; Restart that some parameter would wait for a restart.
	Reload  bool `json:"reload"`
	Restart bool `json:"restart"`
	// Warnings are the new configuration's: values that are clamped or not understood, settings that are not supported.
	Warnings []string `json:"warnings,omitempty"`
}

// PlanChange says what changing the key `config` from old to new would do on a member with the local settings, in the
// role ("primary", "replica", "standby_leader"), whose server describes its parameters as server does. It does
// nothing. local may be empty where another member's file cannot be read: then what that file overrides is not seen.
// server may be nil where the server does not answer: then only the parameters that are passed on the command line are
// known to need a restart, and the others are taken for a reload, with a note.
func PlanChange(local postgres.Settings, old, new map[string]any, role string, server map[string]Parameter) Plan {
	before, after := cluster.ParseDynamic(old), cluster.ParseDynamic(new)
	p := Plan{Warnings: append(slices.Clone(after.Warnings), after.Unsupported...)}
	was := mergeSettings(local, before.PostgreSQL).For(role)
	will := mergeSettings(local, after.PostgreSQL).For(role)
	p.parameters(was, will, server)
	p.others(was, will)
	p.overridden(local, before, after)
	p.loop(old, new)
	for _, c := range p.Changes {
		p.Reload = p.Reload || c.Effect == EffectReload || c.Effect == EffectRestart
		p.Restart = p.Restart || c.Effect == EffectRestart
	}
	return p
}

// parameters compares the parameters of PostgreSQL.
func (p *Plan) parameters(was, will postgres.Settings, server map[string]Parameter) {
	names := map[string]bool{}
	for n := range was.Parameters {
		names[n] = true
	}
	for n := range will.Parameters {
		names[n] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		a, had := was.Parameters[name]
		b, has := will.Parameters[name]
		if a == b && had == has {
			continue
		}
		c := PlannedChange{Name: name, Old: a, New: b}
		c.Effect, c.Why = effectOf(name, b, has, server)
		p.Changes = append(p.Changes, c)
	}
}

// effectOf judges one parameter by what the server says of it.
func effectOf(name, value string, given bool, server map[string]Parameter) (Effect, string) {
	row, known := server[strings.ToLower(name)]
	if d, ok := postgres.ProtectedParameter(name); ok {
		switch {
		case !given:
			value, given = d.Default, true
		case !d.Accept(value):
			why := fmt.Sprintf("%s is not accepted, %s is used", value, d.Default)
			if known && sameSetting(row, d.Default) {
				return EffectNone, why
			}
			return protectedEffect(d), why
		}
		if strings.EqualFold(value, "hot_standby") {
			value = "replica" // the name of PostgreSQL 9.5 and before
		}
		if known && sameSetting(row, value) {
			return EffectNone, "the server has this value"
		}
		return protectedEffect(d), ""
	}
	switch {
	case !known && server == nil:
		return EffectReload, "the server was not asked: a restart may be needed"
	case !known && strings.Contains(name, "."):
		return EffectReload, ""
	case !known:
		return EffectReload, "the server does not know this parameter, and it is left out if it refuses it"
	case row.Context == "internal":
		return EffectNone, "it cannot be set"
	case given && sameSetting(row, value):
		return EffectNone, "the server has this value"
	case row.Context == "postmaster":
		return EffectRestart, ""
	case row.Context == "backend" || row.Context == "superuser-backend":
		return EffectReload, "for new sessions"
	}
	return EffectReload, ""
}

func protectedEffect(d postgres.Protected) Effect {
	if d.FileOnly {
		return EffectReload
	}
	return EffectRestart
}

// others compares what is not a parameter of PostgreSQL and still ends up in its files.
func (p *Plan) others(was, will postgres.Settings) {
	add := func(name string, a, b []string, same bool) {
		if !same {
			p.Changes = append(p.Changes, PlannedChange{Name: name, Old: strings.Join(a, "\n"), New: strings.Join(b, "\n"), Effect: EffectReload})
		}
	}
	add("postgresql.pg_hba", was.HBA, will.HBA, slices.Equal(was.HBA, will.HBA))
	add("postgresql.pg_ident", was.Ident, will.Ident, slices.Equal(was.Ident, will.Ident))
	add("postgresql.recovery_conf", pairs(was.RecoveryConf), pairs(will.RecoveryConf), maps.Equal(was.RecoveryConf, will.RecoveryConf))
	flag := func(name string, a, b bool) {
		if a != b {
			p.Changes = append(p.Changes, PlannedChange{Name: name, Old: fmt.Sprint(a), New: fmt.Sprint(b), Effect: EffectLoop})
		}
	}
	flag("postgresql.use_slots", was.UseSlots, will.UseSlots)
	flag("postgresql.use_pg_rewind", was.UseRewind, will.UseRewind)
}

func pairs(m map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+" = "+m[k])
	}
	return out
}

// overridden names the parameters whose change in the dynamic configuration does nothing, because the local file has them.
func (p *Plan) overridden(local postgres.Settings, before, after cluster.Dynamic) {
	a, b := section(before.PostgreSQL, "parameters"), section(after.PostgreSQL, "parameters")
	for _, name := range slices.Sorted(maps.Keys(local.Parameters)) {
		_, had := a[name]
		_, has := b[name]
		if protected(name) || had == has && text(a[name]) == text(b[name]) {
			continue
		}
		p.Changes = append(p.Changes, PlannedChange{Name: name, Old: text(a[name]), New: text(b[name]), Effect: EffectNone,
			Why: fmt.Sprintf("this member's file sets it to %s", local.Parameters[name])})
	}
}

// loop compares the settings of the agents themselves.
func (p *Plan) loop(old, new map[string]any) {
	names := map[string]bool{}
	for n := range old {
		names[n] = true
	}
	for n := range new {
		names[n] = true
	}
	delete(names, "postgresql")
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if !reflect.DeepEqual(old[n], new[n]) {
			p.Changes = append(p.Changes, PlannedChange{Name: n, Old: plain(old[n]), New: plain(new[n]), Effect: EffectLoop})
		}
	}
}

func plain(v any) string {
	if b, ok := v.(bool); ok {
		return strconv.FormatBool(b)
	}
	return text(v)
}

// sameSetting says that a value as it is written in a file is the one in force (reference section 4.6): by type, and
// with the units that PostgreSQL takes.
func sameSetting(row Parameter, value string) bool {
	value = strings.TrimSpace(value)
	switch row.Type {
	case "bool":
		a, ok1 := postgres.ParseBool(row.Setting)
		b, ok2 := postgres.ParseBool(value)
		return ok1 && ok2 && a == b
	case "enum":
		return strings.EqualFold(row.Setting, value)
	case "integer", "real":
		a, ok1 := quantity(row.Setting, row.Unit)
		b, ok2 := quantity(value, row.Unit)
		if !ok1 || !ok2 {
			return false
		}
		if row.Type == "integer" {
			scale, _ := unitScale(row.Unit)
			return math.Round(a/scale) == math.Round(b/scale)
		}
		return math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(b))
	}
	return row.Setting == value
}

// quantity is a number with its unit, in bytes or in milliseconds; a number alone has the parameter's own unit.
func quantity(text, own string) (float64, bool) {
	digits := strings.TrimRight(text, "kKMGTBbmsinhdu ")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		if i, err := strconv.ParseInt(digits, 0, 64); err == nil {
			n = float64(i)
		} else {
			return 0, false
		}
	}
	unit := strings.TrimSpace(text[len(digits):])
	if unit == "" {
		unit = own
	}
	scale, ok := unitScale(unit)
	return n * scale, ok
}

func unitScale(unit string) (float64, bool) {
	if unit == "" {
		return 1, true
	}
	digits := strings.TrimRight(unit, "kMGTBmsinhdu")
	times := 1.0
	if digits != "" {
		n, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			return 1, false
		}
		times = n
	}
	scale, ok := map[string]float64{"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40,
		"us": 0.001, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}[unit[len(digits):]]
	return times * scale, ok
}
