package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// tour shows what a cluster survives, step by step. It fails when a step does not go well.
func (c *cluster) tour(ctx context.Context) error {
	began := time.Now()
	fmt.Println("three pgregent nodes, one embedded etcd, a writer that inserts all the time; ttl 8 s, asynchronous replication")
	if err := c.await(ctx, "a healthy cluster from empty", 30*time.Second, c.healthy); err != nil {
		return err
	}
	say("bootstrap", "a leader and two streaming replicas after %v", short(time.Since(began)))
	if err := c.startWriter(ctx); err != nil {
		return err
	}
	if err := c.await(ctx, "writes", 10*time.Second, func(context.Context) bool { return c.writer.flowing(began) }); err != nil {
		return err
	}
	steps := []func(context.Context) error{c.showSwitchover, c.showKilledPostgreSQL, c.showStoppedLeader}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	missing, err := c.writer.missing(ctx)
	if err != nil {
		return err
	}
	say("count", "acknowledged writes missing so far: %d", missing)
	if missing > 0 {
		return errors.New("acknowledged writes are missing after planned changes")
	}
	if err := c.showLostNode(ctx); err != nil {
		return err
	}
	say("done", "in %v", short(time.Since(began)))
	return nil
}

func say(step, format string, args ...any) {
	fmt.Printf("%-18s %s\n", step, fmt.Sprintf(format, args...))
}

func short(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// await looks until ok, or for too long.
func (c *cluster) await(ctx context.Context, what string, within time.Duration, ok func(context.Context) bool) error {
	deadline := time.Now().Add(within)
	for !ok(ctx) {
		if err := ctx.Err(); err != nil {
			return errors.New("interrupted")
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %v", what, within)
		}
		wait(ctx, 20*time.Millisecond)
	}
	return nil
}

// recover waits until writes flow again and everybody is back, and returns the outage.
func (c *cluster) recover(ctx context.Context, since time.Time, limit time.Duration) (time.Duration, error) {
	again := time.Now()
	if err := c.await(ctx, "writes flow again", limit+20*time.Second, func(context.Context) bool { return c.writer.flowing(again) }); err != nil {
		return 0, err
	}
	outage := c.writer.outage(since)
	if outage > limit {
		return outage, fmt.Errorf("the write outage was %v, more than %v", short(outage), limit)
	}
	return outage, nil
}

func (c *cluster) showSwitchover(ctx context.Context) error {
	old, began := c.leader(ctx), time.Now()
	if old == nil {
		return errors.New("nobody leads")
	}
	if err := c.switchover(ctx); err != nil {
		return err
	}
	outage, err := c.recover(ctx, began, 2*time.Second)
	if err != nil {
		return err
	}
	say("switchover", "from %s to %s, write outage %v", old.name, c.leader(ctx).name, short(outage))
	return c.await(ctx, "everybody streams again", 30*time.Second, c.healthy)
}

func (c *cluster) showKilledPostgreSQL(ctx context.Context) error {
	l, began := c.leader(ctx), time.Now()
	if l == nil {
		return errors.New("nobody leads")
	}
	l.killPostgreSQL()
	wait(ctx, 50*time.Millisecond)
	outage, err := c.recover(ctx, began, 3*time.Second)
	if err != nil {
		return err
	}
	say("PostgreSQL killed", "on %s, which starts it again in place, write outage %v", l.name, short(outage))
	return c.await(ctx, "everybody streams again", 30*time.Second, c.healthy)
}

func (c *cluster) showStoppedLeader(ctx context.Context) error {
	l, began := c.leader(ctx), time.Now()
	if l == nil {
		return errors.New("nobody leads")
	}
	if err := l.stop(30 * time.Second); err != nil {
		return err
	}
	outage, err := c.recover(ctx, began, 3*time.Second)
	if err != nil {
		return err
	}
	say("leader stopped", "%s ended in order and handed over, write outage %v", l.name, short(outage))
	if err := l.start(); err != nil {
		return err
	}
	return c.await(ctx, "it streams again", 30*time.Second, c.healthy)
}

func (c *cluster) showLostNode(ctx context.Context) error {
	l, began := c.leader(ctx), time.Now()
	if l == nil {
		return errors.New("nobody leads")
	}
	l.kill()
	outage, err := c.recover(ctx, began, 10*time.Second)
	if err != nil {
		return err
	}
	missing, err := c.writer.missing(ctx)
	if err != nil {
		return err
	}
	say("machine lost", "%s with agent, guard and PostgreSQL; %s took over, write outage %v; acknowledged and not replicated yet: %d writes",
		l.name, c.leader(ctx).name, short(outage), missing)
	back := time.Now()
	if err := l.start(); err != nil {
		return err
	}
	if err := c.await(ctx, "it streams again", 30*time.Second, c.healthy); err != nil {
		return err
	}
	say("rejoin", "%s streams again %v after its start", l.name, short(time.Since(back)))
	return nil
}
