package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
	"github.com/pgregent/pgregent/postgres/wal"
)

// rig is one server of these tests.
type rig struct {
	*Server
	t    *testing.T
	proc *postgrestest.Server
}

// newRig opens a server with a data directory of its own. change may bend the configuration.
func newRig(t *testing.T, major string, change func(*Config)) *rig {
	t.Helper()
	cfg := valid(t)
	cfg.BinDir = postgrestest.Binaries(t, major)
	cfg.Listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(postgrestest.FreePort(t)))
	cfg.Superuser.Password, cfg.Replication.Password = "canary-4711", "canary-4712"
	cfg.InitdbOptions = []string{"auth=scram-sha-256", "locale=C", "no-instructions"}
	cfg.BootstrapHBA = []string{"host replication all 127.0.0.1/32 scram-sha-256"}
	if change != nil {
		change(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Server: s, t: t}
	t.Cleanup(func() { s.Close() })
	return r
}

func (r *rig) settings() postgres.Settings {
	return postgres.Settings{UseSlots: true, Parameters: map[string]string{"unix_socket_directories": "", "shared_buffers": "16MB"}}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) start(role postgres.Role, s postgres.Settings, up postgres.Upstream) {
	r.t.Helper()
	ctx := r.t.Context()
	_, err := r.Configure(ctx, s, role, up)
	r.must(err)
	command, err := r.Command(ctx, role)
	r.must(err)
	r.proc = postgrestest.Start(r.t, command)
	r.must(r.WaitAccepting(ctx))
}

// primary makes a cluster.
func (r *rig) primary() *rig {
	r.t.Helper()
	r.must(r.Initdb(r.t.Context()))
	r.start(postgres.RolePrimary, r.settings(), postgres.Upstream{})
	r.must(r.PrepareCluster(r.t.Context()))
	return r
}

func (r *rig) source() postgres.Source {
	return postgres.Source{Name: "source", Host: "127.0.0.1", Port: r.port}
}

func (r *rig) sql(statement string) string {
	r.t.Helper()
	conn, err := r.connectLocal(r.t.Context(), nil)
	r.must(err)
	defer closeConn(conn)
	value, err := queryText(r.t.Context(), conn, statement)
	r.must(err)
	return value
}

// TestControlFile compares what is read from pg_control with what pg_controldata prints, for each version.
func TestControlFile(t *testing.T) {
	for _, major := range postgrestest.Versions() {
		t.Run(major, func(t *testing.T) {
			r := newRig(t, major, func(c *Config) { c.InitdbOptions = append(c.InitdbOptions, "data-checksums", "wal-segsize=1") }).primary()
			r.proc.Stop(syscall.SIGINT)
			cmd := exec.Command(filepath.Join(r.cfg.BinDir, "pg_controldata"), r.cfg.DataDir)
			cmd.Env = append(os.Environ(), "LC_ALL=C")
			out, err := cmd.Output()
			r.must(err)
			printed := map[string]string{}
			for line := range strings.Lines(string(out)) {
				name, value, _ := strings.Cut(line, ":")
				printed[name] = strings.TrimSpace(value)
			}
			c, err := readControl(r.cfg.DataDir)
			r.must(err)
			for name, value := range map[string]string{
				"Database system identifier": c.SystemID, "Database cluster state": string(c.State),
				"Latest checkpoint location": c.Checkpoint.LSN.String(), "Latest checkpoint's REDO location": c.redo.String(),
				"Latest checkpoint's TimeLineID":     fmt.Sprint(c.Checkpoint.Timeline),
				"Minimum recovery ending location":   c.MinRecovery.LSN.String(),
				"Min recovery ending loc's timeline": fmt.Sprint(c.MinRecovery.Timeline),
				"wal_log_hints setting":              map[bool]string{true: "on", false: "off"}[c.WALLogHints],
				"Data page checksum version":         map[bool]string{true: "1", false: "0"}[c.DataChecksums],
				"max_connections setting":            fmt.Sprint(c.Settings["max_connections"]),
				"max_worker_processes setting":       fmt.Sprint(c.Settings["max_worker_processes"]),
				"max_wal_senders setting":            fmt.Sprint(c.Settings["max_wal_senders"]),
				"max_prepared_xacts setting":         fmt.Sprint(c.Settings["max_prepared_xacts"]),
				"max_locks_per_xact setting":         fmt.Sprint(c.Settings["max_locks_per_xact"]),
				"Bytes per WAL segment":              fmt.Sprint(c.segmentSize),
			} {
				if printed[name] != value {
					t.Errorf("%s: %q, pg_controldata prints %q", name, value, printed[name])
				}
			}
			data, err := os.ReadFile(r.data("global", "pg_control"))
			r.must(err)
			data[100] ^= 1
			if _, err := parseControl(data); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("a damaged pg_control: %v", err)
			}
		})
	}
}

