package policytest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres/wal"
)

// onNode makes a command of something that is done to one node.
func (s *Story) onNode(do func(*Node)) func([]string) error {
	return func(args []string) error {
		if len(args) == 0 {
			return errUsage
		}
		for _, name := range args {
			n, err := s.node(name)
			if err != nil {
				return err
			}
			do(n)
		}
		return nil
	}
}

// forTime makes a command of something that is done to one node with a duration.
func (s *Story) forTime(do func(*Node, time.Duration)) func([]string) error {
	return func(args []string) error {
		d, err := duration(args, 1)
		if err != nil {
			return err
		}
		n, err := s.node(args[0])
		if err == nil {
			do(n, d)
		}
		return err
	}
}

func (s *Story) nodeCommands() map[string]func([]string) error {
	return map[string]func([]string) error{
		"kill":              s.onNode((*Node).Kill),
		"kill-agent":        s.onNode((*Node).KillAgent),
		"kill-guard":        s.onNode((*Node).KillGuard),
		"kill-postgres":     s.onNode((*Node).KillPostgres),
		"kill-postmaster":   s.onNode((*Node).KillPostmaster),
		"restart":           s.onNode((*Node).Start),
		"stop":              s.onNode((*Node).Stop),
		"wipe":              s.onNode((*Node).Wipe),
		"forget":            s.onNode(func(n *Node) { n.voter = voterDisk{} }),
		"freeze":            s.forTime((*Node).Freeze),
		"freeze-guard":      s.forTime((*Node).FreezeGuard),
		"freeze-postmaster": s.forTime((*Node).FreezePostmaster),
		"pause-node":        s.forTime((*Node).Pause),
		"slow-store":        s.forTime(func(n *Node, d time.Duration) { n.slowStore = d }),
		"slow-wal":          s.forTime(func(n *Node, d time.Duration) { n.walDelay = d }),
		"lose-reply":        s.onNode(func(n *Node) { n.loseReply++ }),
		"write":             s.write,
		"busy":              s.forTime(s.busy),
		"start-by-hand":     s.onNode(s.startByHand),
		"drift":             s.drift,
		"cut":               s.cut,
		"heal":              s.heal,
		"tag":               s.tag,
		"fail":              s.fail,
		"swap":              s.swap,
		"patroni":           s.patroni,
		"join":              s.join,
		"twin":              s.twin,
		"status":            s.status,
		"restart-postgres":  s.restartPostgres,
		"schedule-restart":  s.scheduleRestart,
		"reinit":            s.reinit,
		"cancel-reinit":     s.onNode((*Node).CancelReinit),
		"pending-restart":   s.onNode(func(n *Node) { n.pendingRestart = true }),
		"parameter-too-low": s.onNode(func(n *Node) { n.tooLow = true; n.wake() }),
	}
}

// Stop asks the agent to hand over and end, as SIGTERM does.
func (n *Node) Stop() {
	switch {
	case n.agent != nil:
		n.agent.stop, n.agent.stopAt = true, n.clock()
		n.agent.wake()
	case n.patroni != nil:
		n.KillAgent()
		n.pgStop(func() {})
	}
}

// Wipe loses the data directory: the server that runs in it crashes.
func (n *Node) Wipe() {
	n.pgKill("crashed: the data directory is gone")
	n.disk = disk{data: policy.DataEmpty}
}

func (s *Story) write(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	n, err := s.node(args[0])
	if err != nil {
		return err
	}
	bytes, err := parseNumber(args, 1, 100)
	if err != nil {
		return err
	}
	if !n.writable() {
		s.print("%s refuses the write", n.host)
		return nil
	}
	n.Write(wal.LSN(bytes))
	s.print("%s acknowledges %s", n.host, position(n.disk.tip))
	return nil
}

func (s *Story) busy(n *Node, d time.Duration) {
	if !n.Busy(d) {
		s.print("%s refuses the statement", n.host)
	}
}

func (s *Story) startByHand(n *Node) {
	if !n.StartByHand() {
		s.print("%s cannot be started", n.host)
	}
}

