package onewriter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// scenario is one hazard: what is done to the node that leads. inject calls run.strike when the fault begins, and returns
// when it has done all it has to do; the run goes on until another node acknowledges.
type scenario struct {
	name   string
	inject func(*run) error
	// excepted says that agent and guard are both gone or frozen: then a statement that was in flight when the
	// server lost them may still be acknowledged, and is counted apart.
	excepted bool
	// store says that the hazard is what the store does or does not do.
	store bool
}

// run is one fault, from a healthy cluster to a healthy cluster.
type run struct {
	*field
	dice  *rand.Rand
	old   *rig.Node
	begin bool // the old term acknowledged just before the fault, with a COPY in flight
	fault time.Time
	// until is the end of what the named exception covers: statements sent before it. It is later than the fault when the
	// server loses its guard later.
	until time.Time
	heals []func()
	notes []string
}

// outcome is what a run showed.
type outcome struct {
	verdict
	counted  bool
	old, new int // acknowledgements of the old leader's node and of others
	lost     int
	took     time.Duration
	notes    []string
}

var errNoLeader = errors.New("the cluster is not healthy before the fault")

// newTerm is how long a new leader may take. It is no promise of the product, only the end of a run.
const newTerm = 25 * time.Second

// play makes one run of a scenario.
func (f *field) play(s scenario, dice *rand.Rand) (outcome, error) {
	began := time.Now()
	if f.leader(60*time.Second) == nil {
		return outcome{}, errNoLeader
	}
	r := &run{field: f, dice: dice}
	from := f.load.forget()
	pause(context.Background(), 250*time.Millisecond+between(dice, 0, loopWait))
	if r.old = f.c.Leader(); r.old == nil {
		return outcome{}, errNoLeader
	}
	offsets := f.logSizes()
	err := s.inject(r)
	if err == nil && !r.await(newTerm) {
		err = fmt.Errorf("no other node acknowledges within %v", newTerm)
	}
	r.linger()
	acks := f.load.record()
	for _, heal := range r.heals {
		heal()
	}
	f.heal()
	var exempt func(ack) bool
	if s.excepted {
		exempt = r.inFlight
	}
	out := r.outcome(judge(acks, r.fault, exempt))
	leader := f.leader(60 * time.Second)
	if leader == nil {
		err = errors.Join(err, errors.New("the cluster is not healthy 60 s after the fault was undone"))
	} else if lost, lostErr := f.lost(leader, acks, from); lostErr == nil {
		out.lost = lost
	} else {
		err = errors.Join(err, lostErr)
	}
	out.took = time.Since(began)
	if err != nil || out.overlap > 0 {
		f.c.T.Logf("%s\n%s", r.story(out), f.logs(offsets))
	}
	return out, err
}

// strike is the moment of the fault.
func (r *run) strike() {
	a, ok := r.load.last(r.old)
	r.fault = time.Now()
	r.until = r.fault
	r.begin = ok && r.fault.Sub(a.at) < 200*time.Millisecond && r.load.copying(r.old)
}

// inFlight says that a statement was sent before the server was left alone, and acknowledged after.
func (r *run) inFlight(a ack) bool {
	return a.term.node == r.old && a.sent.Before(r.until) && a.at.After(r.fault)
}

// succeeded says that another node has acknowledged since the fault.
func (r *run) succeeded() bool {
	for _, n := range r.others() {
		if a, ok := r.load.last(n); ok && a.at.After(r.fault) {
			return true
		}
	}
	return false
}

// others are all nodes that writers are connected to but the old leader.
func (r *run) others() []*rig.Node {
	r.load.mu.Lock()
	defer r.load.mu.Unlock()
	var out []*rig.Node
	for n := range r.load.copies {
		if n != r.old {
			out = append(out, n)
		}
	}
	return out
}

func (r *run) await(within time.Duration) bool { return rig.Await(within, r.succeeded) }

