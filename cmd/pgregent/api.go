package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/ha/rest"
)

// apiServer is the node's REST API on its listen address.
type apiServer struct {
	server  *http.Server
	api     *rest.API
	version string
	log     *slog.Logger

	mu    sync.Mutex
	tls   *rest.TLS // nil: plain HTTP, which a reload does not change
	audit *auditFile
}

// serveAPI listens, and serves until stop.
func serveAPI(c *config.Config, node rest.Node, log *slog.Logger) (*apiServer, error) {
	r := c.RestAPI
	a := &apiServer{version: programVersion(), log: log, audit: &auditFile{}}
	if err := a.audit.open(r.Access.AuditLog); err != nil {
		return nil, err
	}
	if r.CertFile != "" {
		var err error
		if a.tls, err = rest.NewTLS(r.TLS()); err != nil {
			return nil, err
		}
	}
	host, port, _ := net.SplitHostPort(r.Listen)
	if host == "*" {
		host = ""
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("restapi.listen %q: %w; another program uses the port, or the address is not this machine's", r.Listen, err)
	}
	if a.tls != nil {
		l = tls.NewListener(l, a.tls.Config())
	}
	a.api = rest.NewHandler(node, a.options(r))
	a.server = rest.NewServer(a.api, log)
	go func() {
		if err := a.server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error("the REST API ended", "error", err)
		}
	}()
	return a, nil
}

func (a *apiServer) options(r config.RestAPI) rest.Options {
	o := r.Options(a.version)
	o.Log = a.log
	if r.Access.AuditLog != "" {
		o.Audit = a.audit
	}
	return o
}

// reload takes over what the section says now: users, lists, headers, and the files of the certificate, also when only
// their contents changed. The listen address, and whether there is TLS at all, change with a restart. What is wrong
// leaves the old in force.
func (a *apiServer) reload(r config.RestAPI) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if (a.tls != nil) != (r.CertFile != "") {
		a.log.Warn("restapi.certfile appears or disappears only with a restart of pgregent")
		if a.tls == nil {
			r.CertFile = ""
		}
	}
	if a.tls != nil && r.CertFile != "" {
		if err := a.tls.Reload(r.TLS()); err != nil {
			a.log.Error("the certificate was not reloaded; the old one stays in use", "error", err)
		}
	}
	if err := a.audit.open(r.Access.AuditLog); err != nil {
		a.log.Error("the audit log was not opened; the old one stays in use", "error", err)
	}
	a.api.Configure(context.Background(), a.options(r))
}

func (a *apiServer) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if a.server.Shutdown(ctx) != nil {
		_ = a.server.Close()
	}
}

// auditFile is where the audit log goes. It is opened again at each reload, so that a file can be rotated.
type auditFile struct {
	mu   sync.Mutex
	file *os.File
}

func (f *auditFile) open(name string) error {
	var next *os.File
	switch name {
	case "":
	case "stderr":
		next = os.Stderr
	default:
		var err error
		if next, err = os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return fmt.Errorf("restapi.access.audit_log: %w", err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil && f.file != os.Stderr {
		_ = f.file.Close()
	}
	f.file = next
	return nil
}

// Write appends one line.
func (f *auditFile) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return 0, errors.New("there is no audit log any more")
	}
	return f.file.Write(b)
}

// peerClient is how members and tools ask the REST API (section ctl, reference section 2.10).
func peerClient(c *config.Config) (*rest.Client, error) {
	o := rest.ClientOptions{Username: c.Ctl.Username, Password: c.Ctl.Password}
	ca := c.Ctl.CACert
	if ca == "" {
		ca = c.RestAPI.CAFile
	}
	t := &tls.Config{InsecureSkipVerify: c.Ctl.Insecure || ca == ""} //nolint:gosec // without a CA nothing can be verified, as with Patroni
	if ca != "" {
		pool, err := rest.LoadPool("ctl.cacert", ca)
		if err != nil {
			return nil, err
		}
		t.RootCAs = pool
	}
	if c.Ctl.CertFile != "" {
		key := c.Ctl.KeyFile
		if key == "" {
			key = c.Ctl.CertFile
		}
		pair, err := rest.LoadKeyPair("ctl", c.Ctl.CertFile, key, c.Ctl.KeyPassword)
		if err != nil {
			return nil, err
		}
		t.Certificates = []tls.Certificate{pair}
	}
	o.TLS = t
	return rest.NewClient(o), nil
}
