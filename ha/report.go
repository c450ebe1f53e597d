package ha

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
)

var _ rest.Node = (*Node)(nil)

// Report is what the node last saw and decided. It never blocks.
func (n *Node) Report() *rest.Report { return n.report.Load() }

// Decisions are the last decision records, oldest first.
func (n *Node) Decisions() []rest.DecisionRecord { return n.ring.all() }

// Reload asks the loop to read the local settings again (Config.OnReload), as SIGHUP does. It returns at once.
func (n *Node) Reload() {
	n.reload.Store(true)
	n.poke()
}

// Detach makes Run return as soon as no task runs, and leave guard, PostgreSQL and lease as they are: for an upgrade of the
// agent. Another agent that comes before the deadline of the lease goes on as if nothing had happened (rule R11).
func (n *Node) Detach() {
	n.detaching.Store(true)
	n.poke()
}

// poke wakes the loop without waiting for it.
func (n *Node) poke() {
	select {
	case n.inbox <- func() {}:
	default: // full: it is awake
	}
}

func (n *Node) doReload() {
	if n.cfg.OnReload == nil {
		return
	}
	r, err := n.cfg.OnReload()
	if err != nil {
		n.log.Error("the configuration was not reloaded; the old one stays in force", "error", err)
		return
	}
	n.cfg.Tags, n.cfg.Local = r.Tags, r.Local
	n.settings = mergeSettings(r.Local, n.dynamic.PostgreSQL)
	n.published.applied = nil
	n.log.Info("the configuration was reloaded")
}

// ReadCluster reads the store now.
func (n *Node) ReadCluster(ctx context.Context) (cluster.Cluster, error) {
	snap, err := n.store.Read(ctx)
	if err != nil {
		return cluster.Cluster{}, err
	}
	return Decode(snap), nil
}

// WriteFailover writes the key `failover` and wakes the loop. version nil writes unconditionally; otherwise a key that
// has changed since is refused with dcs.ErrConflict. An empty f clears the request.
func (n *Node) WriteFailover(ctx context.Context, f cluster.Failover, version *uint64) error {
	txn := dcs.Txn{Then: []dcs.Op{dcs.Put(cluster.KeyFailover, cluster.EncodeFailover(f))}}
	if version != nil {
		txn.If = []dcs.Cond{{Key: cluster.KeyFailover, Version: dcs.Version(*version)}}
	}
	_, err := n.store.Commit(ctx, txn)
	n.poke()
	return err
}

// CheckName refuses a name that a live member uses already (reference section 5.0, hazard A15): call it once before Run,
// before the own REST API listens. It waits until the store answers, or for ctx.
func (n *Node) CheckName(ctx context.Context) error {
	c, err := n.ReadCluster(ctx)
	for err != nil {
		n.log.Warn("waiting for the store", "error", err)
		if !sleep(ctx, n.clock, time.Second) {
			return fmt.Errorf("ha: the store does not answer: %w", err)
		}
		c, err = n.ReadCluster(ctx)
	}
	m, ok := c.Member(n.cfg.Name)
	if !ok || m.APIURL == "" {
		return nil
	}
	u, err := url.Parse(m.APIURL)
	if err != nil {
		return nil // nobody can be asked at such an address
	}
	call, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	u.Path = "/liveness"
	req, err := http.NewRequestWithContext(call, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	_ = res.Body.Close()
	return fmt.Errorf("ha: a member named %q is running already: %s answers; give this node another name, or stop the other",
		n.cfg.Name, m.APIURL)
}

// announce logs a decision when its reason changes, once.
func (n *Node) announce(v policy.View, d policy.Decision) {
	if d.Reason == n.decision.Reason && sameActions(d.Actions, n.decision.Actions) {
		return
	}
	n.log.Info(d.Detail, "reason", string(d.Reason), "actions", actionNames(d.Actions), "epoch", v.Lease.Epoch)
}

// sameActions compares what is worth a line in the log: a renewal is not.
func sameActions(a, b []policy.Action) bool {
	renewal := func(name string) bool { return name == (policy.Renew{}).String() }
	return slices.Equal(slices.DeleteFunc(actionNames(a), renewal), slices.DeleteFunc(actionNames(b), renewal))
}

func actionNames(as []policy.Action) []string {
	names := make([]string, 0, len(as))
	for _, a := range as {
		names = append(names, a.String())
	}
	return names
}

// remember leaves a decision record. A turn that decided what the last one did, and did nothing, is not kept.
func (n *Node) remember(v policy.View, d policy.Decision, failed string, began time.Time, ended *rest.Operation) {
	n.counters.turn(time.Since(began))
	n.ring.add(rest.DecisionRecord{
		At: began, Reason: string(d.Reason), Detail: d.Detail, Actions: actionNames(d.Actions),
		Outcome: failed, Duration: time.Since(began), View: v, Operation: ended,
	})
}

// ring keeps the last decision records.
type ring struct {
	mu      sync.Mutex
	records []rest.DecisionRecord
}

const ringSize = 200

func (r *ring) add(d rest.DecisionRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := len(r.records); k > 0 {
		last := r.records[k-1]
		if last.Reason == d.Reason && last.Outcome == d.Outcome && slices.Equal(last.Actions, d.Actions) {
			d.Operation = cmp.Or(d.Operation, last.Operation)
			r.records[k-1] = d
			return
		}
	}
	if len(r.records) == ringSize {
		r.records = slices.Delete(r.records, 0, 1)
	}
	r.records = append(r.records, d)
}

func (r *ring) all() []rest.DecisionRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.records)
}

