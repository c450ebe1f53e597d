package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	discoverEvery = 5 * time.Minute
	discoverLimit = 10 * time.Second
)

// discoverSometimes asks for the members after a call that succeeded, when that was long ago. An idle Store asks nothing.
func (s *Store) discoverSometimes() {
	if s.config.UseProxies {
		return
	}
	now, last := int64(time.Since(s.started)), s.discovered.Load()
	if now-last < int64(discoverEvery) || !s.discovered.CompareAndSwap(last, now) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(s.ctx, discoverLimit)
		defer cancel()
		if err := s.discover(ctx); err != nil && s.ctx.Err() == nil {
			s.config.Logger.InfoContext(ctx, "etcd: the members cannot be listed", slog.Any("error", err))
		}
	}()
}

// discover adds the client URLs of the members to the endpoints. Those that nobody else can reach do no harm, because the
// given ones stay before them.
func (s *Store) discover(ctx context.Context) error {
	urls, err := run(ctx, s, reading, func(ctx context.Context, _ *endpoint, cl *clientv3.Client) ([]string, error) {
		resp, err := cl.MemberList(ctx)
		if err != nil {
			return nil, err
		}
		var urls []string
		for _, m := range resp.Members {
			if m.Name != "" && !m.IsLearner { // a member without a name has not started yet
				urls = append(urls, m.ClientURLs...)
			}
		}
		return urls, nil
	})
	if err != nil {
		return err
	}
	probe := Config{} // brings URLs into the form of the others
	for _, u := range urls {
		if err := probe.addEndpoint(u); err != nil {
			s.config.Logger.InfoContext(ctx, "etcd: a member advertises what cannot be used", slog.Any("error", err))
		}
	}
	s.pool.members(probe.Endpoints)
	return nil
}

// Warnings asks each endpoint for its version and returns a sentence for each that has a bug which matters here
// (hazards A7, A8, A13). The lease protocol does not depend on the server's leases, so such a server is no reason to stop;
// with Patroni members in the cluster, which do, it is a reason to upgrade. Endpoints that do not answer are left out.
func (s *Store) Warnings(ctx context.Context) []string {
	list := s.pool.list()
	found := make([]string, len(list))
	var asked sync.WaitGroup
	for i, e := range list {
		asked.Go(func() { found[i] = e.warning(ctx) })
	}
	asked.Wait()
	var all []string
	for _, w := range found {
		if w != "" {
			all = append(all, w)
		}
	}
	return all
}

// warning is what is known of the version of the member at an endpoint; empty when that is nothing, or it does not say.
func (e *endpoint) warning(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	cl, _, err := e.connect()
	if err != nil {
		return ""
	}
	resp, err := pb.NewMaintenanceClient(cl.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		if first, _ := e.pool.first(); first != e {
			e.drop(cl) // or gRPC would go on trying to connect
		}
		return ""
	}
	if bugs := knownBugs(resp.Version); len(bugs) > 0 {
		return fmt.Sprintf("%s runs etcd %s, which %s; upgrade it to the newest 3.5 or 3.6", e.url, resp.Version, strings.Join(bugs, ", and "))
	}
	return ""
}

// knownBugs are those of a version, from hazards A7, A8 and A13: the first patch release of 3.4, 3.5 and 3.6 without it.
func knownBugs(version string) []string {
	major, minor, patch, ok := parseVersion(version)
	if !ok {
		return nil
	}
	var found []string
	for _, bug := range [...]struct {
		fixed [3]int
		what  string
	}{
		{[3]int{31, 13, 0}, "lets a former leader that is stuck on its disk revoke leases that live (etcd issue 15247)"},
		{[3]int{38, 23, 5}, "may answer that a lease was renewed which was revoked (etcd pull request 20590)"},
		{[3]int{42, 28, 9}, "may answer with old data after it was paused (etcd issue 20418)"},
	} {
		if major < 3 || major == 3 && (minor < 4 || minor <= 6 && patch < bug.fixed[minor-4]) {
			found = append(found, bug.what)
		}
	}
	return found
}

func parseVersion(text string) (major, minor, patch int, ok bool) {
	text, _, _ = strings.Cut(text, "-")
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return 0, 0, 0, false
	}
	var n [3]int
	for i, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil {
			return 0, 0, 0, false
		}
		n[i] = v
	}
	return n[0], n[1], n[2], true
}
