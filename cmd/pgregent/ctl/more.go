package ctl

import (
	"context"
	"encoding/json"
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

func (a *app) history() *cobra.Command {
	var format string
	var phases bool
	c := &cobra.Command{Use: "history [CLUSTER]", Short: "Show the changes of timeline; with --phases, where their time went", Args: cobra.MaximumNArgs(1)}
	c.Flags().StringVarP(&format, "format", "f", "pretty", "output `format`: "+formats)
	if !a.classic {
		c.Flags().BoolVar(&phases, "phases", false, "ask the members for their last changes of state, cut into phases")
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.eachCluster(c.Context(), args, func(s *session) error {
			if phases {
				return s.phases(c.Context(), format)
			}
			t := table{columns: []string{"TL", "LSN", "Reason", "Timestamp", "New Leader"}, right: []string{"TL", "LSN"}}
			for _, l := range s.state.History.Lines {
				t.rows = append(t.rows, []any{l.Timeline, uint64(l.LSN), l.Reason, l.At, l.NewLeader})
			}
			return t.print(a.Out, format, "\t")
		})
	}
	return c
}

// phases are the operations of all members that answer, the oldest first.
func (s *session) phases(ctx context.Context, format string) error {
	type line struct {
		member string
		rest.Operation
	}
	var all []line
	for _, m := range s.state.Members {
		code, text, err := s.request(ctx, m, http.MethodGet, "/operations", nil, memberLimit)
		var ops []rest.Operation
		if err == nil && code == http.StatusOK {
			err = json.Unmarshal([]byte(text), &ops)
		}
		if err != nil || code != http.StatusOK {
			fmt.Fprintf(s.app.Err, "%s: does not tell its phases (a Patroni member, or not reached): %d %v\n", m.Name, code, err)
			continue
		}
		for _, o := range ops {
			all = append(all, line{m.Name, o})
		}
	}
	slices.SortStableFunc(all, func(a, b line) int { return a.Began.Compare(b.Began) })
	t := table{columns: []string{"Began", "Member", "What", "Seconds", "Phases"}, right: []string{"Seconds"}}
	for _, l := range all {
		var parts []string
		for _, p := range l.Phases {
			parts = append(parts, fmt.Sprintf("%s %.3f", p.Name, p.Took.Seconds()))
		}
		t.rows = append(t.rows, []any{l.Began.UTC().Format("2006-01-02 15:04:05.000"), l.member, l.Kind, fmt.Sprintf("%.3f", l.Took.Seconds()), strings.Join(parts, ", ")})
	}
	return t.print(s.app.Out, format, "\t")
}

func (a *app) version() *cobra.Command {
	c := &cobra.Command{Use: "version [CLUSTER] [MEMBER...]", Short: "Print versions: this program's, and the members' when a cluster is named"}
	c.RunE = func(c *cobra.Command, args []string) error {
		if a.classic {
			a.say("patronictl version %s", cluster.ProtocolVersion)
		} else {
			a.say("pgregent %s", a.Version)
		}
		if len(args) == 0 {
			return nil
		}
		a.say("")
		s, err := a.open(c.Context(), args[0])
		if err != nil {
			return err
		}
		defer s.close()
		for _, m := range s.state.Members {
			if m.APIURL == "" || len(args) > 1 && !slices.Contains(args[1:], m.Name) {
				continue
			}
			call, cancel := context.WithTimeout(c.Context(), 2*time.Second)
			st, err := s.client.Status(call, m.APIURL)
			cancel()
			if err != nil {
				a.say("%s: failed to get version: %v", m.Name, err)
				continue
			}
			text := m.Name + ": Patroni " + st.Version
			if st.Pgregent != nil && !a.classic {
				text = m.Name + ": pgregent " + st.Pgregent.Version + ", speaks Patroni " + st.Version
			}
			if v := st.ServerVersion; v != 0 {
				text += fmt.Sprintf(" PostgreSQL %d.%d", v/10000, v%10000)
			}
			a.say("%s", text)
		}
		return nil
	}
	return c
}

func (a *app) remove() *cobra.Command {
	var o acting
	var format string
	c := &cobra.Command{Use: "remove CLUSTER", Short: "Delete everything that the store has of a cluster", Args: cobra.ExactArgs(1)}
	c.Flags().StringVarP(&format, "format", "f", "pretty", "output `format`: "+formats)
	if !a.classic {
		c.Flags().BoolVar(&o.dry, "dry-run", false, "say what would happen, and change nothing")
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := a.open(c.Context(), args[0])
		if err != nil {
			return err
		}
		defer s.close()
		if err := s.members(false, format); err != nil {
			return err
		}
		if o.dry {
			a.would("delete every key below /%s/%s; members that run would stop leading and wait", strings.Trim(s.config.Namespace, "/"), s.config.Scope)
			return nil
		}
		if err := s.sureToRemove(args[0]); err != nil {
			return err
		}
		return s.removeAll(c.Context())
	}
	return c
}

func (s *session) sureToRemove(name string) error {
	a := s.app
	const aware = "Yes I am aware"
	for _, q := range [][3]string{
		{"Please confirm the cluster name to remove", name, "Cluster names specified do not match"},
		{fmt.Sprintf("You are about to remove all information in DCS for %s, please type: %q", name, aware), aware, fmt.Sprintf("You did not exactly type %q", aware)},
		{"This cluster currently is healthy. Please specify the leader name to continue", s.state.Leader.Name, "You did not specify the current leader of the cluster"},
	} {
		if q[1] == "" {
			continue // nobody leads
		}
		answer, err := a.ask(q[0], "")
		if err != nil {
			return err
		}
		if answer != q[1] {
			return errors.New(q[2])
		}
	}
	return nil
}

// removeAll deletes what is there now. Keys that appear meanwhile are a member's that runs.
func (s *session) removeAll(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	snap, err := s.store.Read(call)
	if err != nil {
		return err
	}
	var txn dcs.Txn
	for _, it := range snap.Items {
		txn.Then = append(txn.Then, dcs.Delete(it.Key))
	}
	if len(txn.Then) == 0 {
		return nil
	}
	_, err = s.store.Commit(call, txn)
	return err
}

// clusterRole is demote-cluster and promote-cluster, which need standby clusters.
func (a *app) clusterRole(what string) *cobra.Command {
	return &cobra.Command{
		Use: what + "-cluster [CLUSTER]", Short: "Not yet: it comes with standby clusters", DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%s-cluster: pgregent has no standby clusters yet; nothing was changed", what)
		},
	}
}