// TestWALEndTruth kills servers whose WAL ends in awkward places, and compares with what they had flushed.
func TestWALEndTruth(t *testing.T) {
	for _, major := range postgrestest.Versions() {
		t.Run(major, func(t *testing.T) {
			r := newRig(t, major, func(c *Config) { c.InitdbOptions = append(c.InitdbOptions, "wal-segsize=1") }).primary()
			cases := map[string]func() wal.LSN{
				"a commit":         func() wal.LSN { return r.flushed("CREATE TABLE public.t AS SELECT generate_series(1, 1000) AS i") },
				"a checkpoint":     func() wal.LSN { return r.flushed("CHECKPOINT") },
				"a switch of file": func() wal.LSN { r.sql("SELECT pg_switch_wal()"); return r.flushed("SELECT 1") },
				"a switch at last": func() wal.LSN {
					r.flushed("SELECT 1")
					at, err := wal.ParseLSN(r.sql("SELECT pg_switch_wal()"))
					r.must(err)
					return at - at%(1<<20) + 1<<20
				},
				"a full page":    func() wal.LSN { return r.fillTo(pageSize) },
				"a full segment": func() wal.LSN { return r.fillTo(1 << 20) },
				"many segments": func() wal.LSN {
					return r.flushed("CREATE TABLE public.u AS SELECT generate_series(1, 100000) AS i")
				},
			}
			for name, write := range cases {
				want := write()
				r.proc.Kill()
				end, err := r.WALEnd(t.Context())
				if err != nil || end != (wal.Position{Timeline: 1, LSN: want}) {
					t.Errorf("after %s: the WAL ends at %v (%v), flushed was %v", name, end, err, want)
				}
				r.start(postgres.RolePrimary, r.settings(), postgres.Upstream{})
			}
		})
	}
}

// flushed runs a statement and waits until all WAL is flushed; it returns the end.
func (r *rig) flushed(statement string) wal.LSN {
	r.t.Helper()
	r.sql(statement)
	r.sql("CREATE TABLE IF NOT EXISTS public.flush (i int)") // a commit flushes what was before it
	r.sql("INSERT INTO public.flush VALUES (1)")
	for {
		text := r.sql("SELECT CASE WHEN pg_current_wal_flush_lsn() = pg_current_wal_insert_lsn() THEN pg_current_wal_flush_lsn()::text END")
		if text != "" {
			lsn, err := wal.ParseLSN(text)
			r.must(err)
			return lsn
		}
		<-time.After(20 * time.Millisecond)
	}
}

// fillTo writes until the WAL ends exactly at a multiple of size.
func (r *rig) fillTo(size int) wal.LSN {
	r.t.Helper()
	at := r.flushed("SELECT 1")
	overhead := 150 // of a message and its commit; measured as it goes
	conn, err := r.connectLocal(r.t.Context(), nil)
	r.must(err)
	defer closeConn(conn)
	for range 1000 {
		left, inPage := size-int(at)%size, pageSize-int(at)%pageSize
		if left == size {
			return at
		}
		length := inPage - overhead
		if length < 400 { // shorter messages have another overhead: over to the next page
			length = inPage + 400
		}
		r.must(execute(r.t.Context(), conn, fmt.Sprintf("SELECT pg_logical_emit_message(true, 'x', repeat('x', %d))", length)))
		text, err := queryText(r.t.Context(), conn, "SELECT pg_current_wal_flush_lsn()")
		r.must(err)
		now, err := wal.ParseLSN(text)
		r.must(err)
		if length+overhead <= inPage && int(now-at)-length < 300 {
			overhead = int(now-at) - length
			if now%pageSize < 1024 && now%pageSize > 0 {
				overhead -= pageHeader // it went over
			}
		}
		at = now
	}
	r.t.Fatalf("no record ended at a multiple of %d", size)
	return 0
}

