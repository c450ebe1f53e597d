package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/pgregent/pgregent/ha/rest"
)

// RestAPI is the section restapi. request_queue_size and thread_pool_size are accepted and mean nothing here: every
// connection has its own thread of execution.
type RestAPI struct {
	Listen, Connect                        string
	Username, Password                     string
	CertFile, KeyFile, KeyPassword, CAFile string
	VerifyClient, Ciphers                  string
	Allow                                  []string
	AllowMembers                           bool
	Headers, HeadersTLS                    map[string]string
	ServerTokens                           string
	Access                                 Access
}

// Access is the section restapi.access, which Patroni does not have.
type Access struct {
	Credentials  []rest.Credential
	Certificates map[string]rest.Role // common name of a client certificate to its role
	ProtectReads bool
	AuditLog     string // a file, or stderr; empty: none
}

// URL is the api_url that the other members ask.
func (r RestAPI) URL() string {
	scheme := "http"
	if r.CertFile != "" {
		scheme = "https"
	}
	return scheme + "://" + r.Connect + "/patroni"
}

// TLS are the files of the section.
func (r RestAPI) TLS() rest.TLSOptions {
	return rest.TLSOptions{CertFile: r.CertFile, KeyFile: r.KeyFile, KeyPassword: r.KeyPassword, CAFile: r.CAFile, VerifyClient: r.VerifyClient, Ciphers: r.Ciphers}
}

// Options are how the API is served by a program of this version, without log and audit log.
func (r RestAPI) Options(version string) rest.Options {
	o := rest.Options{
		Username: r.Username, Password: r.Password, Credentials: r.Access.Credentials, Certificates: r.Access.Certificates,
		ProtectReads: r.Access.ProtectReads, Allow: r.Allow, AllowMembers: r.AllowMembers, Headers: maps.Clone(r.Headers),
		ClientCert: r.CertFile != "" && (r.VerifyClient == "optional" || r.VerifyClient == "required"), Token: "pgregent/" + version,
	}
	if strings.EqualFold(r.ServerTokens, "productonly") {
		o.Token = "pgregent"
	}
	if r.CertFile != "" {
		if o.Headers == nil {
			o.Headers = map[string]string{}
		}
		maps.Copy(o.Headers, r.HeadersTLS)
	}
	return o
}

// restAPI reads the section. What is wrong in it is named without a value that could be a password.
func restAPI(r reader) (RestAPI, []error) {
	c := RestAPI{
		Listen: r.text("restapi.listen"), Connect: r.text("restapi.connect_address"),
		Username: r.text("restapi.authentication.username"), Password: r.text("restapi.authentication.password"),
		CertFile: r.text("restapi.certfile"), KeyFile: r.text("restapi.keyfile"), KeyPassword: r.text("restapi.keyfile_password"),
		CAFile: r.text("restapi.cafile"), VerifyClient: strings.ToLower(r.text("restapi.verify_client")), Ciphers: r.text("restapi.ciphers"),
		Allow: r.list("restapi.allowlist"), AllowMembers: r.bool("restapi.allowlist_include_members"),
		Headers: r.texts("restapi.http_extra_headers"), HeadersTLS: r.texts("restapi.https_extra_headers"),
		ServerTokens: r.text("restapi.server_tokens"),
	}
	var errs []error
	if c.Listen == "" {
		errs = append(errs, errors.New("restapi.listen is missing"))
	}
	if c.Connect == "" {
		c.Connect = c.Listen
	}
	if c.CertFile != "" && c.KeyFile == "" {
		c.KeyFile = c.CertFile // one file may hold both
	}
	if !slices.Contains([]string{"", "original", "minimal", "productonly"}, strings.ToLower(c.ServerTokens)) {
		errs = append(errs, fmt.Errorf("restapi.server_tokens is %q, expected original, minimal or productonly", c.ServerTokens))
	}
	if (c.Username == "") != (c.Password == "") {
		errs = append(errs, errors.New("restapi.authentication needs both username and password"))
	}
	var more []error
	c.Access, more = accessSection(r)
	errs = append(errs, more...)
	if len(c.Access.Certificates) > 0 && (c.CertFile == "" || c.VerifyClient != "optional" && c.VerifyClient != "required") {
		errs = append(errs, errors.New("restapi.access.certificates needs restapi.certfile, cafile, and verify_client optional or required: nobody shows a certificate otherwise"))
	}
	return c, errs
}

