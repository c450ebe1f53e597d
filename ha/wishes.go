package ha

import (
	"fmt"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
)

// wishes are what operators asked this node for. They are the loop's own, and are lost with the process.
type wishes struct {
	restart   *restartWish
	scheduled *scheduledWish
	reinit    *reinitWish
}

type restartWish struct {
	rest.RestartRequest
	since time.Duration
	begun bool
	// back says that PostgreSQL was down, so that the restart is over as soon as it answers.
	back bool
	done chan error // holds one value
}

type scheduledWish struct {
	rest.RestartRequest
	started time.Time // when the postmaster was started that it is meant for
}

type reinitWish struct {
	rest.ReinitializeRequest
	copying bool // its copy was begun
}

// wishesView puts what operators asked for into the policy's words.
func (n *Node) wishesView(v *policy.View) {
	if w := n.wishes.restart; w != nil && !w.begun {
		v.Restart = &policy.RestartRequest{Role: w.Role, Below: w.Below, Pending: w.Pending}
	}
	if w := n.wishes.scheduled; w != nil {
		started := n.server.PostmasterStart
		v.Scheduled = &policy.RestartRequest{
			In: time.Until(w.At), Role: w.Role, Below: w.Below, Pending: w.Pending,
			Happened: n.server.Answered && !started.IsZero() && !w.started.IsZero() && !started.Equal(w.started),
		}
	}
	if w := n.wishes.reinit; w != nil {
		v.Reinit = &policy.ReinitRequest{Force: w.Force, FromLeader: w.FromLeader, Copying: w.copying}
	}
}

// refuse ends a request that the policy does not carry out.
func (n *Node) refuse(a policy.Refuse) {
	n.log.Info("a request is not carried out", "request", string(a.Request), "why", a.Why)
	switch a.Request {
	case policy.RequestRestart:
		n.answerRestart(&rest.Refusal{Text: a.Why})
	case policy.RequestScheduled:
		n.wishes.scheduled = nil
	case policy.RequestReinit:
		n.wishes.reinit = nil
	}
}

// answerRestart tells whoever waits for a restart, and forgets the request.
func (n *Node) answerRestart(err error) {
	if w := n.wishes.restart; w != nil {
		w.done <- err
		n.wishes.restart = nil
	}
}

// expireWishes refuses a restart that the situation has not let begin: somebody waits for an answer.
func (n *Node) expireWishes(d policy.Decision) {
	w := n.wishes.restart
	switch {
	case w == nil:
		return
	case w.back && n.clock.Now()-w.since > max(w.Timeout, n.startTimeout()):
		n.answerRestart(&rest.Refusal{Text: textStillStarting})
		return
	case w.begun || n.clock.Now()-w.since < max(2*n.dynamic.LoopWait, 10*time.Second):
		return
	}
	n.refuse(policy.Refuse{Request: policy.RequestRestart, Why: fmt.Sprintf("%s: %s", textRestartFailed, d.Detail)})
}

// scheduledKey is the scheduled restart as the member's key shows it (reference section 1.4); nil: none.
func (n *Node) scheduledKey() map[string]any {
	w := n.wishes.scheduled
	if w == nil {
		return nil
	}
	filters := map[string]any{}
	if w.Role != "" {
		filters["role"] = w.Role
	}
	if w.Below != 0 {
		filters["postgres_version"] = versionText(w.Below)
	}
	if w.Pending {
		filters["restart_pending"] = true
	}
	if w.Timeout > 0 {
		filters["timeout"] = int64(w.Timeout / time.Second)
	}
	return cluster.ScheduledRestart(w.At, w.started, filters)
}

// versionText is a server_version_num as people write it: 15.18, 9.6.24.
func versionText(n int) string {
	if n < 100000 {
		return fmt.Sprintf("%d.%d.%d", n/10000, n/100%100, n%100)
	}
	return fmt.Sprintf("%d.%d", n/10000, n%10000)
}
