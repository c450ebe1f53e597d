package rig

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// commandLimit ends a command of the command line, whatever it waits for.
const commandLimit = 90 * time.Second

// Patroni is the path of a program of Patroni 4.1, unpacked beside the system. Without it the test is skipped, or fails
// when PGREGENT_REQUIRE is 1.
func Patroni(t testing.TB, name string) string {
	t.Helper()
	cache := os.Getenv("PGREGENT_CACHE")
	path := filepath.Join(cache, "bin", name)
	if _, err := os.Stat(path); cache == "" || err != nil {
		postgrestest.Require(t, "Patroni: PGREGENT_CACHE/bin/"+name+" (.ci/deps installs it)")
	}
	return path
}

// RunPatroni makes Patroni the program that Start starts, on the same file and directory.
func (d *Node) RunPatroni() { d.Program = []string{Patroni(d.C.T, "patroni")} }

// RunPgregent makes pgregent the program that Start starts, on the same file and directory.
func (d *Node) RunPgregent() {
	d.Program = append(slices.Clone(d.C.options.Prefix), Program("pgregent"), "run")
}

// IsPatroni says that Start starts Patroni.
func (d *Node) IsPatroni() bool { return filepath.Base(d.Program[0]) == "patroni" }

// Tool is a command line that knows patronictl's commands.
type Tool struct {
	Name string
	run  func(d *Node, input string, args []string) Output
}

// Output is what a command left.
type Output struct {
	Text   string // standard output and error, in the order of writing
	Stdout string
	Code   int // -1: it was ended by a signal, or did not start
}

// Run runs a command with a node's own file.
func (tool Tool) Run(d *Node, args ...string) Output { return tool.run(d, "", args) }

// Answer runs a command with a node's own file, and types lines into it.
func (tool Tool) Answer(d *Node, lines []string, args ...string) Output {
	return tool.run(d, strings.Join(lines, "\n")+"\n", args)
}

// Must runs a command that is to succeed, and returns its text.
func (tool Tool) Must(d *Node, args ...string) string {
	d.C.T.Helper()
	out := tool.Run(d, args...)
	require.Zero(d.C.T, out.Code, "%s %s: %s", tool.Name, strings.Join(args, " "), out.Text)
	return out.Text
}

// Patronictl is the real one.
func Patronictl(t testing.TB) Tool {
	t.Helper()
	program := Patroni(t, "patronictl")
	return Tool{Name: "patronictl", run: func(d *Node, input string, args []string) Output {
		return command(input, program, append([]string{"-c", d.File}, args...))
	}}
}

// Pgregent is the command line of pgregent, called through a link named patronictl: it behaves as that program.
func Pgregent(t testing.TB) Tool {
	t.Helper()
	link := filepath.Join(t.TempDir(), "patronictl")
	require.NoError(t, os.Symlink(Program("pgregent"), link))
	return Tool{Name: "pgregent", run: func(d *Node, input string, args []string) Output {
		return command(input, link, append([]string{"-c", d.File}, args...))
	}}
}

func command(input, program string, args []string) Output {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, all bytes.Buffer
	locked := &lockedBuffer{b: &all} // two goroutines copy
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, locked), locked
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	out := Output{Text: all.String(), Stdout: stdout.String(), Code: cmd.ProcessState.ExitCode()}
	if err != nil && out.Code <= 0 {
		out.Code = -1
		out.Text += err.Error()
	}
	return out
}

type lockedBuffer struct {
	b  *bytes.Buffer
	mu sync.Mutex
}

// Write appends.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}
