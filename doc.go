// Package pgregent is the map of a library that keeps one PostgreSQL cluster highly available. It holds no code of its own.
//
// A node is put together from three parts, and none of them knows the others: a store, a server, and the loop between them.
//
//	dcs              Store, what a distributed store must do; Client and Lease, what is built on it once and for all
//	dcs/memory       a Store in this process, with faults on demand: for tests
//	dcs/etcd         a Store in etcd
//	dcs/dcstest      the conformance suite: run it on a Store of your own
//
//	postgres         Controller, what the loop needs of a server; Status, what it sees of one
//	postgres/local   a Controller over PostgreSQL's programs and one data directory
//	postgres/wal     positions, timelines, histories: values, parsing, comparing
//	postgres/postgrestest   a Controller without PostgreSQL, and the conformance suite for real ones
//
//	ha               Node: the loop that observes, decides and acts
//	ha/policy        View to Decision, a pure function; its testdata says in plain text what happens in each situation
//	ha/policy/policytest    a model cluster that these texts drive
//	ha/policy/sim    random schedules over the same model, each from a seed
//	ha/cluster       the records that the members share through the store, in Patroni's formats
//	ha/fence         the guard process, parent of the postmaster
//	ha/rest          the HTTP API of a node, and its client
//
//	callbacks        Callback, what a program wants to be told; callbacks/exec runs scripts, as Patroni does
//
// The programs are cmd/pgregent, a daemon that reads Patroni's configuration file, and those below examples. Programs
// wire the parts; a package of the library never imports a backend or a program. What may import what is a table in
// arch_test.go.
package pgregent
