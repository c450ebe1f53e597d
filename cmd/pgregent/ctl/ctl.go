// Package ctl is the command line of an operator: what patronictl has (reference section 3), with its options and its
// output, and what it has not. It reads the store and asks the members' REST APIs; it decides nothing, and leads nobody.
//
// A command that changes something asks first, unless --force is given, and --dry-run says what would happen instead.
// Without an answer, as when nobody is at the other end of the input, nothing is changed.
package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/rest"
)

// Env is what the commands need of the program around them.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Environ  []string
	Version  string
	// Terminal says that Out is one: colours and a cleared screen are for people.
	Terminal bool
	// Width is how wide it is; 0: not known.
	Open   func(ctx context.Context, c *config.Config) (dcs.Store, error)
	Client func(c *config.Config) (*rest.Client, error)
	// Verbose adds to the pretty list what every member says of its fence; nil: nothing.
	Verbose func(ctx context.Context, out io.Writer, c *config.Config, state cluster.Cluster) error
}

// Limits of the talk with the store and with members. patronictl has none, and waits for ever for a member that is stuck.
const (
	storeLimit  = 10 * time.Second
	memberLimit = 10 * time.Second
	moveLimit   = 90 * time.Second
)

// app is one call of the program.
type app struct {
	Env
	classic  bool // as patronictl: the cluster's name stands before the members
	file     string
	url      string
	insecure bool
	answers  *bufio.Reader
}

// Commands are the commands of an operator, for the program's own tree. classic: they are patronictl's, by its rules for
// arguments.
func Commands(env Env, classic bool) []*cobra.Command {
	a := newApp(env, classic)
	cmds := a.commands()
	for _, c := range cmds {
		a.flags(c)
	}
	return cmds
}

// Patronictl is the program that is called through a link of this name.
func Patronictl(env Env) *cobra.Command {
	a := newApp(env, true)
	root := &cobra.Command{Use: "patronictl", Short: "Command-line interface for interacting with a Patroni or pgregent cluster", SilenceUsage: true, SilenceErrors: true,
		TraverseChildren: true} // its own options stand before the command, which may have others of the same letters
	root.Args = cobra.ArbitraryArgs
	root.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unknown command %q", args[0])
		}
		return c.Help()
	}
	a.flags(root)
	root.AddCommand(a.commands()...)
	return root
}

func newApp(env Env, classic bool) *app {
	return &app{Env: env, classic: classic, answers: bufio.NewReader(env.In)}
}

func (a *app) flags(c *cobra.Command) {
	f := c.PersistentFlags()
	if a.classic {
		f = c.Flags()
	}
	if c.Name() == "query" { // whose -c and -d are others; patronictl has these before the command
		f.StringVar(&a.file, "config-file", a.defaultFile(), "configuration `file`")
		f.StringVar(&a.url, "dcs-url", a.env("DCS_URL"), "the store, as `scheme://host:port/namespace`")
	} else {
		f.StringVarP(&a.file, "config-file", "c", a.defaultFile(), "configuration `file`: the daemon's, or patronictl's")
		f.StringVarP(&a.url, "dcs-url", "d", a.env("DCS_URL"), "the store, as `scheme://host:port/namespace`, in place of the file's")
	}
	f.BoolVarP(&a.insecure, "insecure", "k", false, "verify no certificates of members")
}

func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.list(), a.topology(), a.history(), a.switchover(), a.failover(), a.restart(), a.reload(), a.reinit(), a.pause(true), a.pause(false),
		a.editConfig(), a.showConfig(), a.config(), a.query(), a.dsn(), a.remove(), a.flush(), a.version(), a.clusterRole("demote"), a.clusterRole("promote"),
	}
}

// env is a variable of the environment.
func (a *app) env(name string) string {
	for _, e := range a.Environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// defaultFile is the file that is used without -c: it need not exist.
func (a *app) defaultFile() string {
	if f := a.env("PATRONICTL_CONFIG_FILE"); f != "" {
		return f
	}
	if home := a.env("HOME"); home != "" {
		return home + "/.config/patroni/patronictl.yaml"
	}
	return ""
}

// session is one cluster in its store.
type session struct {
	app    *app
	config *config.Config
	store  dcs.Store
	client *rest.Client
	state  cluster.Cluster
}

// open reads the configuration for a cluster, its own when the name is empty, and the cluster itself.
func (a *app) open(ctx context.Context, name string) (*session, error) {
	environ := a.Environ
	if name != "" {
		environ = append(append([]string{}, environ...), "PATRONI_SCOPE="+name)
	}
	file := a.file
	if file == a.defaultFile() && a.env("PATRONICTL_CONFIG_FILE") == "" && !exists(file) {
		file = ""
	}
	c, _, err := config.LoadTool(file, a.url, environ)
	if err != nil {
		if file == "" {
			err = fmt.Errorf("%w (name the configuration file with -c FILE.yml, or set PATRONICTL_CONFIG_FILE)", err)
		}
		return nil, err
	}
	c.Ctl.Insecure = c.Ctl.Insecure || a.insecure
	s := &session{app: a, config: c}
	if s.client, err = a.Client(c); err != nil {
		return nil, err
	}
	call, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	if s.store, err = a.Open(call, c); err != nil {
		return nil, err
	}
	if err := s.read(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) close() { _ = s.store.Close() }

// read reads the cluster again.
func (s *session) read(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	snap, err := s.store.Read(call)
	if err != nil {
		return fmt.Errorf("the store does not answer: %w", err)
	}
	s.state = ha.Decode(snap)
	return nil
}

// clusterAndRest takes the cluster's name off the arguments. patronictl wants it first; here it may be left out, since the
// file names it.
func (a *app) clusterAndRest(args []string, scope string) (string, []string) {
	if len(args) > 0 && (a.classic || args[0] == scope) {
		return args[0], args[1:]
	}
	return "", args
}

// scope is the cluster's name in the configuration; empty: none.
func (a *app) scope() string {
	file := a.file
	if !exists(file) {
		file = ""
	}
	if c, _, err := config.LoadTool(file, a.url, a.Environ); err == nil {
		return c.Scope
	}
	return a.env("PATRONI_SCOPE")
}

func (a *app) say(format string, args ...any) { fmt.Fprintf(a.Out, format+"\n", args...) }

// now is the beginning of a line that tells of a success, as patronictl has it.
func now() string { return time.Now().Format("2006-01-02 15:04:05.00000") }

// errNoAnswer is the end of a question that nobody answers.
var errNoAnswer = errors.New("nobody answers the question, so nothing was changed; --force does not ask")

// ask asks for a text. An empty answer is the default.
func (a *app) ask(question, otherwise string) (string, error) {
	if otherwise != "" {
		question += " [" + otherwise + "]"
	}
	fmt.Fprint(a.Out, question+": ")
	line, err := a.answers.ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(a.Out)
		return "", errNoAnswer
	}
	if line = strings.TrimSpace(line); line == "" {
		return otherwise, nil
	}
	return line, nil
}

// confirm asks a question that is answered with yes or no.
func (a *app) confirm(question string) (bool, error) {
	for {
		answer, err := a.ask(question+" [y/N]", "")
		if err != nil {
			return false, err
		}
		switch strings.ToLower(answer) {
		case "y", "yes":
			return true, nil
		case "", "n", "no":
			return false, nil
		}
		a.say("Error: invalid input")
	}
}