// linger waits until what was in flight at the fault has been acknowledged or refused, and the new leader has
// acknowledged for a while: an overlap would show by now.
func (r *run) linger() {
	wait := max(time.Until(r.fault.Add(copyTime+200*time.Millisecond)), 400*time.Millisecond)
	pause(context.Background(), wait)
}

// follow makes a leader that rightly survives the fault lose its lease: after a while its agent is frozen, until another
// node has acknowledged.
func (r *run) follow() {
	if rig.Await(between(r.dice, 0, 2*time.Second), r.succeeded) {
		return
	}
	r.note("agent frozen %v after the fault", time.Since(r.fault).Round(time.Millisecond))
	r.freeze(r.old.Cmd.Process.Pid)
	r.await(newTerm)
}

// freeze stops processes; heal lets them go on, and so may the scenario.
func (r *run) freeze(pids ...int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
}

func (r *run) thaw(pids ...int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

func (r *run) kill(pids ...int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// guards are the processes of the old leader's guard; none is an error, because nothing would be tested.
func (r *run) guards() ([]int, error) {
	pids := r.old.Guards()
	if len(pids) == 0 {
		return nil, fmt.Errorf("%s has no guard", r.old.Name)
	}
	return pids, nil
}

func (r *run) postmaster() (int, error) {
	pid := r.old.Postmaster()
	if pid == 0 {
		return 0, fmt.Errorf("%s has no postmaster", r.old.Name)
	}
	return pid, nil
}

func (r *run) agent() int { return r.old.Cmd.Process.Pid }

func (r *run) later(f func()) { r.heals = append(r.heals, f) }

func (r *run) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *run) outcome(v verdict) outcome {
	out := outcome{verdict: v, notes: r.notes}
	for _, s := range v.spans {
		if s.term.node == r.old {
			out.old += s.acks
		} else if s.first.After(r.fault) {
			out.new += s.acks
		}
	}
	out.counted = r.begin && out.old > 0 && out.new > 0
	return out
}

// story says who acknowledged when, relative to the fault.
func (r *run) story(out outcome) string {
	var b strings.Builder
	fmt.Fprintf(&b, "fault on %s: overlap %v, excepted %v\n", r.old.Name, out.overlap, out.exempt)
	for _, n := range r.notes {
		fmt.Fprintf(&b, "  %s\n", n)
	}
	for _, s := range out.spans {
		fmt.Fprintf(&b, "  %s, postmaster of %s: %d acknowledgements from %v to %v", s.term.node.Name, s.term.start, s.acks,
			s.first.Sub(r.fault).Round(time.Millisecond), s.last.Sub(r.fault).Round(time.Millisecond))
		if !s.exempt.IsZero() {
			fmt.Fprintf(&b, " (in flight: to %v)", s.exempt.Sub(r.fault).Round(time.Millisecond))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (f *field) logFiles() []string {
	var files []string
	for _, n := range f.c.Nodes {
		files = append(files, n.Log(), n.GuardLog())
	}
	return files
}

// logSizes is where the logs end now.
func (f *field) logSizes() map[string]int64 {
	sizes := map[string]int64{}
	for _, file := range f.logFiles() {
		if info, err := os.Stat(file); err == nil {
			sizes[file] = info.Size()
		}
	}
	return sizes
}

// logs is what was logged since.
func (f *field) logs(since map[string]int64) string {
	var b strings.Builder
	for _, file := range f.logFiles() {
		text, _ := os.ReadFile(file)
		text = text[min(int64(len(text)), since[file]):]
		fmt.Fprintf(&b, "--- %s\n", file)
		lines := slices.DeleteFunc(strings.Split(string(text), "\n"), dull)
		b.WriteString(strings.Join(lines[max(0, len(lines)-80):], "\n"))
	}
	return b.String()
}

// dull says that a line comes from writers and receivers that try again and again.
func dull(line string) bool {
	for _, part := range []string{" FATAL:  the database system is ", "could not connect to the primary server", "Is the server running on that host",
		" FATAL:  terminating connection", "waiting for WAL to become available"} {
		if strings.Contains(line, part) {
			return true
		}
	}
	return false
}
