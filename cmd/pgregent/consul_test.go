package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/consul"
	"github.com/pgregent/pgregent/dcs/memory"
	"github.com/pgregent/pgregent/ha/cluster"
)

func TestConsulConfig(t *testing.T) {
	got, err := consulConfig(map[string]any{"host": "a", "port": "8600", "scheme": "https", "token": "t", "dc": "d", "cacert": "ca", "cert": "c", "key": "k",
		"verify": "off", "checks": []any{"x"}, "consistency": "stale"})
	require.NoError(t, err)
	require.Equal(t, consul.Config{Host: "a", Port: 8600, Scheme: "https", Token: "t", Datacenter: "d", CACert: "ca", Cert: "c", Key: "k",
		SkipVerify: true, Checks: []string{"x"}}, got)
	got, err = consulConfig(map[string]any{"url": "http://a:1"})
	require.NoError(t, err)
	require.Equal(t, consul.Config{URL: "http://a:1"}, got, "certificates are verified unless that is switched off")
	_, err = consulConfig(map[string]any{"port": "x"})
	require.ErrorContains(t, err, "port is x")

	for text, want := range map[any]time.Duration{"5s": 5 * time.Second, "7": 7 * time.Second, 7: 7 * time.Second, "1m": time.Minute, nil: 0} {
		v, err := consulService(map[string]any{"service_check_interval": text, "service_tags": "a", "service_check_tls_server_name": "n"})
		require.NoError(t, err)
		require.Equal(t, consul.Service{Tags: []string{"a"}, CheckInterval: want, TLSServerName: "n"}, v)
	}
	_, err = consulService(map[string]any{"service_check_interval": "soon"})
	require.ErrorContains(t, err, "service_check_interval")
}

// recorder is a registrar that fails as often as it is told to.
type recorder struct {
	fails   int
	forgets int
	calls   chan consul.Service
}

func (r *recorder) Forget() { r.forgets++ }

func (r *recorder) Update(_ context.Context, v consul.Service) error {
	r.calls <- v
	if r.fails > 0 {
		r.fails--
		return errors.New("no agent")
	}
	return nil
}

// The catalog hears of the member's own key, of the last value when it is slow, and of nothing else.
func TestCatalog(t *testing.T) {
	r := &recorder{calls: make(chan consul.Service)}
	c := newCatalog(memory.NewServer(dcs.ProcessClock()).Open("/service/x"), r, consul.Service{Scope: "x", Member: "pg1"}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	put := func(key string, m cluster.Member) {
		t.Helper()
		_, err := c.Commit(ctx, dcs.Txn{Then: []dcs.Op{dcs.Put(key, cluster.EncodeMember(m))}})
		require.NoError(t, err)
	}
	_, err := c.OpenSession(ctx, 8*time.Second)
	require.NoError(t, err)
	m := cluster.Member{ConnURL: "postgres://h:1/postgres", APIURL: "http://h:2/patroni", Role: cluster.RoleReplica, State: "starting"}
	put("members/pg1", m)
	put("members/pg2", m)
	m.State = cluster.StateRunning
	put("members/pg1", m)
	want := consul.Service{Scope: "x", Member: "pg1", ConnURL: m.ConnURL, APIURL: m.APIURL, Role: "replica", TTL: 8 * time.Second}
	require.Equal(t, want, <-r.calls)
	for range 3 {
		put("members/pg1", m)
	}
	m.State = cluster.StateStopped
	put("members/pg1", m)
	got := <-r.calls
	for !got.Stopped {
		got = <-r.calls
	}
	require.Equal(t, "replica", got.Role)
	_, err = c.Commit(ctx, dcs.Txn{If: []dcs.Cond{{Key: "members/pg1"}}, Then: []dcs.Op{dcs.Put("members/pg1", cluster.EncodeMember(m))}})
	require.ErrorIs(t, err, dcs.ErrConflict)
	require.NoError(t, c.Close())
	select {
	case v := <-r.calls:
		t.Errorf("a Commit that was refused was told: %+v", v)
	default:
	}
}

// A new session may mean that the agent is another, or has lost its data: the entry is written whatever was written before.
func TestCatalogAfterLostSession(t *testing.T) {
	r := &recorder{calls: make(chan consul.Service)}
	c := newCatalog(memory.NewServer(dcs.ProcessClock()).Open("/service/x"), r, consul.Service{Scope: "x", Member: "pg1"}, slog.New(slog.DiscardHandler))
	value := cluster.EncodeMember(cluster.Member{ConnURL: "postgres://h:1/postgres", APIURL: "http://h:2/patroni", Role: cluster.RoleReplica, State: cluster.StateRunning})
	for i, opens := range []bool{true, false, true, false} {
		if opens {
			_, err := c.OpenSession(t.Context(), 8*time.Second)
			require.NoError(t, err)
		}
		_, err := c.Commit(t.Context(), dcs.Txn{Then: []dcs.Op{dcs.Put("members/pg1", value)}})
		require.NoError(t, err)
		<-r.calls
		require.Equal(t, i/2+1, r.forgets)
	}
	require.NoError(t, c.Close())
}
