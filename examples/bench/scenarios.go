package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"time"
)

// The times that are measured: the project's default, its fastest, and Patroni's default for what idling costs.
var (
	defaultTimes = times{8, 2, 3}
	fastestTimes = times{4, 1, 1}
	idleTimes    = times{30, 10, 10}
)

// scenarios is everything that can be measured, in the order of a run.
func scenarios(o options) []scenario {
	all := []scenario{
		{name: "cold start", times: defaultTimes, cold: true, rep: coldStart, bare: bareColdStart},
		{name: "switchover", times: defaultTimes, rep: switchover, bare: bareSwitchover},
		{name: "postmaster killed", times: defaultTimes, rep: postmasterKilled, bare: bareCrash},
		{name: "replica lost", times: defaultTimes, rep: replicaLost},
		{name: "rolling restart", times: defaultTimes, rep: rollingRestart},
		{name: "node lost", times: defaultTimes, rep: nodeLost},
		{name: "rejoin", times: defaultTimes, rep: rejoinClean, bare: bareRejoinClean},
		{name: "rejoin diverged", times: defaultTimes, rep: rejoinDiverged, bare: bareRejoinDiverged},
		{name: "node lost, fastest", times: fastestTimes, rep: nodeLost},
		{name: "idle", times: idleTimes, once: true, rep: idle},
		{name: "REST load", times: idleTimes, rep: restLoad},
	}
	if o.soak {
		all = append(all, scenario{name: "accelerated hour", times: fastestTimes, once: true, rep: soak})
	}
	if o.times != (times{}) { // one set of times for all: the fastest is none
		all = append(all[:8], all[9:]...)
	}
	return all
}

func bareColdStart(ctx context.Context, b *bench, name string) error {
	s, took, err := b.newBare(ctx)
	if err != nil {
		return err
	}
	s.close()
	b.rec.add(name, "bare", kindBare, "s", took.Seconds()).Note = "initdb, postgres, 2 pg_basebackup -c fast beside each other, postgres, both stream"
	return nil
}

// coldStart measures from the start of three daemons with empty directories to one primary and two streaming replicas.
func coldStart(ctx context.Context, b *bench, name string, c *cluster) error {
	began := time.Now()
	took, err := c.start(ctx)
	if err != nil {
		return err
	}
	events := c.events(began)
	b.trace(name, began, events)
	b.rec.add(name, "until healthy", kindResult, "s", took.Seconds()).most(4).by("bare")
	l := c.leader()
	if l == nil {
		return errors.New("nobody leads any more")
	}
	cloned := func(n *node) time.Time { return when(events, n.name, "task done", "task=clone") }
	copies := [2]time.Time{cloned(c.others(l)[0]), cloned(c.others(l)[1])}
	last := copies[0]
	if copies[1].After(last) {
		last = copies[1]
	}
	b.rec.phases(name, began,
		mark{"until initdb begins", when(events, l.name, "task begins", "task=initdb")},
		mark{"initdb", when(events, l.name, "task done", "task=initdb")},
		mark{"take the lease", when(events, l.name, "took the lease")},
		mark{"start, primary", l.probe.first(began, rolePrimary)},
		mark{"until a copy begins", when(events, "", "task begins", "task=clone")},
		mark{"base backups", last},
		mark{"start, streaming", began.Add(took)})
	return nil
}

func bareSwitchover(ctx context.Context, b *bench, name string) error {
	for how, action := range map[string]func(context.Context, *bare) error{"pg_ctl stop, promote": byPgCtl, "by signals": bySignals} {
		v, err := b.bareOutage(ctx, func(s *bare) error { return action(ctx, s) })
		if err != nil {
			return err
		}
		b.rec.add(name, how, kindBare, "s", v)
	}
	return nil
}

// switchover measures the write outage of a switchover that the API is asked for.
func switchover(ctx context.Context, b *bench, name string, c *cluster) error {
	old := c.leader()
	if old == nil {
		return errors.New("nobody leads")
	}
	began := time.Now()
	code, body, err := old.request(ctx, http.MethodPost, "/switchover", fmt.Sprintf(`{"leader":%q}`, old.name))
	if err != nil || code != http.StatusOK {
		return errors.Join(err, fmt.Errorf("POST /switchover: %d %s", code, body))
	}
	if err := c.writer.flowing(ctx, time.Now(), 30*time.Second); err != nil {
		return err
	}
	from, to := c.writer.gap(began)
	healthy, err := c.awaitHealthy(ctx, time.Minute)
	if err != nil {
		return err
	}
	next := c.leader()
	if next == nil || next == old {
		return errors.New("the leader is the same")
	}
	lost, err := c.writer.lost(ctx)
	if err != nil {
		return err
	}
	events := c.events(began)
	b.trace(name, began, events)
	b.rec.add(name, "write outage", kindResult, "s", to.Sub(from).Seconds()).most(0.25).by("pg_ctl stop, promote")
	begun := when(events, old.name, "task begins", "task=demote")
	b.rec.phases(name, from,
		mark{"stop", when(events, old.name, "released the lease")},
		mark{"take the lease", when(events, next.name, "took the lease")},
		mark{"catch up and decide", when(events, next.name, "task begins", "task=promote")},
		mark{"promote", next.probe.first(began, rolePrimary)},
		mark{"first write", to})
	b.rec.phases(name, began, mark{"(before) decide", begun}, mark{"(before) checkpoint", from})
	b.rec.add(name, "replicas stream after the first write", kindResult, "s", max(healthy.Sub(to).Seconds(), 0)).most(1)
	b.rec.add(name, "acknowledged writes lost", kindResult, "", float64(lost)).most(0)
	return nil
}

