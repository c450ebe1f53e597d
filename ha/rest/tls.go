package rest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// TLSOptions are files and settings of the section restapi (reference section 2.2).
type TLSOptions struct {
	CertFile, KeyFile, KeyPassword string // KeyFile empty: the key is in CertFile
	CAFile                         string // whom client certificates are verified against
	// VerifyClient is none (also empty), optional, or required: with required the handshake fails without a certificate,
	// with optional Options.ClientCert asks for it where something is changed.
	VerifyClient string
	// Ciphers is a list in OpenSSL's language, for TLS 1.2: the suites of TLS 1.3 are not a choice. Empty: Go's.
	Ciphers string
}

// TLS is a server's side of TLS, whose files can be read again while it serves.
type TLS struct {
	current atomic.Pointer[tls.Config]
}

// NewTLS reads the files. An error names the setting.
func NewTLS(o TLSOptions) (*TLS, error) {
	t := &TLS{}
	return t, t.Reload(o)
}

// Reload reads the files again; new connections use them. After an error everything stays as it was.
func (t *TLS) Reload(o TLSOptions) error {
	c, err := o.config()
	if err != nil {
		return err
	}
	t.current.Store(c)
	return nil
}

// Config is for a listener.
func (t *TLS) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.current.Load(), nil },
		// Not asked as long as GetConfigForClient is; a listener wants one of them.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &t.current.Load().Certificates[0], nil },
	}
}

func (o TLSOptions) config() (*tls.Config, error) {
	if o.KeyFile == "" {
		o.KeyFile = o.CertFile
	}
	pair, err := LoadKeyPair("restapi", o.CertFile, o.KeyFile, o.KeyPassword)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: true}
	if c.CipherSuites, err = cipherSuites(o.Ciphers); err != nil {
		return nil, fmt.Errorf("restapi.ciphers: %w", err)
	}
	switch o.VerifyClient {
	case "required":
		c.ClientAuth = tls.RequireAndVerifyClientCert
	case "optional":
		c.ClientAuth = tls.VerifyClientCertIfGiven
	case "", "none":
	default:
		return nil, fmt.Errorf("restapi.verify_client is %q, expected none, optional or required", o.VerifyClient)
	}
	switch {
	case o.CAFile != "":
		if c.ClientCAs, err = LoadPool("restapi.cafile", o.CAFile); err != nil {
			return nil, err
		}
	case c.ClientAuth != tls.NoClientCert:
		return nil, errors.New("restapi.verify_client needs restapi.cafile, to verify against")
	}
	return c, nil
}

// LoadKeyPair reads a certificate and its key, which a password may protect. section begins the names in errors.
func LoadKeyPair(section, certFile, keyFile, password string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.certfile: %w", section, err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.keyfile: %w", section, err)
	}
	if key, err = openKey(key, password); err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.keyfile_password does not open %s: %w", section, keyFile, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.certfile and keyfile: %w", section, err)
	}
	return pair, nil
}

// LoadPool reads certificates to verify against. field is the setting, for errors.
func LoadPool(field, file string) (*x509.CertPool, error) {
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
