package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/rest"
)

// move is a change of the leader that is asked for.
type move struct {
	acting
	action                       string
	leader, candidate, scheduled string
}

func (a *app) switchover() *cobra.Command {
	m := move{action: "switchover"}
	c := &cobra.Command{Use: "switchover [CLUSTER]", Short: "Move the leadership to a replica, planned: nothing that was committed is lost", Args: cobra.MaximumNArgs(1)}
	c.Flags().StringVar(&m.leader, "leader", "", "the `member` that leads now")
	c.Flags().StringVar(&m.leader, "primary", "", "the same")
	c.Flags().StringVar(&m.scheduled, "scheduled", "", "`time` of a scheduled switchover in unambiguous format (e.g. ISO 8601)")
	a.moveFlags(c, &m)
	return c
}

func (a *app) failover() *cobra.Command {
	m := move{action: "failover"}
	c := &cobra.Command{Use: "failover [CLUSTER]", Short: "Move the leadership to a candidate, also without a leader", Args: cobra.MaximumNArgs(1)}
	a.moveFlags(c, &m)
	return c
}

func (a *app) moveFlags(c *cobra.Command, m *move) {
	c.Flags().StringVar(&m.candidate, "candidate", "", "the `member` that is to lead")
	m.flags(a, c)
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := a.open(c.Context(), strings.Join(args, ""))
		if err != nil {
			return err
		}
		defer s.close()
		return s.move(c.Context(), *m)
	}
}

func (s *session) move(ctx context.Context, m move) error {
	a := s.app
	a.say("Current cluster topology")
	if err := s.members(false, "pretty"); err != nil {
		return err
	}
	if err := s.complete(&m); err != nil {
		return err
	}
	at, err := s.when(&m)
	if err != nil {
		return err
	}
	body := map[string]any{"candidate": nil}
	if m.candidate != "" {
		body["candidate"] = m.candidate
	}
	if m.action == "switchover" {
		body["leader"] = m.leader
	}
	when := ""
	if !at.IsZero() {
		when = isoTime(at)
		body["scheduled_at"] = when
	}
	if m.dry {
		s.wouldMove(ctx, m, when)
		return nil
	}
	if err := s.sureToMove(m, when); err != nil {
		return err
	}
	member, ok := s.state.Member(s.state.Leader.Name)
	if !ok {
		member, _ = s.state.Member(m.candidate)
	}
	code, text, err := s.request(ctx, member, http.MethodPost, "/"+m.action, body, moveLimit)
	if err == nil && code == http.StatusNotImplemented && m.action == "switchover" && strings.Contains(text, "Server does not support this operation") {
		code, text, err = s.request(ctx, member, http.MethodPost, "/failover", body, moveLimit)
	}
	switch {
	case err != nil:
		fmt.Fprintln(a.Err, err)
		a.say("%s Could not %s using Patroni api, falling back to DCS", now(), m.action)
		if err := s.writeFailover(ctx, cluster.Failover{Leader: m.leader, Candidate: m.candidate, ScheduledAt: at}, s.state.Failover.Version); err != nil {
			return err
		}
	case code == http.StatusOK || code == http.StatusAccepted:
		a.say("%s %s", now(), text)
	default:
		result := "failed"
		if strings.Contains(text, "status unknown") {
			result = "result unknown"
		}
		a.say("%s %s, details: %d, %s", title(m.action), result, code, text)
		if a.classic {
			return nil
		}
		return fmt.Errorf("%s %s", m.action, result)
	}
	if err := s.read(ctx); err != nil {
		return err
	}
	return s.members(false, "pretty")
}

