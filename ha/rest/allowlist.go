package rest

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

// resolveAll turns an allow list into networks. What is neither a network nor an address is a host name, resolved now.
func resolveAll(ctx context.Context, entries []string, log *slog.Logger) []netip.Prefix {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var out []netip.Prefix
	for _, e := range entries {
		if p, err := netip.ParsePrefix(e); err == nil {
			out = append(out, p.Masked())
			continue
		}
		found, err := resolve(ctx, e)
		if err != nil {
			log.Error("an entry of restapi.allowlist cannot be resolved and lets nobody in", "entry", e, "error", err)
		}
		out = append(out, found...)
	}
	return out
}

// resolve returns the addresses of a host as networks of one.
func resolve(ctx context.Context, host string) ([]netip.Prefix, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Prefix{single(a)}, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	var out []netip.Prefix
	for _, a := range addrs {
		out = append(out, single(a))
	}
	return out, err
}

func single(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}

// clientAddr is the address in a request's RemoteAddr.
func clientAddr(remote string) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(remote)
	return ap.Addr().Unmap().WithZone(""), err == nil
}

func contains(networks []netip.Prefix, a netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (c *access) allowed(remote string) bool {
	a, ok := clientAddr(remote)
	return ok && contains(c.allow, a)
}

// memberHosts knows the addresses of the members' REST APIs. Host names are resolved when somebody asks, and kept for a
// minute.
type memberHosts struct {
	mu    sync.Mutex
	known map[string]memberHost
}

type memberHost struct {
	networks []netip.Prefix
	until    time.Time
}

// memberHostTime is how long a resolved name, or its failure, is believed.
const memberHostTime = time.Minute

func (m *memberHosts) has(ctx context.Context, remote string, r *Report) bool {
	a, ok := clientAddr(remote)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, member := range r.Cluster.Known(true) {
		u, err := url.Parse(member.APIURL)
		if err != nil || u.Hostname() == "" {
			continue
		}
		if contains(m.of(ctx, u.Hostname()), a) {
			return true
		}
	}
	return false
}

func (m *memberHosts) of(ctx context.Context, host string) []netip.Prefix {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Prefix{single(a)}
	}
	m.mu.Lock()
	h, ok := m.known[host]
	m.mu.Unlock()
	if ok && time.Now().Before(h.until) {
		return h.networks
	}
	found, err := resolve(ctx, host)
	if err != nil {
		found = h.networks // rather the last than none: names may be gone with the store, when members need each other
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) > 1000 {
		m.known = map[string]memberHost{}
	}
	m.known[host] = memberHost{found, time.Now().Add(memberHostTime)}
	return found
}
