package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/consul"
	"github.com/pgregent/pgregent/ha/cluster"
)

// openConsul opens the store. Of a daemon (with a name) whose file says register_service, the store also keeps the member's
// entry in the catalog.
func openConsul(ctx context.Context, c *config.Config, prefix string, log *slog.Logger) (dcs.Store, error) {
	section := c.Section("consul")
	k, err := consulConfig(section)
	if err != nil {
		return nil, err
	}
	k.Prefix, k.Logger, k.SessionName = prefix, log, c.Scope+"-"+c.Name
	store, err := consul.Open(ctx, k)
	if err != nil {
		return nil, err
	}
	if c.PostgreSQL.DataDir == "" || !cluster.ParseBool(section["register_service"]) {
		return store, nil
	}
	entry, err := consulService(section)
	if err != nil {
		_ = store.Close()
		return nil, err
	}
	entry.Scope, entry.Member = c.Scope, c.Name
	return newCatalog(store, consul.NewRegistrar(store), entry, log), nil
}

// consulConfig reads the section consul (reference section 4.2), whose types were checked. The setting consistency has no
// effect: reads are always consistent.
func consulConfig(s map[string]any) (consul.Config, error) {
	text := func(key string) string {
		if s[key] == nil {
			return ""
		}
		return fmt.Sprint(s[key])
	}
	port, err := number(s, "port")
	return consul.Config{
		Host: text("host"), URL: text("url"), Port: port, Scheme: text("scheme"), Token: text("token"), Datacenter: text("dc"),
		CACert: text("cacert"), Cert: text("cert"), Key: text("key"), SkipVerify: s["verify"] != nil && !cluster.ParseBool(s["verify"]),
		Checks: hostList(s["checks"]),
	}, err
}

// consulService reads what the section says of the catalog.
func consulService(s map[string]any) (consul.Service, error) {
	v := consul.Service{Tags: hostList(s["service_tags"])}
	if s["service_check_tls_server_name"] != nil {
		v.TLSServerName = fmt.Sprint(s["service_check_tls_server_name"])
	}
	if s["service_check_interval"] != nil {
		text := strings.TrimSpace(fmt.Sprint(s["service_check_interval"]))
		if strings.Trim(text, "0123456789") == "" {
			text += "s"
		}
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return v, fmt.Errorf("service_check_interval is %q, expected a time such as 5s", text)
		}
		v.CheckInterval = d
	}
	return v, nil
}

// catalogRetry is how long after an error the catalog is written again; catalogLimit is how long one attempt may take, and
// catalogLast the one at the end, when the server was stopped a moment ago.
const (
	catalogRetry = 10 * time.Second
	catalogLimit = 3 * time.Second
	catalogLast  = time.Second
)

// registrar is consul.Registrar.
type registrar interface {
	Update(ctx context.Context, v consul.Service) error
	Forget()
}

// catalog is a Store that tells Consul's catalog of every change of the member's own key, beside the loop: what it says may be
// late and may fail, and no call of the loop waits for it.
type catalog struct {
	dcs.Store
	registrar registrar
	entry     consul.Service // what does not change
	log       *slog.Logger

	ttl    atomic.Int64 // of the last session, in nanoseconds
	anew   atomic.Bool  // what the catalog has is not known any more
	news   chan consul.Service
	cancel context.CancelFunc
	done   chan struct{}
}

func newCatalog(s dcs.Store, r registrar, entry consul.Service, log *slog.Logger) *catalog {
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // ends with Close
	c := &catalog{Store: s, registrar: r, entry: entry, log: log, news: make(chan consul.Service, 1), cancel: cancel, done: make(chan struct{})}
	go c.run(ctx)
	return c
}

// OpenSession implements dcs.Store, and notes the ttl. What ended the last session may have ended the entry, too: an agent
// that was replaced, or lost its data. The member's key, which follows, is told in any case.
func (c *catalog) OpenSession(ctx context.Context, ttl time.Duration) (dcs.Session, error) {
	c.ttl.Store(int64(ttl))
	c.anew.Store(true)
	return c.Store.OpenSession(ctx, ttl)
}

// Commit implements dcs.Store, and looks for the member's key.
func (c *catalog) Commit(ctx context.Context, txn dcs.Txn) (dcs.Result, error) {
	result, err := c.Store.Commit(ctx, txn)
	if err == nil {
		for _, o := range txn.Then {
			if o.Key == cluster.MembersPrefix+c.entry.Member && !o.Delete {
				c.tell(o.Value)
			}
		}
	}
	return result, err
}

// tell hands over what the key says now. A server that is on its way to another state keeps its entry.
func (c *catalog) tell(value []byte) {
	all := cluster.Decode([]cluster.Item{{Key: cluster.MembersPrefix + c.entry.Member, Value: value}}).Members
	if len(all) != 1 || all[0].Err != nil {
		return
	}
	m, v := all[0], c.entry
	v.ConnURL, v.APIURL, v.Role, v.Stopped, v.TTL = m.ConnURL, m.APIURL, m.Role, m.State == cluster.StateStopped, time.Duration(c.ttl.Load())
	if !v.Stopped && (m.State != cluster.StateRunning || !slices.Contains([]string{cluster.RolePrimary, cluster.RoleReplica, cluster.RoleStandbyLeader}, m.Role)) {
		return
	}
	for {
		select {
		case c.news <- v:
			return
		default:
		}
		select {
		case <-c.news: // overtaken
		default:
		}
	}
}

// run writes the catalog until Close, and then what it was told last.
func (c *catalog) run(ctx context.Context) {
	defer close(c.done)
	retry := time.NewTimer(0)
	defer retry.Stop()
	<-retry.C
	var want *consul.Service
	for {
		select {
		case <-ctx.Done():
			select {
			case v := <-c.news:
				c.write(context.WithoutCancel(ctx), v, catalogLast)
			default:
			}
			return
		case v := <-c.news:
			want = &v
		case <-retry.C:
		}
		if err := c.write(context.WithoutCancel(ctx), *want, catalogLimit); err != nil {
			retry.Reset(catalogRetry)
		}
	}
}

func (c *catalog) write(ctx context.Context, v consul.Service, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if c.anew.Swap(false) {
		c.registrar.Forget()
	}
	err := c.registrar.Update(ctx, v)
	if err != nil {
		c.log.Warn("the catalog was not told of this member", "role", v.Role, "stopped", v.Stopped, "error", err)
	}
	return err
}

// Close implements dcs.Store. It waits for the catalog, for seconds at most.
func (c *catalog) Close() error {
	c.cancel()
	<-c.done
	return c.Store.Close()
}
