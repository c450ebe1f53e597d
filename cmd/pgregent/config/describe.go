package config

import (
	"maps"
	"slices"
	"strings"
)

// Change is what makes a changed setting of the file count.
type Change string

// Changes.
const (
	ChangeReload    Change = "reload"        // SIGHUP or POST /reload
	ChangeAgent     Change = "agent"         // a restart of the agent: pgregent detach, then start; PostgreSQL goes on
	ChangeBootstrap Change = "new cluster"   // it counts when a cluster is created, and never again
	ChangeTools     Change = "at once"       // read by each command
	ChangeIgnored   Change = "accepted only" // Patroni's; accepted, and without effect here
	ChangeRefused   Change = "refused"       // Patroni's; the daemon does not start with it
)

// Setting is one setting of the local file, for the reference documentation.
type Setting struct {
	Path     string // dotted
	Type     string
	Default  string // in words; empty: none
	Change   Change
	Env      []string // environment variables that set it, sorted
	Dynamic  bool     // it may stand in the dynamic configuration too, where the file wins
	Required bool
	Ours     bool // Patroni does not know it
	Text     string
}

// Settings are all settings of the local file, sorted by path. An entry without Text is one that nobody has described yet.
func Settings() []Setting {
	variables := map[string][]string{}
	for name, path := range envNames() {
		variables[path] = append(variables[path], "PATRONI_"+name)
	}
	texts := described()
	var out []Setting
	for _, path := range slices.Sorted(maps.Keys(schema())) {
		s := Setting{Path: path, Type: schema()[path].String()}
		if d, ok := texts[generic(path)]; ok {
			s.Default, s.Change, s.Text, s.Required, s.Ours, s.Dynamic = d.Default, d.Change, d.Text, d.Required, d.Ours, d.Dynamic
		}
		s.Env = slices.Sorted(slices.Values(variables[path]))
		out = append(out, s)
	}
	return out
}

// generic is the path under which a setting is described: the three accounts of PostgreSQL have the same ones.
func generic(path string) string {
	rest, ok := strings.CutPrefix(path, "postgresql.authentication.")
	if !ok {
		return path
	}
	_, name, _ := strings.Cut(rest, ".")
	return "postgresql.authentication.*." + name
}

// described reads the lines of descriptions: path, flags, default, what it is. Flags: r reload, a agent, b new cluster,
// t tools, i ignored, x refused; q required, o ours, d may be dynamic.
func described() map[string]Setting {
	changes := map[rune]Change{'r': ChangeReload, 'a': ChangeAgent, 'b': ChangeBootstrap, 't': ChangeTools, 'i': ChangeIgnored, 'x': ChangeRefused}
	out := map[string]Setting{}
	for line := range strings.Lines(descriptions) {
		f := strings.SplitN(strings.TrimSpace(line), " | ", 4)
		if len(f) != 4 {
			continue
		}
		s := Setting{Default: strings.Trim(f[2], "-"), Text: f[3]}
		for _, flag := range f[1] {
			if c, ok := changes[flag]; ok {
				s.Change = c
			}
			s.Required, s.Ours, s.Dynamic = s.Required || flag == 'q', s.Ours || flag == 'o', s.Dynamic || flag == 'd'
		}
		out[f[0]] = s
	}
	return out
}
