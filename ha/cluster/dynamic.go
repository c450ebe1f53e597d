package cluster

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// DefaultDynamic is the dynamic configuration that a cluster bootstrapped by pgregent begins with: a lost node is
// replaced in under ten seconds without tuning the store (design section 4), and a store that is silent does not end a
// healthy primary. Failsafe mode is off where the key config does not have it, as Patroni wrote it.
func DefaultDynamic() map[string]any {
	return map[string]any{"ttl": 8, "loop_wait": 2, "retry_timeout": 3, "failsafe_mode": true}
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
// timing keys was written by Patroni: 30, 10, 10. It never fails: what cannot be understood is a warning and a default,
// what must not be ignored is in Unsupported.
func ParseDynamic(raw map[string]any) Dynamic {
	p := dynamicParser{raw: raw}
	d := Dynamic{
		MaximumLagOnFailover:  p.int("maximum_lag_on_failover", 1<<20),
		MaxTimelinesHistory:   int(max(0, min(p.int("max_timelines_history", 0), math.MaxInt32))),
		PrimaryStartTimeout:   p.timeout(300, "primary_start_timeout", "master_start_timeout"),
		PrimaryStopTimeout:    p.timeout(0, "primary_stop_timeout", "master_stop_timeout"),
		SynchronousModeStrict: p.bool("synchronous_mode_strict"),
		FailsafeMode:          p.bool("failsafe_mode"),
		CheckTimeline:         p.bool("check_timeline"),
		Pause:                 p.bool("pause"),
		MemberSlotsTTL:        p.memberSlotsTTL(),
	}
	if sc, ok := raw["standby_cluster"].(map[string]any); ok {
		d.StandbyCluster = truthy(sc["host"]) || truthy(sc["port"]) || truthy(sc["restore_command"])
	}
	d.SynchronousMode = p.synchronousMode()
	if d.StandbyCluster {
		d.SynchronousMode = ""
	}
	d.SynchronousNodeCount = int(max(0, min(p.int("synchronous_node_count", 1), math.MaxInt32)))
	if d.SynchronousModeStrict {
		d.SynchronousNodeCount = max(1, d.SynchronousNodeCount)
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
	v := p.raw[key]
	if v == nil {
		return def
	}
	i, ok := parseInt(v)
	if !ok {
		p.warn("%s is %v, expected a whole number without a unit; %d is used", key, v, def)
		return def
	}
	return i
}

func (p *dynamicParser) bool(key string) bool {
	v := p.raw[key]
	b, ok := parseBool(v)
	if !ok && v != nil {
		p.warn("%s is %v, expected on or off; off is used", key, v)
	}
	return b
}

// synchronousMode is "", "on" or "quorum".
func (p *dynamicParser) synchronousMode() string {
	const key = "synchronous_mode"
	switch v := p.raw[key]; {
	case strings.EqualFold(pyText(v), "quorum"):
		return "quorum"
	case p.bool(key):
		return "on"
	}
	return ""
}

// timeout reads seconds under the first of the keys that is there, also when its value is null, as Patroni does.
func (p *dynamicParser) timeout(def int64, keys ...string) time.Duration {
	for _, k := range keys {
		if _, there := p.raw[k]; there {
			s := p.int(k, def)
			if s < 0 || s > math.MaxInt32 {
				p.warn("%s is %d, expected seconds from 0; %d is used", k, s, def)
				s = def
			}
			return time.Duration(s) * time.Second
		}
	}
	return time.Duration(def) * time.Second
}

// memberSlotsTTL is the one setting that takes a unit.
func (p *dynamicParser) memberSlotsTTL() time.Duration {
	const def = 30 * time.Minute
	v := p.raw["member_slots_ttl"]
	if v == nil {
		return def
	}
	s, ok := parseSeconds(v)
	if !ok || s > math.MaxInt32 {
		p.warn("member_slots_ttl is %v, expected seconds or a duration as 30min; %v is used", v, def)
		return def
	}
	return time.Duration(max(s, 0)) * time.Second
}

// timing clamps ttl, loop_wait and retry_timeout, so that loop_wait + 2*retry_timeout <= ttl. It is Patroni's rule with
// two lower limits: ttl may be 3 (design section 4), and below ttl 7, where Patroni's least retry_timeout of 3 does not
// fit beside the least loop_wait, retry_timeout may be 1.
func (p *dynamicParser) timing(d *Dynamic) {
	clamp := func(key string, v, least int64) int64 {
		if v < least {
			p.warn("%s is %d; %d is used, the least allowed", key, v, least)
			return least
		}
		return min(v, math.MaxInt32)
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
		newRetry := (ttl - minLoopWait) / 2
		p.warn("loop_wait %d and retry_timeout %d do not fit into ttl %d (loop_wait + 2*retry_timeout <= ttl); %d and %d are used",
			loop, retry, ttl, minLoopWait, newRetry)
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
	say := func(key string, value any, why string) {
		out = append(out, fmt.Sprintf("%s = %v is not supported yet: %s", key, value, why))
	}
	no := func(key, why string) { say(key, raw[key], why) }
	if d.SynchronousMode != "" {
		no("synchronous_mode", "a primary here would acknowledge commits that no standby has")
	}
	if d.SynchronousModeStrict {
		no("synchronous_mode_strict", "a primary here would acknowledge commits that no standby has")
	}
	if d.StandbyCluster {
		no("standby_cluster", "a leader here would promote, where the setting promises that it follows another cluster")
	}
	for _, key := range [...]string{"slots", "permanent_slots", "permanent_replication_slots"} {
		if truthy(raw[key]) {
			no(key, "permanent slots would be lost at a failover to this node")
		}
	}
	if truthy(raw["ignore_slots"]) {
		no("ignore_slots", "a slot that should be left alone could be dropped")
	}
	for _, key := range [...]string{"create_replica_methods", "create_replica_method"} {
		if v := d.PostgreSQL[key]; truthy(v) && !onlyBaseBackup(v) {
			say("postgresql."+key, v, "a replica here would be made with pg_basebackup, where the setting promises another way")
		}
	}
	if truthy(raw["citus"]) {
		no("citus", "a Citus cluster needs its metadata kept in step with a failover")
	}
	return out
}

// onlyBaseBackup says that replica methods, a list or a single one, name pg_basebackup alone: that is what is done anyway.
func onlyBaseBackup(v any) bool {
	methods, ok := v.([]any)
	if !ok {
		methods = []any{v}
	}
	return !slices.ContainsFunc(methods, func(m any) bool { return m != "basebackup" })
}
