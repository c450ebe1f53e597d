package dcs

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Boottime returns the clock of production: CLOCK_BOOTTIME, which counts on while the machine sleeps and which no one
// can set (hazard A6). Its Now counts from the boot of the machine, so that all processes of one machine (in one time
// namespace) share it: a deadline may be handed to another process.
//
// Each pending Timer holds one file descriptor and one goroutine parked in the runtime's poller, no OS thread, until it
// fires or is stopped. When the process has no descriptor left, a Timer falls back to package time: still never early,
// but late by the time the machine slept.
//
// On systems other than Linux it is a ProcessClock.
func Boottime() Clock { return boottime{} }

type boottime struct{}

var _ Clock = boottime{}

func (boottime) Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Linux has had it since 2.6.39. Without a clock no deadline can be kept, and any made-up value would be wrong for
		// either the holder of a lease or its taker: the only safe thing left is to end, which the guard outlives.
		panic(fmt.Sprintf("dcs: clock_gettime(CLOCK_BOOTTIME): %v", err))
	}
	return time.Duration(ts.Nano())
}

func (c boottime) Timer(d time.Duration) Timer {
	f := newFiring()
	f.release = func() {}
	if d <= 0 {
		f.fire()
		return f
	}
	due := c.Now() + d
	if due < 0 { // more than 292 years
		return f
	}
	file, err := timerfd(due)
	if err != nil {
		c.fallback(f, due)
		return f
	}
	f.release = func() { _ = file.Close() } // ends the Read below
	go func() {
		defer file.Close() //nolint:errcheck // nothing was written
		var expirations [8]byte
		if _, err := file.Read(expirations[:]); err == nil {
			f.fire()
		}
	}()
	return f
}

// timerfd returns a descriptor that becomes readable when CLOCK_BOOTTIME is at due. The time is absolute, so that the
// time between reading the clock and arming does not matter. The descriptor is non-blocking, so that os.File reads it
// through the poller.
func timerfd(due time.Duration) (*os.File, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("dcs: timerfd_create: %w", err)
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(due))}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("dcs: timerfd_settime: %w", err)
	}
	return os.NewFile(uintptr(fd), "timerfd"), nil
}

// fallback makes f fire by package time, which may run slower than this clock while the machine sleeps, never faster;
// the clock decides.
func (c boottime) fallback(f *firing, due time.Duration) {
	stop := make(chan struct{})
	f.release = sync.OnceFunc(func() { close(stop) })
	go func() {
		for {
			left := due - c.Now()
			if left <= 0 {
				f.fire()
				return
			}
			t := time.NewTimer(left)
			select {
			case <-t.C:
			case <-stop:
				t.Stop()
				return
			}
		}
	}()
}
