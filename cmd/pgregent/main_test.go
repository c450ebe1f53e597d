package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMan: every command that is listed has a page with its options.
func TestMan(t *testing.T) {
	dir := t.TempDir()
	root := commands(false, strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
	root.SetArgs([]string{"man", dir})
	require.NoError(t, root.Execute())
	for _, c := range root.Commands() {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "pgregent-"+c.Name()+".1"))
		require.NoError(t, err)
		require.Contains(t, string(b), c.Short[:12])
	}
	b, err := os.ReadFile(filepath.Join(dir, "pgregent-restart.1"))
	require.NoError(t, err)
	require.Contains(t, string(b), "dry-run")
}

// TestCompletion: the shells that people have get a script.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var out bytes.Buffer
		root := commands(false, strings.NewReader(""), &out, &bytes.Buffer{})
		root.SetArgs([]string{"completion", shell})
		require.NoError(t, root.Execute())
		require.Contains(t, out.String(), "pgregent", shell)
	}
}

// TestCommandLines: a command that is not there, and options that are wrong, are named, and patronictl has no commands of
// the daemon.
func TestCommandLines(t *testing.T) {
	for _, c := range []struct {
		classic bool
		args    string
		want    string
	}{
		{false, "lisst", `unknown command "lisst"`},
		{false, "list --no-such", "unknown flag: --no-such"},
		{false, "restart -r nobody", "one of leader, primary"},
		{true, "run x.yml", `unknown command "run"`},
		{true, "restart", "requires at least 1 arg"},
		{true, "remove", "accepts 1 arg"},
		{false, "flush demo pg1 nothing", "flush what: restart or switchover"},
		{false, "config diff", "say what is to be changed"},
	} {
		root := commands(c.classic, strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
		root.SetArgs(strings.Fields(c.args))
		require.ErrorContains(t, root.Execute(), c.want, c.args)
	}
}
