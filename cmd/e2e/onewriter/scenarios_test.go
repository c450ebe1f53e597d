package onewriter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
	"github.com/pgregent/pgregent/dcs/dcstest"
)

// scenarios are the hazards, by their names in the catalogue that docs/safety.md follows.
func scenarios() []scenario {
	return []scenario{
		{name: "A1-agent-killed", inject: agentKilled, store: true},
		{name: "A1-agent-oom", inject: agentOOM},
		{name: "A1-guard-killed", inject: guardKilled},
		{name: "A1-both-killed", inject: bothKilled, excepted: true},
		{name: "A2-agent-frozen", inject: agentFrozen},
		{name: "A2-guard-frozen", inject: guardFrozen},
		{name: "A2-both-frozen", inject: bothFrozen, excepted: true},
		{name: "A4-postmaster-killed", inject: postmasterKilled},
		{name: "A5-postmaster-frozen-and-cut", inject: postmasterFrozenAndCut},
		{name: "A6-renewals-held-back", inject: renewalsHeldBack, store: true},
		{name: "A7a-leader-key-deleted", inject: func(r *run) error { return r.keyDeleted("leader") }, store: true},
		{name: "A7b-lease-key-deleted", inject: func(r *run) error { return r.keyDeleted("lease") }, store: true},
		{name: "A7c-session-revoked", inject: sessionRevoked, store: true},
		{name: "A8-revoked-early-and-cut", inject: revokedAndCut, store: true},
		{name: "A15-name-started-twice", inject: startedTwice},
		{name: "A15-name-started-twice-unseen", inject: startedTwiceUnseen},
		{name: "A17-started-by-hand", inject: startedByHand},
		{name: "D2-machine-and-data-lost", inject: machineAndDataLost},
		{name: "A18-two-hundred-sessions", inject: manySessions},
		{name: "C1-replies-lost", inject: repliesLost, store: true},
		{name: "C1-some-replies-lost", inject: someRepliesLost, store: true},
	}
}

// agentKilled: the agent is started again only when another node leads.
func agentKilled(r *run) error {
	r.strike()
	r.kill(r.agent())
	return nil
}

// agentOOM has the kernel kill the agent for want of memory: in a cgroup that may have none, the next page is its last.
func agentOOM(r *run) error {
	group := os.Getenv(oomEnv)
	if group == "" {
		r.note("no memory cgroup here: SIGKILL in place of the kernel's killer")
		return agentKilled(r)
	}
	limit := filepath.Join(group, "memory.limit_in_bytes")
	if _, err := os.Stat(limit); err != nil {
		limit = filepath.Join(group, "memory.max")
	}
	if err := errors.Join(os.WriteFile(limit, []byte("4096"), 0), os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(fmt.Sprint(r.agent())), 0)); err != nil {
		return err
	}
	r.strike()
	for end := time.Now().Add(10 * time.Second); r.old.Running(); {
		if time.Now().After(end) {
			return errors.New("the kernel does not kill an agent that has no memory")
		}
		// What it reads needs memory.
		ask := http.Client{Timeout: 50 * time.Millisecond}
		if res, err := ask.Post(fmt.Sprintf("http://127.0.0.1:%d/switchover", r.old.APIPort), "text/plain", strings.NewReader(strings.Repeat("x", 1<<20))); err == nil {
			_ = res.Body.Close()
		}
		ask.CloseIdleConnections()
	}
	r.note("killed %v after its memory was taken", time.Since(r.fault).Round(time.Millisecond))
	r.strike()
	return nil
}

// guardKilled: the agent may start a new guard and the server in place, so it is frozen after a while.
func guardKilled(r *run) error {
	pids, err := r.guards()
	if err != nil {
		return err
	}
	r.strike()
	r.kill(pids...)
	r.follow()
	return nil
}

func bothKilled(r *run) error {
	pids, err := r.guards()
	if err != nil {
		return err
	}
	r.strike()
	r.kill(append(pids, r.agent())...)
	return nil
}

// frozenFor stops processes for 0.5 to 3 ttl. A leader that lives through that loses its lease afterwards.
func (r *run) frozenFor(pids ...int) error {
	d := between(r.dice, ttl/2, 3*ttl)
	r.note("frozen for %v", d.Round(time.Millisecond))
	r.strike()
	r.freeze(pids...)
	pause(context.Background(), d)
	r.thaw(pids...)
	// What was frozen goes on with old beliefs: now it would do harm.
	pause(context.Background(), 300*time.Millisecond)
	if !r.succeeded() {
		r.follow()
	}
	return nil
}

