package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/pgregent/ha/cluster"
)

// acting are the options of a command that changes something.
type acting struct {
	force, dry bool
}

func (o *acting) flags(a *app, c *cobra.Command) {
	c.Flags().BoolVar(&o.force, "force", false, "do not ask for confirmation")
	if !a.classic {
		c.Flags().BoolVar(&o.dry, "dry-run", false, "say what would happen, and change nothing")
	}
}

// onMembers makes a command for chosen members: "NAME [CLUSTER] [MEMBER...]".
func (a *app) onMembers(use, short string, f func(context.Context, *session, []string) error) *cobra.Command {
	c := &cobra.Command{Use: use + " [CLUSTER] [MEMBER...]", Short: short}
	if a.classic {
		c.Use = use + " CLUSTER [MEMBER...]"
		c.Args = cobra.MinimumNArgs(1)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		name, members := a.clusterAndRest(args, a.scope())
		s, err := a.open(c.Context(), name)
		if err != nil {
			return err
		}
		defer s.close()
		return f(c.Context(), s, members)
	}
	return c
}

// would prints what --dry-run says.
func (a *app) would(format string, args ...any) { a.say("Would "+format, args...) }

func (a *app) reload() *cobra.Command {
	var o acting
	r := role("any")
	c := a.onMembers("reload", "Have members read their configuration files again", func(ctx context.Context, s *session, names []string) error {
		members, err := s.choose(names, r, o.force || o.dry, "reload")
		if err != nil {
			return err
		}
		if o.dry {
			a.would("ask %s to read their files again; a changed parameter is reloaded, or waits for a restart", memberNames(members))
			return nil
		}
		if err := a.sure(o.force, members, "reload", "", false); err != nil {
			return err
		}
		for _, m := range members {
			code, text, err := s.request(ctx, m, http.MethodPost, "/reload", map[string]any{"restart_pending": false}, memberLimit)
			switch {
			case err != nil:
				a.say("Failed: reload for member %s, %v", m.Name, err)
			case code == http.StatusOK:
				a.say("No changes to apply on member %s", m.Name)
			case code == http.StatusAccepted:
				a.say("Reload request received for member %s and will be processed within %d seconds", m.Name, int(s.state.Config.LoopWait.Seconds()))
			default:
				a.say("Failed: reload for member %s, status code=%d, (%s)", m.Name, code, text)
			}
		}
		return nil
	})
	r.flag(c, "only members with this role")
	o.flags(a, c)
	return c
}

func (a *app) restart() *cobra.Command {
	var o acting
	var q restartOptions
	r := role("any")
	c := a.onMembers("restart", "Restart PostgreSQL on members", func(ctx context.Context, s *session, names []string) error {
		members, err := s.choose(names, r, o.force || o.dry, "restart")
		if err != nil {
			return err
		}
		return s.restart(ctx, members, q, o)
	})
	r.flag(c, "only members with this role")
	f := c.Flags()
	f.BoolVar(&q.one, "any", false, "restart a single member only")
	f.StringVar(&q.scheduled, "scheduled", "", "`time` of a scheduled restart in unambiguous format (e.g. ISO 8601)")
	f.StringVar(&q.below, "pg-version", "", "restart if the PostgreSQL `version` is less than this (e.g. 15.4)")
	f.BoolVar(&q.pending, "pending", false, "restart if a parameter waits for it")
	f.StringVar(&q.timeout, "timeout", "", "give up, and fail over if necessary, when restarting takes longer than these `seconds`")
	o.flags(a, c)
	return c
}

type restartOptions struct {
	one, pending              bool
	scheduled, below, timeout string
}

func (s *session) restart(ctx context.Context, members []cluster.Member, q restartOptions, o acting) (err error) {
	a := s.app
	ask := !o.force && !o.dry
	if q.scheduled == "" && ask {
		q.scheduled, err = a.ask("When should the restart take place (e.g. "+time.Now().Add(time.Hour).Format("2006-01-02T15:04")+") ", "now")
		if err != nil {
			return err
		}
	}
	at, err := schedule(q.scheduled)
	if err != nil {
		return err
	}
	body := map[string]any{}
	if q.pending {
		body["restart_pending"] = true
		if at.IsZero() { // who needs one may be others by then
			members = slices.DeleteFunc(members, func(m cluster.Member) bool { return !m.PendingRestart })
		}
	}
	if q.one && len(members) > 1 {
		i := rand.IntN(len(members))
		members = members[i : i+1]
	}
	when := ""
	if !at.IsZero() {
		when = isoTime(at)
	}
	if ask {
		if err := a.sure(false, members, "restart", when, q.pending); err != nil {
			return err
		}
		if q.below == "" {
			if q.below, err = a.ask("Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ", ""); err != nil {
				return err
			}
		}
	}
	if q.below != "" {
		body["postgres_version"] = q.below
	}
	if when != "" {
		if s.state.Config.Pause {
			return fmt.Errorf("Can't schedule restart in the paused state") //lint:ignore ST1005 patronictl's words
		}
		body["schedule"] = when
	}
	if q.timeout != "" {
		body["timeout"] = q.timeout
	}
	for _, m := range members {
		if o.dry {
			s.wouldRestart(m, body)
			continue
		}
		s.restartOne(ctx, m, body, o.force)
	}
	return nil
}

