package policytest

import (
	"time"

	"github.com/pgregent/pgregent/ha/policy"
)

// RestartPostgres asks the node's agent for a restart.
func (n *Node) RestartPostgres(r policy.RestartRequest) {
	if a := n.agent; a != nil {
		a.restart = &r
		a.wake()
	}
}

// Reinit asks the node's agent to make the replica anew.
func (n *Node) Reinit(r policy.ReinitRequest) {
	a := n.agent
	if a == nil {
		return
	}
	if a.reinit != nil && !r.Force {
		return // refused: one is under way
	}
	a.reinit = &r
	a.wake()
}

// CancelReinit takes the request back; a copy that is under way ends.
func (n *Node) CancelReinit() {
	a := n.agent
	if a == nil || a.reinit == nil {
		return
	}
	a.reinit = nil
	if a.task.Kind == policy.TaskClone {
		a.cancel()
	}
	a.wake()
}

// scheduledView is the scheduled restart as the policy sees it.
func (a *agent) scheduledView() *policy.RestartRequest {
	if a.scheduled == nil {
		return nil
	}
	r := *a.scheduled
	r.In = a.scheduledAt - a.w.now
	r.Happened = a.n.pg.life != a.scheduledLife
	return &r
}

// refuse ends a request.
func (a *agent) refuse(act policy.Refuse) {
	switch act.Request {
	case policy.RequestRestart:
		a.restart = nil
	case policy.RequestScheduled:
		a.scheduled = nil
	case policy.RequestReinit:
		a.reinit = nil
	}
}

// restartServer stops the server and starts it again as what it was. The epoch stays open: a primary that is stopped is
// started by the guard under it, or not at all.
func (a *agent) restartServer(act policy.Restart, end func(error, bool)) {
	n := a.n
	if act.Scheduled {
		a.scheduled = nil
	} else {
		a.restart = nil
	}
	n.due = true
	id := a.taskID
	begin := func() {
		switch {
		case a.taskID != id: // replaced meanwhile
		case act.Primary:
			a.startPrimary(func(err error) { end(err, false) })
		default:
			a.atGuard(end, func() {
				n.pgStart(start{parent: a.guard, upstream: act.Member}, func(err error) { end(err, false) })
			})
		}
	}
	a.atGuard(end, func() { n.pgStop(func() { a.run0(begin) }) })
}

func (s *Story) restartPostgres(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	n, err := s.node(args[0])
	if err != nil {
		return err
	}
	r, err := restartConditions(args[1:])
	if err == nil {
		n.RestartPostgres(r)
	}
	return err
}

func restartConditions(args []string) (r policy.RestartRequest, err error) {
	for _, arg := range args {
		switch arg {
		case "pending":
			r.Pending = true
		case "role=primary", "role=replica":
			r.Role = arg[len("role="):]
		default:
			return r, errUsage
		}
	}
	return r, nil
}

func (s *Story) scheduleRestart(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	in, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	n, err := s.node(args[1])
	if err != nil {
		return err
	}
	r, err := restartConditions(args[2:])
	if err != nil || n.agent == nil {
		return err
	}
	n.agent.scheduled, n.agent.scheduledAt, n.agent.scheduledLife = &r, n.w.now+in, n.pg.life
	n.agent.wake()
	return nil
}

func (s *Story) reinit(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	n, err := s.node(args[0])
	if err != nil {
		return err
	}
	var r policy.ReinitRequest
	for _, arg := range args[1:] {
		switch arg {
		case "force":
			r.Force = true
		case "from-leader":
			r.FromLeader = true
		default:
			return errUsage
		}
	}
	n.Reinit(r)
	return nil
}
