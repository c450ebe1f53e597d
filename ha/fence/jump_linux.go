package fence

import (
	"errors"
	"math"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/pgregent/dcs"
)

// jumps tells how far CLOCK_REALTIME was set forward beside CLOCK_BOOTTIME. A virtual machine that was paused and whose
// clocks stood still (hazard A3) notices nothing, until something sets its wall clock: then the time that it jumped may
// have passed for everybody else. The kernel reports that at once (timerfd with TFD_TIMER_CANCEL_ON_SET).
//
// It is a net under the assumption that no pause is invisible to the clocks, not a replacement for it: between the end of
// the pause and the setting of the clock nothing is noticed.
func jumps(clock dcs.Clock) <-chan time.Duration {
	out := make(chan time.Duration, 1)
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return out // without it the assumption stands alone
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	go func() {
		defer func() { _ = f.Close() }()
		last := offset(clock)
		var b [8]byte
		for watchWall(fd) == nil {
			if _, err := f.Read(b[:]); !errors.Is(err, unix.ECANCELED) {
				return
			}
			now := offset(clock)
			if now > last {
				out <- now - last
			}
			last = now
		}
	}()
	return out
}

// watchWall arms a timer that never fires, and is cancelled when the wall clock is set.
func watchWall(fd int) error {
	spec := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt32}}
	return unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &spec, nil)
}

// offset is the wall clock beside the clock of the deadlines.
func offset(clock dcs.Clock) time.Duration {
	return time.Duration(time.Now().UnixNano()) - clock.Now()
}

// leap is a jump of the wall clock.
type leap struct{ at, by time.Duration }

// afterLeaps is the deadline of a renewal, less what the wall clock jumped since it was sent.
func (g *guard) afterLeaps(t Term) time.Duration {
	for _, l := range g.leaps {
		if t.Sent != 0 && t.Sent < l.at && t.Deadline-g.clock.Now() <= noDeadline {
			t.Deadline -= l.by
		}
	}
	return t.Deadline
}

// onJump takes what may have passed unnoticed off the deadline: fence first, ask later. The next renewal gives a deadline
// of its own, which counts from after the jump. A wall clock that an administrator sets forward costs a primary at most
// one demotion.
func (g *guard) onJump(by time.Duration) {
	if by < jumpMatters {
		return
	}
	now := g.clock.Now()
	g.leaps = append(slices.DeleteFunc(g.leaps, func(l leap) bool { return now-l.at > time.Hour }), leap{now, by})
	if !g.state.Open || g.endless() {
		return
	}
	g.setDeadline(g.state.Deadline - by)
	g.push(Event{Kind: EventJump, Epoch: g.state.Epoch, By: by})
}
