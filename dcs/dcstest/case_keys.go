package dcstest

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/pgregent/pgregent/dcs"
)

func keyCases() []testCase {
	return []testCase{
		{name: "OddNames", run: keysOddNames},
		{name: "OddValues", run: keysOddValues},
		{name: "LimitsAreTrue", run: keysLimits},
		{name: "PrefixesDoNotMeet", run: keysPrefixes},
		{name: "PrefixesDoNotDisturbEachOther", run: keysParallel},
		{name: "ManyKeys", run: keysMany},
	}
}

func keysOddNames(e *env) {
	s, other := e.open(), e.open()
	names := []string{
		"plain", "members/pg1", "members/pg1/x", "with space", " lead", "trail ", "per%cent", "%2F", "%", "a+b", "q?x=1&y=2",
		"#hash", "semi;colon", "comma,", "quote\"'`", "back\\slash", "dots.in.name", ".hidden", "end.", "UPPER", "upper",
		"(brackets)[]{}<>", "ünïcödé", "日本/東京", "🙂", "~tilde", "@at", "$dollar", "star*", "a:b", "-", "_", "0",
		strings.Repeat("long", 40),
	}
	for _, name := range names {
		e.put(s, name, "value of "+name)
	}
	snap := e.read(other)
	if len(snap.Items) != len(names) {
		e.Errorf("%d keys were put, Read shows %d", len(names), len(snap.Items))
	}
	for _, name := range names {
		it, ok := snap.Item(name)
		if !ok || string(it.Value) != "value of "+name {
			e.Errorf("the key %q reads as %q (there: %v)", name, it.Value, ok)
			continue
		}
		_, err := e.tryCommit(other, dcs.Txn{If: []dcs.Cond{{Key: name, Version: it.Version}}, Then: []dcs.Op{dcs.Delete(name)}})
		if err != nil {
			e.Errorf("deleting the key %q at the version read: %v", name, err)
		}
	}
	if left := e.read(s).Items; len(left) != 0 {
		e.Errorf("%d keys are left, the first is %q", len(left), left[0].Key)
	}
}

func keysOddValues(e *env) {
	s, other := e.open(), e.open()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	values := map[string][]byte{
		"nil": nil, "empty": {}, "zero byte": {0}, "newline": {'\n'}, "all bytes": all, "not utf-8": {0xff, 0xfe, 0xc0},
		"json": []byte(`{"a":"\u0000<>&"}`), "100 kB": bytes.Repeat(all, 400),
	}
	for name, v := range values {
		if limit := s.Limits().MaxValue; limit > 0 && len(v) > limit {
			e.Errorf("Limits().MaxValue is %d; a store for pgregent must take 100 kB", limit)
			continue
		}
		e.commit(s, dcs.Txn{Then: []dcs.Op{dcs.Put("k", v)}})
		it, ok := e.read(other).Item("k")
		if !ok || !bytes.Equal(it.Value, v) {
			e.Errorf("%s: %d bytes were put, %d came back (there: %v), equal: %v", name, len(v), len(it.Value), ok, bytes.Equal(it.Value, v))
		}
	}
	ses := e.lasting(s)
	e.bind(s, "k", "", ses)
	if it, ok := e.read(other).Item("k"); !ok || len(it.Value) != 0 || it.Session != ses.ID() {
		e.Errorf("an empty value bound to a session reads as %+v (there: %v)", it, ok)
	}
}

