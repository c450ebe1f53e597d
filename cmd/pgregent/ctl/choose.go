package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/pgregent/ha/cluster"
)

// roles are the roles that members can be chosen by.
func roles() []string {
	return []string{"leader", "primary", "standby-leader", "replica", "standby", "any"}
}

// role is an option with a member's role.
type role string

// Set implements pflag.Value.
func (r *role) Set(s string) error {
	if !slices.Contains(roles(), s) {
		return fmt.Errorf("one of %s", strings.Join(roles(), ", "))
	}
	*r = role(s)
	return nil
}

// String implements pflag.Value.
func (r *role) String() string { return string(*r) }

// Type implements pflag.Value.
func (*role) Type() string { return "role" }

func (r *role) flag(c *cobra.Command, what string) {
	c.Flags().VarP(r, "role", "r", what+": "+strings.Join(roles(), ", "))
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roles(), cobra.ShellCompDirectiveNoFileComp))
}

// withRole are the members in a role. The leader is who holds the lock; primary and standby-leader ask for the role that it
// publishes, too.
func (s *session) withRole(r role) []cluster.Member {
	var out []cluster.Member
	for _, m := range s.state.Members {
		leads := m.Name == s.state.Leader.Name
		switch r {
		case "leader":
			leads = leads && true
		case "primary":
			leads = leads && m.Role != cluster.RoleStandbyLeader
		case "standby-leader":
			leads = leads && m.Role != cluster.RolePrimary && m.Role != "master"
		case "replica", "standby":
			leads = !leads
		default:
			leads = true
		}
		if leads {
			out = append(out, m)
		}
	}
	return out
}

// anyMember is the first in a role, or the one of the name.
func (s *session) anyMember(r role, name string) (cluster.Member, bool, error) {
	switch {
	case name != "" && r != "":
		return cluster.Member{}, false, fmt.Errorf("--role and --member are mutually exclusive options")
	case name != "":
		r = "any"
	case r == "":
		r = "leader"
	}
	for _, m := range s.withRole(r) {
		if name == "" || m.Name == name {
			return m, true, nil
		}
	}
	return cluster.Member{}, false, nil
}

// choose are the members that a command is for: named, or all in the role. Without --force the cluster is shown first, and
// a reinitialization asks which.
func (s *session) choose(names []string, r role, force bool, action string) ([]cluster.Member, error) {
	candidates := s.withRole(r)
	known := make([]string, len(candidates))
	for i, m := range candidates {
		known[i] = m.Name
	}
	if !force || r != "any" {
		if len(names) == 0 && len(known) == 0 {
			return nil, fmt.Errorf("%s cluster doesn't have any members", s.config.Scope)
		}
		if err := s.members(false, "pretty"); err != nil {
			return nil, err
		}
	}
	switch {
	case len(names) > 0:
		for _, n := range names {
			if _, ok := s.state.Member(n); !ok {
				return nil, fmt.Errorf("%s is not a member of cluster", n)
			}
		}
		if names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !slices.Contains(known, n) }); len(names) == 0 {
			return nil, fmt.Errorf("No %s among provided members", r) //lint:ignore ST1005 patronictl's words
		}
	case action != "reinitialize":
		names = known
	case !force:
		n, err := s.app.ask(fmt.Sprintf("Which member do you want to %s [%s]?", action, strings.Join(known, ", ")), "")
		if err != nil {
			return nil, err
		}
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("%s is not a member of cluster", n)
		}
		names = []string{n}
	}
	return slices.DeleteFunc(candidates, func(m cluster.Member) bool { return !slices.Contains(names, m.Name) }), nil
}

func memberNames(members []cluster.Member) string {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.Name
	}
	return strings.Join(names, ", ")
}

// sure asks whether an action is meant.
func (a *app) sure(force bool, members []cluster.Member, action string, at string, pending bool) error {
	if force {
		return nil
	}
	question, what := fmt.Sprintf("Are you sure you want to %s members %s?", action, memberNames(members)), action
	if at != "" {
		question, what = fmt.Sprintf("Are you sure you want to schedule %s of members %s at %s?", action, memberNames(members), at), "scheduled "+action
		if pending {
			question = "The nodes needing a restart will be identified at the scheduled time, and might be different from the ones showing pending restart right now. Is this fine?"
		}
	}
	ok, err := a.confirm(question)
	if err == nil && !ok {
		err = fmt.Errorf("Aborted %s", what) //lint:ignore ST1005 patronictl's words
	}
	return err
}

// request asks a member's REST API, at the host of its api_url.
func (s *session) request(ctx context.Context, m cluster.Member, method, path string, body any, limit time.Duration) (code int, text string, err error) {
	if m.APIURL == "" {
		return 0, "", fmt.Errorf("member %s publishes no api_url", m.Name)
	}
	u, err := url.Parse(m.APIURL)
	if err != nil {
		return 0, "", fmt.Errorf("member %s has the api_url %q: %w", m.Name, m.APIURL, err)
	}
	var b []byte
	if body != nil {
		if b, err = json.Marshal(body); err != nil {
			return 0, "", err
		}
	}
	call, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	text, code, err = s.client.Do(call, method, u.Scheme+"://"+u.Host+path, b)
	if err != nil && call.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("member %s did not answer %s %s within %v; it may still be at it", m.Name, method, path, limit)
	}
	return code, text, err
}

// leaderFirst are the members that have an API, the leader before the others.
func (s *session) leaderFirst() []cluster.Member {
	var out []cluster.Member
	for _, m := range s.state.Members {
		switch {
		case m.APIURL == "":
		case m.Name == s.state.Leader.Name:
			out = append([]cluster.Member{m}, out...)
		default:
			out = append(out, m)
		}
	}
	return out
}

// report prints how a member answered, in patronictl's words, and says whether it agreed.
func (a *app) report(code int, text string, member, action string, silent bool) bool {
	if code >= http.StatusBadRequest {
		a.say("Failed: %s for member %s, status code=%d, (%s)", action, member, code, text)
		return false
	}
	if !silent {
		a.say("Success: %s for member %s", action, member)
	}
	return true
}
