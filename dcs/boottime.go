package dcs

import (
	"sync"
	"time"
)

// ProcessClock returns a Clock over package time: Go's monotonic clock, or the fake one inside a testing/synctest
// bubble. Its Now counts from this call, so two ProcessClocks do not agree: make one and hand it around.
//
// On Linux the monotonic clock stands still while the machine sleeps. A lease must not be kept on it (hazard A6): it is
// for tests, for measuring, and for systems without a better clock.
func ProcessClock() Clock { return processClock{start: time.Now()} }

type processClock struct{ start time.Time }

var _ Clock = processClock{}

func (c processClock) Now() time.Duration { return time.Since(c.start) }

func (c processClock) Timer(d time.Duration) Timer {
	f := newFiring()
	t := time.AfterFunc(d, f.fire)
	f.release = func() { t.Stop() }
	return f
}

// firing is the part of a Timer that is the same over every clock: one value, sent once, and nothing after Stop.
type firing struct {
	c       chan struct{}
	release func() // frees what makes it fire; may be called twice; set before the Timer is handed out

	mu      sync.Mutex
	settled bool // fired or stopped
}

var _ Timer = (*firing)(nil)

func newFiring() *firing { return &firing{c: make(chan struct{}, 1)} }

func (f *firing) C() <-chan struct{} { return f.c }

// Stop also takes back a value that was sent and not received yet, as time.Timer does.
func (f *firing) Stop() {
	f.mu.Lock()
	f.settled = true
	select {
	case <-f.c:
	default:
	}
	f.mu.Unlock()
	f.release()
}

func (f *firing) fire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.settled {
		return
	}
	f.settled = true
	f.c <- struct{}{} // has room: only fire sends, and only once
}
