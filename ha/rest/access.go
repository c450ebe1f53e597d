package rest

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// allowed is the access control in front of everything that changes something (reference section 2.2).
func (h *handler) allowed(w http.ResponseWriter, req *http.Request) bool {
	if h.o.ClientCert && (req.TLS == nil || len(req.TLS.VerifiedChains) == 0) {
		writeText(w, http.StatusForbidden, "client certificate required")
		return false
	}
	if h.o.Username == "" {
		return true
	}
	user, password, ok := req.BasicAuth()
	if ok && same(user, h.o.Username) && same(password, h.o.Password) {
		return true
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="Patroni"`)
	if !ok {
		writeText(w, http.StatusUnauthorized, "no auth header received")
	} else {
		writeText(w, http.StatusUnauthorized, "not authenticated")
	}
	return false
}

// same compares in a time that tells nothing, neither content nor length.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

var errBody = errors.New("the body is no JSON object")

// body reads a request's JSON object strictly: bounded, an object, nothing behind it.
func body(req *http.Request) (map[string]any, error) {
	b, err := io.ReadAll(io.LimitReader(req.Body, maxRequest+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxRequest {
		return nil, errors.New("the body is larger than 64 kB")
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil || len(m) == 0 {
		return nil, errBody
	}
	return m, nil
}
