package fence

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pgregent/pgregent/dcs"
)

// watchdog resets the machine when it is not fed: the rung for a kernel that runs no user process any more (hazards 2.3,
// rung 5). It is used as Patroni uses it (reference section 5.22), with two differences: the guard arms it, so that it
// lives as long as PostgreSQL and not as long as the agent, and it stays armed until nothing of PostgreSQL is left. A
// nil watchdog is off.
type watchdog struct {
	config  Watchdog
	file    *os.File
	timeout time.Duration // as set
}

const defaultWatchdog = "/dev/watchdog"

// Modes of Watchdog.
const (
	WatchdogOff       = "off"
	WatchdogAutomatic = "automatic"
	WatchdogRequired  = "required"
)

func newWatchdog(c Watchdog) *watchdog {
	if c.Mode == "" || c.Mode == WatchdogOff {
		return nil
	}
	if c.Device == "" {
		c.Device = defaultWatchdog
	}
	return &watchdog{config: c}
}

// Usable says whether the watchdog could be used under a lease of this ttl and a loop of this period, without arming it.
// An agent whose mode is "required" asks before it takes the lease.
func (c Watchdog) Usable(ttl, loopWait time.Duration) error {
	if _, err := c.timeout(ttl, loopWait); err != nil {
		return err
	}
	device := c.Device
	if device == "" {
		device = defaultWatchdog
	}
	if err := unix.Access(device, unix.W_OK); err != nil {
		return fmt.Errorf("the watchdog %s cannot be written: %w", device, err)
	}
	return nil
}

// timeout is what the device is set to: Patroni's ttl less the safety margin, but never less than the fence itself needs,
// so that a machine is not reset where a demotion would do, nor while an agent is restarted. It is an error when it would
// not outlast a turn of the loop.
func (c Watchdog) timeout(ttl, loopWait time.Duration) (time.Duration, error) {
	timeout := ttl - c.Margin
	if c.Margin < 0 {
		timeout = ttl / 2
	}
	fence := dcs.Validity(ttl) + dcs.FenceBound + time.Second - 1 // the device takes whole seconds
	timeout = max(timeout, fence).Truncate(time.Second)
	if timeout < max(loopWait, time.Second) {
		return 0, fmt.Errorf("the watchdog's time-out would be %v at ttl %v, and must not be less than loop_wait (%v) or 1s: raise ttl", timeout, ttl, loopWait)
	}
	return timeout, nil
}

// feed arms it, or keeps it quiet for another time-out. The device counts whole seconds from now, so it fires after the
// deadline of the lease and the guard's own fence: it is the last rung and not the first.
func (w *watchdog) feed(t Term) error {
	if w == nil {
		return nil
	}
	timeout, err := w.config.timeout(t.TTL, t.LoopWait)
	if err == nil && w.file == nil {
		err = w.open()
	}
	if err == nil && timeout != w.timeout {
		err = w.setTimeout(timeout, t)
	}
	switch {
	case err != nil && w.timeout == 0:
		w.disarm() // it was opened just now, and nobody would feed it
		return err
	case w.file == nil:
		return err
	}
	_, fed := w.file.Write([]byte("1")) // also when a new time-out was refused: the old one is in force
	return errors.Join(err, fed)
}

func (w *watchdog) open() error {
	flags := os.O_WRONLY
	if w.config.Testing {
		flags |= unix.O_NONBLOCK // a FIFO without a reader fails instead of waiting
	}
	f, err := os.OpenFile(w.config.Device, flags, 0)
	if err != nil {
		return fmt.Errorf("the watchdog cannot be opened: %w", err)
	}
	w.file, w.timeout = f, 0
	return nil
}

// setTimeout tells the device. One whose time-out cannot be set is used if what it has fits.
func (w *watchdog) setTimeout(timeout time.Duration, t Term) error {
	if w.config.Testing {
		_, err := fmt.Fprintf(w.file, "Ctimeout=%d\n", int(timeout.Seconds()))
		if err == nil {
			w.timeout = timeout
		}
		return err
	}
	seconds := int32(timeout.Seconds())
	_, err := w.ioctl(unix.WDIOC_SETTIMEOUT, &seconds)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
		_, err = w.ioctl(unix.WDIOC_GETTIMEOUT, &seconds)
	}
	if err != nil {
		return fmt.Errorf("the watchdog's time-out cannot be set: %w", err)
	}
	have := time.Duration(seconds) * time.Second // drivers round
	if have > timeout || have < t.LoopWait {
		return fmt.Errorf("the watchdog has a time-out of %v and takes no other; it should be between loop_wait (%v) and %v", have, t.LoopWait, timeout)
	}
	w.timeout = timeout
	return nil
}

func (w *watchdog) ioctl(op uint, value *int32) (uintptr, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, w.file.Fd(), uintptr(op), uintptr(unsafe.Pointer(value)))
	if errno != 0 {
		return 0, errno
	}
	return r, nil
}

// disarm closes it with the magic character, so that it does not fire. Call it only when nothing of PostgreSQL is left, or in a pause.
func (w *watchdog) disarm() {
	if w == nil || w.file == nil {
		return
	}
	_, _ = w.file.Write([]byte("V"))
	_ = w.file.Close()
	w.file, w.timeout = nil, 0
}

func (w *watchdog) active() bool { return w != nil && w.file != nil }