// TestConfigurationFiles looks at the files after each kind of Configure (reference section 7).
func TestConfigurationFiles(t *testing.T) {
	r := newRig(t, "15", nil)
	ctx := t.Context()
	r.must(r.Initdb(ctx))
	auto := "# Do not edit\nwork_mem = '5MB'\nprimary_conninfo = 'host=x'\nRecovery_Target_Timeline='3'\n"
	r.must(os.WriteFile(r.data("postgresql.auto.conf"), []byte(auto), 0o600))
	original, err := os.ReadFile(r.configFile())
	r.must(err)
	s := r.settings()
	s.HBA = []string{"local all all trust"}
	s.Parameters["archive_command"] = `cp '%p' \tmp`
	s.Parameters["restore_command"] = "false"
	s.Parameters["no_such_parameter"] = "1"
	s.Parameters["maintenance_work_mem"] = "lots"
	up := postgres.Upstream{Name: "b", Host: "::1", Port: 5433, Slot: "node_a"}
	if _, err := r.Configure(ctx, s, postgres.RoleReplica, up); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(r.configFile())
	r.must(err)
	want := fmt.Sprintf(`# Do not edit this file manually!
# It will be overwritten by pgregent!
include 'postgresql.base.conf'

archive_command = 'cp ''%%p'' \\tmp'
cluster_name = 'c'
hot_standby = 'on'
listen_addresses = '127.0.0.1'
max_connections = '100'
max_locks_per_transaction = '64'
max_prepared_transactions = '0'
max_replication_slots = '10'
max_wal_senders = '10'
max_worker_processes = '8'
port = '%d'
shared_buffers = '16MB'
track_commit_timestamp = 'off'
unix_socket_directories = ''
wal_keep_size = '128MB'
wal_level = 'replica'
wal_log_hints = 'on'
hba_file = '%[2]s/pg_hba.conf'
ident_file = '%[2]s/pg_ident.conf'

# recovery.conf
primary_conninfo = 'dbname=postgres user=repl passfile=%[3]s host=::1 port=5433 sslmode=prefer application_name=a gssencmode=prefer channel_binding=prefer'
primary_slot_name = 'node_a'
recovery_target = ''
recovery_target_lsn = ''
recovery_target_name = ''
recovery_target_time = ''
recovery_target_timeline = 'latest'
recovery_target_xid = ''
restore_command = 'false'
`, r.port, r.cfg.DataDir, r.cfg.PGPass)
	if string(got) != want {
		t.Errorf("postgresql.conf is\n%s\nwant\n%s", got, want)
	}
	r.checkFile(r.baseConfigFile(), string(original), 0o600)
	r.checkFile(r.data("postgresql.auto.conf"), "# Do not edit\nwork_mem = '5MB'\n", 0o600)
	r.checkFile(r.data("pg_hba.conf"), header+"local all all trust\n", 0o600)
	r.checkFile(r.cfg.PGPass, `\:\:1:5433:*:repl:canary-4712`+"\n", 0o600)
	before, err := os.Stat(r.configFile())
	r.must(err)
	if _, err := r.Configure(ctx, s, postgres.RoleReplica, up); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(r.configFile()); err != nil || !os.SameFile(before, after) {
		t.Errorf("an unchanged file was written again: %v", err)
	}
	if _, err := r.Configure(ctx, s, postgres.RolePrimary, up); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(r.configFile()); err != nil || strings.Contains(string(got), "recovery") {
		t.Errorf("a primary's configuration has a recovery section: %v", err)
	}
	if _, err := r.Configure(ctx, s, postgres.RoleReplica, postgres.Upstream{Name: "b", Host: "h", Port: 1, Slot: "Bad"}); err == nil {
		t.Error("a bad slot name was written")
	}
}

