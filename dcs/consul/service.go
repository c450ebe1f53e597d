package consul

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// Service is what Consul's catalog tells of a member (Patroni's register_service, reference section 1.8), so that clients
// find the primary by DNS: primary.orders.service.consul.
type Service struct {
	// Scope and Member name the cluster and the member; the service's ID is <scope>/<member>, its name is the scope with
	// all that DNS does not take replaced.
	Scope, Member string

	// ConnURL is the URL of the server, "postgres://10.0.0.5:5432/postgres"; host and port are shown. APIURL is that of the
	// member's REST API, "http://10.0.0.5:8008/patroni"; its scheme and host are asked for the role by the health check.
	ConnURL, APIURL string

	// Role is primary, replica or standby_leader. The first becomes the tags primary and master, standby_leader the tag
	// standby-leader.
	Role string

	// Stopped says that the server does not run: then there is no entry.
	Stopped bool

	// Tags are shown beside that of the role.
	Tags []string

	// CheckInterval is the time between two health checks; 0 means 5 s. TLSServerName is the name that the check expects in
	// the API's certificate; empty means the host.
	CheckInterval time.Duration
	TLSServerName string

	// TTL is that of the cluster; an entry whose check fails for five times that long is removed by Consul. 0 means 30 s.
	TTL time.Duration
}

// Registrar keeps the entry of one member in the catalog of the agent that the Store uses. The daemon calls Update after
// every decision: it asks Consul for nothing as long as nothing changes. An agent that lost the entry (it left the cluster, or
// its data is gone) gets it again with the next change, or after Forget.
//
// It is for use beside the loop, and never in it: its calls go to the local agent, which may hang, and no safety depends on
// what the catalog says. It is safe for concurrent use.
type Registrar struct {
	store *Store

	mu   sync.Mutex
	last *Service // what the catalog has; nil: unknown
}

// NewRegistrar returns a Registrar that talks to the Store's Consul. Closing the Store ends its calls.
func NewRegistrar(s *Store) *Registrar { return &Registrar{store: s} }

// Forget makes the next Update write, whatever was written before.
func (r *Registrar) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = nil
}

// Update makes the entry as v says, if it is not so already. An error leaves what is there, and the next Update tries again.
// A role that has no entry, as of a member that is about to be cloned, is an error and changes nothing.
func (r *Registrar) Update(ctx context.Context, v Service) error {
	v.Tags = slices.Clone(v.Tags)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last != nil && reflect.DeepEqual(*r.last, v) {
		return nil
	}
	if v.Stopped {
		return r.remove(ctx, v)
	}
	entry, err := v.registration()
	if err != nil {
		return fmt.Errorf("consul: register_service: %w", err)
	}
	r.last = nil
	if err := r.call(ctx, func(agent *api.Agent, ctx context.Context) error {
		return agent.ServiceRegisterOpts(entry, api.ServiceRegisterOpts{}.WithContext(ctx))
	}); err != nil {
		return fmt.Errorf("consul: register_service: %w", err)
	}
	r.last = &v
	return nil
}

// Remove deletes the entry, as at a planned end of the member. One that is not there is no error.
func (r *Registrar) Remove(ctx context.Context, scope, member string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.remove(ctx, Service{Scope: scope, Member: member, Stopped: true})
}

func (r *Registrar) remove(ctx context.Context, v Service) error {
	r.last = nil
	id := v.Scope + "/" + v.Member
	err := r.call(ctx, func(agent *api.Agent, ctx context.Context) error {
		err := agent.ServiceDeregisterOpts(id, new(api.QueryOptions).WithContext(ctx))
		var said api.StatusError
		if errors.As(err, &said) && strings.Contains(said.Body, "Unknown service") {
			err = nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("consul: deregister the service: %w", err)
	}
	r.last = &v
	return nil
}

// call asks the agent. Twice is as good as once.
func (r *Registrar) call(ctx context.Context, do func(*api.Agent, context.Context) error) error {
	_, err := run(ctx, r.store, again, func(ctx context.Context, cl *api.Client) (struct{}, error) {
		return struct{}{}, do(cl.Agent(), ctx)
	})
	return err
}

// registration is v in Consul's words.
func (v Service) registration() (*api.AgentServiceRegistration, error) {
	switch v.Role {
	case "primary", "replica", "standby_leader":
	case "master":
		v.Role = "primary"
	default:
		return nil, fmt.Errorf("the role is %q; primary, replica and standby_leader have an entry", v.Role)
	}
	conn, err := url.Parse(v.ConnURL)
	if err != nil || conn.Hostname() == "" {
		return nil, errors.New("the URL of the server names no host") // it may contain a password
	}
	port := 5432
	if p := conn.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil {
			return nil, fmt.Errorf("the port of the server is %q", p)
		}
	}
	check, err := url.Parse(v.APIURL)
	if err != nil || check.Host == "" {
		return nil, fmt.Errorf("the API's URL is %q; want http://host:port/patroni", v.APIURL)
	}
	interval, ttl := v.CheckInterval, v.TTL
	if interval <= 0 {
		interval = 5 * time.Second
	}
	if ttl <= 0 {
		ttl = 30 * time.Second
	}
	tags := slices.Sorted(slices.Values(v.Tags))
	tags = append(tags, strings.ReplaceAll(v.Role, "_", "-"))
	if v.Role == "primary" {
		tags = append(tags, "master")
	}
	return &api.AgentServiceRegistration{
		ID: v.Scope + "/" + v.Member, Name: serviceName(v.Scope), Address: conn.Hostname(), Port: port, Tags: tags, EnableTagOverride: true,
		Check: &api.AgentServiceCheck{
			HTTP:     check.Scheme + "://" + check.Host + "/" + strings.ReplaceAll(v.Role, "_", "-"),
			Interval: interval.String(), DeregisterCriticalServiceAfter: (5 * ttl).String(), TLSServerName: v.TLSServerName,
		},
	}, nil
}

// serviceName is the scope in small letters, with '-' for '.', '_' and ' ', and uNNNN, the code point in decimal digits, for
// what else DNS does not take; 230 characters at most: 253 without "replica." and ".service.consul".
func serviceName(scope string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(scope) {
		switch {
		case r == '.' || r == '_' || r == ' ':
			b.WriteByte('-')
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "u%04d", r)
		}
	}
	name := b.String()
	return name[:min(len(name), 230)]
}
