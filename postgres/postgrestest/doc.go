// Package postgrestest helps to test what drives PostgreSQL, and what is driven by it: Main runs a test binary as an
// unprivileged user, Server is a real postmaster started from a postgres.Command, Fake is a Controller in memory, and
// RunController is the conformance suite for real Controllers.
//
// The package installs no PostgreSQL (Binaries finds what is there), it is no model of replication (Fake shows what it
// is told to show), and nothing in it is meant for production.
package postgrestest
