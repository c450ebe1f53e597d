package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// tlsConfig is what connections with TLS are made with. The files are read now: CACert for the connections to come,
// Cert and Key again for each of them.
func (c Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CACert != "" {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, fmt.Errorf("cacert: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("cacert: %s holds no certificate in PEM form", c.CACert)
		}
	}
	if c.Cert == "" {
		if c.Key != "" {
			return nil, fmt.Errorf("key is %s and cert is empty; give both or neither", c.Key)
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
		return nil, fmt.Errorf("the client's certificate in %s with the key in %s: %w", c.Cert, key, err)
	}
	return &pair, nil
}