func (r *rig) checkFile(path, want string, mode fs.FileMode) {
	r.t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		r.t.Errorf("%s is %q (%v), want %q", path, got, err, want)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm() != mode {
		r.t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), mode)
	}
}

// TestFromPatroni takes over a directory as Patroni leaves it: base.conf and its own postgresql.conf are there.
func TestFromPatroni(t *testing.T) {
	r := newRig(t, "15", func(c *Config) { c.InitdbOptions = append(c.InitdbOptions, "allow-group-access") })
	r.must(r.Initdb(t.Context()))
	r.must(os.Rename(r.configFile(), r.baseConfigFile()))
	r.must(os.WriteFile(r.configFile(), []byte("# Do not edit this file manually!\n# It will be overwritten by Patroni!\ninclude 'postgresql.base.conf'\n\nport = '1'\n"), 0o640))
	base, err := os.ReadFile(r.baseConfigFile())
	r.must(err)
	r.start(postgres.RolePrimary, r.settings(), postgres.Upstream{})
	r.checkFile(r.baseConfigFile(), string(base), 0o640)
	if info, err := os.Stat(r.configFile()); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("postgresql.conf does not follow the directory's group access: %v %v", info.Mode(), err)
	}
	if !exists(r.data("postgresql.base.conf.backup")) {
		t.Error("no .backup copies after the start")
	}
	r.proc.Stop(syscall.SIGINT)
	r.must(os.Remove(r.baseConfigFile()))
	r.must(os.Remove(r.data("pg_ident.conf")))
	if _, err := r.Configure(t.Context(), r.settings(), postgres.RolePrimary, postgres.Upstream{}); err != nil {
		t.Fatal(err)
	}
	r.checkFile(r.baseConfigFile(), string(base), 0o640)
	if !exists(r.data("pg_ident.conf")) {
		t.Error("pg_ident.conf was not restored from its .backup copy")
	}
}

