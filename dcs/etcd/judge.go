package etcd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pgregent/pgregent/dcs"
)

// verdict is what one attempt came to.
type verdict int

const (
	done    verdict = iota
	refused         // the cluster has decided: nothing happened, and another endpoint would say the same
	failed          // nothing happened; another endpoint, or the same one later, may do it
	barred          // nothing happened, nor will it at this endpoint until somebody changes certificates or settings
	unknown         // it may have happened, or may still
)

// judge says what the error of an attempt means. sent is whether the server may have the request. The error that it
// returns is one sentence where the cause is a setting, and of the kinds that dcs.Store names.
//
// A refusal must come from etcd itself, by its own words: what is between may say anything (hazard C1). When in doubt the
// outcome is unknown.
func judge(err error, sent bool) (verdict, error) {
	switch {
	case err == nil:
		return done, nil
	case errors.Is(err, dcs.ErrConflict), errors.Is(err, dcs.ErrSessionLost), errors.Is(err, dcs.ErrMalformed):
		return refused, err
	case errors.Is(err, dcs.ErrClosed):
		return failed, err
	}
	var foreign *foreignError
	if errors.As(err, &foreign) && !sent {
		return barred, err
	}
	var said rpctypes.EtcdError
	if errors.As(rpctypes.Error(err), &said) {
		return judgeEtcd(said, sent)
	}
	if !sent {
		if status.Code(err) == codes.ResourceExhausted { // by this side: above the limit for a message
			return refused, fmt.Errorf("%w: %w", dcs.ErrTooLarge, err)
		}
		why, setting := explain(err)
		if setting {
			return barred, why
		}
		return failed, why
	}
	if status.Code(err) == codes.Unimplemented {
		return barred, fmt.Errorf("it does not speak the API of etcd v3 (is it a proxy?): %w", err)
	}
	return unknown, err
}

// judgeEtcd judges what etcd itself said.
func judgeEtcd(said rpctypes.EtcdError, sent bool) (verdict, error) {
	switch {
	case errors.Is(said, rpctypes.ErrLeaseNotFound):
		return refused, dcs.ErrSessionLost
	case errors.Is(said, rpctypes.ErrRequestTooLarge), errors.Is(said, rpctypes.ErrTooManyOps):
		return refused, fmt.Errorf("%w: %w", dcs.ErrTooLarge, said)
	case errors.Is(said, rpctypes.ErrAuthFailed):
		return refused, fmt.Errorf("etcd does not know the user with this password; check username and password: %w", said)
	case errors.Is(said, rpctypes.ErrUserEmpty):
		return refused, fmt.Errorf("etcd asks who this is; set username and password: %w", said)
	case errors.Is(said, rpctypes.ErrPermissionDenied):
		return refused, fmt.Errorf("the etcd user lacks a role that may read and write below the prefix: %w", said)
	case errors.Is(said, rpctypes.ErrNoSpace):
		return refused, fmt.Errorf("etcd is full and takes no writes; compact and defragment it, then disarm the alarm: %w", said)
	case errors.Is(said, rpctypes.ErrInvalidAuthToken), errors.Is(said, rpctypes.ErrAuthOldRevision), // a member that is behind
		errors.Is(said, rpctypes.ErrTooManyRequests), errors.Is(said, rpctypes.ErrNotCapable),
		said.Error() == rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner):
		return failed, said
	}
	switch said.Code() {
	case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.OutOfRange, codes.PermissionDenied, codes.Unauthenticated:
		return refused, said // checked before anything was done
	}
	if !sent {
		return failed, said
	}
	return unknown, said
}

// explain turns an error of making a connection into a sentence that says what to do, and whether it takes a change of
// certificates or settings. gRPC hands on the words only.
func explain(err error) (why error, setting bool) {
	text := plain(err)
	for _, c := range [...]struct{ word, means string }{
		{"x509: certificate signed by unknown authority", "the server's certificate is of an authority that is not trusted here; check cacert"},
		{"x509: certificate has expired or is not yet valid", "the server's certificate has expired or is not valid yet; renew it, or set the clock"},
		{"x509: certificate is valid for", "the server's certificate is for another name; use a host that it names"},
		{"x509: cannot validate certificate for", "the server's certificate does not name this address; use a host that it names"},
		{"x509: certificate is not valid for any names", "the server's certificate does not name this host; use one that it names"},
		{"x509: certificate relies on legacy Common Name", "the server's certificate names a host only in its common name; renew it with a subject alternative name"},
		{"x509:", "the server's certificate is not accepted"},
		{"tls: certificate required", "the server asks for a client certificate; set cert and key"},
		{"tls: bad certificate", "the server does not accept the client certificate; check cert and key"},
		{"tls: unknown certificate authority", "the server does not trust the authority of the client certificate; check cert"},
		{"tls: expired certificate", "the client certificate has expired; renew cert"},
		{"tls: first record does not look like a TLS handshake", "the server does not use TLS; set protocol to http"},
		{"looked like an HTTP/1.1 header", "the server, or a proxy before it, speaks HTTP/1 only and passes no gRPC on; use etcd itself, or a proxy for TCP or gRPC"},
	} {
		if strings.Contains(text, c.word) {
			return &connectError{c.means + " (" + text + ")", err}, true
		}
	}
	switch { // etcd hangs up on what it does not understand, but a server that is going down does so, too
	case text == "EOF":
		text = "the server hung up in the TLS handshake (EOF); if it does not use TLS, set protocol to http"
	case text == "error reading server preface: EOF", strings.Contains(text, "broken pipe"), strings.Contains(text, "connection reset"):
		text = "the server hung up (" + text + "); if it uses TLS, set protocol to https, and check cert and key"
	}
	return &connectError{text, err}, errors.Is(err, errFiles)
}

// connectError is an error with better words.
type connectError struct {
	words string
	err   error
}

// Error implements error.
func (e *connectError) Error() string { return e.words }

// Unwrap is for errors.Is and errors.As.
func (e *connectError) Unwrap() error { return e.err }

// plain is what went wrong, without the layers of gRPC around it.
func plain(err error) string {
	text := status.Convert(err).Message()
	if rest, ok := strings.CutPrefix(text, "connection error: desc = "); ok {
		text = rest
		if inner, err := strconv.Unquote(rest); err == nil {
			text = inner
		}
	}
	for _, layer := range [...]string{"transport: Error while dialing: ", "transport: authentication handshake failed: "} {
		text = strings.TrimPrefix(text, layer)
	}
	return text
}
