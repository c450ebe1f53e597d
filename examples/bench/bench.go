package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// bench runs scenarios.
type bench struct {
	options
	dir    string // of everything
	rec    *record
	base   *record // of another daemon; nil: none
	held   *cluster
	failed []string
	traced map[string][]event
}

// scenario is one thing that is measured.
type scenario struct {
	name  string
	times times
	once  bool // measured once, because it takes long
	// bare measures the same steps without a daemon, before each repetition. nil: there are none.
	bare func(ctx context.Context, b *bench, name string) error
	// rep is one repetition on a healthy cluster under a writer; on none when cold.
	rep  func(ctx context.Context, b *bench, name string, c *cluster) error
	cold bool
}

// errNotAvailable is returned by a scenario that the daemon has no means for.
var errNotAvailable = errors.New("not available")

// unknown is the value of what cannot be told.
func unknown() float64 { return math.NaN() }

// daemon is the command line that runs a daemon with a file.
func (b *bench) daemon(file string) []string {
	if b.against == "" {
		return []string{filepath.Join(b.bin, "pgregent"), "run", file}
	}
	if !strings.Contains(b.against, "{config}") {
		return append(strings.Fields(b.against), file)
	}
	return strings.Fields(strings.ReplaceAll(b.against, "{config}", file))
}

// measure runs the scenarios one after the other. A repetition that fails is told and left out.
func (b *bench) measure(ctx context.Context, chosen []scenario) {
	b.traced = map[string][]event{}
	for _, s := range chosen {
		if b.times != (times{}) && s.times != idleTimes {
			s.times = b.times
		}
		n := b.n
		if s.once {
			n = 1
		}
		for i := range n {
			if ctx.Err() != nil {
				b.failed = append(b.failed, "interrupted")
				return
			}
			began := time.Now()
			err := b.repeat(ctx, s)
			if errors.Is(err, errNotAvailable) {
				b.rec.Missing = append(b.rec.Missing, s.name+": "+strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), errNotAvailable.Error()+": ")), " "))
				break
			}
			fmt.Fprintf(os.Stderr, "%s %d/%d: %v\n", s.name, i+1, n, time.Since(began).Round(10*time.Millisecond))
			if err != nil {
				b.failed = append(b.failed, fmt.Sprintf("%s, repetition %d: %v", s.name, i+1, err))
				fmt.Fprintln(os.Stderr, "failed:", err)
				b.release()
			}
		}
	}
}

// repeat is one repetition.
func (b *bench) repeat(ctx context.Context, s scenario) error {
	if s.bare != nil {
		if err := s.bare(ctx, b, s.name); err != nil {
			return fmt.Errorf("the bare commands: %w", err)
		}
	}
	if s.cold {
		b.release()
		c, err := b.newCluster(s.times)
		if err != nil {
			return err
		}
		b.held = c
		return s.rep(ctx, b, s.name, c)
	}
	c, err := b.ready(ctx, s.times)
	if err != nil {
		return err
	}
	return s.rep(ctx, b, s.name, c)
}

// ready is a healthy cluster with those times under a new writer, the last one if it is still one.
func (b *bench) ready(ctx context.Context, t times) (*cluster, error) {
	if c := b.held; c != nil && c.times == t {
		if c.writer != nil {
			c.writer.stop()
		}
		if _, err := c.awaitHealthy(ctx, 30*time.Second); err == nil {
			return c, c.startWriter(ctx)
		}
	}
	b.release()
	c, err := b.newCluster(t)
	if err != nil {
		return nil, err
	}
	b.held = c
	if _, err := c.start(ctx); err != nil {
		return nil, err
	}
	pause(ctx, time.Second) // what follows a start is not measured
	return c, nil
}

// release ends the cluster that is held.
func (b *bench) release() {
	if b.held != nil {
		b.held.close()
		b.held = nil
	}
}

// trace keeps what the daemons logged in the first repetition.
func (b *bench) trace(name string, since time.Time, events []event) {
	if _, ok := b.traced[name]; ok {
		return
	}
	b.traced[name] = events
	if b.traces {
		for _, e := range events {
			fmt.Fprintf(os.Stderr, "  %8.3f %s %s\n", e.At.Sub(since).Seconds(), e.Node, e.Text)
		}
	}
}
