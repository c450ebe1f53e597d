package policy

import (
	"fmt"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
)

// Config is what the decision may depend on beside the View: the dynamic configuration in force.
type Config struct {
	Dynamic cluster.Dynamic
}

// Timing of the decisions. The loop looks again at once when something happens; these are for when nothing does.
const (
	peerFresh    = 2 * time.Second        // an older answer does not decide an election
	lineFresh    = 5 * time.Second        // an older account of the leader's WAL is asked for again
	contestPause = 250 * time.Millisecond // between two looks while nobody leads (design section 9)
	storePause   = 500 * time.Millisecond // between two tries while the store is silent
	restartLimit = 5                      // crashes in five minutes, after which another member is preferred
)

// Decide is the whole of the decision making. What is urgent comes first: ending a primary that may not run. Then what
// is running is left to run, and then the situation decides.
func Decide(v View, c Config) Decision {
	d := situation(v, c)
	if d.Wake <= 0 {
		d.Wake = c.Dynamic.LoopWait
	}
	if v.Lease.Open && !c.Dynamic.Pause {
		d.Wake = min(d.Wake, max(v.Lease.Left-v.Self.FencePause, 5*time.Millisecond))
	}
	return d
}

func situation(v View, c Config) Decision {
	if d, ok := fenceFirst(v, c); ok {
		return d
	}
	if v.Task.Kind != TaskNone {
		return busy(v, c)
	}
	if v.Stop {
		return stop(v, c)
	}
	if v.Store.Failed || !v.Store.Known {
		return noStore(v, c)
	}
	if d, ok := foreignData(v, c); ok {
		return d
	}
	if d, ok := tidyLease(v); ok {
		return d
	}
	if d, ok := operator(v, c); ok {
		return d
	}
	switch {
	case c.Dynamic.Pause:
		return paused(v, c)
	case v.Lease.Open:
		return leader(v, c)
	case v.Cluster.Leader.Name != "" && v.Cluster.Leader.Name != v.Self.Name && !v.Lease.mayTake():
		// A dead holder's key goes with the take (rule R5): failover does not wait for the store to end its session.
		d := follower(v, c)
		if in := v.Lease.TakeIn; in > 0 {
			d.Wake = shorter(d.Wake, in)
		}
		return d
	case v.Failsafe.PromisedTo != "":
		if d, ok := promised(v, c); ok {
			return d
		}
		return noLeader(v, c)
	case !v.Cluster.Initialize.Valid() && !v.Lease.Present:
		// A lease record is proof that the cluster exists: then a missing key `initialize` makes nobody create another
		// one over it, and the next leader writes it again.
		return bootstrap(v, c)
	default:
		return noLeader(v, c)
	}
}

// fenceFirst ends what must not run: a primary whose lease is lost, another's, or about to end, and one that has none.
//
// Safety: every way in which a primary may be running without a lease that is good for longer than the fence takes leads
// here, before anything else is considered (hazards A2, A4, A6, A15, A17; invariants I1, I2, I14). The guard enforces
// the same deadline on its own; this is the orderly way.
func fenceFirst(v View, c Config) (Decision, bool) {
	if v.Task.Kind == TaskFence {
		return Decision{Reason: ReasonFencing, Detail: fmt.Sprintf("fencing for %v", round(v.Task.For)), Wake: 100 * time.Millisecond}, true
	}
	fence := func(reason Reason, format string, args ...any) (Decision, bool) {
		why := fmt.Sprintf(format, args...)
		return Decision{Reason: reason, Detail: why, Actions: []Action{Fence{Why: why}}, Wake: 100 * time.Millisecond}, true
	}
	primary := v.Server.Role == RolePrimary || (v.Server.Process == ProcessRunning && v.Server.StartedAs == RolePrimary)
	pause := c.Dynamic.Pause
	switch {
	case v.Lease.Verdict == VerdictLost && (!pause || (v.Lease.Held && v.Lease.Holder != v.Self.Name)):
		return fence(ReasonLeaseLost, "the lease record is no longer this node's (holder %q): epoch %d ends", v.Lease.Holder, v.Lease.Epoch)
	case v.Lease.Verdict == VerdictLeaderForeign && !pause:
		return fence(ReasonLeaseLost, "the key leader is held by %q while this node holds the lease: epoch %d ends", v.Cluster.Leader.Name, v.Lease.Epoch)
	case v.Lease.Open && !pause && v.Lease.Left <= v.Self.FencePause:
		return fence(ReasonDeadline, "the lease was not renewed for %v and %v are left, which the fence needs", round(v.Lease.Renewed), round(v.Lease.Left))
	case primary && v.Self.Unfenced != "" && !pause:
		return fence(ReasonUnfit, "PostgreSQL runs as primary and must not: %s", v.Self.Unfenced)
	case primary && !v.Lease.Open && v.Task.Kind != TaskDemote && (!pause || (v.Lease.Held && v.Lease.Holder != v.Self.Name)):
		return fence(ReasonNoLease, "PostgreSQL runs as primary and this node holds no lease")
	case v.Server.Process == ProcessOrphans && !v.Lease.Open && v.Task.Kind != TaskDemote && v.Task.Kind != TaskStop && !pause:
		return fence(ReasonOrphans, "processes of a postmaster that is gone are left, and could still acknowledge a write")
	}
	return Decision{}, false
}

