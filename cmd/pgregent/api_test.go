package main

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/ha/rest"
)

// apiNode is a node that only reloads.
type apiNode struct{ rest.Node }

func (apiNode) Report() *rest.Report { return &rest.Report{Name: "a", Version: "1"} }
func (apiNode) Reload()              {}

// A reload replaces users and lists, and opens the audit log again, so that a rotated file is let go.
func TestReloadOfTheAPI(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	audit := filepath.Join(t.TempDir(), "audit.log")
	c := &config.Config{RestAPI: config.RestAPI{Listen: address, Access: config.Access{AuditLog: audit}}}
	a, err := serveAPI(c, apiNode{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer a.stop()
	post := func(user string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/reload", nil)
		require.NoError(t, err)
		if user != "" {
			req.SetBasicAuth(user, "p")
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return res.StatusCode
	}
	lines := func(file string) int {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		return strings.Count(string(b), "\n")
	}
	require.Equal(t, 202, post(""))
	require.Equal(t, 1, lines(audit))

	require.NoError(t, os.Rename(audit, audit+".1"))
	c.RestAPI.Access.Credentials = []rest.Credential{{Name: "ops", Password: "p", Role: rest.RoleOperator}}
	a.reload(c.RestAPI)
	require.Equal(t, 401, post(""))
	require.Equal(t, 202, post("ops"))
	require.Equal(t, []int{1, 2}, []int{lines(audit + ".1"), lines(audit)})
	info, err := os.Stat(audit)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	// What is wrong leaves the old in force.
	c.RestAPI.Access.AuditLog = "/no/such/folder/audit.log"
	c.RestAPI.CertFile = "/no/such/file"
	a.reload(c.RestAPI)
	require.Equal(t, 202, post("ops"))
	require.Equal(t, 3, lines(audit))
}