func agentFrozen(r *run) error { return r.frozenFor(r.agent()) }

func guardFrozen(r *run) error {
	pids, err := r.guards()
	if err != nil {
		return err
	}
	return r.frozenFor(pids...)
}

// bothFrozen: the kernel's timer ends the guard at its deadline, which a renewal sent before the fault has set; the server
// loses its guard then.
func bothFrozen(r *run) error {
	pids, err := r.guards()
	if err != nil {
		return err
	}
	err = r.frozenFor(append(pids, r.agent())...)
	r.until = r.fault.Add(dead)
	return err
}

// postmasterKilled: the agent may start the server again in place, under the same epoch.
func postmasterKilled(r *run) error {
	pid, err := r.postmaster()
	if err != nil {
		return err
	}
	r.strike()
	r.kill(pid)
	r.follow()
	return nil
}

// postmasterFrozenAndCut: the server cannot be told anything, its sessions go on, and the lease cannot be renewed.
func postmasterFrozenAndCut(r *run) error {
	pid, err := r.postmaster()
	if err != nil {
		return err
	}
	mode := dcstest.Refuse
	if r.dice.IntN(2) == 0 {
		mode = dcstest.BlackHole
	}
	r.strike()
	r.freeze(pid)
	pause(context.Background(), between(r.dice, 0, 300*time.Millisecond))
	r.old.Link.SetMode(mode)
	return nil
}

// renewalsHeldBack: every answer of the store comes when the lease that it confirms is nearly over.
func renewalsHeldBack(r *run) error {
	r.strike()
	r.old.Link.SetFaults(dcstest.Faults{ReplyDelay: ttl - 200*time.Millisecond})
	return nil
}

func (r *run) keyDeleted(key string) error {
	r.strike()
	if err := r.c.Store.Delete(key); err != nil {
		return err
	}
	r.follow()
	return nil
}

// revoke ends the session that the key `leader` is bound to: in half of the runs at any time, in the others in the middle
// of a renewal, which slow answers make long.
func (r *run) revoke() error {
	key, err := r.c.Store.Get("leader")
	if err != nil {
		return err
	}
	if r.dice.IntN(2) == 0 {
		r.old.Link.SetFaults(dcstest.Faults{ReplyDelay: 50 * time.Millisecond})
		defer r.old.Link.SetFaults(dcstest.Faults{})
		before, _ := r.c.Store.Get("lease")
		if !rig.Await(2*loopWait, func() bool {
			now, err := r.c.Store.Get("lease")
			return err == nil && now.Version != before.Version
		}) {
			return errors.New("the lease is not renewed")
		}
		r.note("session revoked in a renewal")
		pause(context.Background(), between(r.dice, 0, 120*time.Millisecond))
	}
	r.strike()
	return r.c.Store.EndSession(key)
}

func sessionRevoked(r *run) error {
	if err := r.revoke(); err != nil {
		return err
	}
	r.follow()
	return nil
}

// revokedAndCut: the store says that the session is over long before it is, and the holder cannot hear of it.
func revokedAndCut(r *run) error {
	if err := r.revoke(); err != nil {
		return err
	}
	pause(context.Background(), between(r.dice, 0, loopWait/2))
	r.old.Link.SetMode(dcstest.BlackHole)
	return nil
}

// repliesLost: requests are performed, and nobody hears of it.
func repliesLost(r *run) error {
	return r.faultyLink(func() { r.old.Link.SetMode(dcstest.DropReplies) })
}

// someRepliesLost loses nearly every third piece, with the connection that it came on.
func someRepliesLost(r *run) error {
	return r.faultyLink(func() { r.old.Link.SetFaults(dcstest.Faults{ReplyLoss: 0.3}) })
}

func (r *run) faultyLink(begin func()) error {
	d := between(r.dice, ttl, 2*ttl)
	r.strike()
	begin()
	rig.Await(d, r.succeeded)
	r.old.Link.SetFaults(dcstest.Faults{})
	r.old.Link.SetMode(dcstest.Pass)
	r.note("the link was bad for %v", time.Since(r.fault).Round(time.Millisecond))
	if !r.succeeded() {
		r.follow()
	}
	return nil
}
