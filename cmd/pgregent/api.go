package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/ha/rest"
)

// apiServer is the node's REST API on its listen address.
type apiServer struct {
	server http.Server
	config config.RestAPI
	cert   atomic.Pointer[tls.Certificate]
	log    *slog.Logger
}

// serveAPI listens, and serves until stop.
func serveAPI(c *config.Config, node *ha.Node, log *slog.Logger) (*apiServer, error) {
	r := c.RestAPI
	a := &apiServer{config: r, log: log}
	a.server = http.Server{
		Handler: rest.NewHandler(node, rest.Options{
			Username: r.Username, Password: r.Password, Headers: r.Headers, Log: log,
			ClientCert: r.CertFile != "" && (r.VerifyClient == "optional" || r.VerifyClient == "required"),
		}),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	host, port, _ := net.SplitHostPort(r.Listen)
	if host == "*" {
		host = ""
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("restapi.listen %q: %w; another program uses the port, or the address is not this machine's", r.Listen, err)
	}
	if r.CertFile != "" {
		t, err := a.tls()
		if err != nil {
			_ = l.Close()
			return nil, err
		}
		l = tls.NewListener(l, t)
	}
	go func() {
		if err := a.server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error("the REST API ended", "error", err)
		}
	}()
	return a, nil
}

func (a *apiServer) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if a.server.Shutdown(ctx) != nil {
		_ = a.server.Close()
	}
}

func (a *apiServer) tls() (*tls.Config, error) {
	if err := a.reloadCertificate(); err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.cert.Load(), nil }}
	switch a.config.VerifyClient {
	case "required":
		t.ClientAuth = tls.RequireAndVerifyClientCert
	case "optional":
		t.ClientAuth = tls.VerifyClientCertIfGiven
	case "", "none":
	default:
		return nil, fmt.Errorf("restapi.verify_client is %q, expected none, optional or required", a.config.VerifyClient)
	}
	if a.config.CAFile != "" {
		pool, err := certPool("restapi.cafile", a.config.CAFile)
		if err != nil {
			return nil, err
		}
		t.ClientCAs = pool
	} else if t.ClientAuth != tls.NoClientCert {
		return nil, errors.New("restapi.verify_client needs restapi.cafile, to verify against")
	}
	return t, nil
}

// reloadCertificate reads certificate and key again; new connections use them.
func (a *apiServer) reloadCertificate() error {
	if a.config.CertFile == "" {
		return nil
	}
	cert, err := keyPair("restapi", a.config.CertFile, a.config.KeyFile, a.config.KeyPassword)
	if err != nil {
		return err
	}
	a.cert.Store(&cert)
	return nil
}

// keyPair loads a certificate with its key, which may be encrypted in PEM's old way.
func keyPair(section, certFile, keyFile, password string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.certfile: %w", section, err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.keyfile: %w", section, err)
	}
	if password != "" {
		if b, _ := pem.Decode(key); b != nil && strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") {
			//lint:ignore SA1019 it is the only encryption that Patroni's users have
			der, err := x509.DecryptPEMBlock(b, []byte(password))
			if err != nil {
				return tls.Certificate{}, fmt.Errorf("%s.keyfile_password does not open %s: %w", section, keyFile, err)
			}
			key = pem.EncodeToMemory(&pem.Block{Type: b.Type, Bytes: der})
		}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.certfile and keyfile: %w", section, err)
	}
	return pair, nil
}

func certPool(field, file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s: %s holds no certificate", field, file)
	}
	return pool, nil
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
		pool, err := certPool("ctl.cacert", ca)
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
		pair, err := keyPair("ctl", c.Ctl.CertFile, key, c.Ctl.KeyPassword)
		if err != nil {
			return nil, err
		}
		t.Certificates = []tls.Certificate{pair}
	}
	o.TLS = t
	return rest.NewClient(o), nil
}
