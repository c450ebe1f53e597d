package memory

import (
	"math"
	"sync"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// ManualClock is a dcs.Clock that moves only when it is told to. It starts at 0. It is safe for concurrent use, except
// that Advance must not run twice at once, nor from within a function given to AfterFunc.
type ManualClock struct {
	mu      sync.Mutex
	now     time.Duration
	pending []*manualTimer // in ascending order of due, then of making
}

var _ dcs.Clock = (*ManualClock)(nil)

// manualTimer is one pending call.
type manualTimer struct {
	clock *ManualClock
	due   time.Duration
	fire  func()
	c     chan struct{} // nil for AfterFunc
}

// NewManualClock returns a clock that stands at 0.
func NewManualClock() *ManualClock { return &ManualClock{} }

// Now implements dcs.Clock.
func (c *ManualClock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock forward by d, which must not be negative. Timers that become due fire one after the other, in
// the order of their times, each while the clock stands at its time; Advance returns when all have.
func (c *ManualClock) Advance(d time.Duration) {
	c.mu.Lock()
	target := c.now + max(d, 0)
	for len(c.pending) > 0 && c.pending[0].due <= target {
		t := c.pending[0]
		c.pending = c.pending[1:]
		c.now = max(c.now, t.due)
		c.mu.Unlock()
		t.fire()
		c.mu.Lock()
	}
	c.now = target
	c.mu.Unlock()
}

// Next returns how far the clock must be advanced for the next timer to fire, and whether there is one.
func (c *ManualClock) Next() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 {
		return 0, false
	}
	return max(c.pending[0].due-c.now, 0), true
}

// Timer implements dcs.Clock. One of 0 or less fires at once.
func (c *ManualClock) Timer(d time.Duration) dcs.Timer {
	t := &manualTimer{clock: c, c: make(chan struct{}, 1)}
	t.fire = func() { t.c <- struct{}{} } // has room: it fires once
	if d <= 0 {
		t.fire()
		return t
	}
	c.add(t, d)
	return t
}

// AfterFunc calls f when d has passed, in the goroutine of Advance, also when d is 0 or less. stop takes that back;
// a call of f that has begun is not waited for.
func (c *ManualClock) AfterFunc(d time.Duration, f func()) (stop func()) {
	t := &manualTimer{clock: c, fire: f}
	c.add(t, d)
	return t.Stop
}

func (c *ManualClock) add(t *manualTimer, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.due = c.now + max(d, 0); t.due < c.now {
		t.due = math.MaxInt64 // the sum overflowed
	}
	i := len(c.pending)
	for i > 0 && c.pending[i-1].due > t.due {
		i--
	}
	c.pending = append(c.pending, nil)
	copy(c.pending[i+1:], c.pending[i:])
	c.pending[i] = t
}

// C implements dcs.Timer.
func (t *manualTimer) C() <-chan struct{} { return t.c }

// Stop implements dcs.Timer. A value that was sent and not received yet is taken back.
func (t *manualTimer) Stop() {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	for i, other := range t.clock.pending {
		if other == t {
			t.clock.pending = append(t.clock.pending[:i], t.clock.pending[i+1:]...)
			break
		}
	}
	select {
	case <-t.c: // never for a nil channel
	default:
	}
}
