package operate

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// TestMixed operates a cluster of two pgregent members and a Patroni member with either command line.
func TestMixed(t *testing.T) {
	tools := []rig.Tool{rig.Patronictl(t), rig.Pgregent(t)}
	c := rig.New(t, rig.Options{PG: "15", Nodes: 3, DCS: patroniTimes, Extra: fastCopy})
	patroni := c.Nodes[2]
	patroni.RunPatroni()
	c.Nodes[0].Start()
	rig.Eventually(t, steady, "pg1 leads", c.Nodes[0].Primary)
	c.Nodes[1].Start()
	patroni.Start()
	c.AwaitHealthy(steady)
	w := c.StartWriter()
	for _, tool := range tools {
		t.Run(tool.Name, func(t *testing.T) {
			o := &operator{t, tool, c}
			c.T = t
			defer func() { c.T = t }()
			targets := []*rig.Node{patroni, c.Nodes[1]}
			if full() {
				targets = append(targets, patroni, c.Nodes[0])
			}
			for _, target := range targets {
				o.moveTo(target)
			}
			o.mixedPause()
			o.mixedEdit()
			o.mixedRestart()
			require.Zero(t, w.Lost())
		})
		c.T = t
	}
	for _, g := range w.Gaps(notable) {
		t.Logf("%v without an acknowledged write", g)
	}
}

func (o *operator) moveTo(target *rig.Node) {
	l := o.leader()
	o.must(says(`Successfully switched over to "`+target.Name+`"`), "switchover", "demo", "--leader", l.Name, "--candidate", target.Name, "--force")
	o.leads(target)
}

func (o *operator) mixedPause() {
	o.must(says(`Success: cluster management is paused`), "pause", "demo", "--wait")
	for _, d := range o.c.Nodes {
		rig.Eventually(o.t, steady, d.Name+" is paused", func() bool { _, body := d.Get("/patroni"); return body["pause"] == true })
	}
	o.must(says(`Maintenance mode: on`), "list")
	o.must(says(`Success: cluster management is resumed`), "resume", "demo", "--wait")
	o.c.AwaitHealthy(steady)
}

func (o *operator) mixedEdit() {
	for _, size := range []string{"7MB", "4MB"} {
		o.must(says(`Configuration changed`), "edit-config", "-p", "work_mem="+size, "--force")
		o.everywhere("work_mem", size)
	}
}

// mixedRestart restarts each member; in the full form, all of them for a parameter that needs it.
func (o *operator) mixedRestart() {
	for _, d := range o.c.Nodes {
		before := o.postmasters()
		o.must(says(`Success: restart on member `+d.Name+`\n`), "restart", "demo", d.Name, "--force")
		o.restarted(before, d)
	}
	if full() {
		o.pending()
	}
}
