package dcs

import "time"

// Clock is CLOCK_BOOTTIME: it counts on while the machine sleeps, and no one can set it (hazard A6). Now counts from an
// arbitrary start, so that comparing the clocks of two nodes does not compile into anything meaningful.
type Clock interface {
	// Now is the time since an arbitrary start that does not change while the process lives.
	Now() time.Duration
	// Timer fires once on its channel when d has passed; it never fires early.
	Timer(d time.Duration) Timer
}

// Timer is one pending firing. Stop releases it; after Stop nothing is sent.
type Timer interface {
	// C receives one value when the time has passed.
	C() <-chan struct{}
	// Stop releases the timer. It may be called several times, and after the timer fired.
	Stop()
}