func bareCrash(ctx context.Context, b *bench, name string) error {
	v, err := b.bareOutage(ctx, func(s *bare) error { return crashRestart(ctx, s) })
	if err != nil {
		return err
	}
	b.rec.add(name, "bare crash restart", kindBare, "s", v)
	return nil
}

// postmasterKilled kills the primary's postmaster alone: the daemon is to see it and to start it again in place.
func postmasterKilled(ctx context.Context, b *bench, name string, c *cluster) error {
	l := c.leader()
	pid := postmasterIn(l.data)
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the postmaster: %w", err)
	}
	if err := await(ctx, time.Minute, "a primary again", func() bool { s := c.leader(); return s != nil && s.probe.now().at.After(began) }); err != nil {
		return err
	}
	if err := c.writer.flowing(ctx, time.Now(), 30*time.Second); err != nil {
		return err
	}
	from, to := c.writer.gap(began)
	lost, err := c.writer.lost(ctx)
	if err != nil {
		return err
	}
	next := c.leader()
	if next == nil {
		return errors.New("nobody leads")
	}
	events := c.events(began)
	b.trace(name, began, events)
	f := b.rec.add(name, "write outage", kindResult, "s", to.Sub(from).Seconds()).most(0.4).by("bare crash restart")
	if next != l {
		f.Note = "another node took over in some repetition"
	}
	b.rec.phases(name, from,
		mark{"detect and decide", when(events, next.name, "task begins", "task=\"start primary\"")},
		mark{"start and recover", next.probe.first(began, rolePrimary)},
		mark{"first write", to})
	b.rec.add(name, "acknowledged writes lost", kindResult, "", float64(lost)).most(0)
	_, err = c.awaitHealthy(ctx, time.Minute)
	return err
}

// replicaLost kills a replica's machine: nobody may notice. Then it comes back.
func replicaLost(ctx context.Context, b *bench, name string, c *cluster) error {
	r := c.others(c.leader())[0]
	began := time.Now()
	r.lose()
	pause(ctx, 3*time.Second)
	if err := c.writer.flowing(ctx, time.Now(), 30*time.Second); err != nil {
		return err
	}
	from, to := c.writer.gap(began)
	b.rec.add(name, "longest time between two writes", kindResult, "s", to.Sub(from).Seconds())
	return b.comeBack(ctx, name, c, r, "back to streaming", nil)
}

// comeBack starts a lost node again and measures until it streams. limit is the budget, nil: there is none.
func (b *bench) comeBack(ctx context.Context, name string, c *cluster, n *node, what string, limit *float64) error {
	began := time.Now()
	if err := n.start(); err != nil {
		return err
	}
	at, err := c.awaitHealthy(ctx, time.Minute)
	if err != nil {
		return err
	}
	events := c.events(began)
	b.trace(name, began, events)
	f := b.rec.add(name, what, kindResult, "s", at.Sub(began).Seconds())
	if limit != nil {
		f.most(*limit)
	}
	rewound := when(events, n.name, "task begins", "task=rewind")
	marks := []mark{{"until something begins", when(events, n.name, "task begins")}}
	if !rewound.IsZero() {
		marks = append(marks, mark{"before the rewind", rewound}, mark{"set aside and rewind", when(events, n.name, "task done", "task=rewind")})
	}
	marks = append(marks, mark{"until the start", when(events, n.name, "task begins", `task="start replica"`)}, mark{"start, streaming", at})
	b.rec.phases(name, began, marks...)
	b.rec.add(name, "rewound", kindPhase, "", map[bool]float64{true: 1}[!rewound.IsZero()])
	if copied := when(events, n.name, "task begins", "task=clone"); !copied.IsZero() {
		f.Note = "copied anew in some repetition"
	}
	return nil
}

// restart asks for a restart, and again for a while when the daemon has something else to do just then.
func restart(ctx context.Context, n *node) (code int, body []byte, err error) {
	err = await(ctx, 10*time.Second, "a restart is accepted", func() bool {
		var e error
		code, body, e = n.request(ctx, http.MethodPost, "/restart", "{}")
		return e != nil || code != http.StatusServiceUnavailable
	})
	if code == http.StatusServiceUnavailable {
		return code, body, nil
	}
	return code, body, err
}

// rollingRestart restarts the replicas, then the leader, by the API.
func rollingRestart(ctx context.Context, b *bench, name string, c *cluster) error {
	l := c.leader()
	began := time.Now()
	for _, n := range append(c.others(l), l) {
		code, body, err := restart(ctx, n)
		if err != nil {
			return err
		}
		if code == http.StatusNotImplemented || code == http.StatusServiceUnavailable {
			return fmt.Errorf("%w: POST /restart answers %d %s", errNotAvailable, code, body)
		}
		if code != http.StatusOK {
			return fmt.Errorf("POST /restart of %s: %d %s", n.name, code, body)
		}
		if _, err := c.awaitHealthy(ctx, time.Minute); err != nil {
			return err
		}
	}
	took := time.Since(began)
	if err := c.writer.flowing(ctx, time.Now(), 30*time.Second); err != nil {
		return err
	}
	from, to := c.writer.gap(began)
	b.trace(name, began, c.events(began))
	b.rec.add(name, "write outage", kindResult, "s", to.Sub(from).Seconds())
	b.rec.add(name, "all three", kindResult, "s", took.Seconds())
	return nil
}
