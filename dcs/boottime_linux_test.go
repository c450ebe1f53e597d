package dcs

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBoottimeCountsFromBoot(t *testing.T) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	if diff := Boottime().Now() - time.Duration(ts.Nano()); diff < 0 || diff > 10*time.Second {
		t.Errorf("Now is %v away from CLOCK_BOOTTIME", diff)
	}
}

// A timer that waits must cost a descriptor, not a thread, and give it back when it is stopped or has fired.
func TestBoottimeTimersHoldNoThreadAndReleaseDescriptors(t *testing.T) {
	clock := Boottime()
	warm := clock.Timer(time.Millisecond)
	<-warm.C()
	warm.Stop()
	const n = 200
	threads := countThreads(t)
	timers := make([]Timer, n)
	for i := range timers {
		timers[i] = clock.Timer(time.Hour)
	}
	if got := timerfds(t); got < n {
		t.Errorf("%d pending timers hold %d descriptors", n, got)
	}
	if got := countThreads(t); got > threads+n/10 {
		t.Errorf("%d pending timers raised the threads from %d to %d", n, threads, got)
	}
	for _, timer := range timers {
		timer.Stop()
	}
	fired := clock.Timer(time.Millisecond)
	<-fired.C() // not stopped: it must release by itself
	for deadline := time.Now().Add(10 * time.Second); timerfds(t) > 0; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors are left", timerfds(t))
		}
	}
	runtime.KeepAlive(fired) // or the collector would close it
}

// timerfds counts the open timer descriptors of this process.
func timerfds(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil && strings.Contains(to, "timerfd") {
			n++
		}
	}
	return n
}

// countThreads reads the number of OS threads of this process.
func countThreads(t *testing.T) int {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), "Threads:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(rest))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("/proc/self/status has no Threads")
	return 0
}

func TestBoottimeFallback(t *testing.T) {
	clock := boottime{}
	f := newFiring()
	due := clock.Now() + 3*time.Millisecond
	clock.fallback(f, due)
	select {
	case <-f.C():
	case <-time.After(10 * time.Second):
		t.Fatal("the fallback did not fire")
	}
	if now := clock.Now(); now < due {
		t.Errorf("fired %v early", due-now)
	}
	f.Stop()
	stopped := newFiring()
	clock.fallback(stopped, clock.Now()+time.Millisecond)
	stopped.Stop()
	stopped.Stop()
	after := clock.Timer(5 * time.Millisecond)
	<-after.C()
	select {
	case <-stopped.C():
		t.Error("a stopped fallback fired")
	default:
	}
}
