package local

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
	"github.com/pgregent/pgregent/postgres/wal"
)

// valid is a configuration that Open takes, in a folder of its own.
func valid(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	return Config{
		Name: "a", Scope: "c", DataDir: filepath.Join(dir, "data"), PGPass: filepath.Join(dir, "pgpass"), Listen: "127.0.0.1:5432",
		BinDir: postgrestest.Binaries(t, "15"), Superuser: Credentials{Username: "admin", Password: "p"},
		Replication: Credentials{Username: "repl", Password: "q"},
		Log:         slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func TestOpenRefuses(t *testing.T) {
	cases := []struct {
		name   string
		change func(*Config)
		want   []string // parts of the error
	}{
		{"no name", func(c *Config) { c.Name = "" }, []string{"Name is empty"}},
		{"no scope", func(c *Config) { c.Scope = "" }, []string{"Scope is empty"}},
		{"line break in name", func(c *Config) { c.Name = "a\nb" }, []string{"Name", "control character"}},
		{"relative data directory", func(c *Config) { c.DataDir = "data" }, []string{"DataDir", "absolute"}},
		{"no data directory", func(c *Config) { c.DataDir = "" }, []string{"DataDir is empty"}},
		{"root as data directory", func(c *Config) { c.DataDir = "/" }, []string{"DataDir"}},
		{"state inside data", func(c *Config) { c.StateDir = c.DataDir + "/x" }, []string{"StateDir", "inside DataDir"}},
		{"passwords inside data", func(c *Config) { c.PGPass = c.DataDir + "/pgpass" }, []string{"PGPass", "inside DataDir"}},
		{"pgpass is a folder", func(c *Config) { c.PGPass = filepath.Dir(c.DataDir) }, []string{"PGPass", "not a regular file"}},
		{"no superuser", func(c *Config) { c.Superuser = Credentials{} }, []string{"Superuser.Username is empty"}},
		{"no password", func(c *Config) { c.Replication.Password = "" }, []string{"Replication.Password is empty", "NoPassword"}},
		{"password and none", func(c *Config) { c.Replication.NoPassword = true }, []string{"Replication", "choose one"}},
		{"line break in password", func(c *Config) { c.Superuser.Password = "a\nb" }, []string{"Superuser", "line break"}},
		{"one user, two passwords", func(c *Config) { c.Replication.Username = "admin" }, []string{"different passwords"}},
		{"rewind without name", func(c *Config) { c.Rewind.Password = "x" }, []string{"Rewind.Username is empty"}},
		{"rewind with another password", func(c *Config) { c.Rewind = Credentials{Username: "admin", Password: "x"} }, []string{"Rewind"}},
		{"initdb option", func(c *Config) { c.InitdbOptions = []string{"pgdata=/x"} }, []string{"InitdbOptions", "pgdata"}},
		{"initdb option with dashes", func(c *Config) { c.InitdbOptions = []string{"--pwfile=/x"} }, []string{"InitdbOptions", "pwfile"}},
		{"initdb short option", func(c *Config) { c.InitdbOptions = []string{"-D", "x"} }, []string{"InitdbOptions", "long name"}},
		{"basebackup option", func(c *Config) { c.BasebackupOptions = []string{"format=t"} }, []string{"BasebackupOptions", "format"}},
		{"basebackup compression", func(c *Config) { c.BasebackupOptions = []string{"compress=gzip"} }, []string{"BasebackupOptions", "compress"}},
		{"rewind option", func(c *Config) { c.RewindOptions = []string{"dry-run"} }, []string{"RewindOptions", "dry-run"}},
		{"no listen", func(c *Config) { c.Listen = "" }, []string{"Listen is empty"}},
		{"bad port", func(c *Config) { c.Listen = "x:99999" }, []string{"Listen", "port"}},
		{"connect without port", func(c *Config) { c.Connect = "x" }, []string{"Connect"}},
		{"verify", func(c *Config) { c.VerifyBackup = "maybe" }, []string{"VerifyBackup"}},
		{"no programs", func(c *Config) { c.BinDir = t.TempDir() }, []string{"BinDir", "has no program postgres"}},
		{"unknown program", func(c *Config) { c.BinNames = map[string]string{"psql": "x"} }, []string{"BinNames", "psql"}},
		{"renamed program is missing", func(c *Config) { c.BinNames = map[string]string{"pg_rewind": "nope"} }, []string{"nope"}},
		{"data directory is a file", func(c *Config) { c.DataDir = c.BinDir + "/postgres" }, []string{"not a directory"}},
		{"data directory of somebody else", func(c *Config) { c.DataDir, c.StateDir = "/etc", "/tmp/x" }, []string{"DataDir /etc belongs to uid 0"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg := valid(t)
			c.change(&cfg)
			_, err := Open(cfg)
			if err == nil {
				t.Fatal("Open took it")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v\ndoes not say %q", err, part)
				}
			}
		})
	}
}

func TestOpenRefusesOtherVersion(t *testing.T) {
	cfg := valid(t)
	if err := os.Mkdir(cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "PG_VERSION"), []byte("14\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "PostgreSQL 14") {
		t.Errorf("a directory of another version: %v", err)
	}
}

func TestSplitListen(t *testing.T) {
	cases := []struct {
		in    string
		hosts []string
		port  int
		local string
	}{
		{"127.0.0.1:5433", []string{"127.0.0.1"}, 5433, "localhost"},
		{"*:5432", []string{"*"}, 5432, "localhost"},
		{"10.0.0.5, localhost:6000", []string{"10.0.0.5", "localhost"}, 6000, "localhost"},
		{"10.0.0.5,10.1.0.5:6000", []string{"10.0.0.5", "10.1.0.5"}, 6000, "10.0.0.5"},
		{"db1", []string{"db1"}, 5432, "db1"},
		{"[::1]:5433", []string{"::1"}, 5433, "::1"},
		{"fd00::5", []string{"fd00::5"}, 5432, "fd00::5"},
		{"fd00::5,10.0.0.5:5433", []string{"fd00::5", "10.0.0.5"}, 5433, "fd00::5"},
	}
	for _, c := range cases {
		hosts, port, err := splitListen(c.in)
		if err != nil || !slices.Equal(hosts, c.hosts) || port != c.port || localHost(hosts) != c.local {
			t.Errorf("%q: %v %d %v, want %v %d", c.in, hosts, port, err, c.hosts, c.port)
		}
	}
}

func TestSplitWords(t *testing.T) {
	cases := map[string][]string{
		"a b  c":                {"a", "b", "c"},
		`run 'a b' "c \"d\" $"`: {"run", "a b", `c "d" $`},
		`a\ b ''`:               {"a b", ""},
		"":                      nil,
		`x'y'z"q"`:              {"xyzq"},
	}
	for in, want := range cases {
		if got, err := splitWords(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{`'a`, `"a`, `a\`} {
		if got, err := splitWords(in); err == nil {
			t.Errorf("%q: %q, want an error", in, got)
		}
	}
}

func TestParseBool(t *testing.T) {
	for in, want := range map[string]string{"on": "t", "ON": "t", "true": "t", "yes": "t", "1": "t", "tr": "t", "of": "f", "no": "f", "f": "f", "0": "f", "o": "", "": "", "2": "", "onn": "", "maybe": ""} {
		value, ok := postgres.ParseBool(in)
		got := map[bool]string{true: "t", false: "f"}[value]
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

// TestParameterNames: a name that holds a line break cannot bring other parameters along.
func TestParameterNames(t *testing.T) {
	s, err := Open(valid(t))
	if err != nil {
		t.Fatal(err)
	}
	bad := "work_mem = '1MB'\narchive_command = 'touch /tmp/x'\n#"
	parameters, recovery := s.serverParameters(postgres.Settings{
		Parameters:   map[string]string{bad: "x", "my.own_1": "y", "": "z", "1a": "z", "a-b": "z"},
		RecoveryConf: map[string]string{bad: "x"},
	})
	for name := range parameters {
		if !isParameterName(name) {
			t.Errorf("%q is written", name)
		}
	}
	if parameters["my.own_1"] != "y" || len(recovery) != 0 || parameters["archive_command"] != "" {
		t.Errorf("%v, %v", parameters, recovery)
	}
}

func TestServerParameters(t *testing.T) {
	s, err := Open(valid(t))
	if err != nil {
		t.Fatal(err)
	}
	parameters, recovery := s.serverParameters(postgres.Settings{
		Parameters: map[string]string{
			"Max_Connections": "20", "wal_level": "hot_standby", "hot_standby": "off", "wal_log_hints": "maybe", "max_wal_senders": "7",
			"port": "1", "listen_addresses": "*", "cluster_name": "x", "data_directory": "/x", "wal_keep_segments": "16",
			"restore_command": "cp", "my.own": "x", "work_mem": "4MB",
		},
		RecoveryConf: map[string]string{"recovery_min_apply_delay": "1h"},
	})
	want := map[string]string{
		"max_connections": "100", "wal_level": "replica", "hot_standby": "on", "wal_log_hints": "on", "max_wal_senders": "7",
		"port": "5432", "listen_addresses": "127.0.0.1", "cluster_name": "c", "wal_keep_size": "256MB", "my.own": "x", "work_mem": "4MB",
		"max_prepared_transactions": "0", "max_locks_per_transaction": "64", "track_commit_timestamp": "off",
		"max_replication_slots": "10", "max_worker_processes": "8",
	}
	if !reflect.DeepEqual(parameters, want) {
		t.Errorf("parameters %v,\nwant %v", parameters, want)
	}
	if want := map[string]string{"restore_command": "cp", "recovery_min_apply_delay": "1h"}; !reflect.DeepEqual(recovery, want) {
		t.Errorf("recovery %v, want %v", recovery, want)
	}
	raised := raise(parameters, map[string]int{"max_connections": 300, "max_wal_senders": 3, "max_prepared_xacts": 5})
	if raised["max_connections"] != "300" || raised["max_wal_senders"] != "7" || raised["max_prepared_transactions"] != "5" || parameters["max_connections"] != "100" {
		t.Errorf("raised to %v", raised)
	}
}

func TestConninfo(t *testing.T) {
	c := conninfo{{"user", "a b"}, {"passfile", `/x/it's\`}, {"host", ""}, {"port", "1"}}
	text := c.String()
	if want := `user=a\ b passfile=/x/it\'s\\ port=1`; text != want {
		t.Errorf("%s, want %s", text, want)
	}
	back, err := parseConninfo(text)
	if err != nil || back.get("user") != "a b" || back.get("passfile") != `/x/it's\` || back.get("host") != "" {
		t.Errorf("%v %v", back, err)
	}
	if got := redact(`host = 'a b' password='se\'cret' user=x sslpassword=secret`); got != `host=a\ b user=x` {
		t.Errorf("redacted: %s", got)
	}
	if got := redact("postgres://u:secret@h/db"); strings.Contains(got, "secret") {
		t.Errorf("redacted: %s", got)
	}
}

// FuzzConninfo: what is written is read back, and redact never lets a password through.
func FuzzConninfo(f *testing.F) {
	f.Add("user", `pa ss'\`, "host=x password=secret42")
	f.Add("a=b", "", "password = 'secret42' host=x")
	f.Fuzz(func(t *testing.T, user, file, text string) {
		c := conninfo{{"user", user}, {"passfile", file}, {"port", "5"}}
		if back, err := parseConninfo(c.String()); err == nil && !strings.ContainsAny(user+file, "\t\n\r") {
			if back.get("user") != user || back.get("passfile") != file || back.get("port") != "5" {
				t.Errorf("%q became %v", c.String(), back)
			}
		}
		if back, err := parseConninfo(text); err == nil && back.get("password") != "" {
			if again, err := parseConninfo(redact(text)); err != nil || again.get("password") != "" {
				t.Errorf("%q redacted to %q", text, redact(text))
			}
		}
	})
}

func TestPassLines(t *testing.T) {
	a := Credentials{Username: `u:1`, Password: `a\b:c`}
	want := []string{`h:5432:*:u\:1:a\\b\:c`, `/run/x:5432:*:u\:1:a\\b\:c`, `localhost:5432:*:u\:1:a\\b\:c`}
	if got := passLines(a, 5432, "h", "/run/x", "h"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRecordEnd(t *testing.T) {
	const size = 16 << 20
	cases := []struct {
		at     wal.LSN
		length uint64
		want   wal.LSN
	}{
		{0x1000028, 50, 0x1000060},            // rounded up to 8
		{0x1001FE0, 32, 0x1002000},            // fills its page
		{0x1001FE0, 40, 0x1002000 + 24 + 8},   // goes on behind a page header
		{0x1FFFFF0, 24, 0x2000000 + 40 + 8},   // goes on behind a segment header
		{0x1001FE0, 8208, 0x1004000 + 24 + 8}, // over a whole page
	}
	for _, c := range cases {
		if got := recordEnd(c.at, c.length, size); got != c.want {
			t.Errorf("%v + %d = %v, want %v", c.at, c.length, got, c.want)
		}
	}
	for in, want := range map[wal.LSN]wal.LSN{0x1002018: 0x1002000, 0x1000028: 0x1000000, 0x1002028: 0x1002028, 0x1002020: 0x1002020, 0x1000018: 0x1000018} {
		if got := headerless(in, size); got != want {
			t.Errorf("headerless %v = %v, want %v", in, got, want)
		}
	}
}

// TestInvalidRecord knows the sentences of each version.
func TestInvalidRecord(t *testing.T) {
	for text, want := range map[string]wal.LSN{
		"pg_waldump: fatal: error in WAL record at 0/1A2B3C8: invalid record length at 0/1A2B430: wanted 24, got 0":            0x1A2B430,
		"pg_waldump: error: error in WAL record at 0/1A2B3C8: invalid record length at 0/1A2B430: expected at least 24, got 0": 0x1A2B430,
		"error in WAL record at 0/1: record with incorrect prev-link 0/9 at 2/A0":                                              0x2000000A0,
		"error in WAL record at 0/1: invalid resource manager ID 77 at 2/A0":                                                   0x2000000A0,
		"incorrect resource manager data checksum in record at 2/A0":                                                           0x2000000A0,
	} {
		if got, ok := invalidRecord(text); !ok || got != want {
			t.Errorf("%q: %v %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "could not find file \"000000010000000000000005\"", "invalid magic number 0000 in log segment 000000010000000000000002, offset 0"} {
		if got, ok := invalidRecord(text); ok {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestFindFork(t *testing.T) {
	history := func(tip wal.Timeline, switches ...wal.Switch) wal.History {
		return wal.History{Tip: tip, Switches: switches}
	}
	line := func(at wal.LSN, h wal.History) postgres.Line {
		return postgres.Line{Position: wal.Position{Timeline: h.Tip, LSN: at}, History: h}
	}
	cases := []struct {
		name     string
		local    wal.History
		end      wal.Position
		source   postgres.Line
		fork     wal.Position
		diverged bool
		fails    bool
	}{
		{"ancestor", history(1), wal.Position{Timeline: 1, LSN: 90}, line(200, history(2, wal.Switch{Timeline: 1, LSN: 100})), wal.Position{Timeline: 1, LSN: 90}, false, false},
		{"at the fork", history(1), wal.Position{Timeline: 1, LSN: 100}, line(200, history(2, wal.Switch{Timeline: 1, LSN: 100})), wal.Position{Timeline: 1, LSN: 100}, false, false},
		{"beyond the fork", history(1), wal.Position{Timeline: 1, LSN: 101}, line(200, history(2, wal.Switch{Timeline: 1, LSN: 100})), wal.Position{Timeline: 1, LSN: 100}, true, false},
		{"two branches", history(3, wal.Switch{Timeline: 1, LSN: 100}), wal.Position{Timeline: 3, LSN: 150}, line(200, history(2, wal.Switch{Timeline: 1, LSN: 120})), wal.Position{Timeline: 1, LSN: 100}, true, false},
		{"source never left", history(2, wal.Switch{Timeline: 1, LSN: 100}), wal.Position{Timeline: 2, LSN: 150}, line(120, history(1)), wal.Position{Timeline: 1, LSN: 100}, true, false},
		{"same timeline, behind", history(2), wal.Position{Timeline: 2, LSN: 150}, line(200, history(2)), wal.Position{Timeline: 2, LSN: 150}, false, false},
		{"same timeline, ahead", history(2), wal.Position{Timeline: 2, LSN: 250}, line(200, history(2)), wal.Position{}, false, true},
		{"nothing in common", history(7), wal.Position{Timeline: 7, LSN: 250}, line(200, history(2, wal.Switch{Timeline: 1, LSN: 100})), wal.Position{}, false, true},
	}
	for _, c := range cases {
		fork, diverged, err := findFork(c.local, c.end, c.source)
		if (err != nil) != c.fails || !c.fails && (fork != c.fork || diverged != c.diverged) {
			t.Errorf("%s: %v %v %v", c.name, fork, diverged, err)
		}
	}
}

// TestEnvironment: no secret of this program's settings reaches a server or a tool (hazard E2).
func TestEnvironment(t *testing.T) {
	in := []string{"PATH=/bin", "PATRONI_SUPERUSER_PASSWORD=x", "KUBERNETES_PORT=1", "NOTIFY_SOCKET=/x", "PGREGENT_X=1", "PGPASSWORD=x", "LANG=de_DE", "LC_TIME=C", "HOME=/h"}
	if got, want := serverEnv(in), []string{"PATH=/bin", "LANG=de_DE", "LC_TIME=C", "HOME=/h"}; !slices.Equal(got, want) {
		t.Errorf("server: %q, want %q", got, want)
	}
	if got, want := toolEnv(in, false), []string{"PATH=/bin", "HOME=/h", "LANG=C", "LC_ALL=C"}; !slices.Equal(got, want) {
		t.Errorf("tool: %q, want %q", got, want)
	}
	if got, want := toolEnv(in, true), []string{"PATH=/bin", "LANG=de_DE", "LC_TIME=C", "HOME=/h"}; !slices.Equal(got, want) {
		t.Errorf("tool with locale: %q, want %q", got, want)
	}
}

func TestCredentialsHidePassword(t *testing.T) {
	a := Credentials{Username: "u", Password: "secret42", SSLPassword: "secret42"}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "account", a, "value", slog.AnyValue(a))
	for _, text := range []string{a.String(), a.GoString(), b.String()} {
		if strings.Contains(text, "secret42") {
			t.Errorf("%s", text)
		}
	}
}