// TestCommandLine checks the arguments and their order (reference section 4.6).
func TestCommandLine(t *testing.T) {
	r := newRig(t, "15", func(c *Config) { c.ServerLog = "/tmp/log" })
	r.must(r.Initdb(t.Context()))
	if _, err := r.Command(t.Context(), postgres.RoleReplica); err == nil || !strings.Contains(err.Error(), "Configure") {
		t.Errorf("Command before Configure: %v", err)
	}
	s := r.settings()
	s.Parameters["max_connections"] = "30"
	if _, err := r.Configure(t.Context(), s, postgres.RoleReplica, postgres.Upstream{}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATRONI_NAME", "x")
	command, err := r.Command(t.Context(), postgres.RoleReplica)
	r.must(err)
	want := fmt.Sprintf("-D %[1]s --config_file=%[1]s/postgresql.conf --listen_addresses=127.0.0.1 --port=%[2]d --cluster_name=c --wal_level=replica "+
		"--hot_standby=on --max_connections=100 --max_wal_senders=10 --max_prepared_transactions=0 --max_locks_per_transaction=64 "+
		"--track_commit_timestamp=off --max_replication_slots=10 --max_worker_processes=8 --wal_log_hints=on --restart_after_crash=off", r.cfg.DataDir, r.port)
	if got := strings.Join(command.Args, " "); got != want {
		t.Errorf("arguments\n%s\nwant\n%s", got, want)
	}
	if command.Path != filepath.Join(r.cfg.BinDir, "postgres") || command.Dir != r.cfg.DataDir || command.Log != "/tmp/log" || strings.Contains(strings.Join(command.Env, " "), "PATRONI") {
		t.Errorf("command %+v", command)
	}
	command, err = r.Command(t.Context(), postgres.RolePrimary)
	r.must(err)
	if !strings.Contains(strings.Join(command.Args, " "), "--max_connections=30 ") || exists(r.data("standby.signal")) {
		t.Errorf("a primary is started with %v", command.Args)
	}
}

// TestMarkers: what has begun and not ended is never taken for ready (hazards D3, D5), and a clone mends it.
func TestMarkers(t *testing.T) {
	source := newRig(t, "15", nil).primary()
	r := newRig(t, "15", nil)
	ctx := t.Context()
	r.must(r.Clone(ctx, source.source(), nil))
	if _, err := r.Configure(ctx, r.settings(), postgres.RoleReplica, postgres.Upstream{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{markRewind, markClone} {
		r.must(r.mark(name, "test"))
		st := r.Observe(ctx)
		if st.Data != postgres.DataInterrupted || st.DataErr == "" || st.Control.SystemID == "" {
			t.Errorf("with marker %s: %+v", name, st)
		}
		if _, err := r.Command(ctx, postgres.RoleReplica); !errors.Is(err, postgres.ErrDataDir) {
			t.Errorf("with marker %s a server may be started: %v", name, err)
		}
		if err := r.Rewind(ctx, source.source()); !errors.Is(err, postgres.ErrRewindImpossible) {
			t.Errorf("with marker %s: rewind: %v", name, err)
		}
		r.must(os.MkdirAll(r.cfg.DataDir+".new-0123456789ab", 0o700)) // as a killed process leaves it
		r.must(os.WriteFile(filepath.Join(r.cfg.StateDir, "pgpass-left"), nil, 0o600))
		r.must(r.Clone(ctx, source.source(), nil))
		if st := r.Observe(ctx); st.Data != postgres.DataReady {
			t.Errorf("after a clone: %v %s", st.Data, st.DataErr)
		}
		if exists(r.cfg.DataDir+".new-0123456789ab") || exists(filepath.Join(r.cfg.StateDir, "pgpass-left")) {
			t.Error("an unfinished directory or a password file was left")
		}
	}
	// An empty directory of a member that had data is a missing mount, not a new member (hazard D2).
	r.must(os.RemoveAll(r.cfg.DataDir))
	if err := r.Initdb(ctx); !errors.Is(err, postgres.ErrDataDir) || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("initdb where data was: %v", err)
	}
	r.must(r.Clone(ctx, source.source(), nil))
}

// TestInvalidDirectories: what cannot be read is told in one sentence and never touched.
func TestInvalidDirectories(t *testing.T) {
	r := newRig(t, "15", nil)
	r.must(os.Mkdir(r.cfg.DataDir, 0o700))
	file := r.data("somebody's")
	r.must(os.WriteFile(file, nil, 0o600))
	if st := r.Observe(t.Context()); st.Data != postgres.DataInvalid || !strings.Contains(st.DataErr, "no PostgreSQL cluster") {
		t.Errorf("a folder with other files: %v %q", st.Data, st.DataErr)
	}
	if err := r.Initdb(t.Context()); !errors.Is(err, postgres.ErrDataDir) || !exists(file) {
		t.Errorf("initdb: %v", err)
	}
	r.must(os.WriteFile(r.data("PG_VERSION"), []byte("15\n"), 0o600))
	r.must(os.MkdirAll(r.data("global"), 0o700))
	r.must(os.WriteFile(r.data("global", "pg_control"), []byte("short"), 0o600))
	if st := r.Observe(t.Context()); st.Data != postgres.DataInvalid || !strings.Contains(st.DataErr, "pg_control") {
		t.Errorf("a short pg_control: %v %q", st.Data, st.DataErr)
	}
	r.must(os.Chmod(r.data("global"), 0))
	if st := r.Observe(t.Context()); st.Data != postgres.DataUnknown || st.DataErr == "" {
		t.Errorf("a folder that may not be read: %v %q", st.Data, st.DataErr)
	}
	r.must(os.Chmod(r.data("global"), 0o700))
}

// TestStuckStorage: a read that hangs holds a look no longer than its context, and holds no other look back.
func TestStuckStorage(t *testing.T) {
	r := newRig(t, "15", nil)
	r.must(os.Mkdir(r.cfg.DataDir, 0o700))
	pipe := r.data("PG_VERSION")
	r.must(syscall.Mkfifo(pipe, 0o600)) // opening it waits for a writer
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			begin := time.Now()
			st := r.Observe(ctx)
			if took := time.Since(begin); took > time.Second || st.Data != postgres.DataUnknown || !strings.Contains(st.DataErr, "stuck") {
				t.Errorf("a look took %v and saw %v %q", took, st.Data, st.DataErr)
			}
		})
	}
	all.Wait()
	// The storage comes back.
	r.must(os.Rename(pipe, r.data("pipe")))
	r.must(os.WriteFile(pipe, []byte("15\n"), 0o600))
	f, err := os.OpenFile(r.data("pipe"), os.O_WRONLY, 0)
	r.must(err)
	r.must(f.Close())
	if st := r.Observe(t.Context()); st.Data != postgres.DataInvalid {
		t.Errorf("after the storage came back a look sees %v %q", st.Data, st.DataErr)
	}
}

