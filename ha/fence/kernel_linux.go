package fence

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelTimer is a timer of the kernel that sends SIGKILL to this process when CLOCK_BOOTTIME reaches a time: a guard that
// is frozen, or gets no CPU, cannot stay in the way of its own deadline (hazard A2). SIGKILL is handled by the kernel, so
// the Go runtime sees nothing of it. A suspended machine counts: the clock goes on.
type kernelTimer struct {
	id    int32
	ready bool
	at    time.Duration // 0: not set
}

// sigevent is struct sigevent of the kernel: SIGEV_SIGNAL is 0, and the structure is 64 bytes long.
type sigevent struct {
	value  uint64
	signo  int32
	notify int32
	_      [48]byte
}

func (k *kernelTimer) create() error {
	ev := sigevent{signo: int32(unix.SIGKILL)}
	_, _, errno := unix.RawSyscall(unix.SYS_TIMER_CREATE, uintptr(unix.CLOCK_BOOTTIME), uintptr(unsafe.Pointer(&ev)), uintptr(unsafe.Pointer(&k.id)))
	if errno != 0 {
		return fmt.Errorf("the kernel's timer cannot be made, so a frozen guard is not ended: %w", errno)
	}
	k.ready = true
	return nil
}

// set lets it fire at a time of CLOCK_BOOTTIME.
func (k *kernelTimer) set(at time.Duration) {
	if !k.ready || at == k.at {
		return
	}
	k.settime(max(at, 1))
	k.at = at
}

func (k *kernelTimer) clear() {
	if k.ready && k.at != 0 {
		k.settime(0)
		k.at = 0
	}
}

// settime sets the absolute time; 0 disarms it (timer_settime(2)).
func (k *kernelTimer) settime(at time.Duration) {
	const absolute = 1 // TIMER_ABSTIME
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	_, _, _ = unix.RawSyscall6(unix.SYS_TIMER_SETTIME, uintptr(k.id), absolute, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
}