func accessSection(r reader) (Access, []error) {
	a := Access{ProtectReads: r.bool("restapi.access.protect_reads"), AuditLog: r.text("restapi.access.audit_log")}
	var errs []error
	items, _ := r.at("restapi.access.credentials").([]any)
	for i, it := range items {
		c, err := credential(it)
		if err != nil {
			errs = append(errs, fmt.Errorf("restapi.access.credentials[%d]%w", i, err))
			continue
		}
		if slices.ContainsFunc(a.Credentials, func(o rest.Credential) bool { return o.Name == c.Name }) {
			errs = append(errs, fmt.Errorf("restapi.access.credentials[%d].name is there twice", i))
		}
		a.Credentials = append(a.Credentials, c)
	}
	names := r.texts("restapi.access.certificates")
	for _, cn := range slices.Sorted(maps.Keys(names)) {
		role, err := rest.ParseRole(names[cn])
		if err != nil {
			errs = append(errs, fmt.Errorf("restapi.access.certificates.%s: %w", cn, err))
			continue
		}
		if a.Certificates == nil {
			a.Certificates = map[string]rest.Role{}
		}
		a.Certificates[cn] = role
	}
	if a.ProtectReads && len(items) == 0 && len(names) == 0 && r.text("restapi.authentication.username") == "" {
		errs = append(errs, errors.New("restapi.access.protect_reads needs credentials or certificates: nobody could read otherwise"))
	}
	return a, errs
}

// credential reads one user: name, role, and password or password_file.
func credential(v any) (rest.Credential, error) {
	var c rest.Credential
	m, ok := v.(map[string]any)
	if !ok {
		return c, errors.New(": expected a mapping of name, role, and password or password_file")
	}
	texts := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains([]string{"name", "role", "password", "password_file"}, k) {
			return c, fmt.Errorf(".%s is not a known setting", k)
		}
		switch m[k].(type) {
		case string, int, int64, uint64, float64:
			texts[k] = fmt.Sprint(m[k])
		default:
			return c, fmt.Errorf(".%s: expected a text", k)
		}
	}
	role, err := rest.ParseRole(texts["role"])
	if err != nil {
		return c, fmt.Errorf(".role: %w", err)
	}
	c = rest.Credential{Name: texts["name"], Password: texts["password"], Role: role}
	if file := texts["password_file"]; file != "" {
		if c.Password != "" {
			return c, errors.New(": password and password_file are both there; keep one")
		}
		if c.Password, err = passwordFile(file); err != nil {
			return c, fmt.Errorf(".password_file: %w", err)
		}
	}
	switch {
	case c.Name == "" || strings.Contains(c.Name, ":"):
		return c, errors.New(".name is missing, or holds a colon")
	case c.Password == "":
		return c, errors.New(".password is missing or empty")
	}
	return c, nil
}

// checkPeers refuses users and names among which the members are not: their questions to each other would be turned away,
// and failsafe mode would not hold.
func (c *Config) checkPeers() error {
	a := c.RestAPI.Access
	if len(a.Credentials) == 0 && len(a.Certificates) == 0 || c.Ctl.CertFile != "" && len(a.Certificates) > 0 {
		return nil
	}
	if c.Ctl.Username != "" && c.Ctl.Username == c.RestAPI.Username && c.Ctl.Password == c.RestAPI.Password {
		return nil
	}
	for _, u := range a.Credentials {
		if u.Name == c.Ctl.Username && u.Password == c.Ctl.Password && u.Role >= rest.RoleOperator {
			return nil
		}
	}
	return errors.New("ctl.authentication must be a user of restapi with the role operator, or ctl.certfile a certificate with it: the members ask each other with it")
}

// peerWarnings names what turns members away in settings that Patroni takes, too.
func (c *Config) peerWarnings() []string {
	o := c.RestAPI.Options("")
	switch {
	case o.ClientCert && c.Ctl.CertFile == "":
		return []string{"restapi.verify_client asks for certificates, and ctl.certfile has none: the members cannot promise or vote for each other, so that failsafe_mode does not hold"}
	case len(o.Allow) > 0 && !o.AllowMembers:
		return []string{"restapi.allowlist counts for the members, too: all of them must be in it, or allowlist_include_members be on"}
	}
	return nil
}

// passwordFile reads a password, without the end of its line.
func passwordFile(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > 4096 {
		return "", fmt.Errorf("%s is no small file", name)
	}
	b, err := os.ReadFile(name)
	return strings.TrimRight(string(b), "\r\n"), err
}