func (s *session) wouldRestart(m cluster.Member, body map[string]any) {
	when, who := "now", "its replicas go on streaming afterwards"
	if at, ok := body["schedule"]; ok {
		when = fmt.Sprintf("at %v", at)
	}
	if m.Name == s.state.Leader.Name {
		who = "it keeps the lease; writes stop while it restarts"
	}
	var conditions []string
	if v, ok := body["postgres_version"]; ok {
		conditions = append(conditions, fmt.Sprintf("its version is below %v", v))
	}
	if body["restart_pending"] != nil {
		conditions = append(conditions, "a parameter waits for it")
	}
	text := ""
	if len(conditions) > 0 {
		text = " if " + strings.Join(conditions, " and ")
	}
	s.app.would("restart PostgreSQL on %s %s%s: %s", m.Name, when, text, who)
}

func (s *session) restartOne(ctx context.Context, m cluster.Member, body map[string]any, force bool) {
	a := s.app
	if body["schedule"] != nil && force && len(m.ScheduledRestart) > 0 {
		if code, text, err := s.request(ctx, m, http.MethodDelete, "/restart", nil, memberLimit); err == nil {
			a.report(code, text, m.Name, "flush scheduled restart", true)
		}
	}
	// The member's own limits, and a little more; patronictl waits for ever.
	limit := s.state.Config.PrimaryStartTimeout + s.state.Config.PrimaryStopTimeout + moveLimit
	code, text, err := s.request(ctx, m, http.MethodPost, "/restart", body, limit)
	switch {
	case err != nil:
		a.say("Failed: restart for member %s, %v", m.Name, err)
	case code == http.StatusOK:
		a.say("Success: restart on member %s", m.Name)
	case code == http.StatusAccepted:
		a.say("Success: restart scheduled on member %s", m.Name)
	case code == http.StatusConflict:
		a.say("Failed: another restart is already scheduled on member %s", m.Name)
	default:
		a.say("Failed: restart for member %s, status code=%d, (%s)", m.Name, code, text)
	}
}

