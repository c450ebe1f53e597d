package etcd

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pgregent/pgregent/dcs"
)

// Every code that gRPC has, from somebody who is not etcd: what was sent may have happened, what was not has not.
func TestJudgeEveryCode(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		err := status.Error(code, "somebody says")
		want := unknown
		if code == codes.Unimplemented {
			want = barred
		}
		if v, why := judge(err, true); v != want || errors.Is(why, dcs.ErrConflict) || errors.Is(why, dcs.ErrSessionLost) {
			t.Errorf("%v, sent: verdict %d (%v), want %d", code, v, why, want)
		}
		want = failed
		if code == codes.ResourceExhausted {
			want = refused
		}
		if v, why := judge(err, false); v != want {
			t.Errorf("%v, not sent: verdict %d (%v), want %d", code, v, why, want)
		}
	}
}

// Every error that etcd has. Those not listed as definite must be unknown when the request was sent.
func TestJudgeEveryErrorOfEtcd(t *testing.T) {
	definite := map[error]verdict{
		rpctypes.ErrGRPCInvalidAuthToken: failed, rpctypes.ErrGRPCAuthOldRevision: failed,
		rpctypes.ErrGRPCRequestTooManyRequests: failed, rpctypes.ErrGRPCNotCapable: failed,
		rpctypes.ErrGRPCNotSupportedForLearner: failed,

		rpctypes.ErrGRPCLeaseNotFound: refused, rpctypes.ErrGRPCRequestTooLarge: refused, rpctypes.ErrGRPCTooManyOps: refused,
		rpctypes.ErrGRPCAuthFailed: refused, rpctypes.ErrGRPCUserEmpty: refused, rpctypes.ErrGRPCPermissionDenied: refused,
		rpctypes.ErrGRPCNoSpace: refused, rpctypes.ErrGRPCEmptyKey: refused, rpctypes.ErrGRPCDuplicateKey: refused,
		rpctypes.ErrGRPCLeaseTTLTooLarge: refused, rpctypes.ErrGRPCLeaseExist: refused, rpctypes.ErrGRPCCompacted: refused,
		rpctypes.ErrGRPCInvalidAuthMgmt: refused,
	}
	for err, want := range definite {
		for _, form := range []error{err, rpctypes.Error(err), fmt.Errorf("wrapped: %w", rpctypes.Error(err))} {
			if v, why := judge(form, true); v != want {
				t.Errorf("%v: verdict %d (%v), want %d", form, v, why, want)
			}
		}
	}
	for _, err := range []error{
		rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCLeaderChanged, rpctypes.ErrGRPCStopped, rpctypes.ErrGRPCTimeout,
		rpctypes.ErrGRPCTimeoutDueToLeaderFail, rpctypes.ErrGRPCTimeoutDueToConnectionLost, rpctypes.ErrGRPCTimeoutWaitAppliedIndex,
		rpctypes.ErrGRPCUnhealthy, rpctypes.ErrGRPCCorrupt, rpctypes.ErrGRPCCanceled, rpctypes.ErrGRPCDeadlineExceeded,
	} {
		for _, form := range []error{err, rpctypes.Error(err)} {
			if v, why := judge(form, true); v != unknown {
				t.Errorf("%v, sent: verdict %d (%v), want unknown", form, v, why)
			}
		}
		if v, why := judge(err, false); v != failed {
			t.Errorf("%v, not sent: verdict %d (%v), want failed", err, v, why)
		}
	}
}

