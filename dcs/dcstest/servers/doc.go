// Package servers is the place where the versions of the servers are pinned that tests start: the go.mod beside it lists
// them as tools, in a module of their own, so that no importer of the library meets an etcd server among its
// dependencies.
//
//	GOWORK=off go build -o etcd go.etcd.io/etcd/server/v3
//
// in this folder builds etcd; .ci/etcd.sh does that once for each version and keeps the result in the cache. The package
// holds no code, and starts nothing: package etcdserver beside it does.
package servers
