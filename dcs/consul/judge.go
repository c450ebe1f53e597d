package consul

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/pgregent/dcs"
)

// verdict is what one attempt came to.
type verdict int

const (
	done    verdict = iota
	refused         // Consul has decided: nothing happened, and another endpoint would say the same
	failed          // nothing happened; another endpoint, or the same one later, may do it
	barred          // nothing happened, nor will it at this endpoint until somebody changes certificates or settings
	unknown         // it may have happened, or may still
)

// Errors of attempts that this package makes itself.
var (
	errNotConsul = errors.New("it does not speak Consul's HTTP API")
	errLater     = errors.New("nothing was done")  // the kind of what may be tried again
	errNever     = errors.New("Consul refuses it") // the kind of what is refused for another reason than the store's own kinds
)

// later is what may be tried again at once, at the same endpoint or another: the server has done nothing.
func later(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errLater}, args...)...)
}

// judge says what the error of an attempt means. sent is whether a server may have the request, status what it answered, 0
// when it did not. The error that it returns is one sentence where the cause is a setting, and of the kinds that dcs.Store
// names.
//
// A refusal must come from Consul itself, by its own words: what is between may say anything (hazard C1). When in doubt the
// outcome is unknown.
func judge(err error, sent bool, status int) (verdict, error) {
	switch {
	case err == nil:
		return done, nil
	case errors.Is(err, dcs.ErrConflict), errors.Is(err, dcs.ErrSessionLost), errors.Is(err, dcs.ErrMalformed), errors.Is(err, errNever):
		return refused, err
	case errors.Is(err, errLater):
		return failed, err
	case errors.Is(err, errNotConsul):
		return barred, err
	case refusesCertificate(err):
		return barred, fmt.Errorf("it refuses the client's certificate; check cert and key: %w", err)
	case !sent:
		why, setting := explain(err)
		if setting {
			return barred, why
		}
		return failed, why
	case status == 0, status == http.StatusOK, status == http.StatusConflict: // 200 and 409: the body was cut off
		return unknown, err
	}
	return judgeStatus(err, status)
}

// judgeStatus judges an answer that is an error.
func judgeStatus(err error, status int) (verdict, error) {
	text := err.Error()
	says := func(any ...string) bool {
		for _, part := range any {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
	switch {
	case status == http.StatusForbidden && (says("Permission denied", "ACL", "lacks permission") || text == "Unexpected response code: 403"): // which is all that the client tells of a renewal
		return refused, fmt.Errorf("the token lacks the rights to read and write below the prefix and to make sessions (set token): %w", err)
	case status == http.StatusRequestEntityTooLarge:
		return refused, fmt.Errorf("%w: %w", dcs.ErrTooLarge, err)
	case status == http.StatusBadRequest:
		if says("HTTP request to an HTTPS server") {
			return barred, fmt.Errorf("it wants TLS; use https: %w", err)
		}
		return refused, err
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed, status == http.StatusNotImplemented,
		status >= 300 && status < 400:
		return barred, fmt.Errorf("%w (status %d): %w", errNotConsul, status, err)
	case says("rate limit", "rate limiting"):
		return failed, err
	case status == http.StatusInternalServerError && says("No cluster leader", "node is not the leader", "rpc error getting client",
		"No known Consul servers"):
		// "No leader errors are always safe to retry since no state could have been changed": canRetry in agent/consul/rpc.go.
		// The others are said before anything is sent to the leader, or put into its log.
		return failed, err
	case says("No path to datacenter"):
		return barred, fmt.Errorf("check the datacenter (dc): %w", err)
	}
	return unknown, err
}

// refusesCertificate says that a server wants another certificate of the client, or one at all. With TLS 1.3 it says so only
// after the client has sent its request; it looks at the certificate before, and so has not performed it (RFC 8446 section 4.4.2.4).
func refusesCertificate(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate")
}

// explain makes one sentence of an error of a connection that was not made, where a setting is the cause.
func explain(err error) (why error, setting bool) {
	var invalid *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	switch {
	case errors.Is(err, errFiles):
		return err, true
	case errors.As(err, &invalid):
		return fmt.Errorf("its certificate is not trusted; check cacert and the name in the address: %w", err), true
	case errors.As(err, &header):
		return fmt.Errorf("it does not speak TLS; use http: %w", err), true
	}
	return err, false
}

// judgeTxn is why a transaction was rolled back. conds of its operations, the first ones, are conditions. Consul names every
// operation that failed, also those that failed because another one did: a failed condition comes first.
func judgeTxn(list api.TxnErrors, conds int) error {
	if len(list) == 0 {
		return later("the transaction was rolled back without a word")
	}
	var conflict, session, delay, other error
	for _, e := range list {
		if e == nil {
			continue
		}
		switch said := fmt.Errorf("%s", e.What); {
		case e.OpIndex < conds && conditionFailed(e.What):
			conflict = fmt.Errorf("%w: %w", dcs.ErrConflict, said)
		case strings.HasPrefix(e.What, "invalid session"), strings.HasPrefix(e.What, "missing session"):
			session = fmt.Errorf("%w: %w", dcs.ErrSessionLost, said)
		case strings.Contains(e.What, "due to lock delay"):
			delay = later("%w", said)
		case strings.Contains(e.What, "Permission denied"):
			other = fmt.Errorf("%w: the token lacks the rights to write below the prefix (set token): %w", errNever, said)
		default:
			other = fmt.Errorf("%w: %w", errNever, said)
		}
	}
	for _, err := range []error{conflict, session, other, delay} {
		if err != nil {
			return err
		}
	}
	return later("the transaction was rolled back without a word")
}

// conditionFailed knows Consul's words for check-index and check-not-exists (agent/consul/state/txn.go and kvs.go).
func conditionFailed(what string) bool {
	return strings.HasPrefix(what, "failed index check for key") || strings.HasPrefix(what, "failed to check index, key") ||
		strings.HasPrefix(what, "key ") && strings.HasSuffix(what, "exists")
}

// shortest is the server's session_ttl_min, out of its refusal of a shorter one:
// "Invalid Session TTL '10000000000', must be between [15s=24h0m0s]".
func shortest(err error) (time.Duration, bool) {
	m := ttlBounds.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, false
	}
	d, err := time.ParseDuration(m[1])
	return d, err == nil && d > 0 && d <= 24*time.Hour
}

var ttlBounds = regexp.MustCompile(`Invalid Session TTL '[^']*', must be between \[([0-9a-zµ.]{1,32})=`)
