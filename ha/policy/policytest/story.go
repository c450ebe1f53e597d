package policytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
)

// Story plays commands, one at a time; Play plays a whole text.
type Story struct {
	opt   Options
	w     *World
	lines []string
	mute  bool
	quiet bool
}

// NewStory returns a story in which nothing happened yet. With quiet nothing is printed, which makes it faster.
func NewStory(opt Options, quiet bool) *Story { return &Story{opt: opt, quiet: quiet} }

// World is the story's world; nil before the command cluster.
func (s *Story) World() *World { return s.w }

// Do plays one command. The error is about the command itself, not about what it led to.
func (s *Story) Do(command string) error {
	f := strings.Fields(command)
	if len(f) == 0 {
		return errUsage
	}
	if err := s.command(f); err != nil {
		return fmt.Errorf("%q: %w", command, err)
	}
	return nil
}

// Lines are what the commands printed since Lines was last called.
func (s *Story) Lines() []string {
	lines := s.lines
	s.lines = nil
	return lines
}

// block plays the commands of one block and returns what they printed.
func (s *Story) block(commands []string) (string, error) {
	for _, c := range commands {
		if err := s.Do(c); err != nil {
			return "", err
		}
	}
	lines := s.Lines()
	if len(lines) == 0 {
		return "ok\n", nil
	}
	return strings.Join(lines, "\n") + "\n", nil
}

func (s *Story) print(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

var (
	errUsage   = errors.New("wrong arguments; see the package documentation")
	errNoWorld = errors.New("the story must begin with the command cluster")
)

// command plays one command.
func (s *Story) command(f []string) error {
	switch f[0] {
	case "model":
		return s.model(f[1:])
	case "cluster":
		return s.cluster(f[1:])
	}
	if s.w == nil {
		return errNoWorld
	}
	for _, table := range []map[string]func([]string) error{s.timeCommands(), s.nodeCommands(), s.storeCommands()} {
		if do, ok := table[f[0]]; ok {
			return do(f[1:])
		}
	}
	return errors.New("unknown command")
}

// cluster makes the world: `cluster a b c` runs until a leads and the others stream; `cluster empty a b c` only starts
// them. A name with :patroni is a Patroni member; ttl=, loop_wait=, retry_timeout= and so on go into the configuration.
func (s *Story) cluster(args []string) error {
	opt := s.opt
	out := opt.Out
	if !s.quiet {
		opt.Out = func(line string) {
			if !s.mute {
				s.lines = append(s.lines, line)
			}
			if out != nil {
				out(line)
			}
		}
	}
	s.w = NewWorld(opt)
	empty := false
	var names []string
	for _, a := range args {
		switch {
		case a == "empty":
			empty = true
		case strings.Contains(a, "="):
			s.w.settings = append(s.w.settings, a)
		default:
			names = append(names, a)
		}
	}
	if len(names) == 0 || len(names) > 9 {
		return errUsage
	}
	for _, name := range names {
		name, program, _ := strings.Cut(name, ":")
		s.w.AddNode(name, name, program == "patroni")
	}
	if empty {
		for _, n := range s.w.nodes {
			n.Start()
		}
		return nil
	}
	s.mute = true
	defer func() { s.mute = false }()
	odds := s.w.opt.Net
	s.w.opt.Net.LoseReply, s.w.opt.Net.LoseRequest, s.w.opt.Net.Late = 0, 0, 0
	defer func() { s.w.opt.Net = odds }()
	if !s.w.Grow() {
		s.mute = false
		return fmt.Errorf("the cluster does not come up:\n%s", s.w.Status())
	}
	s.w.zero = s.w.now
	return nil
}

// model sets how the model behaves, before the command cluster: what a simulation draws from its seed.
func (s *Story) model(args []string) error {
	o := &s.opt
	var slack time.Duration
	spans := map[string]*time.Duration{
		"latency": &o.Net.Latency, "jitter": &o.Net.Jitter, "late-by": &o.Net.LateBy, "fence-lag": &o.FenceLag,
		"writes": &o.Writes, "slack": &slack,
	}
	odds := map[string]*float64{"lose-request": &o.Net.LoseRequest, "lose-reply": &o.Net.LoseReply, "late": &o.Net.Late}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		var err error
		switch {
		case k == "dishonest":
			o.Dishonest = true
		case k == "mistake":
			o.Mistake = Mistake(strings.ReplaceAll(v, "_", " "))
		case k == "seed":
			var seed uint64
			seed, err = strconv.ParseUint(v, 10, 64)
			o.Rand = rand.New(rand.NewPCG(seed, worldStream))
		case spans[k] != nil:
			*spans[k], err = time.ParseDuration(v)
		case odds[k] != nil:
			*odds[k], err = strconv.ParseFloat(v, 64)
		default:
			err = errUsage
		}
		if err != nil {
			return err
		}
	}
	if o.FenceLag = min(o.FenceLag, MaxFenceLag); o.Rand == nil {
		o.FenceLag = 0
	}
	o.SessionSlack = slack
	return nil
}

