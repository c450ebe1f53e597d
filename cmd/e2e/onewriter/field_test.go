package onewriter

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/dcs/dcstest"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// The times of the clusters here. dead is D(ttl) of design section 4: the longest that a holder goes on after it sent its
// last renewal.
const (
	ttl      = 4 * time.Second
	loopWait = time.Second
	dead     = 2822 * time.Millisecond
)

// With failsafe a leader that is cut off goes on, rightly, as long as the others promise to wait: no scenario would change
// the leader.
const times = `
    ttl: 4
    loop_wait: 1
    retry_timeout: 1
    failsafe_mode: `

// form is with which privileges the daemons run, and with which guard.
type form struct {
	name   string
	prefix []string // the program that takes privileges away
	extra  string   // of the node's file
	group  bool     // in a cgroup that belongs to the user
	store  string   // empty: etcd
}

// unprivileged is what every user can have.
func unprivileged() form {
	return form{name: "unprivileged", prefix: []string{"setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"}}
}

// privileged has a cgroup and the capabilities for every optional rung but the PID namespace.
func privileged() form {
	return form{name: "privileged", prefix: keeping("sys_admin", "net_admin", "sys_resource"), group: true,
		extra: "fence: {mode: automatic, cgroup: automatic, admission: automatic}\n"}
}

// pidNamespace has every postmaster in a PID namespace of its own.
func pidNamespace() form {
	return form{name: "pidns", prefix: keeping("sys_admin"), group: true, extra: "fence: {mode: automatic, pid_namespace: true}\n"}
}

// unguarded is the positive control.
func unguarded() form {
	f := unprivileged()
	f.name, f.extra = "unguarded", fmt.Sprintf("pgregent: {guard: %s}\n", rig.Unguarded())
	return f
}

func keeping(caps ...string) []string {
	list := "-all,+" + strings.Join(held(caps...), ",+")
	return []string{"setpriv", "--inh-caps=" + list, "--ambient-caps=" + list}
}

// formByName is what RUNGS asks for.
func formByName(t *testing.T, rungs string) form {
	t.Helper()
	var f form
	switch rungs {
	case "":
		f = unprivileged()
	case "all":
		f = privileged()
	case "pidns":
		f = pidNamespace()
	default:
		require.FailNow(t, "RUNGS is "+rungs+", expected nothing, all or pidns")
	}
	f.store = os.Getenv("STORE")
	return f
}

// field is a long-lived cluster with writers on every node, on which run after run takes place.
type field struct {
	c    *rig.Cluster
	load *load
	form form
}

// options are those of rig.New for clusters of these tests.
func (f form) options(t *testing.T) rig.Options {
	t.Helper()
	o := rig.Options{
		PG: pgVersion(), Nodes: 3, DCS: times + "false", Store: f.store, Etcd: []string{"--heartbeat-interval=50", "--election-timeout=300"}, Links: true,
		MaxConnections: 300, Extra: f.extra, Prefix: f.prefix,
		Parameters: []string{"log_min_messages: log", "max_wal_size: 128MB", "min_wal_size: 32MB"},
	}
	if !f.group {
		return o
	}
	group := os.Getenv(nodesEnv)
	if group == "" {
		postgrestest.Require(t, "a delegated cgroup: start the tests as root, where cgroup2 is mounted")
	}
	dir, err := os.Open(group)
	require.NoError(t, err)
	t.Cleanup(func() { _ = dir.Close() })
	o.Attr = func(cmd *exec.Cmd) { cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd()) }
	return o
}

// newField starts a cluster and its writers.
func newField(t *testing.T, o rig.Options, f form) *field {
	t.Helper()
	c := rig.New(t, o)
	c.StartAll()
	conn, _, err := connect(t.Context(), dsn(c.Root, c.Leader().PGPort), c.Leader())
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "create table acked(id bigint primary key)").ReadAll()
	require.NoError(t, err)
	hangUp(conn)
	l := newLoad(c.Nodes)
	t.Cleanup(l.stop)
	return &field{c: c, load: l, form: f}
}

// leader is the node that leads, when all is well there: it acknowledges, with a COPY in flight, and the others stream.
func (f *field) leader(within time.Duration) *rig.Node {
	var leader *rig.Node
	rig.Await(within, func() bool {
		leader = nil
		if !f.c.Healthy() {
			return false
		}
		n := f.c.Leader()
		if n != nil && f.flowing(n) {
			leader = n
		}
		return leader != nil
	})
	return leader
}

func (f *field) flowing(n *rig.Node) bool {
	a, ok := f.load.last(n)
	return ok && time.Since(a.at) < 200*time.Millisecond && f.load.copying(n)
}

// heal undoes every fault: what is frozen goes on, what is dead is started, links pass.
func (f *field) heal() {
	f.c.T.Helper()
	for _, n := range f.c.Nodes {
		n.Link.SetFaults(dcstest.Faults{})
		n.Link.SetMode(dcstest.Pass)
		for _, pid := range n.Processes() {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
		if n.Running() {
			_ = n.Cmd.Process.Signal(syscall.SIGCONT)
		} else {
			n.Start()
		}
	}
}

// lost counts acknowledged writes that the leader does not have, of those that were sent since the record began.
func (f *field) lost(leader *rig.Node, acks []ack, from int64) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := connect(ctx, dsn(f.c.Root, leader.PGPort), leader)
	if err != nil {
		return 0, err
	}
	defer hangUp(conn)
	results, err := conn.Exec(ctx, fmt.Sprintf("select id from acked where id >= %d", from)).ReadAll()
	if err != nil {
		return 0, err
	}
	have := make(map[string]bool, len(results[0].Rows))
	for _, row := range results[0].Rows {
		have[string(row[0])] = true
	}
	lost := 0
	for _, a := range acks {
		if a.id >= from && !have[fmt.Sprint(a.id)] {
			lost++
		}
	}
	return lost, nil
}
