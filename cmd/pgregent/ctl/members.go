package ctl

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/rest"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return path != "" && err == nil
}

// watch are the options of a command that can repeat itself.
type watch struct {
	every2 bool
	every  float64
}

func (w *watch) flags(c *cobra.Command) {
	c.Flags().BoolVarP(&w.every2, "W", "W", false, "print again every 2 seconds")
	c.Flags().Lookup("W").Name = "watch-2s"
	c.Flags().Float64VarP(&w.every, "watch", "w", 0, "print again every so many `seconds`")
}

// repeat calls f once, or until ctx ends.
func (a *app) repeat(ctx context.Context, w watch, clear bool, f func() error) error {
	every := time.Duration(w.every * float64(time.Second))
	if w.every2 && every <= 0 {
		every = 2 * time.Second
	}
	for {
		if every > 0 && clear && a.Terminal {
			fmt.Fprint(a.Out, "\x1b[H\x1b[2J")
		}
		began := time.Now()
		if err := f(); err != nil || every <= 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(every-time.Since(began), 0)):
		}
	}
}

func (a *app) list() *cobra.Command {
	var w watch
	var format string
	var extended, stamp, verbose bool
	c := &cobra.Command{Use: "list [CLUSTER...]", Aliases: []string{"members"}, Short: "List the members of a cluster"}
	c.Flags().StringVarP(&format, "format", "f", "pretty", "output `format`: "+formats)
	c.Flags().BoolVarP(&extended, "extended", "e", false, "show some extra information")
	c.Flags().BoolVarP(&stamp, "timestamp", "t", false, "print the time")
	if !a.classic {
		c.Flags().BoolVar(&verbose, "verbose", false, "with the pretty format: ask every member what its fence guarantees")
	}
	w.flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.repeat(c.Context(), w, true, func() error {
			if stamp {
				a.say("%s", time.Now().Format("2006-01-02 15:04:05"))
			}
			return a.eachCluster(c.Context(), args, func(s *session) error {
				if err := s.members(extended, format); err != nil || !verbose || format != "pretty" || a.Verbose == nil {
					return err
				}
				return a.Verbose(c.Context(), a.Out, s.config, s.state)
			})
		})
	}
	return c
}

func (a *app) topology() *cobra.Command {
	var w watch
	c := &cobra.Command{Use: "topology [CLUSTER...]", Short: "Print which member streams from which"}
	w.flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.repeat(c.Context(), w, true, func() error {
			return a.eachCluster(c.Context(), args, func(s *session) error { return s.members(false, "topology") })
		})
	}
	return c
}

