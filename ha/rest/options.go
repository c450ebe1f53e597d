package rest

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// Options are how a node is served. The zero value is open, as Patroni is without settings.
type Options struct {
	// Username and Password protect everything that changes something (reference section 2.2); this user is an admin.
	// Empty: no such user.
	Username, Password string
	// Credentials are further users with a role each, and Certificates the common names of verified client certificates
	// with theirs. As soon as there is a user or a name, a caller who is neither changes nothing.
	Credentials  []Credential
	Certificates map[string]Role
	// ProtectReads asks for a role, RoleRead at least, also for documents. Health checks stay open, without the body.
	ProtectReads bool
	// ClientCert asks for a verified client certificate for everything that changes something (restapi.verify_client).
	ClientCert bool
	// Allow are networks, addresses and host names that may change something; AllowMembers adds the members' addresses.
	// Both empty: everybody may try.
	Allow        []string
	AllowMembers bool
	// Headers are added to every answer (restapi.http_extra_headers).
	Headers map[string]string
	Log     *slog.Logger // nil: discard
	// Audit gets one JSON line for everything that changes something, accepted or refused. nil: no audit log. Lines are
	// written whole and one at a time.
	Audit io.Writer
	// Token is the Server header; empty: pgregent and its version.
	Token string
}

// Credential is a user of the REST API.
type Credential struct {
	Name, Password string
	Role           Role
}

// Role is what a caller may do. Each role includes those before it.
type Role int

// Roles.
const (
	RoleNone     Role = iota
	RoleRead          // read the documents
	RoleOperator      // change the cluster: switchover, restart, settings
	RoleAdmin         // also settings that run commands or let somebody into PostgreSQL
)

func (r Role) String() string {
	switch r {
	case RoleRead:
		return "read"
	case RoleOperator:
		return "operator"
	case RoleAdmin:
		return "admin"
	}
	return "none"
}

// ParseRole reads a role's name: read, operator or admin.
func ParseRole(s string) (Role, error) {
	for _, r := range []Role{RoleRead, RoleOperator, RoleAdmin} {
		if s == r.String() {
			return r, nil
		}
	}
	return RoleNone, fmt.Errorf("%q is no role, expected read, operator or admin", s)
}

// Time limits of NewServer.
const (
	headerTime = 5 * time.Second
	bodyTime   = 10 * time.Second
	answerTime = 20 * time.Second
	idleTime   = 2 * time.Minute
)

// NewServer is a server for a handler of this package, with limits that a slow or silent client cannot stretch: 5 s for
// a request's header, 10 s for the whole of it, 20 s to take the answer, 2 min between requests. Requests that wait for
// the cluster, as a switchover does, lift them for themselves. What the server itself complains of, such as a failed
// handshake, is logged as debug; nil: discarded.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: bodyTime, WriteTimeout: bodyTime + answerTime,
		IdleTimeout: idleTime, MaxHeaderBytes: 16 << 10,
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	return s
}
