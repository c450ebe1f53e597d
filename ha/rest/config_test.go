package rest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
)

func TestConfig(t *testing.T) {
	const stored = `{"ttl":30,"loop_wait":10,"postgresql":{"parameters":{"max_connections":100,"archive_command":"cp"},"use_slots":true}}`
	for _, c := range []struct {
		method, stored, body string
		code                 int
		want                 string // the configuration afterwards, or a part of the refusal
	}{
		{"PATCH", stored, `{"ttl":20}`, 200, `{"loop_wait":10,"postgresql":{"parameters":{"archive_command":"cp","max_connections":100},"use_slots":true},"ttl":20}`},
		{"PATCH", stored, `{"ttl":"30"}`, 200, stored}, // the same text: nothing is written
		{"PATCH", stored, `{"postgresql":{"parameters":{"max_connections":null,"work_mem":"8MB"}}}`, 200,
			`{"loop_wait":10,"postgresql":{"parameters":{"archive_command":"cp","work_mem":"8MB"},"use_slots":true},"ttl":30}`},
		{"PATCH", stored, `{"pause":true}`, 200, `{"loop_wait":10,"pause":true,"postgresql":{"parameters":{"archive_command":"cp","max_connections":100},"use_slots":true},"ttl":30}`},
		{"PATCH", `{"pause":true,"ttl":30}`, `{"pause":null}`, 200, `{"ttl":30}`},
		{"PATCH", `{"ttl":30}`, `{"pause":null}`, 200, `{"ttl":30}`},
		// A key that is not there is stored with the nulls inside.
		{"PATCH", `{"ttl":30}`, `{"x":{"y":null}}`, 200, `{"ttl":30,"x":{"y":null}}`},
		{"PATCH", `{"ttl":30}`, `{"future_setting":[1,"a"]}`, 200, `{"future_setting":[1,"a"],"ttl":30}`},
		{"PATCH", `{"ttl":30}`, `{}`, 400, "empty"},
		{"PATCH", `{"ttl":30}`, `[1]`, 400, "no JSON object"},
		{"PATCH", `{"ttl":30}`, `{"ttl":"soon"}`, 400, "ttl: must be a whole number"},
		{"PATCH", `{"ttl":30}`, `{"ttl":true}`, 400, "ttl: must be a whole number"},
		{"PATCH", `{"ttl":30}`, `{"maximum_lag_on_failover":"1MB"}`, 400, "maximum_lag_on_failover: must be a whole number without a unit"},
		{"PATCH", `{"ttl":30}`, `{"pause":"maybe"}`, 400, "pause: must be true or false"},
		{"PATCH", `{"ttl":30}`, `{"pause":"on"}`, 200, `{"pause":"on","ttl":30}`},
		{"PATCH", `{"ttl":30}`, `{"postgresql":"x"}`, 400, "postgresql: must be a mapping"},
		{"PATCH", `{"ttl":30}`, `{"postgresql":{"pg_hba":"x"}}`, 400, "postgresql.pg_hba: must be a list"},
		{"PATCH", `{"ttl":30}`, `{"postgresql":{"parameters":{"work_mem":[1]}}}`, 400, "postgresql.parameters.work_mem: must be a text"},
		{"PATCH", `{"ttl":30}`, `{"postgresql":{"parameters":{"archive_command = 'x'\nwork_mem":"1MB"}}}`, 400, "is no name of a parameter"},
		{"PATCH", `{"ttl":30}`, `{"postgresql":{"recovery_conf":{" restore_command":"x"}}}`, 400, "is no name of a parameter"},
		{"PATCH", `{"ttl":30}`, `{"postgresql":{"parameters":{"":"x"}}}`, 400, "is no name of a parameter"},
		{"PATCH", `{"ttl":30}`, `{"postgresql":{"parameters":{"pg_stat_statements.max":5}}}`, 200, `{"ttl":30,"postgresql":{"parameters":{"pg_stat_statements.max":5}}}`},
		{"PATCH", `{"ttl":30}`, `{"member_slots_ttl":"10min"}`, 200, `{"member_slots_ttl":"10min","ttl":30}`},
		{"PATCH", `{"ttl":30}`, `{"standby_cluster":{"host":"x"}}`, 422, "standby_cluster is not supported yet"},
		{"PATCH", ``, `{"ttl":30}`, 503, "there is no dynamic configuration"},
		{"PATCH", `nonsense`, `{"ttl":30}`, 503, "cannot be read"},
		{"PUT", stored, `{"ttl":20}`, 200, `{"ttl":20}`},
		{"PUT", ``, `{"ttl":20}`, 200, `{"ttl":20}`},
		{"PUT", stored, `{}`, 400, "empty"},
		{"PUT", stored, `{"loop_wait":{}}`, 400, "loop_wait: must be a whole number"},
	} {
		n := primaryNode()
		if c.stored != "" {
			n.config = json.RawMessage(c.stored)
		}
		code, body, _ := call(n, Options{}, c.method, "/config", c.body)
		what := c.method + " " + c.body + ": " + body
		require.Equal(t, c.code, code, what)
		if code != 200 {
			require.Contains(t, body, c.want, what)
			require.Zero(t, n.changes(), what)
			continue
		}
		require.JSONEq(t, c.want, body, what)
		require.JSONEq(t, c.want, string(n.config), what)
		same := c.stored != "" && json.Valid([]byte(c.stored)) && jsonEqual(c.stored, c.want)
		require.Equal(t, !same, n.changes() == 1, what)
	}
}