// eachCluster opens the clusters that are named, or that of the configuration.
func (a *app) eachCluster(ctx context.Context, names []string, f func(*session) error) error {
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		s, err := a.open(ctx, name)
		if err != nil {
			return err
		}
		err = f(s)
		s.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// members prints the members as patronictl does (reference section 3.3).
func (s *session) members(extended bool, format string) error {
	v := rest.ViewCluster(s.state, s.config.Scope)
	t := table{title: " Cluster: " + s.config.Scope + " (" + s.initialize() + ") ", right: []string{"TL", "Receive LSN", "Replay LSN", "Lag"}}
	t.columns = []string{"Cluster", "Member", "Host", "Role", "State", "TL", "Receive LSN", "Receive Lag", "Replay LSN", "Replay Lag"}
	t.columns = append(t.columns, moreColumns(v.Members, extended)...)
	pretty := format == "pretty" || format == "topology"
	members, hosts := v.Members, withPort(v.Members)
	if format == "topology" {
		members = byUpstream(members)
	}
	for _, m := range members {
		t.rows = append(t.rows, memberRow(s.config.Scope, m, hosts, t.columns, pretty))
	}
	if pretty {
		for i, c := range t.columns {
			if strings.HasSuffix(c, " Lag") {
				t.columns[i] = "Lag"
			}
		}
	}
	if err := t.print(s.app.Out, format, "\t"); err != nil {
		return err
	}
	if pretty {
		serviceInfo(s.app.Out, v)
	}
	return nil
}

func (s *session) initialize() string {
	switch i := s.state.Initialize; {
	case !i.Present:
		return "uninitialized"
	case i.SystemID == "":
		return "initializing"
	default:
		return i.SystemID
	}
}

// moreColumns are those that somebody needs, or that were asked for.
func moreColumns(members []rest.MemberView, all bool) (columns []string) {
	need := map[string]bool{}
	for _, m := range members {
		if m.Host == "" {
			continue
		}
		need["Pending restart"] = need["Pending restart"] || m.PendingRestart
		need["Pending restart reason"] = need["Pending restart reason"] || len(m.PendingRestartReason) > 0
		need["Scheduled restart"] = need["Scheduled restart"] || len(m.ScheduledRestart) > 0
		need["Tags"] = need["Tags"] || len(m.Tags) > 0
	}
	for _, c := range []string{"Pending restart", "Pending restart reason", "Scheduled restart", "Tags"} {
		if all || need[c] {
			columns = append(columns, c)
		}
	}
	return columns
}

// withPort says that hosts are shown with their ports: somebody is not at 5432, or two share a host.
func withPort(members []rest.MemberView) bool {
	seen := map[string]bool{}
	for _, m := range members {
		if m.Host == "" {
			continue
		}
		if m.Port != 5432 || seen[m.Host] {
			return true
		}
		seen[m.Host] = true
	}
	return false
}

func memberRow(scope string, m rest.MemberView, ports bool, columns []string, pretty bool) []any {
	host := m.Host
	if ports && host != "" && m.Port != 0 {
		host = fmt.Sprintf("%s:%d", host, m.Port)
	}
	receiveLSN, receiveLag, replayLSN, replayLag := m.ReceiveLSN, megabytes(m.ReceiveLag), m.ReplayLSN, megabytes(m.ReplayLag)
	if receiveLSN == "unknown" && replayLSN == "unknown" && m.LSN != "" && m.LSN != "unknown" { // a member of an older Patroni
		if m.State == cluster.ReplicationStreaming {
			receiveLSN, receiveLag = m.LSN, megabytes(m.Lag)
		} else {
			replayLSN, replayLag = m.LSN, megabytes(m.Lag)
		}
	}
	var tl any = ""
	if m.Timeline != 0 {
		tl = m.Timeline
	}
	row := []any{scope, m.Name, host, title(m.Role), m.State, tl, receiveLSN, receiveLag, replayLSN, replayLag}
	for _, c := range columns[len(row):] {
		switch c {
		case "Pending restart":
			row = append(row, map[bool]string{true: "*"}[m.PendingRestart])
		case "Pending restart reason":
			row = append(row, reasons(m, pretty))
		case "Scheduled restart":
			row = append(row, scheduledRestart(m))
		case "Tags":
			row = append(row, tags(m))
		}
	}
	return row
}

func tags(m rest.MemberView) any {
	if len(m.Tags) == 0 {
		return ""
	}
	return map[string]any(m.Tags)
}

func reasons(m rest.MemberView, pretty bool) string {
	var lines []string
	for _, name := range sortedKeys(m.PendingRestartReason) {
		r := m.PendingRestartReason[name]
		line := name + ": " + r.Old + "->" + r.New
		if pretty && len(line) > 50 {
			line = name + ": [hidden - too long]"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func scheduledRestart(m rest.MemberView) string {
	if len(m.ScheduledRestart) == 0 {
		return ""
	}
	text := fmt.Sprint(m.ScheduledRestart["schedule"])
	if v, ok := m.ScheduledRestart["postgres_version"]; ok {
		text += fmt.Sprintf(" if version < %v", v)
	}
	return text
}

// megabytes rounds as Python does: halves to the even one.
func megabytes(lag any) any {
	var bytes float64
	switch v := lag.(type) {
	case int:
		bytes = float64(v)
	case uint64:
		bytes = float64(v)
	default:
		return ""
	}
	return int64(math.RoundToEven(bytes / (1 << 20)))
}

func title(role string) string {
	words := strings.Split(role, "_")
	for i, w := range words {
		if w != "" {
			words[i] = strings.ToUpper(w[:1]) + strings.ToLower(w[1:])
		}
	}
	return strings.Join(words, " ")
}

// byUpstream sorts members below those that they stream from, as far as their tags tell, and indents their names.
func byUpstream(members []rest.MemberView) []rest.MemberView {
	leader, replicas := "", map[string]bool{}
	for _, m := range members {
		if strings.HasSuffix(m.Role, "leader") {
			leader = m.Name
		} else {
			replicas[m.Name] = true
		}
	}
	below := map[string][]rest.MemberView{}
	var out []rest.MemberView
	for _, m := range members {
		if strings.HasSuffix(m.Role, "leader") {
			out = append(out, m)
			continue
		}
		parent := m.Tags.ReplicateFrom()
		if parent == m.Name || !replicas[parent] {
			parent = leader
		}
		below[parent] = append(below[parent], m)
	}
	seen := map[string]bool{}
	var descend func(name string, level int)
	descend = func(name string, level int) {
		for _, m := range below[name] {
			if seen[m.Name] {
				continue // two that name each other
			}
			seen[m.Name] = true
			own := m.Name
			m.Name = strings.Repeat("  ", level-1) + "+ " + own
			out = append(out, m)
			descend(own, level+1)
		}
	}
	descend(leader, 1)
	return out
}

// serviceInfo is what stands below the table.
func serviceInfo(out io.Writer, v rest.ClusterView) {
	if v.Pause {
		fmt.Fprintln(out, " Maintenance mode: on")
	}
	if s := v.Scheduled; s != nil {
		fmt.Fprintf(out, " Switchover scheduled at: %s\n", s.At)
		for _, end := range [][2]string{{"from", s.From}, {"to", s.To}} {
			if end[1] != "" {
				fmt.Fprintf(out, "%24s: %s\n", end[0], end[1])
			}
		}
	}
}
