package operate

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// operator is somebody with a command line at a cluster of pgregent.
type operator struct {
	t *testing.T
	rig.Tool
	c *rig.Cluster
}

// TestCommands performs every command of patronictl against a cluster of pgregent: with the real one, and with pgregent
// under its name, which has to do and to say the same.
func TestCommands(t *testing.T) {
	tools := []rig.Tool{rig.Patronictl(t), rig.Pgregent(t)}
	c := rig.New(t, rig.Options{PG: "15", Nodes: 3, DCS: fastTimes})
	c.StartAll()
	t.Setenv("PGPASSWORD", "super-secret") // of the operator: for "query"
	for _, tool := range tools {
		t.Run(tool.Name, func(t *testing.T) {
			for _, step := range []struct {
				name string
				run  func(*operator)
			}{
				{"look", (*operator).look}, {"query", (*operator).query}, {"config", (*operator).config}, {"restart", (*operator).restart},
				{"pending", (*operator).pending}, {"schedule", (*operator).schedule}, {"pause", (*operator).pause}, {"move", (*operator).move},
				{"reinit", (*operator).reinit}, {"roles", (*operator).roles}, {"remove", (*operator).remove},
			} {
				t.Run(step.name, func(t *testing.T) { step.run(&operator{t, tool, c}) })
				c.T = t
			}
		})
	}
	c.T = t
}

// must runs a command that succeeds, on pg1's file, and wants texts in what it says.
func (o *operator) must(wanted []string, args ...string) string {
	o.t.Helper()
	o.c.T = o.t
	text := o.Must(o.c.Nodes[0], args...)
	for _, w := range wanted {
		require.Regexp(o.t, w, text, "%s %s", o.Name, strings.Join(args, " "))
	}
	return text
}

// fails runs a command that ends with an error.
func (o *operator) fails(wanted string, args ...string) {
	o.t.Helper()
	out := o.Run(o.c.Nodes[0], args...)
	require.Equal(o.t, 1, out.Code, "%s %s: %s", o.Name, strings.Join(args, " "), out.Text)
	require.Regexp(o.t, wanted, out.Text)
}

// says makes a list of wanted texts.
func says(regexps ...string) []string { return regexps }

func (o *operator) leader() *rig.Node {
	var l *rig.Node
	rig.Eventually(o.t, steady, "somebody leads", func() bool { l = o.c.Leader(); return l != nil })
	return l
}

func (o *operator) replicas() []*rig.Node { return o.c.Others(o.leader()) }

// members is the list as data.
func (o *operator) members() map[string]map[string]any {
	o.t.Helper()
	out := o.Run(o.c.Nodes[0], "list", "-f", "json")
	require.Zero(o.t, out.Code, out.Text)
	var rows []map[string]any
	require.NoError(o.t, json.Unmarshal([]byte(out.Stdout), &rows), out.Text)
	all := map[string]map[string]any{}
	for _, r := range rows {
		all[fmt.Sprint(r["Member"])] = r
	}
	return all
}

// awaitMembers waits until the list fits.
func (o *operator) awaitMembers(what string, ok func(map[string]map[string]any) bool) {
	o.t.Helper()
	var last map[string]map[string]any
	defer func() {
		if o.t.Failed() {
			o.t.Logf("the list is %v", last)
		}
	}()
	rig.Eventually(o.t, steady, what, func() bool { last = o.members(); return ok(last) })
}

