package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/ha/fence"
)

const full = `
scope: demo
name: pg1
namespace: /db/
restapi:
  listen: 0.0.0.0:8008
  connect_address: 10.0.0.1:8008
  authentication: {username: admin, password: canary}
  certfile: /etc/c.pem
etcd3:
  hosts: [10.0.0.1:2379, 10.0.0.2:2379]
bootstrap:
  dcs:
    ttl: 30
  initdb:
  - encoding: UTF8
  - data-checksums
  - locale: C
  pg_hba:
  - host all all 10.0.0.0/8 scram-sha-256
postgresql:
  listen: "*:5432"
  connect_address: 10.0.0.1:5432
  data_dir: /srv/pg
  pgpass: /srv/pgpass
  use_pg_rewind: on
  authentication:
    superuser: {username: postgres, password: canary}
    replication: {username: rep, password: canary}
  parameters:
    shared_buffers: 1GB
    logging_collector: true
    max_wal_size: 4096
  callbacks: {on_role_change: /bin/true}
tags: {nofailover: false, clonefrom: true}
log: {level: DEBUG}
`

func load(t *testing.T, text string, environ ...string) (*Config, []string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "patroni.yml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return Load(path, environ)
}

func TestPatroniFile(t *testing.T) {
	c, warnings, err := load(t, full)
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.Equal(t, "https://10.0.0.1:8008/patroni", c.RestAPI.URL())
	require.Equal(t, []string{"encoding=UTF8", "data-checksums", "locale=C"}, c.PostgreSQL.InitdbOptions)
	require.Equal(t, "on", c.Local.Parameters["logging_collector"])
	require.Equal(t, "4096", c.Local.Parameters["max_wal_size"])
	require.True(t, c.Local.UseRewind)
	require.Equal(t, "admin", c.Ctl.Username, "the tools use the API's credentials unless they have their own")
	require.Equal(t, slog.LevelDebug, c.LogLevel)
	require.Equal(t, "/bin/true", c.Scripts.Callbacks["on_role_change"])
	require.True(t, c.HasBootstrap)
}

func TestEnvironmentOverrides(t *testing.T) {
	c, warnings, err := load(t, full, "PATRONI_NAME=pg7", "PATRONI_SUPERUSER_PASSWORD=other", "PATRONI_ETCD3_HOSTS='a:1','b:2'",
		"PATRONI_RESTAPI_USERNAME=u", "PATRONI_POSTGRESQL_DATA_DIR=/srv/x", "PATRONI_NONSENSE=1", "HOME=/")
	require.NoError(t, err)
	require.Equal(t, "pg7", c.Name)
	require.Equal(t, "pg7", c.PostgreSQL.Name)
	require.Equal(t, "other", c.PostgreSQL.Superuser.Password)
	require.Equal(t, []any{"a:1", "b:2"}, c.Section("etcd3")["hosts"])
	require.Equal(t, "u", c.RestAPI.Username)
	require.Equal(t, "/srv/x", c.PostgreSQL.DataDir)
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], "PATRONI_NONSENSE")
}

func TestWholeDocumentInTheEnvironment(t *testing.T) {
	c, _, err := Load("", []string{"PATRONI_CONFIGURATION=" + full, "PATRONI_NAME=ignored"})
	require.NoError(t, err)
	require.Equal(t, "pg1", c.Name)
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.yml"), []byte(full), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b.yaml"), []byte("name: late\npostgresql: {parameters: {work_mem: 8MB}}"), 0o600))
	c, _, err := Load(dir, nil)
	require.NoError(t, err)
	require.Equal(t, "late", c.Name)
	require.Equal(t, "8MB", c.Local.Parameters["work_mem"])
	require.Equal(t, "1GB", c.Local.Parameters["shared_buffers"])
}

