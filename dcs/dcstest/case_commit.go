package dcstest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

func commitCases() []testCase {
	return []testCase{
		{name: "Conditions", run: commitConditions},
		{name: "AllOrNothing", run: commitAllOrNothing},
		{name: "ResultNamesWhatWasPut", run: commitResult},
		{name: "DeleteOfAbsentKey", run: commitDeleteAbsent},
		{name: "VersionsAreNeverUsedAgain", run: commitVersions},
		{name: "EndedContext", run: commitEndedContext},
		{name: "CancelledCallsSpareOthers", run: commitBesideCancelled},
	}
}

func commitConditions(e *env) {
	s := e.open()
	old := e.put(s, "there", "1")
	at := e.put(s, "there", "2")
	holds := map[string][]dcs.Cond{
		"none":               nil,
		"absent":             {{Key: "gone"}},
		"at version":         {{Key: "there", Version: at}},
		"both":               {{Key: "there", Version: at}, {Key: "gone"}},
		"absent, other name": {{Key: "the"}, {Key: "there/below"}},
	}
	for name, conds := range holds {
		e.commit(s, dcs.Txn{If: conds, Then: []dcs.Op{dcs.Put("done", []byte(name))}})
		e.wantValue(s, "done", name)
		if _, err := e.tryCommit(s, dcs.Txn{If: conds}); err != nil {
			e.Errorf("%s, without operations: %v", name, err)
		}
	}
	fails := map[string][]dcs.Cond{
		"absent, but it is there":    {{Key: "there"}},
		"old version":                {{Key: "there", Version: old}},
		"a version nobody gave":      {{Key: "there", Version: at + 1<<40}},
		"at version, but absent":     {{Key: "gone", Version: at}},
		"the first of two":           {{Key: "there", Version: old}, {Key: "gone"}},
		"the second of two":          {{Key: "there", Version: at}, {Key: "gone", Version: at}},
		"one on a key that is put":   {{Key: "undone"}, {Key: "there"}},
		"version of a different key": {{Key: "done", Version: at}},
	}
	for name, conds := range fails {
		_, err := e.tryCommit(s, dcs.Txn{If: conds, Then: []dcs.Op{dcs.Put("undone", nil)}})
		e.wantKind(name, err, dcs.ErrConflict)
		_, err = e.tryCommit(s, dcs.Txn{If: conds})
		e.wantKind(name+", without operations", err, dcs.ErrConflict)
	}
	e.wantAbsent(s, "undone", "every transaction that would put it was refused")
}

func commitAllOrNothing(e *env) {
	s := e.open()
	e.put(s, "old", "v")
	at := e.put(s, "kept", "v")
	ended := e.lasting(s)
	if err := e.closeSession(ended); err != nil {
		e.Fatalf("Close of the session: %v", err)
	}
	ops := []dcs.Op{dcs.Put("new", nil), dcs.Put("kept", []byte("w")), dcs.Delete("old")}
	_, err := e.tryCommit(s, dcs.Txn{If: []dcs.Cond{{Key: "kept", Version: at}, {Key: "old"}}, Then: ops})
	e.wantKind("with a condition that fails", err, dcs.ErrConflict)
	unbound := append(slices.Clone(ops), dcs.PutSession("bound", nil, ended.ID()))
	_, err = e.tryCommit(s, dcs.Txn{If: []dcs.Cond{{Key: "kept", Version: at}}, Then: unbound})
	e.wantKind("with a put bound to an ended session", err, dcs.ErrSessionLost)
	slices.Reverse(unbound)
	_, err = e.tryCommit(s, dcs.Txn{Then: unbound})
	e.wantKind("with a put bound to an ended session, first", err, dcs.ErrSessionLost)
	if it, _ := e.read(s).Item("kept"); len(e.read(s).Items) != 2 || it.Version != at {
		e.Errorf("refused transactions left %+v", e.read(s).Items)
	}
	e.commit(s, dcs.Txn{If: []dcs.Cond{{Key: "kept", Version: at}}, Then: ops})
	e.wantValue(s, "new", "")
	e.wantValue(s, "kept", "w")
	e.wantAbsent(s, "old", "the same transaction deleted it")
}

