package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// live shows the cluster as it is, and takes keys.
func (c *cluster) live(ctx context.Context) error {
	fmt.Println("three nodes are starting ...")
	began := time.Now()
	if err := c.await(ctx, "a healthy cluster from empty", 60*time.Second, c.healthy); err != nil {
		return err
	}
	if err := c.startWriter(ctx); err != nil {
		return err
	}
	old, err := term.MakeRaw(int(os.Stdin.Fd()))
	if err != nil {
		return err
	}
	defer func() { _ = term.Restore(int(os.Stdin.Fd()), old) }()
	keys := make(chan byte, 8)
	go func() {
		b := make([]byte, 1)
		for {
			if n, err := os.Stdin.Read(b); err != nil || n == 0 {
				close(keys)
				return
			}
			keys <- b[0]
		}
	}()
	said, last := fmt.Sprintf("healthy from empty in %v", short(time.Since(began))), time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		c.draw(ctx, said, last)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case k, ok := <-keys:
			if !ok || k == 'q' || k == 3 { // Ctrl-C arrives as a key in raw mode
				return nil
			}
			if text := c.key(ctx, k); text != "" {
				said, last = text, time.Now()
			}
		}
	}
}

// key does what a key asks for, beside the drawing.
func (c *cluster) key(ctx context.Context, k byte) string {
	l := c.leader(ctx)
	if l == nil && strings.ContainsRune("kpfs", rune(k)) {
		return "nobody leads right now"
	}
	switch k {
	case 'k':
		go l.kill()
		return "killed the machine of " + l.name + " (r restarts it)"
	case 'p':
		l.killPostgreSQL()
		return "killed PostgreSQL on " + l.name
	case 'f':
		l.freeze()
		time.AfterFunc(16*time.Second, l.thaw)
		return "froze " + l.name + " for 16 s, twice its ttl"
	case 's':
		go func() { _ = c.switchover(ctx) }()
		return "switching over from " + l.name
	case 'r':
		for _, n := range c.nodes {
			if !n.running() {
				if err := n.start(); err != nil {
					return err.Error()
				}
				return "restarted " + n.name
			}
		}
		return "nothing is down"
	}
	return ""
}

func (c *cluster) draw(ctx context.Context, said string, since time.Time) {
	var b strings.Builder
	b.WriteString("\x1b[H\x1b[2J\x1b[1mpgregent\x1b[0m: three nodes, an embedded etcd, a writer\r\n\r\n")
	fmt.Fprintf(&b, "  %-8s %-10s %-12s %-4s %-10s %s\r\n", "member", "role", "state", "TL", "lag", "why")
	var end uint64
	states := make([]status, len(c.nodes))
	up := make([]bool, len(c.nodes))
	for i, n := range c.nodes {
		states[i], up[i] = n.status(ctx)
		end = max(end, states[i].XLog.Location)
	}
	for i, n := range c.nodes {
		s := states[i]
		if !up[i] {
			fmt.Fprintf(&b, "  %-8s \x1b[31mdoes not answer\x1b[0m\r\n", n.name)
			continue
		}
		role, lag := s.Role, ""
		if s.Pgregent.Writable {
			role = "leader"
		} else if end > s.XLog.Received && s.XLog.Received > 0 {
			lag = fmt.Sprint(end-s.XLog.Received, " B")
		}
		state := s.State
		if s.Repl != "" {
			state = s.Repl
		}
		fmt.Fprintf(&b, "  %-8s %-10s %-12s %-4d %-10s %s\r\n", n.name, role, state, s.Timeline, lag, s.Pgregent.Reason)
	}
	fmt.Fprintf(&b, "\r\n  writes %4d/s   longest outage since the last key: %v\r\n\r\n  %s\r\n", c.writer.rate(), short(c.writer.outage(since)), said)
	b.WriteString("\r\n  k kill the leader's machine   p kill its PostgreSQL   f freeze it   r restart what is down   s switch over   q quit\r\n")
	_, _ = os.Stdout.WriteString(b.String())
}
