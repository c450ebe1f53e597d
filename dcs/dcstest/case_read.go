package dcstest

import (
	"github.com/pgregent/pgregent/dcs"
)

func readCases() []testCase {
	return []testCase{
		{"OwnWrite", readOwnWrite},
	}
}

func readOwnWrite(e *env) {
	s := e.open("")
	r := e.commit(s, dcs.Txn{Then: []dcs.Op{dcs.Put("k", []byte("v"))}})
	it, ok := e.read(s).Item("k")
	if !ok || string(it.Value) != "v" || it.Version != r.Versions["k"] {
		e.Errorf("after a put that returned %+v, Read shows %+v (there: %v)", r, it, ok)
	}
}
