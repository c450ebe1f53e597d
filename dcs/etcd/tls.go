package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// errFiles is the kind of all errors about files of certificates.
var errFiles = errors.New("certificates")

// tlsConfig is what connections with TLS are made with. The files are read now: CACert for the connections to come,
// Cert and Key again for each of them.
func (c Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CACert != "" {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, fmt.Errorf("%w: cacert: %w", errFiles, err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: cacert: %s holds no certificate in PEM form", errFiles, c.CACert)
		}
	}
	if c.Cert == "" {
		if c.Key != "" {
			return nil, fmt.Errorf("%w: key is %s and cert is empty; give both or neither", errFiles, c.Key)
		}
		return t, nil
	}
	if _, err := c.certificate(); err != nil {
		return nil, err
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.certificate() }
	return t, nil
}

// certificate reads the client's certificate.
func (c Config) certificate() (*tls.Certificate, error) {
	key := c.Key
	if key == "" {
		key = c.Cert
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, key)
	if err != nil {
		return nil, fmt.Errorf("%w: cert %s with key %s: %w", errFiles, c.Cert, key, err)
	}
	return &pair, nil
}