func TestWrongSettings(t *testing.T) {
	for _, c := range []struct{ old, with, says string }{
		{"use_pg_rewind: on", "use_pg_rewind: maybe", `postgresql.use_pg_rewind is "maybe", expected true or false`},
		{"listen: 0.0.0.0:8008", "listen: 8008", `restapi.listen is "8008", expected host:port`},
		{"listen: 0.0.0.0:8008", "listen: 0.0.0.0:80080", `the port "80080" is no number from 1 to 65535`},
		{"name: pg1", "", "name is missing"},
		{"data_dir: /srv/pg", "", "postgresql.data_dir is missing"},
		{"hosts: [10.0.0.1:2379, 10.0.0.2:2379]", "", "no store is configured"},
		{"tags: {nofailover: false, clonefrom: true}", "tags: 7", "tags is 7, expected a mapping"},
		{"password: canary}\n    replication", "password: [1]}\n    replication", "postgresql.authentication.superuser.password is not of the right type"},
		{"ttl: 30", "ttl: 30\n    synchronous_mode: quorum", "synchronous_mode = quorum is not supported yet"},
		{"ttl: 30", "ttl: 30\n    slots: {a: null}", "slots"},
		{"scope: demo", "scope: demo\ncitus: {group: 0}", "citus is not supported"},
		{"scope: demo", "scope: demo\nwatchdog: {mode: requird}", `watchdog.mode is "requird", expected one of off, automatic, required`},
		{"scope: demo", "scope: demo\nwatchdog: {safety_margin: -2}", "watchdog.safety_margin is -2"},
		{"scope: demo", "scope: demo\nwatchdog: {driver: fifo}", `watchdog.driver is "fifo"`},
		{"scope: demo", "scope: demo\nfence: requird", `fence is "requird", expected one of automatic, required`},
		{"scope: demo", "scope: demo\nfence: {mood: required}", "fence.mood is not a known setting"},
		{"scope: demo", "scope: demo\nfence: {cgroup: maybe}", `fence.cgroup is "maybe", expected one of automatic, off`},
		{"scope: demo", "scope: demo\nfence: {pid_namespace: maybe}", `fence.pid_namespace is "maybe", expected true or false`},
		{"scope: demo", "scope: demo\nkubernetes: {labels: {a: b}}", "kubernetes is not supported"},
		{"scope: demo", "scope: demo\nconsul: {host: x}", "more than one store is configured: etcd3, consul"},
		{"scope: demo", "scope: demo\nconsul: {host: x, verify: maybe}", `consul.verify is "maybe", expected true or false`},
		{"scope: demo", "scope: demo\nzookeeper: {hosts: [x]}", "more than one store is configured: etcd3, zookeeper"},
		{"scope: demo", "scope: demo\nzookeeper: {hosts: [x], use_ssl: maybe}", `zookeeper.use_ssl is "maybe", expected true or false`},
		{"  initdb:", "  method: clone\n  initdb:", "bootstrap.method = clone is not supported"},
	} {
		require.Contains(t, full, c.old)
		_, _, err := load(t, strings.Replace(full, c.old, c.with, 1))
		require.ErrorContains(t, err, c.says, "%s", c.with)
		require.NotContains(t, err.Error(), "canary", "no password in an error")
	}
}

// Each section of a store selects it, from the file and from the environment.
func TestStores(t *testing.T) {
	etcd := "etcd3:\n  hosts: [10.0.0.1:2379, 10.0.0.2:2379]\n"
	require.Contains(t, full, etcd)
	for want, text := range map[string]string{
		"etcd3": etcd, "zookeeper": "zookeeper: {hosts: '10.0.0.1,10.0.0.2:2182', verify: off, set_acls: {CN=pg1: [ALL]}, auth_data: {digest: 'u:canary'}}\n",
		"exhibitor": "exhibitor: {hosts: [a, b], port: 8181, poll_interval: 60}\n",
		"consul":    "consul: {url: 'https://a:8501', token: canary, verify: off, dc: x, consistency: stale, checks: [], register_service: on, service_tags: [t]}\n",
	} {
		c, warnings, err := load(t, strings.Replace(full, etcd, text, 1))
		require.NoError(t, err)
		require.Empty(t, warnings)
		require.Equal(t, want, c.Store())
	}
	bare := strings.Replace(full, etcd, "", 1)
	c, _, err := load(t, bare, "PATRONI_ZOOKEEPER_HOSTS='a:1','b:2'", "PATRONI_ZOOKEEPER_USE_SSL=on", "PATRONI_ZOOKEEPER_SET_ACLS=CN=pg1: [READ]")
	require.NoError(t, err)
	require.Equal(t, map[string]any{"hosts": []any{"a:1", "b:2"}, "use_ssl": "on", "set_acls": map[string]any{"CN=pg1": []any{"READ"}}}, c.Section("zookeeper"))
	c, _, err = load(t, bare, "PATRONI_EXHIBITOR_HOSTS=a,b", "PATRONI_EXHIBITOR_PORT=8181")
	require.NoError(t, err)
	require.Equal(t, "exhibitor", c.Store())
	c, _, err = load(t, bare, "PATRONI_CONSUL_HOST=a:8500", "PATRONI_CONSUL_TOKEN=canary", "PATRONI_CONSUL_REGISTER_SERVICE=on",
		"PATRONI_CONSUL_CHECKS=[]", "PATRONI_CONSUL_SERVICE_TAGS=a,b")
	require.NoError(t, err)
	require.Equal(t, map[string]any{"host": "a:8500", "token": "canary", "register_service": "on", "checks": []any{}, "service_tags": []any{"a", "b"}}, c.Section("consul"))
}

