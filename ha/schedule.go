package ha

import (
	"context"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
)

// scheduled is a restart that waits for its time (reference section 5.21): in memory, and shown in the member's key. It
// is for the server that ran when it was asked for.
type scheduled struct {
	rest.RestartRequest
	started time.Time // the postmaster's start time then
}

// ScheduleRestart implements rest.Operator. It may be called from any goroutine.
func (n *Node) ScheduleRestart(r rest.RestartRequest) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
	defer cancel()
	return n.inLoop(ctx, func() error {
		switch {
		case n.dynamic.Pause:
			return &rest.Refusal{Text: "Can't schedule restart in the paused state"}
		case n.scheduled != nil:
			return &rest.Refusal{Text: "Another restart is already scheduled", Conflict: true}
		}
		n.scheduled = &scheduled{r, n.server.PostmasterStart}
		n.log.Info("a restart is scheduled", "at", r.At)
		return nil
	})
}

// CancelRestart implements rest.Operator. It may be called from any goroutine.
func (n *Node) CancelRestart() (was bool) {
	ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
	defer cancel()
	_ = n.inLoop(ctx, func() error {
		was = n.scheduled != nil
		n.scheduled = nil
		return nil
	})
	return was
}

// tendSchedule turns the scheduled restart into a request when its time has come, and drops it when it means nothing any
// more. It is looked at while there is a leader and no pause, as the reference does.
func (n *Node) tendSchedule() {
	s := n.scheduled
	if s == nil || n.readErr != nil || n.dynamic.Pause || n.cluster.Leader.Name == "" {
		return
	}
	drop := func(why string) {
		n.log.Warn("the scheduled restart is dropped: "+why, "at", s.At)
		n.scheduled = nil
	}
	late := time.Since(s.At)
	switch {
	case n.server.Answered && !n.server.PostmasterStart.Equal(s.started):
		drop("PostgreSQL was restarted since")
	case late < 0:
	case late > n.dynamic.LoopWait*3/2+requestPatience:
		drop(fmt.Sprintf("it was due %v ago", late.Round(time.Second)))
	default:
		if err := n.mayRestart(s.RestartRequest); err != nil {
			if n.server.Answered && !n.restartDue(s.RestartRequest) {
				drop(err.Error())
			}
			return // what runs now ends first
		}
		n.scheduled = nil
		n.request = &request{Request: policy.Request{Kind: policy.RequestRestart}, restart: s.RestartRequest, since: n.clock.Now(), done: func(error) {}}
	}
}

// scheduleWake is how long until the scheduled restart is due; 0: nothing is.
func (n *Node) scheduleWake() time.Duration {
	if n.scheduled == nil {
		return 0
	}
	return max(time.Until(n.scheduled.At), 5*time.Millisecond)
}

// shownSchedule is the scheduled restart as members and answers show it (reference section 1.4).
func (n *Node) shownSchedule() map[string]any {
	s := n.scheduled
	if s == nil {
		return nil
	}
	m := s.Published()
	m["postmaster_start_time"] = rest.PostmasterStart(s.started)
	return m
}