func commitResult(e *env) {
	s := e.open()
	e.put(s, "deleted", "v")
	ses := e.lasting(s)
	r := e.commit(s, dcs.Txn{Then: []dcs.Op{
		dcs.Put("a", []byte("v")), dcs.Delete("deleted"), dcs.PutSession("b", []byte("v"), ses.ID()), dcs.Delete("absent"),
	}})
	if got := slices.Sorted(maps.Keys(r.Versions)); !slices.Equal(got, []string{"a", "b"}) {
		e.Errorf("Result.Versions has the keys %q, want those that were put: a, b", got)
	}
	snap := e.read(s)
	for key, version := range r.Versions {
		if it, _ := snap.Item(key); version == dcs.Absent || it.Version != version {
			e.Errorf("%q was put with version %d and reads as %d", key, version, it.Version)
		}
	}
}

func commitDeleteAbsent(e *env) {
	s := e.open()
	e.remove(s, "never there")
	e.put(s, "k", "v")
	e.remove(s, "k")
	e.remove(s, "k")
	e.commit(s, dcs.Txn{If: []dcs.Cond{{Key: "k"}}, Then: []dcs.Op{dcs.Delete("k"), dcs.Delete("l"), dcs.Put("m", nil)}})
	if items := e.read(s).Items; len(items) != 1 || items[0].Key != "m" {
		e.Errorf("want only the key m, got %+v", items)
	}
}

// commitVersions: no version of a key comes back, so that a condition on a value seen long ago cannot hold by accident.
func commitVersions(e *env) {
	s, other := e.open(), e.open()
	seen := make(map[dcs.Version]string)
	note := func(how string, v dcs.Version) {
		e.Helper()
		if before, ok := seen[v]; ok || v == dcs.Absent {
			e.Errorf("version %d of a put %s was that of a put %s, or means absent", v, how, before)
		}
		seen[v] = how
	}
	for i := range 3 {
		note(fmt.Sprintf("of the same value, round %d", i), e.put(s, "k", "same"))
		note(fmt.Sprintf("of the same value again, round %d", i), e.put(other, "k", "same"))
		e.remove(s, "k")
		note(fmt.Sprintf("after a delete, round %d", i), e.put(other, "k", "same"))
		e.commit(s, dcs.Txn{Then: []dcs.Op{dcs.Delete("k"), dcs.Put("else", nil)}})
		ses := e.lasting(s)
		note(fmt.Sprintf("bound to a session, round %d", i), e.bind(s, "k", "same", ses))
		if err := e.closeSession(ses); err != nil {
			e.Fatalf("Close of the session: %v", err)
		}
		note(fmt.Sprintf("after a session took the key along, round %d", i), e.put(s, "k", "same"))
		e.remove(other, "k")
	}
	e.put(s, "k", "same")
	for v, how := range seen {
		_, err := e.tryCommit(s, dcs.Txn{If: []dcs.Cond{{Key: "k", Version: v}}, Then: []dcs.Op{dcs.Delete("k")}})
		e.wantKind("a condition on the version of a put "+how, err, dcs.ErrConflict)
	}
}

// commitEndedContext: a call with a context that has ended already is an error and nothing is sent.
func commitEndedContext(e *env) {
	s := e.open()
	ses := e.lasting(s)
	ctx, cancel := context.WithCancel(e.base())
	cancel()
	for _, c := range calls(s, ses) {
		if err := c.do(ctx); err == nil && c.name != "Watch" {
			e.Errorf("%s with an ended context returned no error", c.name)
		} else if refused(err) {
			e.Errorf("%s with an ended context was refused: %v", c.name, err)
		}
	}
	if err := e.renew(ses); err != nil {
		e.Errorf("the session after a Close with an ended context: %v", err)
	}
	e.wantAbsent(s, "k", "the context of its Commit had ended before")
}

// commitBesideCancelled: callers that go away in the middle of a call, as whoever asks over HTTP may, do not disturb the calls
// of others, also where all share a connection. Nor may the session suffer.
func commitBesideCancelled(e *env) {
	s := e.open()
	ses := e.lasting(s)
	done := make(chan struct{})
	e.together(2, func(i int) error {
		if i == 0 {
			return e.busy(s, "busy", done)
		}
		defer close(done)
		for i := range 200 {
			ctx, cancel := context.WithCancel(e.base())
			time.AfterFunc(time.Duration(i%20)*100*time.Microsecond, cancel)
			if i%2 == 0 {
				_, _ = s.Read(ctx)
			} else {
				_, _ = s.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put("given up", nil)}})
			}
			cancel()
		}
		return nil
	})
	if err := e.renew(ses); err != nil {
		e.Errorf("Renew after others have cancelled their calls: %v", err)
	}
}
