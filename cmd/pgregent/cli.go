package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/rest"
)

// storeTimeout bounds one command's talk with the store.
const storeTimeout = 10 * time.Second

// runValidate is `pgregent validate FILE.yml`.
func runValidate(_ context.Context, args, environ []string, out, errOut io.Writer) error {
	path, err := fileArgument("validate", args, errOut)
	if err != nil {
		return err
	}
	c, warnings, err := config.Load(path, environ)
	for _, w := range warnings {
		fmt.Fprintln(errOut, "warning:", w)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: valid, member %s of cluster %s\n", path, c.Name, c.Scope)
	return nil
}

// toolFlags are what every command that talks to a cluster takes.
type toolFlags struct {
	*flag.FlagSet
	file string
}

func newToolFlags(name string, errOut io.Writer) *toolFlags {
	f := &toolFlags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.SetOutput(errOut)
	f.StringVar(&f.file, "c", os.Getenv("PATRONICTL_CONFIG_FILE"), "configuration `file`: the daemon's, or patronictl's")
	return f
}

// open parses the flags, and connects to the store that the file names.
func (f *toolFlags) open(ctx context.Context, args, environ []string) (*config.Config, dcs.Store, error) {
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, nil, exitCode(0)
		}
		return nil, nil, exitCode(2)
	}
	if f.NArg() > 0 {
		return nil, nil, fmt.Errorf("%s: unexpected argument %q", f.Name(), f.Arg(0))
	}
	if f.file == "" && os.Getenv("PATRONI_SCOPE") == "" {
		return nil, nil, fmt.Errorf("%s: name the configuration file with -c FILE.yml (or set PATRONICTL_CONFIG_FILE)", f.Name())
	}
	c, _, err := config.LoadTool(f.file, environ)
	if err != nil {
		return nil, nil, err
	}
	store, err := openStore(ctx, c, slog.New(slog.DiscardHandler))
	return c, store, err
}

func readCluster(ctx context.Context, store dcs.Store) (cluster.Cluster, error) {
	snap, err := store.Read(ctx)
	if err != nil {
		return cluster.Cluster{}, fmt.Errorf("the store does not answer: %w", err)
	}
	return ha.Decode(snap), nil
}

// runList is `pgregent list`.
func runList(ctx context.Context, args, environ []string, out, errOut io.Writer) error {
	f := newToolFlags("list", errOut)
	format := f.String("f", "pretty", "output `format`: pretty, tsv or json")
	verbose := f.Bool("verbose", false, "with the pretty format: ask every member what its fence guarantees")
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	c, store, err := f.open(ctx, args, environ)
	if err != nil {
		return err
	}
	defer store.Close()
	state, err := readCluster(ctx, store)
	if err != nil {
		return err
	}
	if err := printMembers(out, *format, c.Scope, state); err != nil || !*verbose || *format != "pretty" {
		return err
	}
	return printFences(ctx, out, c, state)
}

