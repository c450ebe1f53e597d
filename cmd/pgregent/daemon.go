package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/cmd/pgregent/spans"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/postgres/local"
)

// runDaemon is `pgregent run FILE.yml`.
func runDaemon(ctx context.Context, args, environ []string, _, errOut io.Writer) error {
	path, err := fileArgument("run", args, errOut)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		return errors.New("PostgreSQL refuses to run as root, so pgregent does too: start it as the user who owns the data directory, such as postgres")
	}
	c, warnings, err := config.Load(path, environ)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	hideEnvironment(environ)
	log, closeLog, err := logger(c, errOut)
	if err != nil {
		return err
	}
	defer closeLog()
	for _, w := range warnings {
		log.Warn("configuration", "warning", w)
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	d := &daemon{config: c, path: path, environ: environ, log: log, scripts: newScripts(c.Scripts)}
	return d.run(ctx)
}

// fileArgument takes the one file of a command line.
func fileArgument(command string, args []string, errOut io.Writer) (string, error) {
	fs := flag.NewFlagSet(command, flag.ContinueOnError)
	fs.SetOutput(errOut)
	fs.Usage = func() {
		fmt.Fprintf(errOut, "usage: pgregent %s FILE.yml   (a Patroni configuration file, or a folder of them)\n", command)
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return "", exitCode(0)
		}
		return "", exitCode(2)
	}
	switch fs.NArg() {
	case 0:
		if os.Getenv("PATRONI_CONFIGURATION") != "" || os.Getenv("PATRONI_NAME") != "" {
			return "", nil
		}
		return "", fmt.Errorf("%s needs the path of a configuration file", command)
	case 1:
		return fs.Arg(0), nil
	}
	return "", fmt.Errorf("%s takes one configuration file, not %d", command, fs.NArg())
}

// hideEnvironment keeps our settings, passwords among them, from what this process starts (hazard E2).
func hideEnvironment(environ []string) {
	for _, kv := range environ {
		for i := range kv {
			if kv[i] == '=' {
				if len(kv) > 8 && kv[:8] == "PATRONI_" {
					_ = os.Unsetenv(kv[:i])
				}
				break
			}
		}
	}
}

func logger(c *config.Config, errOut io.Writer) (*slog.Logger, func(), error) {
	closeLog := func() {}
	if c.LogDir != "" {
		f, err := os.OpenFile(filepath.Join(c.LogDir, "pgregent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("log.dir: %w", err)
		}
		errOut, closeLog = f, func() { _ = f.Close() }
	}
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogJSON {
		return slog.New(slog.NewJSONHandler(errOut, o)), closeLog, nil
	}
	return slog.New(slog.NewTextHandler(errOut, o)), closeLog, nil
}

type daemon struct {
	config  *config.Config
	path    string
	environ []string
	log     *slog.Logger
	api     atomic.Pointer[apiServer]
	scripts *scripts
}

// run wires everything together and runs the node until ctx ends.
func (d *daemon) run(ctx context.Context) error {
	c := d.config
	store, err := openStore(ctx, c, d.log)
	if err != nil {
		return err
	}
	defer store.Close()
	server, err := local.Open(withLog(c.PostgreSQL, d.log))
	if err != nil {
		return fmt.Errorf("postgresql: %w", err)
	}
	defer server.Close()
	peers, err := peerClient(c)
	if err != nil {
		return err
	}
	node, err := ha.New(ha.Config{
		Name: c.Name, Scope: c.Scope, APIURL: c.RestAPI.URL(), ProxyURL: proxyURL(c), Store: store, Postgres: server,
		GuardProgram: guardProgram(c), Fence: c.Fence.Options, FenceRequired: c.Fence.Required, Peers: peers, Scripts: d.scripts, Callbacks: []callbacks.Callback{d.scripts.callbacks}, Tags: c.Tags,
		NoBootstrap: !c.HasBootstrap, Bootstrap: c.Bootstrap, Local: c.Local, OnReload: d.reload,
		Ready: func() { notify("READY=1") }, Log: d.log, Version: programVersion(),
	})
	if err != nil {
		return err
	}
	if err := node.CheckName(ctx); err != nil {
		return err
	}
	api, err := serveAPI(c, node, d.log)
	if err != nil {
		return err
	}
	defer api.stop()
	d.api.Store(api)
	go d.onHUP(ctx, node)
	go onDetach(ctx, node)
	context.AfterFunc(ctx, func() { notify("STOPPING=1") })
	if spans.Wanted() {
		exported := make(chan struct{})
		life, end := context.WithCancel(context.WithoutCancel(ctx)) // also what the orderly end did
		defer func() { end(); <-exported }()
		go func() {
			defer close(exported)
			if err := spans.Run(life, node.Report, d.log); err != nil {
				d.log.Error("no spans are exported", "error", err)
			}
		}()
	}
	d.log.Info("pgregent starts", "version", programVersion(), "member", c.Name, "cluster", c.Scope, "api", c.RestAPI.URL())
	return node.Run(ctx)
}

func withLog(c local.Config, log *slog.Logger) local.Config {
	c.Log = log
	return c
}

func proxyURL(c *config.Config) string {
	if c.ProxyAddress == "" {
		return ""
	}
	return "postgres://" + c.ProxyAddress + "/postgres"
}

// guardProgram is the second small main beside this program, or this program itself.
func guardProgram(c *config.Config) []string {
	if c.GuardProgram != "" {
		return []string{c.GuardProgram}
	}
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	beside := filepath.Join(filepath.Dir(self), "pgregent-guard")
	if info, err := os.Stat(beside); err == nil && info.Mode()&0o111 != 0 {
		return []string{beside}
	}
	return nil
}

// reload reads the file again; what needs a restart of the process keeps its old value and is named.
func (d *daemon) reload() (ha.Reloaded, error) {
	c, warnings, err := config.Load(d.path, d.environ)
	if err != nil {
		return ha.Reloaded{}, err
	}
	for _, w := range warnings {
		d.log.Warn("configuration", "warning", w)
	}
	if c.Name != d.config.Name || c.Scope != d.config.Scope || c.Namespace != d.config.Namespace || c.PostgreSQL.DataDir != d.config.PostgreSQL.DataDir ||
		c.RestAPI.Listen != d.config.RestAPI.Listen || c.PostgreSQL.Listen != d.config.PostgreSQL.Listen {
		d.log.Warn("name, scope, namespace, data_dir and listen addresses change only with a restart of pgregent")
	}
	if api := d.api.Load(); api != nil {
		go api.reload(c.RestAPI) // names are resolved there: the loop does not wait for it
	}
	d.scripts.reload(c.Scripts)
	return ha.Reloaded{Tags: c.Tags, Local: c.Local}, nil
}

func (d *daemon) onHUP(ctx context.Context, node *ha.Node) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			notify("RELOADING=1\n" + monotonicUsec())
			node.Reload()
			notify("READY=1")
		}
	}
}

// notify tells systemd, when it asked to be told.
func notify(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	conn, err := net.DialTimeout("unixgram", socket, time.Second)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte(state))
}

func monotonicUsec() string {
	return fmt.Sprintf("MONOTONIC_USEC=%d", dcs.Boottime().Now().Microseconds())
}
