package cluster

import (
	"fmt"
	"time"
)

// DefaultDynamic is the dynamic configuration that a cluster bootstrapped by pgregent begins with: a lost node is
// replaced in under ten seconds without tuning the store (design section 4).
func DefaultDynamic() map[string]any {
	return map[string]any{"ttl": 8, "loop_wait": 2, "retry_timeout": 3}
}

// Limits of the timing settings. Patroni's minimum of ttl is 20, because nothing fences there when an agent hangs; our
// deadline does not depend on it (design section 4). Below fastTTL a warning says what the store must keep.
const (
	minTTL       = 3
	minLoopWait  = 1
	minRetry     = 3
	minRetryFast = 1 // when ttl is below 2*minRetry+minLoopWait: retry_timeout must fit in
	fastTTL      = 7
)

// ParseDynamic reads the key `config`: types, defaults, aliases and clamps of reference section 4.4. A map without the
// timing keys was written by Patroni: 30, 10, 10. It never fails: what cannot be understood is a warning and a default.
func ParseDynamic(raw map[string]any) Dynamic {
	p := dynamicParser{raw: raw}
	d := Dynamic{
		MaximumLagOnFailover: p.int("maximum_lag_on_failover", 1<<20),
		MaxTimelinesHistory:  int(p.int("max_timelines_history", 0)),
		PrimaryStartTimeout:  p.seconds(300, "primary_start_timeout", "master_start_timeout"),
		PrimaryStopTimeout:   p.seconds(0, "primary_stop_timeout", "master_stop_timeout"),
		SynchronousNodeCount: int(p.int("synchronous_node_count", 1)),
		FailsafeMode:         ParseBool(raw["failsafe_mode"]),
		CheckTimeline:        ParseBool(raw["check_timeline"]),
		Pause:                ParseBool(raw["pause"]),
		MemberSlotsTTL:       30 * time.Minute,
	}
	d.SynchronousModeStrict = ParseBool(raw["synchronous_mode_strict"])
	switch {
	case raw["synchronous_mode"] == "quorum":
		d.SynchronousMode = "quorum"
	case ParseBool(raw["synchronous_mode"]):
		d.SynchronousMode = "on"
	}
	if sc, ok := raw["standby_cluster"].(map[string]any); ok {
		d.StandbyCluster = sc["host"] != nil || sc["port"] != nil || sc["restore_command"] != nil
	}
	d.PostgreSQL, _ = raw["postgresql"].(map[string]any)
	if pg := raw["postgresql"]; pg != nil && d.PostgreSQL == nil {
		p.warn("postgresql is %v, expected a mapping; it is ignored", pg)
	}
	p.timing(&d)
	d.Unsupported = unsupported(raw, d)
	d.Warnings = p.warnings
	return d
}

type dynamicParser struct {
	raw      map[string]any
	warnings []string
}

func (p *dynamicParser) warn(format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

func (p *dynamicParser) int(key string, def int64) int64 {
	v, ok := p.raw[key]
	if !ok || v == nil {
		return def
	}
	i, ok := parseInt(v)
	if !ok {
		p.warn("%s is %v, expected a whole number; %d is used", key, v, def)
		return def
	}
	return i
}

// seconds reads the first of the keys that is set.
func (p *dynamicParser) seconds(def int64, keys ...string) time.Duration {
	for _, k := range keys {
		if p.raw[k] != nil {
			s := p.int(k, def)
			if s < 0 || s > 1<<31 {
				p.warn("%s is %d, expected seconds; %d is used", k, s, def)
				s = def
			}
			return time.Duration(s) * time.Second
		}
	}
	return time.Duration(def) * time.Second
}

// timing clamps ttl, loop_wait and retry_timeout, so that loop_wait + 2*retry_timeout <= ttl.
func (p *dynamicParser) timing(d *Dynamic) {
	clamp := func(key string, v, least int64) int64 {
		if v < least {
			p.warn("%s is %d; %d is used, the least allowed", key, v, least)
			return least
		}
		return min(v, 1<<31)
	}
	ttl := clamp("ttl", p.int("ttl", 30), minTTL)
	loop := clamp("loop_wait", p.int("loop_wait", 10), minLoopWait)
	leastRetry := int64(minRetry)
	if ttl < 2*minRetry+minLoopWait {
		leastRetry = minRetryFast
	}
	retry := clamp("retry_timeout", p.int("retry_timeout", 10), leastRetry)
	switch {
	case minLoopWait+2*retry > ttl:
		newRetry := max((ttl-1)/2, 1)
		if loop != minLoopWait || retry != newRetry {
			p.warn("loop_wait %d and retry_timeout %d do not fit into ttl %d (loop_wait + 2*retry_timeout <= ttl); %d and %d are used",
				loop, retry, ttl, minLoopWait, newRetry)
		}
		loop, retry = minLoopWait, newRetry
	case loop+2*retry > ttl:
		p.warn("loop_wait %d does not fit into ttl %d with retry_timeout %d; %d is used", loop, ttl, retry, ttl-2*retry)
		loop = ttl - 2*retry
	}
	if ttl < fastTTL {
		p.warn("ttl is %d: the store's own elections must be over in 300 ms, or each of them demotes a healthy primary", ttl)
	}
	d.TTL, d.LoopWait, d.RetryTimeout = time.Duration(ttl)*time.Second, time.Duration(loop)*time.Second, time.Duration(retry)*time.Second
}

// unsupported lists the settings that change safety and that this version does not implement: a node that sees one
// follows but does not take the lease (design section 2).
func unsupported(raw map[string]any, d Dynamic) []string {
	var out []string
	no := func(key, why string) {
		out = append(out, fmt.Sprintf("%s = %v is not supported yet: %s", key, raw[key], why))
	}
	if d.SynchronousMode != "" {
		no("synchronous_mode", "a primary here would acknowledge commits that no standby has")
	}
	if d.SynchronousModeStrict {
		no("synchronous_mode_strict", "a primary here would acknowledge commits that no standby has")
	}
	if d.FailsafeMode {
		no("failsafe_mode", "a primary here would stop when the store is silent, where the setting promises that it goes on")
	}
	if d.StandbyCluster {
		no("standby_cluster", "a leader here would promote, where the setting promises that it follows another cluster")
	}
	for _, key := range []string{"slots", "permanent_slots", "permanent_replication_slots"} {
		if m, ok := raw[key].(map[string]any); ok && len(m) > 0 {
			no(key, "permanent slots would be lost at a failover to this node")
		}
	}
	if l, ok := raw["ignore_slots"].([]any); ok && len(l) > 0 {
		no("ignore_slots", "a slot that should be left alone could be dropped")
	}
	if raw["citus"] != nil {
		no("citus", "a Citus cluster needs its metadata kept in step with a failover")
	}
	return out
}