// schedule reads a time; "" and "now" are none. Without a time zone it is local time.
func schedule(text string) (time.Time, error) {
	if text == "" || text == "now" {
		return time.Time{}, nil
	}
	if t, err := cluster.ParseTime(text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("Unable to parse scheduled timestamp (%s). It should be in an unambiguous format (e.g. ISO 8601)", text) //lint:ignore ST1005 patronictl's words
}

func isoTime(t time.Time) string {
	if t.Nanosecond() == 0 {
		return t.Format("2006-01-02T15:04:05-07:00")
	}
	return t.Format("2006-01-02T15:04:05.000000-07:00")
}

func (a *app) reinit() *cobra.Command {
	var o acting
	var fromLeader, wait bool
	c := a.onMembers("reinit", "Copy a replica's data anew; what it has is set aside", func(ctx context.Context, s *session, names []string) error {
		members, err := s.choose(names, "replica", o.force || o.dry, "reinitialize")
		if err != nil {
			return err
		}
		if o.dry {
			source := "the leader, or a running member with the tag clonefrom"
			if fromLeader {
				source = "the leader"
			}
			for _, m := range members {
				a.would("stop PostgreSQL on %s, set its data directory aside and copy %s", m.Name, source)
			}
			return nil
		}
		if err := a.sure(o.force, members, "reinitialize", "", false); err != nil {
			return err
		}
		var started []cluster.Member
		for _, m := range members {
			if s.reinitOne(ctx, m, o.force, fromLeader) {
				started = append(started, m)
			}
		}
		if !wait {
			return nil
		}
		return s.awaitCopies(ctx, started)
	})
	c.Flags().BoolVar(&fromLeader, "from-leader", false, "copy from the leader")
	c.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
	o.flags(a, c)
	return c
}

func (s *session) reinitOne(ctx context.Context, m cluster.Member, force, fromLeader bool) bool {
	a := s.app
	for again := force; ; again = true {
		code, text, err := s.request(ctx, m, http.MethodPost, "/reinitialize", map[string]any{"force": again, "from_leader": fromLeader}, memberLimit)
		if err != nil {
			a.say("Failed: reinitialize for member %s, %v", m.Name, err)
			return false
		}
		if a.report(code, text, m.Name, "reinitialize", false) {
			return true
		}
		if again || !strings.HasSuffix(text, " already in progress") {
			return false
		}
		if ok, err := a.confirm("Do you want to cancel it and reinitialize anyway?"); err != nil || !ok {
			return false
		}
	}
}

// awaitCopies waits until no member is made anew any more.
func (s *session) awaitCopies(ctx context.Context, members []cluster.Member) error {
	said := 0
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for len(members) > 0 {
		if said != len(members) {
			s.app.say("Waiting for reinitialize to complete on: %s", memberNames(members))
			said = len(members)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		members = slices.DeleteFunc(members, func(m cluster.Member) bool {
			_, text, err := s.request(ctx, m, http.MethodGet, "/patroni", nil, memberLimit)
			var body struct {
				State    string `json:"state"`
				Pgregent *struct {
					Task string `json:"task"`
				} `json:"pgregent"`
			}
			if err != nil || json.Unmarshal([]byte(text), &body) != nil || body.State == cluster.StateCreatingReplica {
				return false
			}
			if body.Pgregent != nil && body.Pgregent.Task != "" {
				return false // it is being stopped before the copy, or started after it
			}
			s.app.say("Reinitialize is completed on: %s", m.Name)
			return true
		})
	}
	return nil
}

func (a *app) flush() *cobra.Command {
	var o acting
	r := role("any")
	c := &cobra.Command{Use: "flush [CLUSTER] [MEMBER...] {restart|switchover}", Short: "Discard scheduled events", Args: cobra.MinimumNArgs(1)}
	c.RunE = func(c *cobra.Command, args []string) error {
		target := args[len(args)-1]
		if target != "restart" && target != "switchover" {
			return fmt.Errorf("flush what: restart or switchover, not %q", target)
		}
		name, names := a.clusterAndRest(args[:len(args)-1], a.scope())
		s, err := a.open(c.Context(), name)
		if err != nil {
			return err
		}
		defer s.close()
		if target == "switchover" {
			return s.flushSwitchover(c.Context(), o)
		}
		members, err := s.choose(names, r, o.force || o.dry, "flush")
		if err != nil {
			return err
		}
		if err := a.sure(o.force || o.dry, members, "flush", "", false); err != nil {
			return err
		}
		for _, m := range members {
			switch {
			case len(m.ScheduledRestart) == 0:
				a.say("No scheduled restart for member %s", m.Name)
			case o.dry:
				a.would("forget the restart of %s at %v", m.Name, m.ScheduledRestart["schedule"])
			default:
				code, text, err := s.request(c.Context(), m, http.MethodDelete, "/restart", nil, memberLimit)
				if err != nil {
					a.say("Failed: flush scheduled restart for member %s, %v", m.Name, err)
					continue
				}
				a.report(code, text, m.Name, "flush scheduled restart", false)
			}
		}
		return nil
	}
	r.flag(c, "only members with this role")
	o.flags(a, c)
	return c
}

func (s *session) flushSwitchover(ctx context.Context, o acting) error {
	a, f := s.app, s.state.Failover
	if f.ScheduledAt.IsZero() {
		a.say("No pending scheduled switchover")
		return nil
	}
	if o.dry {
		a.would("forget the switchover at %s", isoTime(f.ScheduledAt))
		return nil
	}
	for _, m := range s.leaderFirst() {
		code, text, err := s.request(ctx, m, http.MethodDelete, "/switchover", nil, memberLimit)
		switch {
		case err != nil:
			fmt.Fprintf(a.Err, "Member %s is not accessible: %v\n", m.Name, err)
		case code == http.StatusOK:
			a.say("Success: %s", text)
			return nil
		case code == http.StatusNotFound:
			a.say("Failed: %s", text)
			return nil
		default:
			a.say("Failed: member=%s, status_code=%d, (%s)", m.Name, code, text)
		}
	}
	a.say("%s Could not find any accessible member of cluster %s", now(), s.config.Scope)
	return s.writeFailover(ctx, cluster.Failover{}, f.Version)
}