func TestJudgeKinds(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind error
	}{
		{rpctypes.ErrGRPCLeaseNotFound, dcs.ErrSessionLost},
		{rpctypes.ErrGRPCRequestTooLarge, dcs.ErrTooLarge},
		{rpctypes.ErrGRPCTooManyOps, dcs.ErrTooLarge},
		{dcs.ErrConflict, dcs.ErrConflict},
		{dcs.ErrClosed, dcs.ErrClosed},
		{context.Canceled, context.Canceled},
	} {
		if _, why := judge(c.err, true); !errors.Is(why, c.kind) {
			t.Errorf("%v becomes %v, which is not of the kind %v", c.err, why, c.kind)
		}
	}
	// Missing rights are no loss of the session (hazard C11).
	for _, err := range []error{rpctypes.ErrGRPCPermissionDenied, rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCUserEmpty, rpctypes.ErrGRPCAuthFailed} {
		if _, why := judge(err, true); errors.Is(why, dcs.ErrSessionLost) {
			t.Errorf("%v becomes %v", err, why)
		}
	}
	// What something between client and server says is no refusal.
	for _, text := range []string{"etcdserver: requested lease not found, said the proxy", "lease not found"} {
		if v, _ := judge(status.Error(codes.NotFound, text), true); v != unknown {
			t.Errorf("%q: verdict %d, want unknown", text, v)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		text, want string
		setting    bool
	}{
		{`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`,
			"dial tcp 127.0.0.1:1: connect: connection refused", false},
		{`connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority"`,
			"the server's certificate is of an authority that is not trusted here; check cacert (tls: failed to verify certificate: x509: certificate signed by unknown authority)", true},
		{`connection error: desc = "error reading server preface: remote error: tls: certificate required"`,
			"the server asks for a client certificate; set cert and key (error reading server preface: remote error: tls: certificate required)", true},
		{`something "else"`, `something "else"`, false},
	} {
		why, setting := explain(status.Error(codes.Unavailable, c.text))
		if why.Error() != c.want || setting != c.setting {
			t.Errorf("%s\nbecomes  %s (a setting: %v)\nwant     %s (%v)", c.text, why, setting, c.want, c.setting)
		}
	}
}

func TestMannerOf(t *testing.T) {
	cond := func(key string, v dcs.Version) []dcs.Cond { return []dcs.Cond{{Key: key, Version: v}} }
	for _, c := range []struct {
		name string
		txn  dcs.Txn
		want manner
	}{
		{"a put", dcs.Txn{Then: []dcs.Op{dcs.Put("k", nil)}}, once},
		{"a put if absent", dcs.Txn{If: cond("k", dcs.Absent), Then: []dcs.Op{dcs.Put("k", nil)}}, once},
		{"a put if another key is at a version", dcs.Txn{If: cond("l", 7), Then: []dcs.Op{dcs.Put("k", nil)}}, once},
		{"a put at a version", dcs.Txn{If: cond("k", 7), Then: []dcs.Op{dcs.Put("k", nil)}}, fenced},
		{"a delete at a version", dcs.Txn{If: cond("k", 7), Then: []dcs.Op{dcs.Delete("k"), dcs.Put("l", nil)}}, fenced},
		{"nothing", dcs.Txn{If: cond("k", 7)}, again},
	} {
		if got := mannerOf(c.txn); got != c.want {
			t.Errorf("%s: manner %d, want %d", c.name, got, c.want)
		}
	}
}

func TestKnownBugs(t *testing.T) {
	for version, want := range map[string]int{
		"3.3.27": 3, "2.3.8": 3, "3.4.0": 3, "3.4.30": 3, "3.4.31": 2, "3.4.38": 1, "3.4.41": 1, "3.4.42": 0,
		"3.5.12": 3, "3.5.13": 2, "3.5.23": 1, "3.5.27": 1, "3.5.28": 0, "3.6.0": 2, "3.6.4": 2, "3.6.5": 1, "3.6.9": 0,
		"3.6.16": 0, "3.7.0": 0, "3.6.0-rc.1": 2, "4.0.0": 0, "": 0, "x": 0, "3.6": 0,
	} {
		if got := knownBugs(version); len(got) != want {
			t.Errorf("etcd %q: %d bugs (%q), want %d", version, len(got), got, want)
		}
	}
}

func TestSessionID(t *testing.T) {
	for _, lease := range []int64{1, 7587881234567890123, 1 << 62} {
		id := sessionID(lease)
		if len(id) != 16 {
			t.Errorf("the ID %q of %d has not 16 digits", id, lease)
		}
		if got, err := leaseID(id); err != nil || int64(got) != lease {
			t.Errorf("%q is lease %d (%v), want %d", id, got, err, lease)
		}
	}
	for _, id := range []string{"", "0", "0000000000000000", "xyz", "00000000000000001", "zzzzzzzzzzzzzzzz"} {
		if got, err := leaseID(id); err == nil {
			t.Errorf("%q is taken for lease %d", id, got)
		}
	}
}