// busy leaves a running task alone, and goes on renewing.
func busy(v View, c Config) Decision {
	d := refuseBusy(v, Decision{Reason: ReasonBusy, Detail: fmt.Sprintf("%s is running", taskName(v.Task))})
	if v.Stop && (v.Task.Kind == TaskClone || v.Task.Kind == TaskInitdb || v.Task.Kind == TaskMeasure || v.Task.Kind == TaskRewind) {
		d.Actions = append(d.Actions, Cancel{Why: "this node is stopping"})
	}
	if v.Store.Failed {
		d.Wake = storePause
		askPromises(v, c, &d)
	}
	return renewing(v, c, d)
}

func taskName(t Task) string {
	if t.Member == "" {
		return string(t.Kind)
	}
	return fmt.Sprintf("%s (%s)", t.Kind, t.Member)
}

// renewing puts the renewal before everything else when it is due. A renewal that fails ends the Decision, so nothing
// is done under a lease that could not be renewed.
func renewing(v View, c Config, d Decision) Decision {
	if !v.Lease.Open || v.Lease.Verdict != VerdictMine || v.Store.Failed {
		return d
	}
	every := v.Lease.RenewEvery
	due := v.Lease.Renewed >= every*9/10 || untoldPromotion(v) || v.Failsafe.Unsettled
	if due {
		d.Actions = append([]Action{Renew{}}, d.Actions...)
		d.Wake = shorter(d.Wake, every)
	} else {
		d.Wake = shorter(d.Wake, max(every-v.Lease.Renewed, 5*time.Millisecond))
	}
	return d
}

// untoldPromotion says that the record does not name this primary's own promotion as it came about: nobody can compare
// with its timeline before it does (hazard B10), so that is not left to the next renewal.
func untoldPromotion(v View) bool {
	if v.Server.Role != RolePrimary {
		return false
	}
	for _, p := range v.Server.Branch.Promotions {
		if p.Timeline == v.Server.Branch.History.Tip && p.ID != "" {
			return p != v.Lease.Note.Promotion
		}
	}
	return false
}

func shorter(a, b time.Duration) time.Duration {
	if a <= 0 {
		return b
	}
	return min(a, b)
}

// foreignData refuses to do anything with a data directory of another cluster (hazard D1): nothing is started, joined,
// or deleted. In pause it is left as it is until the pause ends (reference section 5.18): whoever exchanges a data
// directory does so in pause. A lease that is held while nothing runs is given back all the same.
func foreignData(v View, c Config) (Decision, bool) {
	id := v.Cluster.Initialize
	if !id.Valid() || v.Server.SystemID == "" || v.Server.SystemID == id.SystemID {
		return Decision{}, false
	}
	d := Decision{Reason: ReasonForeignData, Detail: fmt.Sprintf(
		"the data directory has the system identifier %s, the cluster has %s: this node does not join; move the directory away, or correct the scope",
		v.Server.SystemID, id.SystemID)}
	switch {
	case c.Dynamic.Pause && v.Server.Process != ProcessNone:
		d.Detail = "in pause: " + d.Detail
		d = renewing(v, c, d)
	case v.Lease.Open && v.Server.Process != ProcessNone:
		d.Actions = []Action{Fence{Why: "the data directory belongs to another cluster"}}
	case v.Lease.Open || v.Lease.Unreleased:
		d.Actions = []Action{Release{}}
	case v.Server.Process == ProcessRunning && v.Server.StartedAs == RoleReplica:
		d.Actions = []Action{Stop{}}
	}
	return d, true
}

