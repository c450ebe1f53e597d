package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
)

func (a *API) getConfig(x *exchange) {
	c := x.report.Cluster.Config
	if !c.Present || c.Err != nil {
		x.text(http.StatusBadGateway, "the dynamic configuration is not known")
		return
	}
	x.write(http.StatusOK, "application/json", cluster.EncodeConfig(c.Raw))
}

// patchConfig is PATCH /config: a merge as cluster.Patch does it, made again when somebody else writes in between.
func (a *API) patchConfig(x *exchange) {
	patch, no := x.object(false)
	if no == nil {
		no = checkSettings(patch)
	}
	if no != nil {
		x.text(no.code, no.text)
		return
	}
	a.changeConfig(x, http.StatusServiceUnavailable, func(current map[string]any) (map[string]any, *refusal) {
		if current == nil {
			return nil, &refusal{http.StatusServiceUnavailable, "there is no dynamic configuration to change: the cluster is not initialized, or its key was deleted; PUT writes one"}
		}
		cluster.Patch(current, copyOf(patch).(map[string]any))
		return current, nil
	})
}

// putConfig is PUT /config.
func (a *API) putConfig(x *exchange) {
	config, no := x.object(false)
	if no == nil {
		no = checkSettings(config)
	}
	if no != nil {
		x.text(no.code, no.text)
		return
	}
	a.changeConfig(x, http.StatusBadGateway, func(map[string]any) (map[string]any, *refusal) {
		return copyOf(config).(map[string]any), nil
	})
}

// errSame ends a change that changes nothing.
var errSame = errors.New("nothing changes")

// refused carries a refusal out of Operator.ChangeConfig.
type refused struct{ no *refusal }

func (r *refused) Error() string { return r.no.text }

// changeConfig changes the key `config` and answers with what it is now. failed is the status code when the store
// did not take it.
func (a *API) changeConfig(x *exchange, failed int, change func(current map[string]any) (map[string]any, *refusal)) {
	var now []byte
	ctx, cancel := context.WithTimeout(x.req.Context(), storeTimeout)
	defer cancel()
	_, err := a.node.ChangeConfig(ctx, false, func(stored json.RawMessage) (json.RawMessage, error) {
		current, err := decodeConfig(stored)
		if err != nil {
			return nil, &refused{&refusal{http.StatusServiceUnavailable, err.Error()}}
		}
		old, _ := copyOf(current).(map[string]any)
		next, no := change(current)
		if no == nil {
			no = x.mayChange(old, next)
		}
		if no != nil {
			return nil, &refused{no}
		}
		if now = cluster.EncodeConfig(next); stored != nil && len(differences(old, next)) == 0 {
			return nil, errSame
		}
		return now, nil
	})
	var no *refused
	switch {
	case err == nil || errors.Is(err, errSame):
		x.write(http.StatusOK, "application/json", now)
	case errors.As(err, &no):
		x.text(no.no.code, no.no.text)
	case errors.Is(err, dcs.ErrConflict):
		x.text(http.StatusConflict, "the dynamic configuration was changed by somebody else at the same moment; try again")
	default:
		x.text(failed, "the store did not take the configuration: "+err.Error())
	}
}

func decodeConfig(stored json.RawMessage) (map[string]any, error) {
	if stored == nil {
		return nil, nil
	}
	m, err := parseObject(stored)
	if err != nil {
		return nil, errors.New("the stored configuration cannot be read: it is no JSON object; PUT a new one with another tool after looking at it")
	}
	return m, nil
}

// copyOf copies mappings and lists at every level.
func copyOf(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if v == nil {
			return v
		}
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = copyOf(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = copyOf(e)
		}
		return out
	}
	return v
}

// mayChange asks whether a change of the configuration is allowed: settings that run commands need an admin, and what
// this version must not ignore and cannot do is not switched on here (design section 2).
func (x *exchange) mayChange(old, next map[string]any) *refusal {
	changes := differences(old, next)
	x.with = shown(changes)
	if x.who.role < RoleAdmin {
		for _, c := range changes {
			if runsCommands(c.path) {
				return &refusal{http.StatusForbidden, fmt.Sprintf("%s: it can run commands or let somebody in, so the role admin is needed, %s is not enough",
					name(c.key()), x.who.role)}
			}
		}
	}
	before := cluster.ParseDynamic(old).Unsupported
	for _, u := range cluster.ParseDynamic(next).Unsupported {
		if !slices.Contains(before, u) {
			return &refusal{http.StatusUnprocessableEntity, withoutValue(u)}
		}
	}
	return nil
}

// withoutValue takes the value out of "key = value is not supported yet: reason": it could hold a password.
func withoutValue(s string) string {
	const words = " is not supported yet: "
	key, rest, ok := strings.Cut(s, " = ")
	at := strings.LastIndex(rest, words)
	if !ok || at < 0 {
		return s
	}
	return key + rest[at:]
}

// difference is a setting that changes: mappings are compared inside, everything else as a whole.
type difference struct {
	path []string
	new  any // nil: deleted, or null
}

func (d difference) key() string { return strings.Join(d.path, ".") }

// differences lists what changes from a to b, sorted.
func differences(a, b map[string]any) []difference {
	var out []difference
	var walk func(path []string, a, b any)
	walk = func(path []string, a, b any) {
		m, isMap := a.(map[string]any)
		n, isMap2 := b.(map[string]any)
		if !isMap && !isMap2 || len(path) > 100 {
			if !sameJSON(a, b) {
				out = append(out, difference{slices.Clone(path), b})
			}
			return
		}
		if isMap != isMap2 {
			out = append(out, difference{slices.Clone(path), b})
		}
		keys := sortedKeys(m)
		for _, k := range sortedKeys(n) {
			if _, ok := m[k]; !ok {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		for _, k := range keys {
			va, in := m[k]
			vb, in2 := n[k]
			if in != in2 && va == nil && vb == nil { // a null that comes or goes counts: {"slots":{"x":null}}
				out = append(out, difference{append(slices.Clone(path), k), nil})
				continue
			}
			walk(append(slices.Clone(path), k), va, vb)
		}
	}
	if a == nil {
		a = map[string]any{}
	}
	walk(nil, a, b)
	return out
}

func sameJSON(a, b any) bool {
	x, err := marshal(a)
	y, err2 := marshal(b)
	return err == nil && err2 == nil && string(x) == string(y)
}

// shown is what the audit log says of changed settings: numbers and switches as they are, and of everything else only
// that it changed, because it could hold a password.
func shown(changes []difference) map[string]any {
	const most = 50
	out := map[string]any{}
	for i, c := range changes {
		if i == most {
			out["..."] = fmt.Sprintf("and %d more", len(changes)-most)
			break
		}
		switch c.new.(type) {
		case nil, bool, json.Number:
			out[short(c.key())] = c.new
		default:
			out[short(c.key())] = "changed"
		}
	}
	return out
}
