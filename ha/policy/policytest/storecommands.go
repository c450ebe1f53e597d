package policytest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
)

func (s *Story) storeCommands() map[string]func([]string) error {
	return map[string]func([]string) error{
		"switchover":  s.switchover,
		"failover":    s.failover,
		"schedule":    s.schedule,
		"pause":       s.pauseCluster,
		"failsafe":    func(args []string) error { return s.set([]string{"failsafe=" + arg(args, 0)}) },
		"set":         s.set,
		"delete":      s.deleteKey,
		"put":         s.put,
		"end-session": s.onNode((*Node).EndSession),
		"store":       s.showStore,
	}
}

func arg(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

// Request writes the key `failover` as the REST API does: with a leader it is a switchover, without one a failover.
func (w *World) Request(leader, candidate string, in time.Duration) {
	f := cluster.Failover{Leader: leader, Candidate: candidate}
	if in > 0 {
		f.ScheduledAt = wallClock(w.now + in)
	}
	w.operator(dcs.Put(cluster.KeyFailover, cluster.EncodeFailover(f)))
}

// operator does something to the store that no member does.
func (w *World) operator(op dcs.Op) {
	if op.Key == dcs.KeyLease {
		w.truth.deleted = true
	}
	_, _ = w.store.commit(nil, dcs.Txn{Then: []dcs.Op{op}})
}

// Delete is an operator who deletes a key.
func (w *World) Delete(key string) { w.operator(dcs.Delete(key)) }

// EndSession ends the session of the node's agent early, as a store does that lost its mind.
func (n *Node) EndSession() {
	switch {
	case n.agent != nil && n.agent.session != "":
		n.w.store.end(n.agent.session)
	case n.patroni != nil && n.patroni.session != "":
		n.w.store.end(n.patroni.session)
	}
}

func (s *Story) switchover(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	s.w.Request(args[0], arg(args, 1), 0)
	return nil
}

func (s *Story) failover(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	s.w.Request("", args[0], 0)
	return nil
}

func (s *Story) schedule(args []string) error {
	d, err := duration(args, 0)
	if err != nil || len(args) < 2 {
		return errUsage
	}
	s.w.Request(args[1], arg(args, 2), d)
	return nil
}

func (s *Story) pauseCluster(args []string) error {
	switch arg(args, 0) {
	case "on":
		return s.set([]string{"pause=true"})
	case "off":
		return s.set([]string{"pause=false"})
	}
	return errUsage
}

// set changes the dynamic configuration, as PATCH /config does.
func (s *Story) set(args []string) error { return s.w.Set(args...) }

// Set changes keys of the dynamic configuration: each argument is key=value.
func (w *World) Set(settings ...string) error {
	conf := map[string]any{}
	if it := w.store.item(cluster.KeyConfig); it.Version != dcs.Absent {
		if json.Unmarshal(it.Value, &conf) != nil || conf == nil { // garbage: as if there were none
			conf = w.rawConfig()
		}
	}
	if err := merge(conf, settings); err != nil {
		return err
	}
	b, err := json.Marshal(conf)
	if err != nil {
		return err
	}
	w.operator(dcs.Put(cluster.KeyConfig, b))
	return nil
}

func merge(conf map[string]any, settings []string) error {
	for _, a := range settings {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			return errUsage
		}
		if k == "failsafe" {
			k = "failsafe_mode"
		}
		conf[k] = yamlValue(v)
	}
	return nil
}

// config is the configuration that a bootstrap writes.
func (w *World) config() string {
	return string(cluster.EncodeConfig(w.rawConfig()))
}

func (w *World) rawConfig() map[string]any {
	conf := cluster.DefaultDynamic()
	delete(conf, "failsafe_mode") // stories say when it is on
	_ = merge(conf, w.settings)
	return conf
}

// defaults are in force on a node until it read a configuration.
func (w *World) defaults() cluster.Dynamic { return cluster.ParseDynamic(w.rawConfig()) }