// keysLimits: what Limits states is taken, one more is refused with ErrTooLarge and changes nothing.
func keysLimits(e *env) {
	s := e.open()
	l := s.Limits()
	if l.MinTTL < 0 || l.MaxValue < 0 || l.MaxOps < 0 || l.SessionSlack < 0 {
		e.Fatalf("Limits has a negative value: %+v", l)
	}
	if l.MaxValue > 0 {
		e.put(s, "k", strings.Repeat("x", l.MaxValue))
		_, err := e.tryCommit(s, dcs.Txn{Then: []dcs.Op{dcs.Put("k", make([]byte, l.MaxValue+1))}})
		e.wantKind("a value of MaxValue+1 bytes", err, dcs.ErrTooLarge)
		if it, _ := e.read(s).Item("k"); len(it.Value) != l.MaxValue {
			e.Errorf("a value of MaxValue = %d bytes reads as %d bytes", l.MaxValue, len(it.Value))
		}
		e.remove(s, "k")
	}
	if l.MaxOps > 0 {
		var txn dcs.Txn
		for i := range l.MaxOps {
			key := "many/" + strings.Repeat("x", i/26) + string(rune('a'+i%26))
			if i%2 == 0 {
				txn.If = append(txn.If, dcs.Cond{Key: key})
			} else {
				txn.Then = append(txn.Then, dcs.Put(key, []byte("v")))
			}
		}
		e.commit(s, txn)
		txn.If = append(txn.If, dcs.Cond{Key: "one more"})
		for i := range txn.Then {
			txn.Then[i].Value = []byte("w")
		}
		_, err := e.tryCommit(s, txn)
		e.wantKind("a transaction of MaxOps+1", err, dcs.ErrTooLarge)
		e.wantValue(s, txn.Then[0].Key, "v")
	}
}

func keysPrefixes(e *env) {
	names := []string{"/a", "/ab", "/a-", "/a.b", "/b", "/a b"}
	stores := make([]dcs.Store, len(names))
	for i, name := range names {
		stores[i] = e.openAt(name)
	}
	for i, name := range names {
		// Absent holds although the key exists below the other prefixes.
		e.commit(stores[i], dcs.Txn{If: []dcs.Cond{{Key: "k"}}, Then: []dcs.Op{dcs.Put("k", []byte(name))}})
	}
	for i, name := range names {
		items := e.read(stores[i]).Items
		if len(items) != 1 || items[0].Key != "k" || string(items[0].Value) != name {
			e.Errorf("the prefix %q shows %d keys, want its one: %+v", name, len(items), items)
		}
	}
	ses := e.lasting(stores[0])
	e.bind(stores[0], "bound", "v", ses)
	e.remove(stores[0], "k")
	if err := e.closeSession(ses); err != nil {
		e.Errorf("Close of the session: %v", err)
	}
	for i := range names {
		if got := len(e.read(stores[i]).Items); (got == 1) != (i > 0) || got > 1 {
			e.Errorf("after the first prefix was emptied, the prefix %q shows %d keys", names[i], got)
		}
	}
	if above := e.read(e.open()).Items; len(above) != len(names)-1 || above[0].Key != "a b/k" {
		e.Errorf("the prefix above shows %d keys, want those of the %d below: %+v", len(above), len(names)-1, above)
	}
}

// keysParallel: several clusters on one store, all busy with keys of the same name, meet no conflict.
func keysParallel(e *env) {
	names := []string{"/a", "/ab", "/a/b", "/b"}
	stores := make([]dcs.Store, len(names))
	for i, name := range names {
		stores[i] = e.openAt(name)
	}
	e.together(len(names), func(i int) error {
		var at dcs.Version
		for n := range 25 {
			r, err := e.tryCommit(stores[i], dcs.Txn{If: []dcs.Cond{{Key: "k", Version: at}}, Then: []dcs.Op{dcs.Put("k", fmt.Append(nil, n))}})
			if err != nil {
				return fmt.Errorf("write %d below %q, where nobody else writes: %w", n+1, names[i], err)
			}
			at = r.Versions["k"]
		}
		return nil
	})
	for i, name := range names {
		if it, ok := e.read(stores[i]).Item("k"); !ok || string(it.Value) != "24" {
			e.Errorf("below %q the key has the value %q (there: %v), want 24", name, it.Value, ok)
		}
	}
}

// keysMany: Read shows all of a prefix, however many keys that are.
func keysMany(e *env) {
	s := e.open()
	const keys, together = 320, 8
	value := strings.Repeat("v", 1000)
	for from := 0; from < keys; from += together {
		var txn dcs.Txn
		for i := from; i < from+together; i++ {
			txn.Then = append(txn.Then, dcs.Put(fmt.Sprintf("members/%03d", i), []byte(value)))
		}
		e.commit(s, txn)
	}
	items := e.read(s).Items
	if len(items) != keys {
		e.Fatalf("%d keys were put, Read shows %d", keys, len(items))
	}
	for i, it := range items {
		if it.Key != fmt.Sprintf("members/%03d", i) || string(it.Value) != value {
			e.Fatalf("item %d is the key %q with %d bytes", i, it.Key, len(it.Value))
		}
	}
}
