package dcstest

import (
	"bytes"
	"slices"

	"github.com/pgregent/pgregent/dcs"
)

func readCases() []testCase {
	return []testCase{
		{name: "NothingThere", run: readNothing},
		{name: "OwnWriteAtOnce", run: readOwnWrite},
		{name: "OthersAcknowledgedWriteAtOnce", run: readOthersWrite},
		{name: "SortedByKey", run: readSorted},
		{name: "SnapshotIsTheCallers", run: readIsACopy},
	}
}

func readNothing(e *env) {
	if snap := e.read(e.open()); len(snap.Items) != 0 {
		e.Errorf("an unused prefix has %d keys", len(snap.Items))
	}
}

func readOwnWrite(e *env) {
	s := e.open()
	for _, value := range []string{"first", "second"} {
		version := e.put(s, "k", value)
		it, ok := e.read(s).Item("k")
		if !ok || string(it.Value) != value || it.Version != version || it.Session != "" || it.Key != "k" {
			e.Errorf("after a put of %q, which returned version %d, Read shows %+v (there: %v)", value, version, it, ok)
		}
	}
	e.remove(s, "k")
	e.wantAbsent(s, "k", "it was deleted")
}

func readOthersWrite(e *env) {
	stores := e.openMany(2)
	for i := range 20 {
		writer, reader := stores[i%2], stores[1-i%2]
		version := e.put(writer, "k", "v")
		if it, _ := e.read(reader).Item("k"); it.Version != version {
			e.Fatalf("round %d: a client was told version %d, then another client read %d", i+1, version, it.Version)
		}
	}
}

func readSorted(e *env) {
	s := e.open()
	// In byte order '.' < '/' < '0' < 'A' < 'a', and a key sorts before those it is a prefix of.
	want := []string{"A", "a", "a.x", "a/x", "a0", "b", "é"}
	for _, i := range []int{4, 0, 6, 2, 5, 1, 3} {
		e.put(s, want[i], "v")
	}
	var got []string
	for _, it := range e.read(s).Items {
		got = append(got, it.Key)
	}
	if !slices.Equal(got, want) {
		e.Errorf("the keys are %q, want %q", got, want)
	}
}

func readIsACopy(e *env) {
	s := e.open()
	value := []byte("value")
	e.commit(s, dcs.Txn{Then: []dcs.Op{dcs.Put("k", value), dcs.Put("l", []byte("other"))}})
	copy(value, "XXXXX")
	e.wantValue(s, "k", "value")
	items := e.read(s).Items
	_ = append(items[0].Value, "YYYYY"...)
	if string(items[1].Value) != "other" {
		e.Errorf("appending to the value of one item changed that of the next to %q", items[1].Value)
	}
	for _, it := range items {
		copy(it.Value, bytes.Repeat([]byte("Z"), len(it.Value)))
	}
	e.wantValue(s, "k", "value")
	e.wantValue(s, "l", "other")
}