func (s *Story) deleteKey(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	s.w.Delete(args[0])
	return nil
}

func (s *Story) put(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	s.w.operator(dcs.Put(args[0], []byte(strings.Join(args[1:], " "))))
	return nil
}

func (s *Story) showStore([]string) error {
	for _, it := range s.w.store.items {
		bound := ""
		if it.Session != "" {
			bound = " (session)"
		}
		s.print("%s%s = %s", it.Key, bound, it.Value)
	}
	return nil
}

func (s *Story) status([]string) error {
	s.lines = append(s.lines, strings.Split(strings.TrimRight(s.w.Status(), "\n"), "\n")...)
	return nil
}

// Status is one line for each node and one for the store.
func (w *World) Status() string {
	var b strings.Builder
	for _, n := range w.nodes {
		fmt.Fprintf(&b, "%s %s\n", n.host, n.describe())
	}
	rec, err := dcs.ParseRecord(w.store.item(dcs.KeyLease).Value)
	key := w.store.item(dcs.KeyLeader)
	switch {
	case w.store.item(dcs.KeyLease).Version == dcs.Absent:
		b.WriteString("store: no lease")
	case err != nil:
		b.WriteString("store: the lease is unreadable")
	default:
		fmt.Fprintf(&b, "store: epoch %d %s by %s", rec.Epoch, rec.State, rec.Holder)
		if rec.Proof != "" {
			fmt.Fprintf(&b, " (%s)", rec.Proof)
		}
	}
	if len(rec.Members) > 0 {
		fmt.Fprintf(&b, ", failsafe list %v", rec.List())
	}
	if key.Version == dcs.Absent {
		b.WriteString(", no leader\n")
	} else {
		fmt.Fprintf(&b, ", leader %s\n", key.Value)
	}
	return b.String()
}

func (n *Node) describe() string {
	var parts []string
	switch {
	case n.pg.state == pgStarting:
		parts = append(parts, "starting")
	case n.pg.state == pgStopping:
		parts = append(parts, "stopping")
	case n.writable():
		parts = append(parts, "primary")
	case n.pg.state == pgRunning && n.pg.primary:
		parts = append(parts, "primary (paused)")
	case n.pg.state == pgRunning:
		parts = append(parts, "replica")
	default:
		parts = append(parts, "down")
	}
	if left := len(n.orphans); left > 0 {
		parts = append(parts, fmt.Sprintf("with %d busy", left))
	}
	if n.pg.state != pgStopped && n.pg.parent == nil && !n.isPatroni {
		parts = append(parts, "by hand")
	}
	parts = append(parts, position(n.disk.tip))
	switch {
	case n.pg.streaming:
		parts = append(parts, "<- "+n.pg.source.host)
	case n.pg.state == pgRunning && !n.pg.primary:
		parts = append(parts, "not streaming")
	}
	if g := n.guard; g != nil && g.open && !g.dead {
		parts = append(parts, fmt.Sprintf("epoch %d for %.1fs", g.epoch, (g.deadline-n.clock()).Seconds()))
	}
	if !n.agentAlive() {
		parts = append(parts, "no agent")
	}
	if n.agent != nil && n.agent.task.Kind != "" {
		parts = append(parts, "("+string(n.agent.task.Kind)+")")
	}
	return strings.Join(parts, " ")
}

// Healthy says that there is one primary, that the store names it, and that every other member with a live agent
// streams from it.
func (w *World) Healthy() bool {
	var primary *Node
	for _, n := range w.nodes {
		if n.writable() {
			if primary != nil {
				return false
			}
			primary = n
		}
	}
	if primary == nil || string(w.store.item(dcs.KeyLeader).Value) != primary.name {
		return false
	}
	for _, n := range w.nodes {
		if n != primary && n.agentAlive() && !(n.pg.state == pgRunning && n.pg.streaming && n.pg.source == primary && primary.disk.tip.holds(n.disk.tip)) {
			return false
		}
	}
	return true
}