// complete fills in who leads and who is to lead, and refuses what cannot be.
func (s *session) complete(m *move) (err error) {
	a, leads := s.app, s.state.Leader.Name
	ask := !m.force && !m.dry
	if m.action == "switchover" {
		if leads == "" {
			return errors.New("This cluster has no leader") //lint:ignore ST1005 patronictl's words
		}
		if m.leader == "" {
			if m.leader = leads; ask {
				if m.leader, err = a.ask("Primary", leads); err != nil {
					return err
				}
			}
		}
		if m.leader != leads {
			return fmt.Errorf("Member %s is not the leader of cluster %s", m.leader, s.config.Scope) //lint:ignore ST1005 patronictl's words
		}
	}
	var names []string
	for _, o := range s.state.Members {
		if o.Name != leads && !o.Tags.NoFailover() {
			names = append(names, o.Name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return fmt.Errorf("No candidates found to %s to", m.action) //lint:ignore ST1005 patronictl's words
	}
	if m.candidate == "" && ask {
		if m.candidate, err = a.ask("Candidate ['"+strings.Join(names, "', '")+"']", ""); err != nil {
			return err
		}
	}
	switch {
	case m.candidate == "" && m.action == "failover":
		return errors.New("Failover could be performed only to a specific candidate") //lint:ignore ST1005 patronictl's words
	case m.candidate == leads && leads != "":
		return fmt.Errorf("Member %s is already the leader of cluster %s", m.candidate, s.config.Scope) //lint:ignore ST1005 patronictl's words
	case m.candidate != "" && !slices.Contains(names, m.candidate):
		return fmt.Errorf("Member %s does not exist in cluster %s or is tagged as nofailover", m.candidate, s.config.Scope) //lint:ignore ST1005 patronictl's words
	}
	if c := s.state.Config; ask && m.action == "failover" && c.SynchronousMode != "" && s.state.Sync.Leader != "" && !s.state.Sync.Votes(m.candidate) {
		ok, err := a.confirm(fmt.Sprintf("Are you sure you want to failover to the asynchronous node %s?", m.candidate))
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("Aborting failover") //lint:ignore ST1005 patronictl's words
		}
	}
	return nil
}

func (s *session) when(m *move) (at time.Time, err error) {
	if m.action != "switchover" {
		return at, nil
	}
	if m.scheduled == "" && !m.force && !m.dry {
		m.scheduled, err = s.app.ask("When should the switchover take place (e.g. "+time.Now().Add(time.Hour).Format("2006-01-02T15:04")+" ) ", "now")
		if err != nil {
			return at, err
		}
	}
	if at, err = schedule(m.scheduled); err == nil && !at.IsZero() && s.state.Config.Pause {
		err = errors.New("Can't schedule switchover in the paused state") //lint:ignore ST1005 patronictl's words
	}
	return at, err
}

func (s *session) sureToMove(m move, when string) error {
	if m.force {
		return nil
	}
	demoting := ""
	if leads := s.state.Leader.Name; leads != "" {
		demoting = ", demoting current leader " + leads
	}
	question, what := fmt.Sprintf("Are you sure you want to %s cluster %s%s?", m.action, s.config.Scope, demoting), m.action
	if when != "" {
		question, what = fmt.Sprintf("Are you sure you want to schedule switchover of cluster %s at %s%s?", s.config.Scope, when, demoting), "scheduled "+m.action
	}
	ok, err := s.app.confirm(question)
	if err == nil && !ok {
		err = fmt.Errorf("Aborting %s", what) //lint:ignore ST1005 patronictl's words
	}
	return err
}

// wouldMove says who would lead, by what the members say of themselves now. The leader decides it when the time comes, by
// the same order: who leads nothing by a tag or a fault comes last, then priority, then position.
func (s *session) wouldMove(ctx context.Context, m move, when string) {
	a := s.app
	var best string
	var reached rest.Status
	for _, o := range s.state.Members {
		if o.Name == s.state.Leader.Name {
			continue
		}
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		st, err := s.client.Status(call, o.APIURL)
		cancel()
		why := cannotLead(st, err)
		switch {
		case m.candidate != "" && o.Name != m.candidate:
			a.say("  %s: not asked for", o.Name)
			continue
		case why != "":
			a.say("  %s: cannot lead: %s", o.Name, why)
			continue
		}
		a.say("  %s: could lead, priority %d, WAL received to %v", o.Name, st.Tags.FailoverPriority(), max(st.Received, st.Replayed))
		if best == "" || better(st, reached) {
			best, reached = o.Name, st
		}
	}
	switch {
	case best == "":
		a.say("Would refuse the %s: no member could lead now", m.action)
	case when != "":
		a.would("switch over at %s; if it were now, %s would lead", when, best)
	case s.state.Leader.Name == "":
		a.would("have %s take the lease, as far as the rules allow it", best)
	default:
		a.would("shut %s down in order, hand the lease to %s, which is promoted, and start %s as a replica of it", s.state.Leader.Name, best, s.state.Leader.Name)
	}
}

func cannotLead(st rest.Status, err error) string {
	switch {
	case err != nil:
		return "it does not answer: " + err.Error()
	case st.Tags.NoFailover():
		return "its tag nofailover"
	case st.WatchdogFailed:
		return "its watchdog fails"
	case !st.HasPosition:
		return "its PostgreSQL does not answer"
	case st.Pgregent != nil && st.Pgregent.Unfit != "":
		return st.Pgregent.Unfit
	}
	return ""
}

func better(a, b rest.Status) bool {
	if x, y := a.Tags.FailoverPriority(), b.Tags.FailoverPriority(); x != y {
		return x > y
	}
	return max(a.Received, a.Replayed) > max(b.Received, b.Replayed)
}

// writeFailover writes the request into the store, where the leader finds it.
func (s *session) writeFailover(ctx context.Context, f cluster.Failover, version uint64) error {
	call, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	_, err := s.store.Commit(call, dcs.Txn{
		If:   []dcs.Cond{{Key: cluster.KeyFailover, Version: dcs.Version(version)}},
		Then: []dcs.Op{dcs.Put(cluster.KeyFailover, cluster.EncodeFailover(f))},
	})
	if errors.Is(err, dcs.ErrConflict) {
		return errors.New("somebody else changed the request meanwhile; nothing was written")
	}
	return err
}
