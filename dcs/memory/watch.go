package memory

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgregent/pgregent/dcs"
)

// watch is one channel that Watch returned.
type watch struct {
	prefix string
	keys   []string // with prefix; empty: all below prefix
	c      chan struct{}
}

// wake leaves one value in the channel, also when one is there already.
func (w *watch) wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

func (w *watch) wants(key string) bool {
	if len(w.keys) == 0 {
		return strings.HasPrefix(key, w.prefix)
	}
	return slices.Contains(w.keys, key)
}

// changed wakes who watches key.
func (s *Server) changed(key string) {
	for _, w := range s.watches {
		if w.wants(key) {
			w.wake()
		}
	}
}

// watch registers a watch until ctx ends.
func (s *Server) watch(ctx context.Context, prefix string, keys []string) <-chan struct{} {
	w := &watch{prefix: prefix, c: make(chan struct{}, 1)}
	for _, k := range keys {
		w.keys = append(w.keys, prefix+k)
	}
	s.watches = append(s.watches, w)
	s.arm()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watches = slices.DeleteFunc(s.watches, func(other *watch) bool { return other == w })
		s.arm()
		close(w.c)
	})
	return w.c
}

// alarm is the wake-up for the next end of a session. Without it sessions would still end in time for every call, but a
// watch would hear of it only at the next call of somebody.
type alarm struct {
	at     time.Duration
	stop   func() // nil: not set
	number uint64 // of this setting: a ring of an earlier one, which was stopped too late, does not count for this one
}

// afterFuncer is a clock that calls f at its time without a goroutine of ours, as ManualClock does.
type afterFuncer interface {
	AfterFunc(d time.Duration, f func()) (stop func())
}

// arm makes the alarm fit the sessions and watches as they are now. It may ring too early, when a session was renewed
// since; then it is set anew.
func (s *Server) arm() {
	want := len(s.sessions) > 0 && len(s.watches) > 0
	if s.alarm.stop != nil {
		if want && s.alarm.at == s.earliest {
			return
		}
		s.alarm.stop()
		s.alarm.stop = nil
	}
	if !want {
		return
	}
	s.alarm.at = s.earliest
	s.alarm.number++
	number := s.alarm.number
	d, ring := s.earliest-s.clock.Now(), func() { s.ring(number) }
	if clock, ok := s.clock.(afterFuncer); ok {
		s.alarm.stop = clock.AfterFunc(d, ring)
		return
	}
	s.alarm.stop = afterFunc(s.clock.Timer(d), ring)
}

// ring is called when the alarm goes off.
func (s *Server) ring(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number == s.alarm.number {
		s.alarm.stop = nil
	}
	s.expire()
	s.arm()
}

// afterFunc calls f when t fires. stop ends the wait and frees t; it does not wait for a call of f that has begun.
func afterFunc(t dcs.Timer, f func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer t.Stop()
		select {
		case <-t.C():
			f()
		case <-done:
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}
