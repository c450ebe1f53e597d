package onewriter

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// emptyWithin is how long after the deadline the last process of the data directory may be there, when no disk blocks.
const emptyWithin = 500 * time.Millisecond

// fenceBound is F of design section 4: by then SIGKILL is pending everywhere. It is part of the lease's arithmetic, so an
// acknowledgement until then is safe; a postmaster that passes on no signal needs some of it.
const fenceBound = 500 * time.Millisecond

// fenceTime is one measured fence. Times are relative to the deadline: negative is before.
type fenceTime struct {
	what           string
	lastAck, empty time.Duration
	note           string
}

// TestFenceTime measures how long a fence takes when it is hard: with many busy backends, with a postmaster that obeys no
// signal, with a disk that answers nothing.
func TestFenceTime(t *testing.T) {
	var mu sync.Mutex
	var times []fenceTime
	for _, test := range []struct {
		name    string
		lastAck time.Duration // the latest that is allowed, after the deadline
		options func(*testing.T, *rig.Options)
		harden  func(*testing.T, *run)
		soften  func(*testing.T, *run)
	}{
		{"500 busy backends", fenceBound, func(_ *testing.T, o *rig.Options) { o.MaxConnections = 600 }, busyBackends, nil},
		{"stopped postmaster", fenceBound, nil, freezePostmaster, nil},
		{"blocked disk", 0, ownDisk, blockDisk, unblockDisk},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := unprivileged()
			o := f.options(t)
			if test.options != nil {
				test.options(t, &o)
			}
			field := newField(t, o, f)
			for range counted(t, 5, 1) {
				m := field.measureFence(t, test.harden, test.soften)
				m.what = test.name
				mu.Lock()
				times = append(times, m)
				mu.Unlock()
				require.LessOrEqual(t, m.lastAck, test.lastAck, "the last acknowledgement, after the deadline")
				if test.soften == nil {
					limit := emptyWithin
					if !full() { // SIGKILL is pending by then; how soon five hundred processes are gone is the machine's, which may do other things
						limit *= 2
					}
					require.LessOrEqual(t, m.empty, limit, "until nothing is left, after the deadline")
				}
			}
		})
	}
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "fence\tlast ack to deadline ms\tnothing left to deadline ms\tnote\t")
	for _, m := range times {
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t\n", m.what, m.lastAck.Milliseconds(), m.empty.Milliseconds(), m.note)
	}
	_ = w.Flush()
	t.Logf("agent killed; measured against D = %v after its last renewal\n%s", dead, b.String())
}

// measureFence makes the fence hard, kills the agent, and waits until another node leads and nothing is left.
func (f *field) measureFence(t *testing.T, harden, soften func(*testing.T, *run)) fenceTime {
	t.Helper()
	leader := f.leader(60 * time.Second)
	require.NotNil(t, leader)
	if first := f.c.Nodes[0]; soften != nil && leader != first {
		code, text := leader.Post("/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, leader.Name, first.Name))
		require.Equal(t, http.StatusOK, code, text)
		require.True(t, rig.Await(60*time.Second, func() bool { leader = f.leader(time.Second); return leader == first }))
	}
	r := &run{field: f, old: leader, dice: dice(t.Name())}
	f.load.forget()
	renewed := f.watchRenewals()
	pause(context.Background(), loopWait+between(r.dice, 0, loopWait))
	harden(t, r)
	r.strike()
	leader.Kill()
	var emptied time.Time
	empty := func() bool {
		if emptied.IsZero() && len(leader.Servers()) == 0 {
			emptied = time.Now()
		}
		return !emptied.IsZero()
	}
	require.True(t, rig.Await(newTerm, func() bool { return (empty() || soften != nil) && r.succeeded() }), "another node leads, and nothing is left")
	deadline := renewed().Add(dead)
	m := fenceTime{}
	if soften != nil {
		m.note = "blocked until the other node led: nothing left before is not possible"
		soften(t, r)
		rig.Eventually(t, 5*time.Second, "nothing is left", empty)
	}
	m.empty = emptied.Sub(deadline)
	for _, a := range f.load.record() {
		if a.term.node == leader {
			m.lastAck = a.at.Sub(deadline)
		}
	}
	for _, heal := range r.heals {
		heal()
	}
	f.heal()
	return m
}

// watchRenewals watches the lease until it is asked when it was last renewed. The time is when that was seen here: the
// renewal was sent before, and so its deadline is earlier still, by a few milliseconds.
func (f *field) watchRenewals() (renewed func() time.Time) {
	ctx, cancel := context.WithCancel(context.Background())
	var last time.Time
	done := make(chan struct{})
	holder := ""
	go func() {
		defer close(done)
		version := uint64(0)
		for ctx.Err() == nil {
			k, err := f.c.Store.Get("lease")
			if err == nil && k.Version != version {
				who := holderOf(k.Value)
				if holder == "" {
					holder = who
				}
				if who != holder {
					return // taken by the next one
				}
				version, last = k.Version, time.Now()
			}
			pause(ctx, 3*time.Millisecond)
		}
	}()
	return func() time.Time {
		cancel()
		<-done
		return last
	}
}

// busyBackends opens 500 sessions: most are in a statement that waits, some use the processor.
func busyBackends(t *testing.T, r *run) {
	t.Helper()
	conns := r.openSessions(500, func(i int) string {
		if i%50 == 0 {
			return "select count(*) from generate_series(1, 1000000000)"
		}
		return "select pg_sleep(60)"
	})
	require.Len(t, conns, 500)
}

func freezePostmaster(t *testing.T, r *run) {
	t.Helper()
	pid, err := r.postmaster()
	require.NoError(t, err)
	r.freeze(pid)
}

// ownDisk puts the data directory of the first node, which leads at first, on a disk of its own.
func ownDisk(t *testing.T, o *rig.Options) {
	t.Helper()
	disk := os.Getenv(diskEnv)
	if disk == "" {
		postgrestest.Require(t, "a loop device: start the tests as root")
	}
	dir, err := os.MkdirTemp(disk, "node")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o700))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	o.Dir = func(name string) string {
		if name == "pg1" {
			return dir
		}
		return ""
	}
	o.Nodes = 2
}

func blockDisk(t *testing.T, r *run) {
	t.Helper()
	require.NoError(t, freeze(os.Getenv(diskEnv)))
	t.Cleanup(func() { _ = thaw(os.Getenv(diskEnv)) })
}

func unblockDisk(t *testing.T, _ *run) {
	t.Helper()
	require.NoError(t, thaw(os.Getenv(diskEnv)))
}

// holderOf reads the lease record.
func holderOf(record string) string {
	var r struct {
		Holder string `json:"holder"`
	}
	_ = json.Unmarshal([]byte(record), &r)
	return r.Holder
}