// sendReport publishes what the REST API answers from.
func (n *Node) sendReport(v policy.View, d policy.Decision) {
	state, role := n.stateAndRole()
	s := n.server
	r := &rest.Report{
		Name: n.cfg.Name, Scope: n.cfg.Scope, Version: n.cfg.Version, Tags: n.cfg.Tags,
		State: state, Role: role, Server: s, SystemID: n.cluster.Initialize.SystemID,
		Cluster: n.cluster, ClusterAt: n.readWall, ClusterFresh: n.known && n.readErr == nil,
		TTL: n.dynamic.TTL, LoopWait: n.dynamic.LoopWait, MaxLag: n.dynamic.MaximumLagOnFailover,
		Paused: n.dynamic.Pause, FailsafeEnabled: n.dynamic.FailsafeMode,
		Unlocked: n.cluster.Leader.Name == "", PendingRestart: s.PendingRestart, LoopAt: time.Now(),
		Reason: string(d.Reason), Detail: d.Detail, Unfit: v.Self.Unfit,
		Epoch: v.Lease.Epoch, LeaseLeft: v.Lease.Left, Promotions: n.state.Promotions, End: v.Server.Branch.End,
		WasPrimary: v.Server.WasPrimary, Counters: n.counters.all(), Fence: n.fenceReport(), Operations: n.trace.operations(), Histograms: n.trace.histograms(),
	}
	if rec, _, ok, _ := n.lease.Record(); ok && len(rec.Members) > 0 {
		l := rec.List()
		r.Failsafe = &rest.FailsafeStatus{List: l.Members, All: l.Unanimous, Promises: l.Promises(), Votes: l.Votes(),
			PromisedTo: v.Failsafe.PromisedTo, NoVote: v.Failsafe.Voteless}
	}
	r.FailsafeActive = v.Store.Failed && v.Failsafe.Enough || v.Failsafe.PromisedTo != ""
	if r.SystemID == "" {
		r.SystemID = s.Control.SystemID
	}
	if w := n.wishes.scheduled; w != nil {
		at := w.RestartRequest
		r.ScheduledRestart = &at
	}
	if n.wishes.reinit != nil {
		r.Task = string(policy.RequestReinit)
	}
	if client, ok := n.store.(interface{ Stats() dcs.Stats }); ok { // *dcs.Client, as a rule
		stats := client.Stats()
		r.Store = &stats
	}
	if n.task != nil {
		r.Task, r.TaskProgress = n.taskName(), n.task.progress.Load()
	}
	if v.Lease.Open && v.Lease.Verdict == policy.VerdictMine && v.Lease.Left > 0 {
		r.IsLeader, r.LeaderUntil = true, time.Now().Add(v.Lease.Left)
		if n.dynamic.Pause {
			r.LeaderUntil = time.Now().Add(time.Hour)
		}
		r.Writable = s.Answered && s.Role == postgres.RolePrimary
	}
	n.report.Store(r)
}

// taskName is the name of the running task, for people: the steps of a reinitialization have one.
func (n *Node) taskName() string {
	if k := n.task.kind; n.wishes.reinit == nil || k != policy.TaskStop && k != policy.TaskClone {
		return string(k)
	}
	return string(policy.RequestReinit)
}

func (n *Node) fenceReport() rest.Fence {
	st := n.guardState
	return rest.Fence{Rungs: rungNames(st), Bounded: st.Bounded && n.guardErr == nil, Guarantee: st.Guarantee, Problem: st.Problem, Required: n.cfg.FenceRequired}
}

func (n *Node) policyConfig() policy.Config { return policy.Config{Dynamic: n.dynamic} }

// counters are what /metrics shows of the loop.
type counters struct {
	mu sync.Mutex
	m  map[string]float64
}

func (c *counters) add(name string, by float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]float64{}
	}
	c.m[name] += by
}

func (c *counters) turn(took time.Duration) {
	c.add("loop_turns_total", 1)
	c.add("loop_seconds_total", took.Seconds())
}

func (c *counters) renewal(took time.Duration, err error) {
	c.add("renewals_total", 1)
	c.add("renewal_seconds_total", took.Seconds())
	if err != nil {
		c.add("renewals_failed_total", 1)
	}
}

func (c *counters) task(kind policy.TaskKind, took time.Duration, err error) {
	name := "task_" + metricName(string(kind))
	c.add(name+"_total", 1)
	c.add(name+"_seconds_total", took.Seconds())
	if err != nil {
		c.add(name+"_failed_total", 1)
	}
}

func metricName(s string) string {
	b := []byte(s)
	for i, r := range b {
		if r == ' ' {
			b[i] = '_'
		}
	}
	return string(b)
}

func (c *counters) all() map[string]float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]float64, len(c.m))
	for k, v := range c.m {
		out[k] = v
	}
	return out
}