// printMembers prints the members as patronictl list does (reference section 3.3).
func printMembers(out io.Writer, format, scope string, state cluster.Cluster) error {
	v := rest.ViewCluster(state, scope)
	header := []string{"Member", "Host", "Role", "State", "TL", "Receive LSN", "Lag", "Replay LSN", "Lag"}
	rows := make([][]string, 0, len(v.Members))
	for _, m := range v.Members {
		rows = append(rows, memberRow(m, v.Members))
	}
	addTags(&header, rows, v.Members)
	switch format {
	case "json":
		b, err := json.MarshalIndent(v.Members, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintln(out, string(b))
	case "tsv":
		fmt.Fprintln(out, strings.Join(append([]string{"Cluster"}, header...), "\t"))
		for _, r := range rows {
			fmt.Fprintln(out, strings.Join(append([]string{scope}, r...), "\t"))
		}
	case "pretty":
		id := state.Initialize.SystemID
		switch {
		case !state.Initialize.Present:
			id = "uninitialized"
		case id == "":
			id = "initializing"
		}
		printTable(out, fmt.Sprintf(" Cluster: %s (%s) ", scope, id), header, rows)
		if v.Pause {
			fmt.Fprintln(out, " Maintenance mode: on")
		}
		if s := v.Scheduled; s != nil {
			fmt.Fprintf(out, " Switchover scheduled at: %s\n                    from: %s\n", s.At, s.From)
			if s.To != "" {
				fmt.Fprintf(out, "                      to: %s\n", s.To)
			}
		}
	default:
		return fmt.Errorf("list: there is no format %q: pretty, tsv or json", format)
	}
	return nil
}

func memberRow(m rest.MemberView, all []rest.MemberView) []string {
	host, port := m.Host, false
	for _, o := range all {
		port = port || o.Port != 5432 || (o.Name != m.Name && o.Host == m.Host)
	}
	if port && host != "" {
		host = fmt.Sprintf("%s:%d", host, m.Port)
	}
	words := strings.Fields(strings.ReplaceAll(m.Role, "_", " "))
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	tl := ""
	if m.Timeline != 0 {
		tl = fmt.Sprint(m.Timeline)
	}
	return []string{m.Name, host, strings.Join(words, " "), m.State, tl, m.ReceiveLSN, lagMB(m.ReceiveLag), m.ReplayLSN, lagMB(m.ReplayLag)}
}

// lagMB is a lag in whole megabytes, as patronictl prints it.
func lagMB(lag any) string {
	switch v := lag.(type) {
	case nil:
		return ""
	case int:
		return fmt.Sprint((v + 1<<19) >> 20)
	case uint64:
		return fmt.Sprint((v + 1<<19) >> 20)
	}
	return fmt.Sprint(lag)
}

// addTags appends the columns that some member needs.
func addTags(header *[]string, rows [][]string, members []rest.MemberView) {
	pending, tags := false, false
	for _, m := range members {
		pending, tags = pending || m.PendingRestart, tags || len(m.Tags) > 0
	}
	if pending {
		*header = append(*header, "Pending restart")
		for i, m := range members {
			rows[i] = append(rows[i], map[bool]string{true: "*"}[m.PendingRestart])
		}
	}
	if tags {
		*header = append(*header, "Tags")
		for i, m := range members {
			text := ""
			if len(m.Tags) > 0 {
				b, _ := json.Marshal(m.Tags)
				text = string(b)
			}
			rows[i] = append(rows[i], text)
		}
	}
}

// printTable draws the table with its title in the upper border.
func printTable(out io.Writer, title string, header []string, rows [][]string) {
	width := make([]int, len(header))
	for _, r := range append([][]string{header}, rows...) {
		for i, cell := range r {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	line := func() string {
		var b strings.Builder
		for _, w := range width {
			b.WriteString("+" + strings.Repeat("-", w+2))
		}
		return b.String() + "+"
	}
	top := []byte(line())
	if len(title)+2 < len(top) {
		copy(top[2:], title)
	}
	row := func(cells []string) {
		for i, cell := range cells {
			fmt.Fprintf(out, "| %s%s ", cell, strings.Repeat(" ", width[i]-len([]rune(cell))))
		}
		fmt.Fprintln(out, "|")
	}
	fmt.Fprintln(out, string(top))
	row(header)
	fmt.Fprintln(out, line())
	for _, r := range rows {
		row(r)
	}
	fmt.Fprintln(out, line())
}

// runFailover is `pgregent switchover` and `pgregent failover`: a request to the leader's REST API, or to the
// candidate's when there is no leader.
func runFailover(ctx context.Context, action string, args, environ []string, out, errOut io.Writer) error {
	f := newToolFlags(action, errOut)
	candidate := f.String("candidate", "", "member that is to lead")
	leader := ""
	at := ""
	if action == "switchover" {
		f.StringVar(&leader, "leader", "", "member that leads now (default: whoever does)")
		f.StringVar(&at, "scheduled", "", "`time` with time zone (ISO 8601) to do it at (default: now)")
	}
	force := f.Bool("force", false, "do not ask")
	open, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	c, store, err := f.open(open, args, environ)
	if err != nil {
		return err
	}
	defer store.Close()
	state, err := readCluster(open, store)
	if err != nil {
		return err
	}
	if leader == "" {
		leader = state.Leader.Name
	}
	request := map[string]any{"candidate": nilIfEmpty(*candidate)}
	if action == "switchover" {
		request["leader"] = nilIfEmpty(leader)
		if at != "" {
			request["scheduled_at"] = at
		}
	}
	target, err := askWhom(state, action, *candidate)
	if err != nil {
		return err
	}
	if !*force && !confirm(out, fmt.Sprintf("%s cluster %s: leader %s, candidate %s. Go on?", action, c.Scope, or(state.Leader.Name, "none"), or(*candidate, "the best"))) {
		return fmt.Errorf("%s: not confirmed, nothing was changed (--force does not ask)", action)
	}
	client, err := peerClient(c)
	if err != nil {
		return err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	text, code, err := client.Post(ctx, target+"/"+action, body)
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	if code != 200 && code != 202 {
		return fmt.Errorf("%s failed, details: %d, %s", action, code, text)
	}
	fmt.Fprintln(out, time.Now().Format("2006-01-02 15:04:05.00000"), text)
	return nil
}

// askWhom is the base URL of the member that takes the request.
func askWhom(state cluster.Cluster, action, candidate string) (string, error) {
	name := state.Leader.Name
	if name == "" && action == "failover" {
		name = candidate
	}
	if name == "" {
		return "", fmt.Errorf("%s: this cluster has no leader; pgregent failover --candidate NAME asks a member to take over", action)
	}
	m, ok := state.Member(name)
	if !ok || m.APIURL == "" {
		return "", fmt.Errorf("%s: member %q is not in the store or publishes no api_url", action, name)
	}
	u, err := url.Parse(m.APIURL)
	if err != nil {
		return "", fmt.Errorf("%s: member %q has the api_url %q: %w", action, name, m.APIURL, err)
	}
	return u.Scheme + "://" + u.Host, nil
}

func nilIfEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// confirm asks on a terminal; without one the answer is no.
func confirm(out io.Writer, question string) bool {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return false
	}
	fmt.Fprint(out, question, " [y/N] ")
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes"
}
