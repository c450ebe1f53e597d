// Command pgregent is the reference daemon and command line over the library: it reads Patroni's configuration, wires
// store, PostgreSQL, HTTP API and loop together, and handles signals. It decides nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/pgregent/pgregent/ha/fence"
)

// version is stamped by the build (make build).
var version = "" //nolint:gochecknoglobals // set with -ldflags -X

func main() {
	fence.Main() // serves and does not return when this process was started as a guard
	err := run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	var code exitCode
	switch {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		fmt.Fprintln(os.Stderr, "pgregent:", err)
		os.Exit(1)
	}
}

// exitCode ends the process with a code and without a message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

const usage = `pgregent keeps one PostgreSQL cluster highly available.

  pgregent run FILE.yml         run this node
  pgregent validate FILE.yml    check a configuration file
  pgregent detach FILE.yml      end the daemon of this node and nothing else, for an upgrade
  pgregent list                 show the members; with --verbose, how each is fenced
  pgregent switchover           move the leadership, planned
  pgregent failover             move the leadership to a candidate, also without a leader
  pgregent version              show the version

Every command explains itself with -h. Configuration files are Patroni's; PATRONI_* variables override them.
`

// run is the program without its exit.
func run(ctx context.Context, args, environ []string, out, errOut io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(errOut, usage)
		return exitCode(2)
	}
	commands := map[string]func(context.Context, []string, []string, io.Writer, io.Writer) error{
		"run": runDaemon, "validate": runValidate, "list": runList, "detach": runDetach,
		"switchover": func(ctx context.Context, a, e []string, o, eo io.Writer) error {
			return runFailover(ctx, "switchover", a, e, o, eo)
		},
		"failover": func(ctx context.Context, a, e []string, o, eo io.Writer) error {
			return runFailover(ctx, "failover", a, e, o, eo)
		},
		"version": func(_ context.Context, _, _ []string, o, _ io.Writer) error {
			fmt.Fprintln(o, "pgregent", programVersion())
			return nil
		},
	}
	switch args[0] {
	case "help", "-h", "--help":
		fmt.Fprint(out, usage)
		return nil
	case "--version", "-v":
		args[0] = "version"
	}
	c, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("there is no command %q; pgregent help lists them", args[0])
	}
	return c(ctx, args[1:], environ, out, errOut)
}

// programVersion is what the build stamped, or what Go knows of the module.
func programVersion() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
		return b.Main.Version
	}
	return "0.0.0-dev"
}