// worldStream keeps the model's draws apart from those of whoever draws the schedule from the same seed.
const worldStream = 0x6d6f64656c

// Grow starts the first node, waits until it leads, starts the others, and waits until they stream.
func (w *World) Grow() bool {
	w.nodes[0].Start()
	first := w.nodes[0]
	if !w.RunUntil(2*time.Minute, func() bool { return first.writable() }) {
		return false
	}
	for _, n := range w.nodes[1:] {
		n.Start()
	}
	ok := w.RunUntil(2*time.Minute, w.Healthy)
	w.Run(4 * time.Second)
	return ok && w.Healthy()
}

func (s *Story) timeCommands() map[string]func([]string) error {
	return map[string]func([]string) error{
		"run":       s.run,
		"advance":   s.advance,
		"tick":      s.tick,
		"stabilize": s.stabilize,
		"calm":      s.calm,
		"settle":    s.settle,
	}
}

func duration(args []string, i int) (time.Duration, error) {
	if i >= len(args) {
		return 0, errUsage
	}
	return time.ParseDuration(args[i])
}

func (s *Story) run(args []string) error {
	d, err := duration(args, 0)
	if err != nil {
		return err
	}
	s.w.hold(false)
	s.w.Run(d)
	return nil
}

// advance lets time pass for guards, servers and sessions, while no agent's loop runs.
func (s *Story) advance(args []string) error {
	d, err := duration(args, 0)
	if err != nil {
		return err
	}
	s.w.hold(true)
	s.w.Run(d)
	return nil
}

// tick lets the agents named, or all, look once.
func (s *Story) tick(args []string) error {
	s.w.hold(true)
	nodes := s.w.nodes
	if len(args) > 0 {
		nodes = nil
		for _, name := range args {
			n, err := s.node(name)
			if err != nil {
				return err
			}
			nodes = append(nodes, n)
		}
	}
	for _, n := range nodes {
		if n.agent == nil {
			continue
		}
		a := n.agent
		a.held = false
		looks := a.finished
		a.wake()
		a.thaw()
		s.w.RunUntil(10*time.Second, func() bool { return a.dead || a.finished > looks && !a.busy })
		a.held = true
	}
	return nil
}

// stabilize runs until nothing has been printed for some time, at most two minutes.
func (s *Story) stabilize([]string) error {
	w := s.w
	w.hold(false)
	w.quiet = w.now
	if !w.RunUntil(2*time.Minute, func() bool { return w.now-w.quiet > 12*time.Second }) {
		s.print("still changing after 2m")
	}
	return nil
}

// calm ends every fault: cuts heal, what does not run is started, tags, requests and changes of the configuration are
// taken back.
func (s *Story) calm([]string) error {
	w := s.w
	w.opt.Net.LoseReply, w.opt.Net.LoseRequest, w.opt.Net.Late = 0, 0, 0
	for _, n := range w.nodes {
		n.Heal()
		n.fail, n.tags = nil, nil
		if n.agent != nil && n.agent.stop {
			n.Kill()
		}
		n.Start()
	}
	w.operator(dcs.Put(cluster.KeyConfig, []byte(w.config())))
	w.operator(dcs.Put(cluster.KeyFailover, []byte("{}")))
	it := w.store.item(cluster.KeyInitialize)
	if w.truth.line != nil && it.Session == "" && !(cluster.Initialize{SystemID: string(it.Value)}).Valid() {
		w.operator(dcs.Put(cluster.KeyInitialize, []byte(w.truth.line.branch.sysid)))
	}
	return nil
}

// settle runs until the cluster is healthy; taking longer than the given time violates L1, unless a Patroni member was
// promoted, or only such are left and wait for each other: what is promised beside those is safety (lease rules, end of section 1).
func (s *Story) settle(args []string) error {
	d, err := duration(args, 0)
	if err != nil {
		return err
	}
	w := s.w
	w.hold(false)
	if !w.RunUntil(d, w.Healthy) && len(w.violations) == 0 {
		if w.Mixed() {
			w.logf(nil, "not healthy %v after the last fault; beside Patroni members that is not promised", d)
			return nil
		}
		w.violate("L1", "not healthy %v after the last fault:\n%s", d, w.Status())
	}
	return nil
}

// hold holds every agent's loop, or lets it go on.
func (w *World) hold(on bool) {
	w.wakesHeld = on
	for _, n := range w.nodes {
		if n.agent == nil && n.patroni == nil {
			continue
		}
		p := n.proc()
		p.held = on
		if !on {
			p.thaw()
		}
	}
}

func (s *Story) node(name string) (*Node, error) {
	if n := s.w.node(name); n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("no node %q", name)
}

func parseNumber(args []string, i int, otherwise uint64) (uint64, error) {
	if i >= len(args) {
		return otherwise, nil
	}
	return strconv.ParseUint(args[i], 10, 64)
}