func (s *Story) drift(args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	n, err := s.node(args[0])
	if err != nil {
		return err
	}
	rate, err := strconv.ParseFloat(args[1], 64)
	if err != nil || rate <= 0 {
		return errUsage
	}
	n.drift(rate)
	return nil
}

func (s *Story) cut(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	n, err := s.node(args[0])
	if err != nil {
		return err
	}
	if len(args) == 1 {
		n.CutAll()
	}
	for _, to := range args[1:] {
		if to == "store" {
			n.CutStore()
			continue
		}
		m, err := s.node(to)
		if err != nil {
			return err
		}
		n.CutFrom(m)
	}
	return nil
}

func (s *Story) heal(args []string) error {
	if len(args) == 0 {
		for _, n := range s.w.nodes {
			n.Heal()
		}
		return nil
	}
	return s.onNode((*Node).Heal)(args)
}

// CutAll cuts the node from the store and from every other node; CutStore and CutFrom from one of them.
func (n *Node) CutAll() { n.alone = true; n.w.linksChanged() }

// CutStore cuts the node from the store.
func (n *Node) CutStore() { n.cutStore = true }

// CutFrom cuts two nodes from each other.
func (n *Node) CutFrom(m *Node) {
	n.cut |= 1 << m.index
	m.cut |= 1 << n.index
	n.w.linksChanged()
}

// Heal ends every cut and slowness of the node.
func (n *Node) Heal() {
	n.alone, n.cutStore, n.slowStore, n.walDelay, n.loseReply = false, false, 0, 0, 0
	for _, m := range n.w.nodes {
		n.cut &^= 1 << m.index
		m.cut &^= 1 << n.index
	}
	if n.missed && (n.agent != nil || n.patroni != nil) {
		n.missed = false
		n.proc().post(n.w.trip(), n.wake)
	}
	n.w.linksChanged()
}

// linksChanged ends the streams that a cut runs through.
func (w *World) linksChanged() {
	for _, n := range w.nodes {
		if n.pg.streaming && !w.link(n, n.pg.source) {
			n.disconnect()
		}
	}
}

func (s *Story) tag(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	n, err := s.node(args[0])
	if err != nil {
		return err
	}
	tags := cluster.Tags{}
	for k, v := range n.tags {
		tags[k] = v
	}
	for _, a := range args[1:] {
		k, v, _ := strings.Cut(a, "=")
		tags[k] = yamlValue(v)
	}
	n.tags = tags
	return nil
}

// yamlValue is how a configuration file would read v.
func yamlValue(v string) any {
	if b, err := strconv.ParseBool(v); err == nil && len(v) > 1 {
		return b
	}
	if i, err := strconv.Atoi(v); err == nil {
		return i
	}
	return v
}

func (s *Story) fail(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	n, err := s.node(args[0])
	if err == nil {
		n.fail = append(n.fail, args[1:]...)
	}
	return err
}

// swap changes the program that runs on a node, on the same data directory and under the same name.
func (s *Story) swap(args []string) error {
	if len(args) != 2 || args[1] != "patroni" && args[1] != "pgregent" {
		return errUsage
	}
	n, err := s.node(args[0])
	if err == nil {
		n.Swap(args[1] == "patroni")
	}
	return err
}

// Swap ends the node's program at once and starts the other one.
func (n *Node) Swap(toPatroni bool) {
	n.Kill()
	n.isPatroni = toPatroni
	n.Start()
}

func (s *Story) patroni(args []string) error { return s.add(args, true) }
func (s *Story) join(args []string) error    { return s.add(args, false) }

func (s *Story) add(args []string, isPatroni bool) error {
	for _, name := range args {
		if s.w.node(name) != nil {
			return fmt.Errorf("there is a node %q already", name)
		}
		s.w.AddNode(name, name, isPatroni).Start()
	}
	return nil
}

func (s *Story) twin(args []string) error {
	if len(args) != 2 || s.w.node(args[0]) != nil {
		return errUsage
	}
	s.w.AddNode(args[0], args[1], false).Start()
	return nil
}