func (o *operator) look() {
	l, replica := o.leader(), o.replicas()[0]
	o.awaitMembers("one leads, two stream", func(m map[string]map[string]any) bool {
		return len(m) == 3 && m[l.Name]["Role"] == "Leader" && m[l.Name]["State"] == "running" && m[replica.Name]["Role"] == "Replica" && m[replica.Name]["State"] == "streaming"
	})
	row := o.members()[l.Name]
	require.Equal(o.t, "demo", row["Cluster"])
	require.Equal(o.t, fmt.Sprintf("127.0.0.1:%d", l.PGPort), row["Host"])
	require.NotNil(o.t, row["TL"])
	table := `\| %s +\| 127\.0\.0\.1:%d +\| %s +\| %s +\| +\d+ \|`
	o.must(says(`(?m)^\+ Cluster: demo \(\d{19}\) -+\+`, `\| Member +\| Host +\| Role +\| State +\| TL \| Receive LSN +\| Lag \| Replay LSN +\| Lag \|`,
		fmt.Sprintf(table, l.Name, l.PGPort, "Leader", "running"), fmt.Sprintf(table, replica.Name, replica.PGPort, "Replica", "streaming")), "list")
	o.must(says(`Pending restart`, `Scheduled restart`, `Tags`), "list", "-e")
	o.must(says(`(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), "list", "-t")
	o.must(says(`(?m)^Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag$`, `(?m)^demo\t`+l.Name+`\t`), "list", "-f", "tsv")
	o.must(says(`(?m)^- Cluster: demo$`, `(?m)^  Role: Leader$`), "list", "-f", "yaml")
	o.must(says(`\| `+l.Name+` +\|`, `\| \+ `+replica.Name+` +\|`), "topology")
	o.must(says(fmt.Sprintf(`^host=127\.0\.0\.1 port=%d\n$`, l.PGPort)), "dsn")
	o.must(says(fmt.Sprintf(`^host=127\.0\.0\.1 port=%d\n$`, replica.PGPort)), "dsn", "-m", replica.Name)
	o.must(says(`^host=127\.0\.0\.1 port=\d+\n$`), "dsn", "-r", "replica")
	o.fails(`^Error: Can not find a suitable member\n$`, "dsn", "-m", "nobody")
	o.must(says(`\| +TL \| +LSN +\| +Reason +\| +Timestamp +\| +New Leader +\|`), "history")
	version := o.must(says(`(?m)^patronictl version \S+$`), "version", "demo")
	for _, d := range o.c.Nodes {
		require.Regexp(o.t, `(?m)^`+d.Name+`: Patroni 4\.1\.\d+ PostgreSQL 15\.\d+$`, version)
	}
}

func (o *operator) query() {
	l, replica := o.leader(), o.replicas()[0]
	ask := "select inet_server_port() as port, pg_is_in_recovery() as standby"
	o.must(says(fmt.Sprintf(`\b%d\tFalse`, l.PGPort)), "query", "-c", ask, "-U", "postgres", "-d", "postgres")
	o.must(says(fmt.Sprintf(`\b%d\tTrue`, replica.PGPort)), "query", "-c", ask, "-U", "postgres", "-d", "postgres", "-m", replica.Name)
	o.must(says(`\bTrue\b`), "query", "-c", ask, "-U", "postgres", "-d", "postgres", "-r", "replica")
	o.must(says(`"port": *`+fmt.Sprint(l.PGPort)), "query", "-c", ask, "-U", "postgres", "-d", "postgres", "--format", "json")
	file := filepath.Join(o.t.TempDir(), "q.sql")
	require.NoError(o.t, os.WriteFile(file, []byte("select 42 as answer"), 0o600))
	o.must(says(`answer\s+42`), "query", "--file", file, "-U", "postgres", "-d", "postgres")
	o.fails(`^Error: You need to specify either --command or --file\n$`, "query", "-U", "postgres")
}

func (o *operator) everywhere(parameter, want string) {
	o.t.Helper()
	for _, d := range o.c.Nodes {
		rig.Eventually(o.t, steady, fmt.Sprintf("%s of %s is %s", parameter, d.Name, want), func() bool { return value(d, "show "+parameter) == want })
	}
}

func (o *operator) config() {
	o.must(says(`(?m)^ttl: 8$`, `(?m)^loop_wait: 1$`), "show-config")
	o.must(says(`(?m)^\+ttl: 9$`, `(?m)^-ttl: 8$`, `(?m)^Configuration changed$`), "edit-config", "-s", "ttl=9", "--force")
	o.must(says(`(?m)^ttl: 9$`), "show-config")
	o.must(says(`^Not changed\n$`), "edit-config", "-s", "ttl=9", "--force")
	quiet := o.must(says(`Configuration changed`), "edit-config", "-q", "-s", "ttl=8", "--force")
	require.NotContains(o.t, quiet, "-ttl: 9")
	o.must(says(`Configuration changed`), "edit-config", "-p", "work_mem=5MB", "--force")
	o.everywhere("work_mem", "5MB")
	out := o.Answer(o.c.Nodes[0], []string{"postgresql: {parameters: {work_mem: 6MB}}"}, "edit-config", "--apply", "-", "--force")
	require.Zero(o.t, out.Code, out.Text)
	o.everywhere("work_mem", "6MB")

	shown := o.Must(o.c.Nodes[0], "show-config")
	file := filepath.Join(o.t.TempDir(), "new.yml")
	require.NoError(o.t, os.WriteFile(file, []byte(regexp.MustCompile(`(?m)^.*work_mem.*\n`).ReplaceAllString(shown, "")), 0o600))
	out = o.Answer(o.c.Nodes[0], []string{"n"}, "edit-config", "--replace", file)
	require.Regexp(o.t, `(?m)^-    work_mem: 6MB$`, out.Text)
	o.everywhere("work_mem", "6MB")
	out = o.Answer(o.c.Nodes[0], []string{"y"}, "edit-config", "--replace", file)
	require.Regexp(o.t, `Configuration changed`, out.Text)
	o.everywhere("work_mem", "4MB")

	received := "Reload request received for member %s and will be processed within 1 seconds"
	o.must(says(fmt.Sprintf(received, "pg1"), fmt.Sprintf(received, "pg2"), fmt.Sprintf(received, "pg3")), "reload", "demo", "--force")
	one := o.must(says(fmt.Sprintf(received, "pg2")), "reload", "demo", "pg2", "--force")
	require.NotContains(o.t, one, "pg1 and")
	o.fails(`(?m)^Error: (No 'any' among provided members|nobody is not a member of cluster)$`, "reload", "demo", "nobody", "--force")
}

// postmasters are the servers' process ids by member.
func (o *operator) postmasters() map[string]int {
	all := map[string]int{}
	for _, d := range o.c.Nodes {
		all[d.Name] = d.Postmaster()
	}
	return all
}

// restarted wants that the servers of these nodes are others than before, and no other's.
func (o *operator) restarted(before map[string]int, nodes ...*rig.Node) {
	o.t.Helper()
	o.c.AwaitHealthy(steady)
	for _, d := range o.c.Nodes {
		require.Equal(o.t, slices.Contains(nodes, d), before[d.Name] != d.Postmaster(), "%s was restarted", d.Name)
	}
}

func (o *operator) restart() {
	l, replicas := o.leader(), o.replicas()
	before := o.postmasters()
	o.must(says(`Success: restart on member `+replicas[0].Name+`\n`), "restart", "demo", replicas[0].Name, "--force")
	o.restarted(before, replicas[0])
	before = o.postmasters()
	o.must(says(`Success: restart on member `+l.Name+`\n`), "restart", "demo", l.Name, "--force", "--timeout", "30")
	o.restarted(before, l)
	require.True(o.t, l.Primary(), "a restart moves no leadership")
	before = o.postmasters()
	o.must(says(`Success: restart on member `+replicas[0].Name+`\n`, `Success: restart on member `+replicas[1].Name+`\n`), "restart", "demo", "--role", "replica", "--force")
	o.restarted(before, replicas...)
	before = o.postmasters()
	o.must(says(`Failed: restart for member pg1, status code=503, \(restart conditions are not satisfied\)`), "restart", "demo", "pg1", "--pg-version", "10.1", "--force")
	require.NotContains(o.t, o.must(nil, "restart", "demo", "pg1", "--pending", "--force"), "Success", "nothing is pending")
	o.restarted(before)
}

// pending changes a parameter that needs a restart, there and back.
func (o *operator) pending() {
	for _, want := range []string{"60", "50"} {
		o.must(says(`Configuration changed`), "edit-config", "-p", "max_connections="+want, "--force")
		l := o.leader()
		o.awaitMembers("the leader waits for a restart", func(m map[string]map[string]any) bool { return m[l.Name]["Pending restart"] == "*" })
		require.Regexp(o.t, `max_connections: \d+->`+want, o.members()[l.Name]["Pending restart reason"])
		o.must(says(`Success: restart on member `+l.Name+`\n`), "restart", "demo", l.Name, "--pending", "--force")
		o.awaitMembers("the leader waits for nothing", func(m map[string]map[string]any) bool { return m[l.Name]["Pending restart"] == nil })
		rig.Eventually(o.t, steady, "the replicas have it, and nobody waits for a restart", func() bool {
			o.Must(o.c.Nodes[0], "restart", "demo", "--pending", "--force") // a replica may restart by itself, for more
			for _, d := range o.c.Nodes {
				if value(d, "show max_connections") != want || o.members()[d.Name]["Pending restart"] != nil {
					return false
				}
			}
			return true
		})
		o.everywhere("max_connections", want)
	}
}
