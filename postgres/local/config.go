package local

import (
	"log/slog"
	"time"
)

// Config says where one PostgreSQL server lives and who may log in to it. Fields without "optional" are required.
// The comments name the setting of Patroni's configuration file that means the same (reference section 4.2).
type Config struct {
	// Name is this member's name: application_name of its replication connection (`name`).
	Name string
	// Scope is the cluster's name, which becomes cluster_name (`scope`).
	Scope string

	// DataDir is the data directory, an absolute path; it may be missing or empty at first (`postgresql.data_dir`). Its
	// parent folder should be writable: copies are built beside it and renamed into place.
	DataDir string
	// BinDir holds the programs of PostgreSQL; optional, empty searches PATH (`postgresql.bin_dir`).
	BinDir string
	// BinNames gives programs other names, such as "postgres" to "postgres-16"; optional (`postgresql.bin_name`). The keys
	// are postgres, initdb, pg_basebackup, pg_rewind, pg_waldump, pg_verifybackup.
	BinNames map[string]string
	// ConfigDir is the absolute path of the folder with postgresql.conf, pg_hba.conf and pg_ident.conf; optional, by
	// default DataDir (`postgresql.config_dir`).
	ConfigDir string
	// ConfigBaseName is the name of the configuration file without ".conf"; optional, by default "postgresql"
	// (`postgresql.config_base_name`).
	ConfigBaseName string
	// CustomConf is a file that postgresql.conf includes in the place of postgresql.base.conf; optional
	// (`postgresql.custom_conf`).
	CustomConf string
	// StateDir is the folder for markers and for WAL that was set aside; optional, by default DataDir + ".pgregent". It
	// must not be inside DataDir, because a rewind or a new copy replaces what is in there.
	StateDir string

	// Listen is "host:port" or "host,host:port"; the port is 5432 when left out (`postgresql.listen`).
	Listen string
	// Connect is the "host:port" at which the other members reach this server; optional, by default the local
	// address (`postgresql.connect_address`).
	Connect string
	// UseUnixSocket makes the connections of this program to its own server go through the first folder of the
	// parameter unix_socket_directories; optional (`postgresql.use_unix_socket`).
	UseUnixSocket bool
	// UseUnixSocketRepl does the same for its replication connection; optional (`postgresql.use_unix_socket_repl`).
	UseUnixSocketRepl bool
	// Database is the database that is connected to; optional, by default "postgres" (`postgresql.database`).
	Database string
	// KerberosService is krbsrvname in connection strings; optional (`postgresql.krbsrvname`).
	KerberosService string

	// Superuser, Replication and Rewind are the accounts (`postgresql.authentication`). Rewind is optional: the
	// superuser is used in its place.
	Superuser, Replication, Rewind Credentials
	// PGPass is the absolute path of the password file that a replica's server reads; optional, by default pgpass in
	// the home directory (`postgresql.pgpass`). It is overwritten, with mode 0600.
	PGPass string

	// InitdbOptions are options of initdb as "name" or "name=value", without dashes (`bootstrap.initdb`). Refused:
	// pgdata, nosync, no-sync, pwfile, pwprompt, username, sync-only, version, help. Optional.
	InitdbOptions []string
	// BootstrapHBA are lines appended to pg_hba.conf by Initdb (`bootstrap.pg_hba`). Optional.
	BootstrapHBA []string
	// PostBootstrap is a command line run by PrepareCluster with a connection string as its last argument
	// (`bootstrap.post_bootstrap`). It is split into words like a shell does, and run without one. Optional.
	PostBootstrap string
	// PostBootstrapTimeout ends it, with everything in its process group, which fails the bootstrap; 0: no limit.
	PostBootstrapTimeout time.Duration

	// BasebackupOptions are options of pg_basebackup as "name" or "name=value", without dashes (`postgresql.basebackup`).
	// Refused: pgdata, format, wal-method, xlog-method, gzip, version, dbname, host, port, username, password, no-password, target; compress unless
	// its value begins with "server-". Optional.
	BasebackupOptions []string
	// VerifyBackup says how a base backup is checked against its manifest: "sizes" (by default; files and sizes, cheap),
	// "checksums" (reads everything again), or "off".
	VerifyBackup string

	// RewindOptions are options of pg_rewind as "name" or "name=value", without dashes (`postgresql.rewind`). Refused:
	// target-pgdata, source-pgdata, source-server, write-recovery-conf, dry-run, restore-target-wal, config-file,
	// no-ensure-shutdown, version, help. Optional.
	RewindOptions []string

	// ServerLog is the file that the postmaster's output is appended to; optional, empty: inherited from its parent.
	ServerLog string
	// Now is the observer's clock for Status.At; optional, by default CLOCK_BOOTTIME.
	Now func() time.Duration
	// Log receives what is done and what is odd; optional, nil discards.
	Log *slog.Logger
}

// Credentials is one account and how its connections are secured. Field names follow libpq's keywords. SSLCRL, SSLCRLDir and
// GSSEncMode count for the programs of PostgreSQL and for the server's receiver; this program's own connections use
// neither revocation lists nor GSSAPI.
type Credentials struct {
	Username string
	Password string
	// NoPassword says that this account logs in without a password, by a certificate or because pg_hba.conf lets it.
	// Without it, and without SSLCert, an empty Password is refused.
	NoPassword bool

	SSLMode        string // "disable", "allow", "prefer" (the default), "require", "verify-ca", "verify-full"
	SSLCert        string
	SSLKey         string
	SSLPassword    string
	SSLRootCert    string
	SSLCRL         string
	SSLCRLDir      string
	GSSEncMode     string // "disable", "prefer" (the default), "require"
	ChannelBinding string // "disable", "prefer" (the default), "require"
	SSLNegotiation string // "postgres" (the default), "direct"; for PostgreSQL 17 and later
}

// String names the account and never its password (hazard E2).
func (c Credentials) String() string { return "user " + c.Username }

// GoString is String, so that %#v does not show the password either.
func (c Credentials) GoString() string { return c.String() }

// LogValue is String, so that a log does not show the password either.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }
