package etcd

import (
	"context"
	"errors"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/credentials"
)

// tokens keeps the token that stands for user and password. Every member takes the same one. The etcd client could do
// this, but asks for a new token, an expensive request, for each stream, and a renewal is a stream.
type tokens struct {
	user, password string

	asking chan struct{} // holds one value while somebody asks for a new one

	mu    sync.Mutex
	token string
	asked int // how many answers there were
}

var _ credentials.PerRPCCredentials = (*tokens)(nil)

func newTokens(user, password string) *tokens {
	return &tokens{user: user, password: password, asking: make(chan struct{}, 1)}
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t *tokens) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == "" {
		return nil, nil
	}
	return map[string]string{rpctypes.TokenFieldNameGRPC: t.token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. Whether to use TLS is for the configuration to say.
func (t *tokens) RequireTransportSecurity() bool { return false }

// generation counts the answers to a request for a token; 0 means that there was none yet.
func (t *tokens) generation() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.asked
}

// renew gets a new token from the endpoint behind cl, unless somebody else got one since the generation known. When
// authentication is off, no token is needed.
func (t *tokens) renew(ctx context.Context, cl *clientv3.Client, known int) error {
	if t.user == "" {
		return nil
	}
	select {
	case t.asking <- struct{}{}:
		defer func() { <-t.asking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if t.generation() != known {
		return nil
	}
	resp, err := cl.Authenticate(ctx, t.user, t.password)
	if err != nil && !errors.Is(err, rpctypes.ErrAuthNotEnabled) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked++
	t.token = ""
	if err == nil {
		t.token = resp.Token
	}
	return nil
}

// tokenRefused says that the server did nothing because it wants another token.
func tokenRefused(err error) bool {
	err = rpctypes.Error(err)
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}
