package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/ha/rest"
)

// api is a whole configuration with another section restapi.
func api(section string) string {
	return "name: a\nscope: demo\netcd3: {host: localhost:2379}\npostgresql: {listen: 127.0.0.1:5432, data_dir: /d, authentication: {superuser: {username: u}, replication: {username: r}}}\nrestapi:\n  listen: 127.0.0.1:8008\n" + section
}

func TestRestAPI(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("from a file\n"), 0o600))
	c, warnings, err := load(t, "ctl: {certfile: /c}\n"+api(`  authentication: {username: u, password: p}
  certfile: /c
  cafile: /ca
  keyfile_password: secret
  ciphers: HIGH
  verify_client: Optional
  allowlist: [10.0.0.0/8, backup.example]
  allowlist_include_members: true
  http_extra_headers: {X-A: a, X-B: b}
  https_extra_headers: {X-B: c}
  server_tokens: ProductOnly
  request_queue_size: 5
  thread_pool_size: 5
  access:
    credentials:
      - {name: dashboard, role: read, password: 123}
      - {name: oncall, role: operator, password_file: `+file+`}
    certificates: {deploy.example: operator}
    protect_reads: true
    audit_log: stderr
`))
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.Equal(t, rest.Options{
		Username: "u", Password: "p", ClientCert: true, ProtectReads: true, Allow: []string{"10.0.0.0/8", "backup.example"}, AllowMembers: true,
		Credentials:  []rest.Credential{{Name: "dashboard", Password: "123", Role: rest.RoleRead}, {Name: "oncall", Password: "from a file", Role: rest.RoleOperator}},
		Certificates: map[string]rest.Role{"deploy.example": rest.RoleOperator},
		Headers:      map[string]string{"X-A": "a", "X-B": "c"}, Token: "pgregent",
	}, c.RestAPI.Options("1.0"))
	require.Equal(t, rest.TLSOptions{CertFile: "/c", KeyFile: "/c", KeyPassword: "secret", CAFile: "/ca", VerifyClient: "optional", Ciphers: "HIGH"}, c.RestAPI.TLS())
	require.Equal(t, "https://127.0.0.1:8008/patroni", c.RestAPI.URL())
	require.Equal(t, "stderr", c.RestAPI.Access.AuditLog)

	c, warnings, err = load(t, api("  https_extra_headers: {X-B: c}\n"), "PATRONI_RESTAPI_USERNAME=u", "PATRONI_RESTAPI_PASSWORD=p", "PATRONI_RESTAPI_ALLOWLIST=10.0.0.1,10.0.0.2")
	require.NoError(t, err)
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], "restapi.allowlist counts for the members, too")
	require.Equal(t, rest.Options{Username: "u", Password: "p", Allow: []string{"10.0.0.1", "10.0.0.2"}, Token: "pgregent/1.0"}, c.RestAPI.Options("1.0"))
}

// What is wrong is named, and no password is repeated.
func TestWrongRestAPI(t *testing.T) {
	for section, want := range map[string]string{
		"  server_tokens: loud\n":                                                                                       `restapi.server_tokens is "loud"`,
		"  authentication: {username: u}\n":                                                                             "needs both username and password",
		"  access: {protect_reads: true}\n":                                                                             "protect_reads needs credentials",
		"  access: {certificates: {x: operator}}\n":                                                                     "restapi.access.certificates needs restapi.certfile",
		"  access: {certificates: {x: boss}}\n":                                                                         `restapi.access.certificates.x: "boss" is no role`,
		"  access: {credentials: x}\n":                                                                                  "restapi.access.credentials",
		"  access: {credentials: [canary]}\n":                                                                           "restapi.access.credentials[0]: expected a mapping",
		"  access: {credentials: [{name: a, role: read}]}\n":                                                            "restapi.access.credentials[0].password is missing",
		"  access: {credentials: [{name: a, role: boss}]}\n":                                                            `restapi.access.credentials[0].role: "boss" is no role`,
		"  access: {credentials: [{role: read, password: canary}]}\n":                                                   "restapi.access.credentials[0].name is missing",
		"  access: {credentials: [{name: a, role: read, pasword: canary}]}\n":                                           "restapi.access.credentials[0].pasword is not a known setting",
		"  access: {credentials: [{name: a, role: read, password: [canary]}]}\n":                                        "restapi.access.credentials[0].password: expected a text",
		"  access: {credentials: [{name: a, role: read, password: canary, password_file: /x}]}\n":                       "both there",
		"  access: {credentials: [{name: a, role: read, password_file: /dev/zero}]}\n":                                  "/dev/zero is no small file",
		"  access: {credentials: [{name: a, role: read, password_file: /no/such/file}]}\n":                              "restapi.access.credentials[0].password_file",
		"  access: {credentials: [{name: a, role: read, password: canary}, {name: a, role: read, password: canary}]}\n": "restapi.access.credentials[1].name is there twice",
	} {
		_, _, err := load(t, api(section))
		require.ErrorContains(t, err, want, section)
		require.False(t, strings.Contains(err.Error(), "canary"), "%v", err)
	}
}

// The members must be among those who may ask.
func TestPeersAreLetIn(t *testing.T) {
	const users = "  access: {credentials: [{name: w, role: read, password: p}, {name: o, role: operator, password: p}]}\n"
	const tls = "  certfile: /c\n  cafile: /ca\n  verify_client: optional\n"
	for _, c := range []struct {
		text, err, warning string
	}{
		{api(users), "ctl.authentication must be a user", ""},
		{api(users) + "ctl: {authentication: {username: w, password: p}}\n", "ctl.authentication must be a user", ""},
		{api(users) + "ctl: {authentication: {username: o, password: canary}}\n", "ctl.authentication must be a user", ""},
		{api(users) + "ctl: {authentication: {username: o, password: p}}\n", "", ""},
		{api("  authentication: {username: u, password: p}\n" + users), "", ""},
		{api(tls + "  access: {certificates: {x: operator}}\n"), "ctl.authentication must be a user", ""},
		{api(tls+"  access: {certificates: {x: operator}}\n") + "ctl: {certfile: /x}\n", "", ""},
		{api(tls), "", "failsafe_mode does not hold"},
		{api(tls) + "ctl: {certfile: /x}\n", "", ""},
	} {
		_, warnings, err := load(t, c.text)
		if c.err != "" {
			require.ErrorContains(t, err, c.err, c.text)
			require.NotContains(t, err.Error(), "canary")
			continue
		}
		require.NoError(t, err, c.text)
		require.Equal(t, c.warning != "", len(warnings) > 0, "%s: %v", c.text, warnings)
		require.Contains(t, strings.Join(warnings, ""), c.warning)
	}
}