func jsonEqual(a, b string) bool {
	x, _ := parseObject([]byte(a))
	y, _ := parseObject([]byte(b))
	return len(differences(x, y)) == 0
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		method string
		err    error
		code   int
	}{
		{"PATCH", dcs.ErrConflict, 409}, {"PUT", dcs.ErrConflict, 409},
		{"PATCH", errors.New("no quorum"), 503}, {"PUT", errors.New("no quorum"), 502},
	} {
		n := primaryNode()
		n.failWith = c.err
		code, _, _ := call(n, Options{}, c.method, "/config", `{"ttl":20}`)
		require.Equal(t, c.code, code)
	}
	code, body, _ := call(primaryNode(), Options{}, "GET", "/config", "")
	require.Equal(t, 502, code, body)
	n := primaryNode()
	n.report.Cluster.Config.Present = true
	n.report.Cluster.Config.Raw = map[string]any{"ttl": json.Number("30"), "x": "<&>"}
	_, body, _ = call(n, Options{}, "GET", "/config", "")
	require.JSONEq(t, `{"ttl":30,"x":"<&>"}`, body)
	code, _, _ = call(n, Options{}, "HEAD", "/config", "")
	require.Equal(t, 200, code)
}

// Settings that run commands need an admin, however they are changed; everything else an operator may change.
func TestSettingsThatRunCommands(t *testing.T) {
	const stored = `{"ttl":30,"postgresql":{"parameters":{"archive_command":"cp","work_mem":"4MB"},"pg_hba":["local all all peer"],
		"recovery_conf":{"restore_command":"cp"},"callbacks":{"on_start":"x"}}}`
	p := func(name string) string { return `{"postgresql":{"parameters":{"` + name + `":"x"}}}` }
	for body, key := range map[string]string{
		p("archive_command"): "postgresql.parameters.archive_command", p("Archive_Command"): "Archive_Command", p("restore_command"): "restore_command",
		p("archive_cleanup_command"): "archive_cleanup_command", p("recovery_end_command"): "recovery_end_command", p("ssl_passphrase_command"): "ssl_passphrase_command",
		p("archive_library"): "archive_library", p("shared_preload_libraries"): "shared_preload_libraries", p("session_preload_libraries"): "session_preload_libraries",
		p("local_preload_libraries"): "local_preload_libraries", p("dynamic_library_path"): "dynamic_library_path", p("jit_provider"): "jit_provider",
		p("log_directory"): "log_directory", p("oauth_validator_libraries"): "oauth_validator_libraries",
		`{"postgresql":{"parameters_primary":{"archive_command":"x"}}}`: "parameters_primary.archive_command",
		`{"postgresql":{"parameters":null}}`:                            "postgresql.parameters.archive_command",
		`{"postgresql":null}`:                                           "postgresql.",
		`{"postgresql":{"recovery_conf":{"restore_command":"x"}}}`:      "recovery_conf.restore_command",
		`{"postgresql":{"pg_hba":["host all all all trust"]}}`:          "postgresql.pg_hba",
		`{"postgresql":{"pg_ident":[]}}`:                                "postgresql.pg_ident",
		`{"postgresql":{"callbacks":{"on_start":"y"}}}`:                 "callbacks.on_start",
		`{"postgresql":{"callbacks":{"on_stop":"y"}}}`:                  "callbacks.on_stop",
		`{"postgresql":{"bin_dir":"/tmp"}}`:                             "bin_dir",
		`{"postgresql":{"custom_conf":"/tmp/x"}}`:                       "custom_conf",
		`{"postgresql":{"wal_g":{"command":"x"}}}`:                      "wal_g.command",
		`{"standby_cluster":{"restore_command":"x"}}`:                   "restore_command",
	} {
		n := primaryNode()
		n.config = json.RawMessage(stored)
		code, text, _ := call(n, roles(), "PATCH", "/config", body, "ops", "ops-secret")
		require.Equal(t, 403, code, "%s: %s", body, text)
		require.Contains(t, text, key)
		require.Contains(t, text, "admin")
		require.Zero(t, n.changes())
		if !strings.Contains(body, "standby_cluster") { // which nobody may switch on
			code, text, _ = call(n, roles(), "PATCH", "/config", body, "dba", "dba-secret")
			require.Equal(t, 200, code, text)
			require.Equal(t, 1, n.changes())
		}
		n = primaryNode()
		n.config = json.RawMessage(stored)
		code, text, _ = call(n, roles(), "PUT", "/config", body, "ops", "ops-secret")
		require.Equal(t, 403, code, "PUT leaves the others out: %s: %s", body, text)
	}
	for _, body := range []string{`{"ttl":20}`, `{"pause":true}`, p("work_mem"), `{"postgresql":{"use_pg_rewind":true}}`, `{"postgresql":{"parameters":{"archive_command":"cp"}}}`,
		`{"postgresql":{"pg_hba":["local all all peer"]}}`, `{"postgresql":{"parameters":{"restore_command":null}}}`} {
		n := primaryNode()
		n.config = json.RawMessage(stored)
		code, text, _ := call(n, roles(), "PATCH", "/config", body, "ops", "ops-secret")
		require.Equal(t, 200, code, "%s: %s", body, text)
	}
}
