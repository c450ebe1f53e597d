package ctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
)

// config is what is ours about the dynamic configuration.
func (a *app) config() *cobra.Command {
	root := &cobra.Command{Use: "config", Short: "Look at a change of the dynamic configuration before it is made", Hidden: a.classic}
	var ch changes
	c := &cobra.Command{Use: "diff [CLUSTER]", Short: "Say what a change would do, on which member: reload, restart, nothing", Args: cobra.MaximumNArgs(1)}
	ch.flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if !ch.any() {
			return fmt.Errorf("config diff: say what is to be changed: -s path=value, -p name=value, --apply FILE or --replace FILE")
		}
		return a.eachCluster(c.Context(), args, func(s *session) error { return s.diff(c.Context(), ch) })
	}
	root.AddCommand(c)
	return root
}

func (s *session) diff(ctx context.Context, ch changes) error {
	a, have := s.app, s.state.Config
	if !have.Present || have.Err != nil {
		return s.errNoConfig()
	}
	before := clone(have.Raw)
	after, err := ch.to(before, a.In)
	if err != nil {
		return err
	}
	a.showDiff(yamlText(before), yamlText(after))
	warned := map[string]bool{}
	for _, m := range s.state.Members {
		server, err := s.parameters(ctx, m)
		if err != nil {
			fmt.Fprintf(a.Err, "%s: its server was not asked: %v\n", m.Name, err)
		}
		var local postgres.Settings
		if m.Name == s.config.Name {
			local = s.config.Local
		}
		role := cluster.RoleReplica
		if m.Name == s.state.Leader.Name {
			role = cluster.RolePrimary
		}
		p := ha.PlanChange(local, before, after, role, server)
		for _, w := range p.Warnings {
			if !warned[w] {
				fmt.Fprintln(a.Err, "warning:", w)
			}
			warned[w] = true
		}
		a.say("%s (%s): %s", m.Name, role, summary(p))
		for _, c := range p.Changes {
			why := ""
			if c.Why != "" {
				why = " (" + c.Why + ")"
			}
			a.say("  %s: %s -> %s: %s%s", c.Name, orNothing(c.Old), orNothing(c.New), c.Effect, why)
		}
	}
	return nil
}

func summary(p ha.Plan) string {
	switch {
	case len(p.Changes) == 0:
		return "nothing changes"
	case p.Restart:
		return "a reload, and a restart that somebody has to ask for"
	case p.Reload:
		return "a reload"
	}
	return "no reload"
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return strings.ReplaceAll(s, "\n", "; ")
}

// parameters asks a member's server what its parameters are.
func (s *session) parameters(ctx context.Context, m cluster.Member) (map[string]ha.Parameter, error) {
	call, cancel := context.WithTimeout(ctx, memberLimit)
	defer cancel()
	conn, err := s.connect(call, m, s.config.PostgreSQL.Superuser.Username, s.config.PostgreSQL.Superuser.Password, "")
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(call)) }()
	rows, err := conn.Query(call, ha.PlanSQL)
	if err != nil {
		return nil, err
	}
	out := map[string]ha.Parameter{}
	var name string
	var p ha.Parameter
	_, err = pgx.ForEachRow(rows, []any{&name, &p.Setting, &p.Unit, &p.Type, &p.Context}, func() error {
		out[name] = p
		return nil
	})
	return out, err
}

// showDiff prints two texts as a unified diff, in colours for people.
func (a *app) showDiff(before, after string) {
	for _, l := range unified(lines(before), lines(after)) {
		colour := ""
		if a.Terminal && a.env("NO_COLOR") == "" {
			switch {
			case strings.HasPrefix(l, "+"):
				colour = "\x1b[32m"
			case strings.HasPrefix(l, "-"):
				colour = "\x1b[31m"
			}
		}
		if colour != "" {
			l = colour + l + "\x1b[0m"
		}
		fmt.Fprintln(a.Out, l)
	}
}

func lines(text string) []string { return strings.Split(strings.TrimRight(text, "\n"), "\n") }

// unified is a unified diff with three lines of context. The texts are small: the longest common subsequence is found by
// the table.
func unified(a, b []string) []string {
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var ops []diffOp
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			ops = append(ops, diffOp{" ", a[i], i, j})
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[i+1][j] >= common[i][j+1]):
			ops = append(ops, diffOp{"-", a[i], i, j})
			i++
		default:
			ops = append(ops, diffOp{"+", b[j], i, j})
			j++
		}
	}
	return hunks(ops)
}

type diffOp struct {
	kind, text string
	i, j       int // where it stands in either text
}

func hunks(ops []diffOp) (out []string) {
	const context = 3
	for from := 0; from < len(ops); {
		if ops[from].kind == " " {
			from++
			continue
		}
		to, same := from, 0
		for k := from; k < len(ops) && same <= 2*context; k++ {
			if ops[k].kind == " " {
				same++
			} else {
				to, same = k, 0
			}
		}
		begin, end := max(from-context, 0), min(to+context+1, len(ops))
		if len(out) == 0 {
			out = append(out, "--- ", "+++ ")
		}
		var olds, news int
		for _, o := range ops[begin:end] {
			if o.kind != "+" {
				olds++
			}
			if o.kind != "-" {
				news++
			}
		}
		out = append(out, "@@ -"+span(ops[begin].i, olds)+" +"+span(ops[begin].j, news)+" @@")
		for _, o := range ops[begin:end] {
			out = append(out, o.kind+o.text)
		}
		from = end
	}
	return out
}

func span(at, n int) string {
	switch n {
	case 0:
		return fmt.Sprintf("%d,0", at)
	case 1:
		return fmt.Sprint(at + 1)
	}
	return fmt.Sprintf("%d,%d", at+1, n)
}
