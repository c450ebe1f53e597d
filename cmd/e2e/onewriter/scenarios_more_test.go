package onewriter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// twin is a second daemon with the old leader's name, and everything else of its own. Writers try it, too.
func (r *run) twin() *rig.Node {
	n := r.c.Add(r.old.Name)
	detach := r.load.attach(n)
	n.Start()
	r.later(func() {
		detach()
		n.Lose()
		r.load.drop(n)
		_ = os.RemoveAll(n.Data)
	})
	return n
}

// startedTwice: the first one answers, so that the second one may refuse to start. Then the first one is frozen.
func startedTwice(r *run) error {
	r.strike()
	n := r.twin()
	select {
	case <-n.Done:
		r.note("the second one has ended")
	case <-time.After(between(r.dice, time.Second, 4*time.Second)):
		r.note("the second one runs")
	}
	r.follow()
	return nil
}

// startedTwiceUnseen: the first one is frozen already, holds the lease, and cannot be asked by the second one.
func startedTwiceUnseen(r *run) error {
	r.strike()
	r.freeze(r.agent())
	n := r.twin()
	if !r.await(2 * ttl) { // the members may rightly wait for what the name stands for
		r.note("nobody led for %v while both were there; the second one is lost", 2*ttl)
		n.Lose()
	}
	return nil
}

// startedByHand: the machine was lost, another node leads, and somebody starts PostgreSQL on the old data directory.
func startedByHand(r *run) error {
	r.strike()
	r.old.Lose()
	if !r.await(newTerm) {
		return errors.New("no other node leads after the first one was lost")
	}
	port := fmt.Sprintf("-p %d -c listen_addresses=127.0.0.1 -k %s", r.old.PGPort, r.c.Root)
	log := r.old.Data + ".hand.log"
	ctl := filepath.Join(r.c.Bin, "pg_ctl")
	start := exec.Command("setpriv", "--ambient-caps=-all", "--inh-caps=-all", ctl, "start", "-W", "-D", r.old.Data, "-l", log, "-o", port)
	start.Dir = r.c.Root
	if out, err := start.CombinedOutput(); err != nil {
		r.note("pg_ctl start: %v: %s", err, out)
	}
	up := rig.Await(8*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn, _, err := connect(ctx, dsn(r.c.Root, r.old.PGPort), r.old)
		if err == nil {
			hangUp(conn)
		}
		return err == nil
	})
	r.note("started by hand: it answers: %v", up)
	pause(context.Background(), copyTime+500*time.Millisecond) // the writers have tried it all the while
	if !up || r.dice.IntN(2) == 0 {
		r.note("stopped by hand")
		_ = exec.Command(ctl, "stop", "-m", "immediate", "-D", r.old.Data).Run()
	}
	return nil
}

// machineAndDataLost: the machine comes back at once, with an empty disk.
func machineAndDataLost(r *run) error {
	r.strike()
	r.old.Lose()
	if err := os.RemoveAll(r.old.Data); err != nil {
		return err
	}
	r.old.Start()
	return nil
}

// sessionCount is how many sessions are open at the fence of A18: idle, idle in a transaction that has written, and
// busy, a third each.
const sessionCount = 200

// manySessions: none of them may answer when the next leader acknowledges.
func manySessions(r *run) error {
	conns := r.openSessions(sessionCount, func(i int) string {
		return []string{"", fmt.Sprintf("begin; insert into acked values (%d)", r.load.next.Add(1)), "select pg_sleep(60)"}[i%3]
	})
	if len(conns) < sessionCount {
		return fmt.Errorf("only %d of %d sessions could be opened", len(conns), sessionCount)
	}
	r.strike()
	r.kill(r.agent())
	if !r.await(newTerm) {
		return errors.New("no other node leads")
	}
	alive := 0
	for _, c := range conns {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		if _, err := c.Exec(ctx, "select 1").ReadAll(); err == nil { // the busy ones refuse a second statement
			alive++
		}
		cancel()
	}
	if alive > 0 {
		return fmt.Errorf("%d sessions of the old leader answer after the new one acknowledged", alive)
	}
	return nil
}

// openSessions opens sessions to the old leader, a few at a time, each of which sends the statement for its number, or
// none. They are closed when the run is over.
func (r *run) openSessions(n int, statement func(int) string) []*pgconn.PgConn {
	conns := make([]*pgconn.PgConn, n)
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := worker; i < n; i += 8 {
				conns[i] = r.openSession(statement(i))
			}
		})
	}
	all.Wait()
	conns = slices.DeleteFunc(conns, func(c *pgconn.PgConn) bool { return c == nil })
	r.later(func() {
		for _, c := range conns {
			hangUp(c)
		}
	})
	return conns
}

// openSession does not wait for an answer to its statement: it may have none.
func (r *run) openSession(statement string) *pgconn.PgConn {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, dsn(r.c.Root, r.old.PGPort))
	if err != nil {
		return nil
	}
	if statement != "" {
		sent := make(chan struct{})
		go func() {
			results := conn.Exec(context.Background(), statement)
			close(sent)
			_, _ = results.ReadAll()
		}()
		<-sent
	}
	return conn
}

// drop forgets a node whose writers have been detached.
func (l *load) drop(n *rig.Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.copies, n)
	delete(l.latest, n)
}