// tidyLease gives back what this node holds by accident (rules R8, R9): a record under a closed epoch, and a key on our
// session that our record does not cover.
func tidyLease(v View) (Decision, bool) {
	switch {
	case v.Lease.Unreleased && v.Server.Role != RolePrimary && v.Server.Process != ProcessUnknown && v.Server.Process != ProcessOrphans &&
		(v.Server.Process != ProcessRunning || v.Server.StartedAs != RolePrimary):
		r := Release{End: v.Server.Branch.End}
		detail := "the epoch is closed and nothing of it runs: the lease goes back"
		if v.Last.Kind == TaskDemote && v.Last.Failed == "" && v.Last.Ago < 30*time.Second {
			r.Target = v.Last.Member
			detail = fmt.Sprintf("PostgreSQL is shut down: the lease goes to %s", orAnyone(r.Target))
		}
		d := Decision{Reason: ReasonReleasing, Detail: detail, Actions: []Action{r}, Wake: contestPause}
		if inPlace(v) {
			stayInPlace(v, r, &d)
		}
		return d, true
	case v.Lease.Orphan && v.Server.Process != ProcessUnknown && v.Server.Process != ProcessOrphans: // a Patroni member takes it at once
		return Decision{Reason: ReasonOrphanKey, Detail: "the key leader hangs on this node's session, but the lease is not this node's",
			Actions: []Action{DropOrphan{}}, Wake: contestPause}, true
	}
	return Decision{}, false
}

// inPlace says that a demotion has just ended the server the hard way, and that this node could go on: its WAL may hold
// acknowledged commits that no replica has received (design promise 2), so it is the one to lead.
func inPlace(v View) bool {
	return v.Last.Kind == TaskDemote && v.Last.Failed != "" && v.Last.Ago < 30*time.Second &&
		v.Server.Data == DataReady && v.Server.WasPrimary && !v.Stop && v.Self.Unfit == ""
}

// stayInPlace releases the lease for this node itself. The closed epoch stays closed (rule R8): the next one is taken like
// any other, which the members leave to the target for a while. The request goes first, so that nobody acts on it, and
// that whoever made it hears that it failed.
func stayInPlace(v View, r Release, d *Decision) {
	why := "the demotion failed: " + v.Last.Failed
	r.Target = v.Self.Name
	d.Detail, d.Actions = why+"; this node takes the lease again, and starts PostgreSQL in place", nil
	if f := v.Cluster.Failover; f.Err == nil && f.Requested() && (f.ScheduledAt.IsZero() || v.ScheduledIn <= 0) {
		d.Actions = append(d.Actions, ClearFailover{Why: why})
	}
	d.Actions = append(d.Actions, r)
}

func orAnyone(name string) string {
	if name == "" {
		return "whoever is best"
	}
	return name
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// retry says how long to wait before a task that failed is tried again, 0: now. It grows with every failure in a row,
// so that nothing loops hot.
func retry(v View, kind TaskKind) time.Duration {
	l := v.Last
	if l.Kind != kind || l.Failed == "" {
		return 0
	}
	wait := min(time.Duration(l.Times*l.Times)*500*time.Millisecond, 30*time.Second)
	return max(wait-l.Ago, 0)
}

// attempt starts a task, or waits when its last try failed just now.
func attempt(v View, kind TaskKind, d Decision, a Action) Decision {
	if wait := retry(v, kind); wait > 0 {
		d.Detail = fmt.Sprintf("%s; the last try failed (%s), the next one begins in %v", d.Detail, v.Last.Failed, round(wait))
		d.Wake = max(wait, 5*time.Millisecond)
		return d
	}
	d.Actions = append(d.Actions, a)
	return d
}
