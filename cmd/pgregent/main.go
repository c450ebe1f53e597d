// Command pgregent is the reference daemon and command line over the library: it reads Patroni's configuration, wires
// store, PostgreSQL, HTTP API and loop together, and handles signals. It decides nothing.
//
// Called through a link named patronictl it takes that program's commands, options and configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/cmd/pgregent/ctl"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/fence"
)

// version is stamped by the build (make build).
var version = "" //nolint:gochecknoglobals // set with -ldflags -X

func main() {
	fence.Main() // serves and does not return when this process was started as a guard
	name := filepath.Base(os.Args[0])
	root := commands(name == "patronictl", os.Stdin, os.Stdout, os.Stderr)
	root.SetArgs(os.Args[1:])
	err := root.ExecuteContext(context.Background())
	var code exitCode
	switch {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	case name == "patronictl":
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "pgregent:", err)
		os.Exit(1)
	}
}

// exitCode ends the process with a code and without a message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// commands is the whole command line.
func commands(classic bool, in io.Reader, out, errOut io.Writer) *cobra.Command {
	env := ctl.Env{
		In: in, Out: out, Err: errOut, Environ: os.Environ(), Version: programVersion(), Client: peerClient, Verbose: printFences,
		Open: func(ctx context.Context, c *config.Config) (dcs.Store, error) {
			return openStore(ctx, c, slog.New(slog.DiscardHandler))
		},
	}
	if f, ok := out.(*os.File); ok {
		env.Terminal = term.IsTerminal(int(f.Fd()))
	}
	var root *cobra.Command
	if classic {
		root = ctl.Patronictl(env)
	} else {
		root = &cobra.Command{
			Use: "pgregent", Short: "pgregent keeps one PostgreSQL cluster highly available.", SilenceUsage: true, SilenceErrors: true,
			Long: "pgregent keeps one PostgreSQL cluster highly available.\n\nEvery command explains itself with -h. Configuration files are Patroni's; PATRONI_* variables override them.",
		}
		root.AddCommand(
			daemonCommand("run FILE.yml", "Run this node", runDaemon),
			daemonCommand("validate FILE.yml", "Check a configuration file", runValidate),
			daemonCommand("detach FILE.yml", "End the daemon of this node and nothing else, for an upgrade", runDetach),
		)
		root.AddCommand(ctl.Commands(env, false)...)
		root.AddCommand(manCommand(root))
		root.Version = programVersion()
	}
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	// A second signal kills: the first ends what is being done.
	run := root.PersistentPreRun
	root.PersistentPreRun = func(c *cobra.Command, args []string) {
		if run != nil {
			run(c, args)
		}
		if c.Name() != "run" {
			ctx, _ := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM) //nolint:govet // until the process ends
			c.SetContext(ctx)
		}
	}
	return root
}

// daemonCommand is a command for the node itself, which reads its one argument on its own.
func daemonCommand(use, short string, f func(ctx context.Context, args, environ []string, out, errOut io.Writer) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			for _, a := range args {
				if a == "-h" || a == "--help" {
					return c.Help()
				}
			}
			return f(c.Context(), args, os.Environ(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
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
