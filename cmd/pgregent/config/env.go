package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// environment turns PATRONI_* variables into the tree they stand for (reference section 4.3). Variables that no
// setting has are errors only in their values; unknown names are returned as warnings.
func environment(environ []string) (tree map[string]any, warnings []string, errs []error) {
	tree = map[string]any{}
	names := envNames()
	sorted := slices.Sorted(slices.Values(environ))
	for _, kv := range sorted {
		name, value, _ := strings.Cut(kv, "=")
		rest, ok := strings.CutPrefix(name, "PATRONI_")
		if !ok || rest == "CONFIGURATION" || value == "" {
			continue
		}
		path, ok := names[rest]
		if !ok {
			warnings = append(warnings, fmt.Sprintf("environment variable %s is not a known setting and is ignored", name))
			continue
		}
		v, err := envValue(path, value)
		if err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
			continue
		}
		set(tree, path, v)
	}
	return tree, warnings, errs
}

// envNames maps the name behind PATRONI_ to the setting.
func envNames() map[string]string {
	m := map[string]string{}
	add := func(path, name string) { m[strings.ToUpper(name)] = path }
	for path := range schema() {
		switch {
		case strings.HasPrefix(path, "restapi.authentication."), strings.HasPrefix(path, "ctl.authentication."):
			s, p, _ := strings.Cut(path, ".authentication.")
			add(path, s+"_"+p)
		case strings.HasPrefix(path, "postgresql.authentication."):
			add(path, strings.ReplaceAll(strings.TrimPrefix(path, "postgresql.authentication."), ".", "_"))
		case strings.HasPrefix(path, "restapi."), strings.HasPrefix(path, "ctl."), strings.HasPrefix(path, "etcd3."),
			strings.HasPrefix(path, "consul."), strings.HasPrefix(path, "zookeeper."), strings.HasPrefix(path, "exhibitor."):
			add(path, strings.ReplaceAll(path, ".", "_"))
		case !strings.Contains(path, "."):
			add(path, path)
		}
	}
	for _, p := range []string{"listen", "connect_address", "proxy_address", "config_dir", "data_dir", "pgpass", "bin_dir"} {
		add("postgresql."+p, "postgresql_"+p)
	}
	for _, b := range []string{"pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready", "pg_rewind"} {
		add("postgresql.bin_name."+b, "postgresql_bin_"+b)
	}
	for _, l := range []string{"type", "level", "traceback_level", "format", "dateformat", "dir", "mode", "file_size", "file_num", "max_queue_size"} {
		add("log."+l, "log_"+l)
	}
	add("log.level", "loglevel")
	return m
}

// envValue reads a value by the setting's kind; lists and mappings are YAML, with or without their brackets.
func envValue(path, value string) (any, error) {
	k := schema()[path]
	switch k {
	case kindList, kindTextOrList, kindMap, kindOptions:
		text := strings.TrimSpace(value)
		if k == kindMap && !strings.HasPrefix(text, "{") && !strings.Contains(text, "\n") {
			text = "{" + text + "}"
		} else if k != kindMap && !strings.HasPrefix(text, "[") && !strings.HasPrefix(text, "-") {
			text = "[" + text + "]"
		}
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			return nil, fmt.Errorf("%q is not %s: %w", value, k, err)
		}
		return v, nil
	}
	return value, nil
}

// set puts v at a dotted path.
func set(tree map[string]any, path string, v any) {
	parts := strings.Split(path, ".")
	for _, p := range parts[:len(parts)-1] {
		sub, ok := tree[p].(map[string]any)
		if !ok {
			sub = map[string]any{}
			tree[p] = sub
		}
		tree = sub
	}
	tree[parts[len(parts)-1]] = v
}

// merge lays over onto base, mapping by mapping.
func merge(base, over map[string]any) {
	for k, v := range over {
		a, ok1 := base[k].(map[string]any)
		b, ok2 := v.(map[string]any)
		if ok1 && ok2 {
			merge(a, b)
			continue
		}
		base[k] = v
	}
}
