// Package ha runs one member of a highly available PostgreSQL cluster: Node looks at the store, its PostgreSQL and its
// peers, lets package policy decide, and acts.
//
// One goroutine decides. It waits for nothing but store calls; PostgreSQL and the peers are observed beside it, and
// long work (a base backup, a start, a promotion) is a task that it watches and can cancel. Only this goroutine renews
// the lease, so a hung loop loses it (hazard A2).
//
// The package contains no rule about who may lead: that is policy. It contains no lease arithmetic: that is dcs.Lease.
// It never forks or kills a postmaster: the guard (package fence) does.
package ha

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
)

// Config is what a Node is made of. Name, Store and Postgres are required.
type Config struct {
	// Name is this member's name: unique in the cluster, without a slash.
	Name string
	// Scope is the cluster's name, for the REST API and the callbacks.
	Scope string
	// APIURL is where the other members reach this node's REST API: http(s)://host:port/patroni. Without it the node
	// can lead, but no other node can ask it, so it loses every election that another can win.
	APIURL string
	// ConnURL is where clients and replicas reach this PostgreSQL: postgres://host:port/postgres. Empty: the
	// Controller is asked, when it has a method ConnURL() string.
	ConnURL string
	// ProxyURL is published for discovery only.
	ProxyURL string

	Store    dcs.Store
	Postgres postgres.Controller

	// StateDir holds what must survive a restart and does not belong into the data directory: the guard's socket,
	// the promotions this node knows. Empty: the Controller is asked, when it has a method StateDir() string.
	StateDir string
	// GuardProgram starts the guard; nil re-executes this program, whose main must begin with fence.Main().
	GuardProgram []string
	// Fence are the guard's optional rungs. DataDir is filled in from the Controller, when it has a method DataDir() string.
	Fence fence.Options
	// FenceRequired refuses to lead when the guard cannot promise that a primary ends by its deadline.
	FenceRequired bool
	// Guard replaces the guard, in tests. nil: a guard in StateDir.
	Guard Guard

	// Peers asks other members; nil: a client without credentials.
	Peers Peers

	Callbacks []callbacks.Callback
	// Scripts run before a promotion and before an orderly stop; nil: none, and a dynamic configuration that names
	// one keeps this node from leading.
	Scripts Scripts
	// Tags are this member's tags (reference section 4.8).
	Tags cluster.Tags

	// NoBootstrap keeps this node from creating a new cluster.
	NoBootstrap bool
	// Bootstrap is the dynamic configuration that a new cluster gets. Missing ttl, loop_wait and retry_timeout become
	// 8, 2 and 3 (design section 4).
	Bootstrap map[string]any
	// Local is the local part of PostgreSQL's settings; it wins over the dynamic configuration (reference section 4.1).
	Local postgres.Settings

	// StopTimeout bounds the orderly end after Run's context ended; 0: one minute.
	StopTimeout time.Duration
	// OnReload is called by the loop when Reload was asked for; it returns the new local settings. nil: nothing
	// reloads.
	OnReload func() (Reloaded, error)
	// Ready is called once, when the loop turns for the first time. nil: nobody is told.
	Ready func()

	Clock   dcs.Clock    // nil: CLOCK_BOOTTIME
	Log     *slog.Logger // nil: discard
	Version string       // our own version, published; empty: "dev"
}

// Reloaded is what can change without a restart of the process.
type Reloaded struct {
	Tags  cluster.Tags
	Local postgres.Settings
}

// Guard is what the loop needs of the guard; *fence.Guard is one.
type Guard interface {
	// State asks how things stand.
	State(ctx context.Context) (fence.State, error)
	// Start starts a postmaster; as primary only under the open epoch (rule R7).
	Start(ctx context.Context, req fence.StartRequest) (pid int, err error)
	// Stop stops it, and returns when nothing of it is left.
	Stop(ctx context.Context, mode fence.Mode) error
	// Adopt puts the guard in charge of a postmaster that it did not start.
	Adopt(ctx context.Context, pid int) error
	// OpenEpoch opens an epoch with its first deadline on CLOCK_BOOTTIME.
	OpenEpoch(ctx context.Context, t fence.Term) error
	// Extend moves the open epoch's deadline, either way.
	Extend(ctx context.Context, t fence.Term) error
	// Retire ends the primary of the epoch in order and closes the epoch as soon as there is a proof (rule R8).
	Retire(ctx context.Context, epoch uint64) (fence.Proof, error)
	// CloseEpoch closes the epoch for ever, ending what runs under it (rule R8).
	CloseEpoch(ctx context.Context, epoch uint64) error
	// AllowPromote lets the running replica become primary under the epoch.
	AllowPromote(ctx context.Context, epoch uint64) error
	// Events are pushed at once; the channel ends with the guard.
	Events() <-chan fence.Event
	// Close leaves the guard, which goes on guarding.
	Close() error
}

// Peers asks other members; *rest.Client is one.
type Peers interface {
	// Post sends a request to a member: promises and votes (lease rules R12, R13).
	rest.Poster
	// Status asks the member at its api_url, and returns by ctx.
	Status(ctx context.Context, apiURL string) (rest.Status, error)
}

// New checks a Config and returns a Node that has not started yet: nothing is contacted before Run. Contradictory or
// missing settings are refused, all of them in one error, each with its field.
func New(c Config) (*Node, error) {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf("ha: "+format, args...)) }
	if c.Name == "" || strings.Contains(c.Name, "/") {
		refuse("Config.Name %q: a member needs a name without a slash", c.Name)
	}
	if c.Store == nil {
		refuse("Config.Store is missing: open one, for example with etcd.Open")
	}
	if c.Postgres == nil {
		refuse("Config.Postgres is missing: open one, for example with local.Open")
	}
	if u, ok := c.Postgres.(interface{ ConnURL() string }); ok && c.ConnURL == "" {
		c.ConnURL = u.ConnURL()
	}
	if d, ok := c.Postgres.(interface{ StateDir() string }); ok && c.StateDir == "" {
		c.StateDir = d.StateDir()
	}
	if c.ConnURL == "" {
		refuse("Config.ConnURL is missing: postgres://host:port/postgres, where the other members reach this server")
	}
	if c.StateDir == "" || !filepath.IsAbs(c.StateDir) {
		refuse("Config.StateDir %q: an absolute path outside of the data directory is needed", c.StateDir)
	}
	if d := cluster.ParseDynamic(c.Bootstrap); len(d.Warnings) > 0 && c.Bootstrap != nil {
		for _, w := range d.Warnings {
			if c.Log != nil {
				c.Log.Warn("bootstrap configuration", "warning", w)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = dcs.Boottime()
	}
	if c.Peers == nil {
		c.Peers = rest.NewClient(rest.ClientOptions{})
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = time.Minute
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	return newNode(c), nil
}
