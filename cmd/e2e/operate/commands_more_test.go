package operate

import (
	"os"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

func (o *operator) schedule() {
	before := o.postmasters()
	o.must(says(`Success: restart scheduled on member pg2\n`), "restart", "demo", "pg2", "--scheduled", later, "--force")
	o.awaitMembers("it is shown", func(m map[string]map[string]any) bool {
		s, _ := m["pg2"]["Scheduled restart"].(string)
		return strings.HasPrefix(s, "2036-01-01T00:00:00")
	})
	out := o.Answer(o.c.Nodes[0], []string{"y", ""}, "restart", "demo", "pg2", "--scheduled", later)
	require.Contains(o.t, out.Text, "Failed: another restart is already scheduled on member pg2")
	o.must(says(`Success: flush scheduled restart for member pg2`), "flush", "demo", "pg2", "restart", "--force")
	o.awaitMembers("it is gone", func(m map[string]map[string]any) bool { return m["pg2"]["Scheduled restart"] == nil })
	o.must(says(`No scheduled restart for member pg2`), "flush", "demo", "pg2", "restart", "--force")
	o.restarted(before)

	l, target := o.leader(), o.replicas()[0]
	o.must(says(`Switchover scheduled`), "switchover", "demo", "--leader", l.Name, "--candidate", target.Name, "--scheduled", later, "--force")
	o.must(says(`(?m)^ Switchover scheduled at: 2036-01-01T00:00:00\+00:00$`, `(?m)^ +from: `+l.Name+`$`, `(?m)^ +to: `+target.Name+`$`), "list")
	o.must(says(`Success: scheduled switchover deleted`), "flush", "demo", "switchover", "--force")
	o.must(says(`No pending scheduled switchover`), "flush", "demo", "switchover", "--force")

	soon := time.Now().Add(3 * time.Second).UTC().Format(time.RFC3339)
	o.must(says(`Success: restart scheduled on member pg2\n`), "restart", "demo", "pg2", "--scheduled", soon, "--force")
	rig.Eventually(o.t, steady, "the scheduled restart comes", func() bool { pid := o.c.Nodes[1].Postmaster(); return pid != 0 && pid != before["pg2"] })
	o.c.AwaitHealthy(steady)
}

func (o *operator) pause() {
	l := o.leader()
	o.must(says(`'pause' request sent, waiting until it is recognized by all nodes`, `Success: cluster management is paused`), "pause", "demo", "--wait")
	o.must(says(`(?m)^ Maintenance mode: on$`), "list")
	for _, d := range o.c.Nodes {
		_, body := d.Get("/patroni")
		require.Equal(o.t, true, body["pause"], d.Name)
	}
	o.fails(`Error: Cluster is already paused`, "pause", "demo")
	o.fails(`Error: Can't schedule switchover in the paused state`, "switchover", "demo", "--leader", l.Name, "--candidate", o.replicas()[0].Name, "--scheduled", later, "--force")
	o.fails(`Error: Can't schedule restart in the paused state`, "restart", "demo", "pg2", "--scheduled", later, "--force")
	o.must(says(`Success: restart on member pg2`), "restart", "demo", "pg2", "--force")
	o.must(says(`Success: cluster management is resumed`), "resume", "demo", "--wait")
	require.NotContains(o.t, o.must(nil, "list"), "Maintenance mode")
	o.fails(`Error: Cluster is not paused`, "resume", "demo")
	o.c.AwaitHealthy(steady)
}

func (o *operator) move() {
	l, replicas := o.leader(), o.replicas()
	o.fails(`Error: Member nobody is not the leader of cluster demo`, "switchover", "demo", "--leader", "nobody", "--force")
	o.fails(`Error: `, "switchover", "demo", "--leader", l.Name, "--candidate", "nobody", "--force")
	o.fails(`Aborted!|nobody answers`, "switchover", "demo", "--leader", l.Name, "--candidate", replicas[0].Name) // nobody answers
	o.must(says(`(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ Successfully switched over to "`+replicas[0].Name+`"$`, `\| `+l.Name+` +\|.*\| stopped +\||\| `+l.Name+` +\|`),
		"switchover", "demo", "--leader", l.Name, "--candidate", replicas[0].Name, "--force")
	o.leads(replicas[0])
	o.must(says(`Successfully failed over to "`+replicas[1].Name+`"`), "failover", "demo", "--candidate", replicas[1].Name, "--force")
	o.leads(replicas[1])
	o.fails(`Error: Failover could be performed only to a specific candidate`, "failover", "demo", "--force")

	out := o.Answer(o.c.Nodes[0], []string{replicas[1].Name, l.Name, "now", "y"}, "switchover", "demo")
	require.Zero(o.t, out.Code, out.Text)
	require.Contains(o.t, out.Text, "Successfully switched over to \""+l.Name+"\"")
	o.leads(l)
	rig.Eventually(o.t, steady, "the history has it", func() bool {
		return strings.Contains(o.Must(o.c.Nodes[0], "history", "demo", "-f", "tsv"), "\t"+l.Name+"\n")
	})
	o.must(says(`"New Leader": "`+l.Name+`"`), "history", "demo", "-f", "json")
}

// leads waits until a node leads, which may be a moment after it was said that it will, and the others follow.
func (o *operator) leads(d *rig.Node) {
	o.t.Helper()
	rig.Eventually(o.t, steady, d.Name+" leads", d.Primary)
	o.c.AwaitHealthy(steady)
	require.True(o.t, d.Primary(), "%s leads", d.Name)
}

func (o *operator) reinit() {
	d := o.replicas()[0]
	before := versionFile(o.t, d)
	o.must(says(`Success: reinitialize for member `+d.Name+`\n`, `Waiting for reinitialize to complete on: `+d.Name, `Reinitialize is completed on: `+d.Name),
		"reinit", "demo", d.Name, "--force", "--wait")
	o.c.AwaitHealthy(steady)
	require.False(o.t, os.SameFile(before, versionFile(o.t, d)), "the data directory is a new one")
	before = versionFile(o.t, d)
	o.must(says(`Success: reinitialize for member `+d.Name+`\n`), "reinit", "demo", d.Name, "--force", "--from-leader", "--wait")
	o.c.AwaitHealthy(steady)
	require.False(o.t, os.SameFile(before, versionFile(o.t, d)), "the data directory is a new one")
	l := o.leader()
	out := o.Run(o.c.Nodes[0], "reinit", "demo", l.Name, "--force")
	require.NotContains(o.t, out.Text, "Success", "the leader is not copied anew")
	require.True(o.t, l.Primary())
}

// roles are the two commands that come with standby clusters: one clear sentence each.
func (o *operator) roles() {
	l := o.leader()
	out := o.Run(o.c.Nodes[0], "demote-cluster", "demo", "--host", "127.0.0.1", "--port", "5432", "--force")
	require.Equal(o.t, 1, out.Code, out.Text)
	last := out.Text[strings.LastIndex(strings.TrimSpace(out.Text), "\n")+1:]
	o.t.Logf("demote-cluster: %s", last)
	require.Regexp(o.t, `(?s)^Error: .*(standby_cluster|standby cluster)`, last)
	out = o.Run(o.c.Nodes[0], "promote-cluster", "demo", "--force")
	require.Equal(o.t, 1, out.Code, out.Text)
	require.Regexp(o.t, `(?m)^Error: [^\n]+\n$`, out.Text)
	require.NotContains(o.t, o.Must(o.c.Nodes[0], "show-config"), "standby_cluster")
	require.True(o.t, l.Primary())
}

// remove takes the keys of a further cluster away, whose node has ended.
func (o *operator) remove() {
	extra := rig.New(o.t, rig.Options{PG: "15", Nodes: 1, DCS: fastTimes, Scope: "extra"})
	extra.StartAll()
	d := extra.Nodes[0]
	out := o.Answer(d, []string{"demo"}, "remove", "extra")
	require.Equal(o.t, 1, out.Code, out.Text)
	require.Contains(o.t, out.Text, "Error: Cluster names specified do not match")
	out = o.Answer(d, []string{"extra", "yes"}, "remove", "extra")
	require.Equal(o.t, 1, out.Code, out.Text)
	require.Contains(o.t, out.Text, `Error: You did not exactly type "Yes I am aware"`)
	out = o.Answer(d, []string{"extra", "Yes I am aware", "nobody"}, "remove", "extra")
	require.Equal(o.t, 1, out.Code, out.Text)
	require.Contains(o.t, out.Text, "Error: You did not specify the current leader of the cluster")
	_, err := extra.Store.Get("config")
	require.NoError(o.t, err, "nothing was removed")
	d.Stop()
	out = o.Answer(d, []string{"extra", "Yes I am aware"}, "remove", "extra")
	require.Zero(o.t, out.Code, out.Text)
	for _, key := range []string{"config", "initialize", "status", "lease"} {
		_, err := extra.Store.Get(key)
		require.Error(o.t, err, "the key %s is gone", key)
	}
}
