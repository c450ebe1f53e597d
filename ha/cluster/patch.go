package cluster

import "bytes"

// SameMember is Patroni's rule for skipping a write: two objects are the same when they have the same keys at every
// level and their leaves are the same as texts, so that 1 equals "1" and true equals "True" (reference section 1.4).
// Values that are no JSON objects are the same when their bytes are.
func SameMember(a, b []byte) bool {
	x, err1 := object(a)
	y, err2 := object(b)
	if err1 != nil || err2 != nil {
		return bytes.Equal(a, b)
	}
	return sameObject(x, y)
}

func sameObject(a, b map[string]any) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		w, ok := b[k]
		if !ok || !sameValue(v, w) {
			return false
		}
	}
	return true
}

// sameValue compares two values of mappings.
func sameValue(a, b any) bool {
	x, ok1 := a.(map[string]any)
	y, ok2 := b.(map[string]any)
	switch {
	case ok1 && ok2:
		return sameObject(x, y)
	case ok1 || ok2:
		return false
	case isList(a) || isList(b):
		return sameShown(a, b)
	}
	return pyText(a) == pyText(b)
}

func isList(v any) bool { _, ok := v.([]any); return ok }

// sameShown compares what stands inside a list. The text of a list shows its elements with their types: [1] is not the
// same as ["1"].
func sameShown(a, b any) bool {
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return ok && x == y
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !sameShown(x[i], y[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			w, ok := y[k]
			if !ok || !sameShown(v, w) {
				return false
			}
		}
		return true
	}
	switch b.(type) {
	case string, []any, map[string]any:
		return false
	}
	return pyText(a) == pyText(b)
}

// Patch merges patch into base as PATCH /config does (reference section 2.7): null deletes an existing key, mappings
// merge, other values replace when their text differs. A key that base lacks is stored as it is, nulls inside included,
// which is how {"slots":{"x":null}} makes a permanent slot. Base then shares those values with patch. It says whether
// base has changed in a way that readers see; a nil base takes nothing and never changes.
func Patch(base, patch map[string]any) (changed bool) {
	if base == nil {
		return false
	}
	for k, v := range patch {
		old, exists := base[k]
		if v == nil {
			delete(base, k)
			changed = changed || old != nil
			continue
		}
		sub, isMap := v.(map[string]any)
		into, intoMap := old.(map[string]any)
		switch {
		case exists && isMap && intoMap:
			changed = Patch(into, sub) || changed
		case !exists || !sameValue(old, v):
			base[k], changed = v, true
		}
	}
	return changed
}