func TestFence(t *testing.T) {
	for text, want := range map[string]Fence{
		"": {Options: fence.Options{Cgroup: true, Watchdog: fence.Watchdog{Mode: "automatic", Margin: 5 * time.Second}}},
		"fence: required\nwatchdog: {mode: off}": {Required: true,
			Options: fence.Options{Cgroup: true, Watchdog: fence.Watchdog{Mode: "off", Margin: 5 * time.Second}}},
		"fence: {mode: required, cgroup: off, admission: automatic, pid_namespace: true}\nwatchdog: {mode: required, device: /tmp/dog, safety_margin: -1, driver: testing}": {
			Required: true, Options: fence.Options{AdmissionPort: 5432, PIDNamespace: true,
				Watchdog: fence.Watchdog{Mode: "required", Device: "/tmp/dog", Margin: -time.Second, Testing: true}}},
	} {
		c, warnings, err := load(t, full+text+"\n")
		require.NoError(t, err, text)
		require.Empty(t, warnings, text)
		require.Equal(t, want, c.Fence, text)
	}
}

func TestUnknownKeysAreNamed(t *testing.T) {
	_, warnings, err := load(t, strings.Replace(full, "use_pg_rewind:", "use_pg_rewnd:", 1)+"loglevel: x\n")
	require.NoError(t, err)
	require.Equal(t, []string{
		"loglevel is not a known setting and is ignored",
		"postgresql.use_pg_rewnd is not a known setting and is ignored; did you mean postgresql.use_pg_rewind?",
	}, warnings)
}

func TestToolNeedsLittle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl.yml")
	require.NoError(t, os.WriteFile(path, []byte("scope: demo\netcd3: {host: localhost:2379}"), 0o600))
	c, _, err := LoadTool(path, "", nil)
	require.NoError(t, err)
	require.Equal(t, "demo", c.Scope)
	_, _, err = LoadTool("/no/such/file", "", nil)
	require.ErrorContains(t, err, "/no/such/file")
}

func FuzzLoad(f *testing.F) {
	f.Add(full)
	f.Add("a: [b")
	f.Fuzz(func(t *testing.T, text string) {
		_, _, _ = Load("", []string{"PATRONI_CONFIGURATION=" + text})
	})
}

// TestScripts: command lines and time-outs; a time-out that ends nothing is refused.
func TestScripts(t *testing.T) {
	with := func(extra string) (*Config, error) {
		c, _, err := load(t, full+extra)
		return c, err
	}
	c, err := with("")
	require.NoError(t, err)
	require.Equal(t, Scripts{Callbacks: map[string]string{"on_role_change": "/bin/true"}, CallbackTimeout: 5 * time.Minute, PrePromoteTimeout: time.Minute, BeforeStopTimeout: 10 * time.Second}, c.Scripts)
	require.Equal(t, time.Hour, c.PostgreSQL.PostBootstrapTimeout)
	c, err = with("pgregent: {timeouts: {callback: 1, pre_promote: 2, before_stop: '3', post_bootstrap: 4}}\n")
	require.NoError(t, err)
	require.Equal(t, Scripts{Callbacks: c.Scripts.Callbacks, CallbackTimeout: time.Second, PrePromoteTimeout: 2 * time.Second, BeforeStopTimeout: 3 * time.Second}, c.Scripts)
	require.Equal(t, 4*time.Second, c.PostgreSQL.PostBootstrapTimeout)
	for _, name := range []string{"callback", "pre_promote", "before_stop", "post_bootstrap"} {
		_, err = with("pgregent: {timeouts: {" + name + ": 0}}\n")
		require.ErrorContains(t, err, "pgregent.timeouts."+name+" is 0, expected a number of seconds from 1 on")
	}
}
