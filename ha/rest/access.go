package rest

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
)

// refusal is an answer that changes nothing.
type refusal struct {
	code int
	text string
}

// access says who may do what.
type access struct {
	users        []user
	certificates map[string]Role
	protect      bool
	clientCert   bool
	allow        []netip.Prefix
	restricted   bool // allow counts, also when nothing in it could be resolved
	allowMembers bool
}

// user is a Credential without its password.
type user struct {
	name, password [sha256.Size]byte
	shown          string
	role           Role
}

// caller is who sent a request, as far as it is proved.
type caller struct {
	name string // empty: nobody in particular
	cert string // common name of a verified client certificate
	role Role
}

func newAccess(ctx context.Context, o Options, log *slog.Logger) access {
	c := access{certificates: o.Certificates, protect: o.ProtectReads, clientCert: o.ClientCert, allowMembers: o.AllowMembers,
		restricted: len(o.Allow) > 0, allow: resolveAll(ctx, o.Allow, log)}
	users := o.Credentials
	if o.Username != "" {
		users = append([]Credential{{o.Username, o.Password, RoleAdmin}}, users...)
	}
	for _, u := range users {
		c.users = append(c.users, user{sha256.Sum256([]byte(u.Name)), sha256.Sum256([]byte(u.Password)), u.Name, u.Role})
	}
	return c
}

// open says that nobody has to prove who they are.
func (c *access) open() bool { return len(c.users) == 0 && len(c.certificates) == 0 }

// identify finds out who sent a request. known is false when credentials came that no user has.
func (c *access) identify(req *http.Request) (who caller, known bool) {
	if req.TLS != nil && len(req.TLS.VerifiedChains) > 0 {
		who.cert = req.TLS.VerifiedChains[0][0].Subject.CommonName
		who.role = c.certificates[who.cert]
		who.name = who.cert
	}
	if c.open() {
		who.role = RoleAdmin
		return who, true
	}
	name, password, ok := req.BasicAuth()
	if !ok {
		return who, req.Header.Get("Authorization") == "" || len(c.users) == 0
	}
	known = len(c.users) == 0
	n, p := sha256.Sum256([]byte(name)), sha256.Sum256([]byte(password))
	for _, u := range c.users { // all of them: the time tells nothing
		if subtle.ConstantTimeCompare(n[:], u.name[:])&subtle.ConstantTimeCompare(p[:], u.password[:]) == 1 {
			who.name, who.role, known = u.shown, max(who.role, u.role), true
		}
	}
	return who, known
}

// admit is the access control in front of everything that changes something (reference section 2.2): the allow list,
// the client certificate, then who it is and what they may do.
func (s *settings) admit(a *API, x *exchange) *refusal {
	if s.restricted || s.allowMembers && !x.end.member {
		if !s.allowed(x.req.RemoteAddr) && !(s.allowMembers && a.members.has(x.req.Context(), x.req.RemoteAddr, x.report)) {
			return &refusal{http.StatusForbidden, "Access is denied"}
		}
	}
	if s.clientCert && (x.req.TLS == nil || len(x.req.TLS.VerifiedChains) == 0) {
		return &refusal{http.StatusForbidden, "client certificate required"}
	}
	return s.authenticate(x, x.end.Role)
}

// authenticate asks for a role.
func (s *settings) authenticate(x *exchange, need Role) *refusal {
	who, known := s.identify(x.req)
	x.who = who
	challenge := func(text string) *refusal {
		x.w.Header().Set("WWW-Authenticate", `Basic realm="Patroni"`)
		return &refusal{http.StatusUnauthorized, text}
	}
	switch {
	case !known:
		x.who = caller{cert: who.cert}
		return challenge("not authenticated")
	case who.role >= need:
		return nil
	case who.role == RoleNone && len(s.users) > 0:
		return challenge("no auth header received")
	case who.role == RoleNone:
		return &refusal{http.StatusForbidden, "the client certificate has no role here"}
	}
	return &refusal{http.StatusForbidden, fmt.Sprintf("the role %s is needed, %s is not enough", need, who.role)}
}
