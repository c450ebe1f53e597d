package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/cmd/pgregent/ctl"
	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/rest"
)

// detachTimeout is how long `pgregent detach` waits for the daemon: it lets a long action end first.
const detachTimeout = time.Minute

// runDetach is `pgregent detach FILE.yml`: the daemon of the file ends and leaves guard, PostgreSQL and lease as they are.
func runDetach(ctx context.Context, args, environ []string, out, errOut io.Writer) error {
	path, err := fileArgument("detach", args, errOut)
	if err != nil {
		return err
	}
	c, _, err := config.Load(path, environ)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, detachTimeout)
	defer cancel()
	pid, err := fence.AgentPID(ctx, stateDir(c))
	if err != nil {
		return err
	}
	if pid == 0 {
		return fmt.Errorf("detach: no pgregent serves the data directory %s", c.PostgreSQL.DataDir)
	}
	if err := signalAndWait(ctx, pid, syscall.SIGUSR2); err != nil {
		return fmt.Errorf("detach: process %d: %w", pid, err)
	}
	fmt.Fprintf(out, "detached: process %d has ended, PostgreSQL goes on under its guard; a leader must be started again before its lease ends\n", pid)
	return nil
}

// stateDir is where the guard of the file's node lives.
func stateDir(c *config.Config) string {
	if c.StateDir != "" {
		return c.StateDir
	}
	return strings.TrimRight(c.PostgreSQL.DataDir, "/") + ".pgregent"
}

// signalAndWait signals a process that is not a child, and waits for its end.
func signalAndWait(ctx context.Context, pid int, sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		return err
	}
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// onDetach lets SIGUSR2 end this program without ending anything else.
func onDetach(ctx context.Context, node *ha.Node) {
	usr2 := make(chan os.Signal, 1)
	signal.Notify(usr2, syscall.SIGUSR2)
	defer signal.Stop(usr2)
	select {
	case <-ctx.Done():
	case <-usr2:
		node.Detach()
	}
}

// printFences asks every member what its fence is, and prints a table.
func printFences(ctx context.Context, out io.Writer, c *config.Config, state cluster.Cluster) error {
	client, err := peerClient(c)
	if err != nil {
		return err
	}
	answers := make([]rest.Answer, len(state.Members))
	var asked sync.WaitGroup
	for i, m := range state.Members {
		asked.Go(func() {
			call, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			answers[i].Status, answers[i].Err = client.Status(call, m.APIURL)
		})
	}
	asked.Wait()
	rows := make([][]string, 0, len(answers))
	for i, m := range state.Members {
		rows = append(rows, append([]string{m.Name}, fenceRow(answers[i])...))
	}
	ctl.PrintTable(out, " Fences ", []string{"Member", "Version", "Bounded", "Rungs", "Guarantee"}, rows)
	printFailsafe(out, state, answers)
	return nil
}

// printFailsafe says what failsafe mode takes and gives, as the leader sees it, or whoever answers.
func printFailsafe(out io.Writer, state cluster.Cluster, answers []rest.Answer) {
	var f *rest.FailsafeStatus
	for i, m := range state.Members {
		if p := answers[i].Status.Pgregent; p != nil && p.Failsafe != nil && (f == nil || m.Name == state.Leader.Name) {
			f = p.Failsafe
		}
	}
	if f == nil || len(f.List) == 0 {
		fmt.Fprintln(out, " Failsafe mode: off: without the store the leader stops at its deadline")
		return
	}
	whom := "of "
	if f.All {
		whom = "(all, because a Patroni member is among them) of "
	}
	fmt.Fprintf(out, " Failsafe mode: on: without the store the leader goes on with %d promises %s%s\n", f.Promises, whom, strings.Join(f.List, ", "))
	fmt.Fprintf(out, "                a failover without the leader's release needs %d votes of them; fewer need a manual decision (docs/safety.md)\n", f.Votes)
}

func fenceRow(a rest.Answer) []string {
	p := a.Status.Pgregent
	switch {
	case a.Err != nil:
		return []string{"", "?", "", "does not answer: " + a.Err.Error()}
	case p == nil:
		return []string{"Patroni " + a.Status.Version, "no", "", "Patroni's: a primary may go on after its lease unless a watchdog resets the machine"}
	case p.Fence == nil:
		return []string{p.Version, "?", "", "does not say"}
	}
	bounded := map[bool]string{true: "yes", false: "no"}[p.Fence.Bounded]
	guarantee := p.Fence.Guarantee
	if p.Fence.Problem != "" {
		guarantee += " (not active: " + p.Fence.Problem + ")"
	}
	return []string{p.Version, bounded, strings.Join(p.Fence.Rungs, ", "), guarantee}
}