// TestOtherServer: a server that answers at this one's address and is another's is not taken for this one.
func TestOtherServer(t *testing.T) {
	a := newRig(t, "15", nil).primary()
	b := newRig(t, "15", func(c *Config) { c.Listen = a.cfg.Listen })
	st := b.Observe(t.Context())
	if st.Answered || !errors.Is(st.Err, errWrongServer) {
		t.Errorf("another server is seen as %+v", st)
	}
	if err := b.Promote(t.Context()); err == nil {
		t.Error("another server was promoted")
	}
}

// TestPendingRestart tells old and new values.
func TestPendingRestart(t *testing.T) {
	r := newRig(t, "15", nil).primary()
	s := r.settings()
	s.Parameters["max_connections"], s.Parameters["shared_buffers"] = "77", "32MB"
	reload, err := r.Configure(t.Context(), s, postgres.RolePrimary, postgres.Upstream{})
	if err != nil || !reload {
		t.Fatal(reload, err)
	}
	r.must(r.Reload(t.Context()))
	deadline := time.Now().Add(10 * time.Second)
	for {
		got := r.Observe(t.Context()).PendingRestart
		want := map[string]postgres.Change{"max_connections": {Old: "100", New: "77"}, "shared_buffers": {Old: "16MB", New: "32MB"}}
		if fmt.Sprint(got) == fmt.Sprint(want) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting for a restart: %v, want %v", got, want)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// TestCanary: while a cluster is made, cloned and rewound, no password is in an argument, an environment, a log or a
// file that others may read (hazard E2).
func TestCanary(t *testing.T) {
	secret := regexp.MustCompile(`canary-47\d\d`)
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, path := range paths {
				for _, p := range []string{path, filepath.Join(filepath.Dir(path), "environ")} {
					if data, err := os.ReadFile(p); err == nil && secret.Match(data) {
						t.Errorf("%s has a password: %q", p, data)
						return
					}
				}
			}
		}
	})
	a := newRig(t, "15", func(c *Config) { c.PostBootstrap = "sh -c 'test -r \"$PGPASSFILE\" && test \"$0\" != \"\"'" })
	r := a.settings
	loud := func() postgres.Settings {
		s := r()
		s.Parameters["log_statement"], s.Parameters["log_min_duration_statement"] = "all", "0"
		return s
	}
	a.must(a.Initdb(t.Context()))
	a.start(postgres.RolePrimary, loud(), postgres.Upstream{})
	a.must(a.PrepareCluster(t.Context()))
	b := newRig(t, "15", nil)
	b.must(b.Clone(t.Context(), a.source(), nil))
	b.start(postgres.RoleReplica, loud(), postgres.Upstream{Name: "a", Host: "127.0.0.1", Port: a.port})
	close(stop)
	watch.Wait()
	if secret.MatchString(a.proc.Log() + b.proc.Log()) {
		t.Error("the server's log has a password")
	}
	for _, x := range []*rig{a, b} {
		err := filepath.WalkDir(filepath.Dir(x.cfg.DataDir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if err == nil && secret.Match(data) && path != x.cfg.PGPass {
				t.Errorf("%s has a password", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
