package dcs

import (
	"testing"
	"testing/synctest"
	"time"
)

// clocks are the implementations by name.
func clocks() map[string]Clock {
	return map[string]Clock{"boottime": Boottime(), "process": ProcessClock()}
}

func TestTimersAreNeverEarlyAndFireOnce(t *testing.T) {
	for name, clock := range clocks() {
		for d := -time.Millisecond; d < 15*time.Millisecond; d += 300 * time.Microsecond {
			before := clock.Now()
			timer := clock.Timer(d)
			select {
			case <-timer.C():
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: a timer of %v did not fire", name, d)
			}
			if took := clock.Now() - before; took < d {
				t.Errorf("%s: a timer of %v fired after %v", name, d, took)
			}
			select {
			case <-timer.C():
				t.Errorf("%s: a timer of %v fired twice", name, d)
			default:
			}
			timer.Stop()
		}
	}
}

func TestStopKeepsQuiet(t *testing.T) {
	for name, clock := range clocks() {
		stopped := clock.Timer(2 * time.Millisecond)
		stopped.Stop()
		stopped.Stop()
		fired := clock.Timer(0) // in the channel already, or soon
		later := clock.Timer(10 * time.Millisecond)
		<-later.C()
		fired.Stop()
		for what, c := range map[string]<-chan struct{}{"stopped before": stopped.C(), "stopped after firing": fired.C()} {
			select {
			case <-c:
				t.Errorf("%s: a timer that was %s has a value", name, what)
			default:
			}
		}
	}
}

func TestProcessClockInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := ProcessClock()
		timer := clock.Timer(time.Hour)
		<-timer.C()
		if now := clock.Now(); now != time.Hour {
			t.Errorf("after a timer of 1h the clock shows %v", now)
		}
	})
}
