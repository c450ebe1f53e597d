// Package local is a postgres.Controller over the PostgreSQL programs (initdb, pg_basebackup, pg_rewind, pg_waldump,
// pg_verifybackup) and one data directory on this machine, for PostgreSQL 14 to 18.
//
// It owns the files that Patroni owns (reference section 7): postgresql.conf with postgresql.base.conf beside it,
// pg_hba.conf and pg_ident.conf when they are configured, standby.signal, the recovery lines of postgresql.auto.conf,
// and the password file. A data directory can therefore move between the two programs without a rebuild.
//
// Beside the data directory it keeps a folder of its own, Config.StateDir: markers of a rewind, base backup or initdb
// that has begun and not ended (hazards D3, D5), the WAL that was set aside before a rewind or a new copy, and the names of
// the replication slots that it made.
//
// The package never forks a postmaster and never stops one: Command says how to start it, and its parent is somebody
// else (design section 7). It decides nothing: it does not know who leads, takes no lease, retries nothing, and deletes
// no data directory: what is replaced is renamed aside, and one earlier copy is kept (hazard C10).
package local
