package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// keyword is one entry of a libpq connection string.
type keyword struct{ name, value string }

// conninfo is a connection string in parts, in the order in which Patroni writes them (reference section 7).
type conninfo []keyword

// String writes the connection string: blanks, quotes and backslashes are escaped by a backslash, empty values left
// out.
func (c conninfo) String() string {
	escape := strings.NewReplacer(`\`, `\\`, `'`, `\'`, ` `, `\ `)
	var parts []string
	for _, k := range c {
		if k.value != "" {
			parts = append(parts, k.name+"="+escape.Replace(k.value))
		}
	}
	return strings.Join(parts, " ")
}

// get returns the value of a keyword.
func (c conninfo) get(name string) string {
	for _, k := range c {
		if k.name == name {
			return k.value
		}
	}
	return ""
}

// login makes the connection string of an account for a server at host and port. It holds no password; passfile may be
// empty. major is the version of the libpq that will read it.
func (s *Server) login(a Credentials, host string, port int, passfile string, major int) conninfo {
	c := conninfo{
		{"dbname", s.cfg.Database}, {"user", a.Username}, {"passfile", passfile},
		{"host", host}, {"port", strconv.Itoa(port)},
		{"sslmode", cmpOr(a.SSLMode, "prefer")}, {"sslcert", a.SSLCert}, {"sslkey", a.SSLKey},
		{"sslpassword", a.SSLPassword}, {"sslrootcert", a.SSLRootCert}, {"sslcrl", a.SSLCRL}, {"sslcrldir", a.SSLCRLDir},
		{"application_name", s.cfg.Name}, {"krbsrvname", s.cfg.KerberosService},
		{"gssencmode", cmpOr(a.GSSEncMode, "prefer")}, {"channel_binding", cmpOr(a.ChannelBinding, "prefer")},
	}
	if major >= 17 {
		c = append(c, keyword{"sslnegotiation", cmpOr(a.SSLNegotiation, "postgres")})
	}
	return c
}

// parseConninfo takes a connection string apart: keyword = value pairs as libpq reads them. A URI is refused.
func parseConninfo(text string) (conninfo, error) {
	var c conninfo
	rest := strings.TrimLeft(text, " \t\n\r")
	for rest != "" {
		name, after, found := strings.Cut(rest, "=")
		name = strings.TrimSpace(name)
		if !found || name == "" || strings.ContainsAny(name, " \t'\\") {
			return nil, errors.New("a connection string is keyword = value pairs")
		}
		value, remaining, err := conninfoValue(strings.TrimLeft(after, " \t\n\r"))
		if err != nil {
			return nil, err
		}
		c = append(c, keyword{name, value})
		rest = strings.TrimLeft(remaining, " \t\n\r")
	}
	return c, nil
}

// conninfoValue reads one value, quoted or plain, and returns what follows it.
func conninfoValue(text string) (value, rest string, err error) {
	var b strings.Builder
	isQuoted := strings.HasPrefix(text, "'")
	i := 0
	if isQuoted {
		i = 1
	}
	for ; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case isQuoted && c == '\'':
			return b.String(), text[i+1:], nil
		case !isQuoted && strings.IndexByte(" \t\n\r", c) >= 0:
			return b.String(), text[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if isQuoted {
		return "", "", errors.New("a quote in the connection string is not closed")
	}
	return b.String(), "", nil
}

// redact removes what must not be shown from a connection string (hazard E2). What cannot be read is not shown at all.
func redact(text string) string {
	c, err := parseConninfo(text)
	if err != nil {
		return "(not shown: it cannot be read)"
	}
	return slices.DeleteFunc(c, func(k keyword) bool { return k.name == "password" || k.name == "sslpassword" }).String()
}

// passLines makes the lines of a password file for an account at the given hosts. A host that is a folder of unix
// sockets also gets a line for localhost, which is what libpq looks up for the default folder.
func passLines(a Credentials, port int, hosts ...string) []string {
	if a.Password == "" {
		return nil
	}
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	var lines []string
	add := func(host string) {
		line := strings.Join([]string{escape.Replace(host), strconv.Itoa(port), "*", escape.Replace(a.Username), escape.Replace(a.Password)}, ":")
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	for _, host := range hosts {
		add(host)
		if strings.HasPrefix(host, "/") || host == "" {
			add("localhost")
		}
	}
	return lines
}

// writePGPass writes the password file that the server's receiver reads.
func (s *Server) writePGPass(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	_, err := writeFile(s.cfg.PGPass, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
	if err != nil {
		return fmt.Errorf("PGPass: %w", err)
	}
	return nil
}

// toolPass writes a password file for one run of a tool, in StateDir, which only the owner may enter. The returned
// environment points to it; remove deletes it. Tools do not share the server's password file, because the two may log
// in to different servers at one time.
func (s *Server) toolPass(a Credentials, host string, port int) (env []string, remove func(), err error) {
	if err := os.MkdirAll(s.cfg.StateDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("StateDir: %w", err)
	}
	f, err := os.CreateTemp(s.cfg.StateDir, "pgpass-*")
	if err != nil {
		return nil, nil, fmt.Errorf("StateDir: %w", err)
	}
	remove = func() { _ = os.Remove(f.Name()) } // what is left is removed by removeLeftPasses
	_, err = f.WriteString(strings.Join(passLines(a, port, host), "\n") + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		remove()
		return nil, nil, fmt.Errorf("StateDir: %w", err)
	}
	env = []string{"PGPASSFILE=" + f.Name(), "PGCONNECT_TIMEOUT=5"}
	if s.cfg.KerberosService != "" {
		env = append(env, "PGKRBSRVNAME="+s.cfg.KerberosService)
	}
	return env, remove, nil
}

// removeLeftPasses deletes password files of tools that an earlier process left when it was killed.
func (s *Server) removeLeftPasses() {
	left, err := filepath.Glob(filepath.Join(s.cfg.StateDir, "pgpass-*"))
	if err != nil {
		return
	}
	for _, path := range left {
		_ = os.Remove(path) // the next call tries again
	}
}
