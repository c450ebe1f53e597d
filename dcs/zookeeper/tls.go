package zookeeper

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// tlsConfig is what connections with TLS are made with. CACert is read now, Cert and Key now and for each connection.
func (c Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.Insecure} //nolint:gosec // verify: false asks for it
	if c.CACert != "" {
		text, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, fmt.Errorf("cacert: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
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
	file := c.Key
	if file == "" {
		file = c.Cert
	}
	cert, err := os.ReadFile(c.Cert)
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	key, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if key, err = decrypt(key, c.KeyPassword); err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("cert %s with key %s: %w", c.Cert, file, err)
	}
	return &pair, nil
}

// decrypt decrypts the key in a PEM file, if it is encrypted.
func decrypt(text []byte, password string) ([]byte, error) {
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return text, nil
		}
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("it is encrypted in PKCS #8 form, which is not supported; convert it with openssl rsa -traditional -aes256")
		case !strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			continue
		case password == "":
			return nil, errors.New("it is encrypted, and key_password is empty")
		}
		//lint:ignore SA1019 the only encryption that Patroni's users have
		der, err := x509.DecryptPEMBlock(block, []byte(password))
		if err != nil {
			return nil, fmt.Errorf("key_password does not decrypt it: %w", err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der}), nil
	}
}
