package policytest

import (
	"bytes"
	"slices"
	"strings"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/postgres/wal"
)

// decodeNote reads a lease note; the last one is remembered, and what is returned may be changed.
func (w *World) decodeNote(b []byte) cluster.Note {
	if w.lastNote == nil || !bytes.Equal(b, w.lastNote) {
		w.lastNote = b
		w.note, _ = cluster.ParseNote(b)
	}
	n := w.note
	n.Promotions = slices.Clip(n.Promotions)
	return n
}

// version is what this model claims to be, in the member field `pgregent`.
const version = "0.1.0"

// memberValue is the node's member record as Patroni would write it, or as we do.
func (n *Node) memberValue(isPatroni bool, task policy.TaskKind) []byte {
	m := cluster.Member{
		Name: n.name, ConnURL: "postgres://" + n.host + ":5432/postgres", APIURL: "http://" + n.host + ":8008/patroni",
		Version: cluster.ProtocolVersion, State: cluster.StateStopped, Role: cluster.RoleReplica,
		Tags: n.tags, CheckpointAfterPromo: true,
	}
	if !isPatroni {
		m.Pgregent = version
		m.NoVote = n.agent != nil && !n.agent.fs.voter.Joined() && n.agent.dynamic.FailsafeMode
	}
	switch n.pg.state {
	case pgStarting:
		m.State = cluster.StateStarting
	case pgStopping:
		m.State = cluster.StateStopping
	case pgRunning:
		m.State = cluster.StateRunning
		m.Location, m.Timeline = n.disk.tip.lsn, n.disk.tip.branch.tli
		if n.pg.primary {
			m.Role = cluster.RolePrimary
			m.CheckpointAfterPromo = n.disk.control == m.Timeline
			break
		}
		m.ReceiveLSN, m.ReplayLSN = m.Location, m.Location
		if n.pg.streaming {
			m.ReplicationState = cluster.ReplicationStreaming
		}
	}
	switch {
	case task == policy.TaskInitdb:
		m.State, m.Role = cluster.StateInitializing, cluster.RoleUninitialized
	case task == policy.TaskClone:
		m.State, m.Role = cluster.StateCreatingReplica, cluster.RoleUninitialized
	case n.disk.data != policy.DataReady:
		m.Role = cluster.RoleUninitialized
	case n.pg.state == pgStopped && n.disk.wasPrimary:
		m.Role = cluster.RoleDemoted
	}
	return cluster.EncodeMember(m)
}

// memberState is what a member record is rewritten for at once; positions alone wait for the timer.
type memberState struct {
	state              pgState
	primary, streaming bool
	data               policy.Data
	task               policy.TaskKind
	control            wal.Timeline
	tags               int
}

func (n *Node) memberState(task policy.TaskKind) memberState {
	return memberState{n.pg.state, n.pg.primary, n.pg.streaming, n.disk.data, task, n.disk.control, len(n.tags)}
}

// leaderKeys travel with a renewal when they have changed: the member record, the position, the timelines.
func (a *agent) leaderKeys() []dcs.Op {
	n := a.n
	var ops []dcs.Op
	put := func(key string, value []byte, session string) {
		if it, ok := a.snap.Item(key); !ok || string(it.Value) != string(value) || it.Session != session {
			ops = append(ops, dcs.Op{Key: key, Value: value, Session: session})
		}
	}
	put(cluster.MembersPrefix+n.name, n.memberValue(false, a.task.Kind), a.session)
	if n.pg.state != pgRunning || !n.pg.primary {
		return ops
	}
	put(cluster.KeyStatus, cluster.EncodeStatus(cluster.LeaderStatus{Optime: n.disk.tip.lsn}), "")
	if h := n.disk.tip.branch.history; len(h.Switches) > 0 && !sameHistory(a.cluster.History.Lines, h) {
		put(cluster.KeyHistory, n.historyValue(a.cluster.History.Lines), "")
	}
	return ops
}

func sameHistory(lines []cluster.HistoryLine, h wal.History) bool {
	return slices.EqualFunc(lines, h.Switches, func(l cluster.HistoryLine, s wal.Switch) bool {
		return l.Timeline == s.Timeline && l.LSN == s.LSN
	})
}

// historyValue is the key `history` (reference section 1.3).
func (n *Node) historyValue(old []cluster.HistoryLine) []byte {
	var lines []cluster.HistoryLine
	for i, s := range n.disk.tip.branch.history.Switches {
		l := cluster.HistoryLine{Timeline: s.Timeline, LSN: s.LSN, Reason: s.Reason, At: wallClock(n.w.now).Format("2006-01-02T15:04:05-07:00"), NewLeader: n.name}
		if i < len(old) && old[i].Timeline == s.Timeline && old[i].LSN == s.LSN {
			l = old[i]
		}
		lines = append(lines, l)
	}
	return cluster.EncodeHistory(lines)
}

// decode decodes a snapshot. Decoding is a pure function of a value, so that each version of a key is decoded once.
func (w *World) decode(snap dcs.Snapshot) cluster.Cluster {
	c := cluster.Decode(nil)
	for _, it := range snap.Items {
		if it.Key == dcs.KeyLease {
			continue
		}
		w.decodeItem(it).into(&c, it.Key)
	}
	return c
}

// decoded is one key's value, decoded.
type decoded struct {
	key     string
	version dcs.Version
	cluster cluster.Cluster
}

func (w *World) decodeItem(it dcs.Item) *decoded {
	i, ok := slices.BinarySearchFunc(w.cache, it.Key, func(d *decoded, key string) int { return strings.Compare(d.key, key) })
	if ok && w.cache[i].version == it.Version {
		return w.cache[i]
	}
	d := &decoded{key: it.Key, version: it.Version}
	d.cluster = cluster.Decode([]cluster.Item{{Key: it.Key, Value: it.Value, Version: uint64(it.Version), Session: it.Session}})
	if ok {
		w.cache[i] = d
	} else {
		w.cache = slices.Insert(w.cache, i, d)
	}
	return d
}

// into adds the key to c; keys come in ascending order, so that members do, too.
func (d *decoded) into(c *cluster.Cluster, key string) {
	switch key {
	case cluster.KeyLeader:
		c.Leader = d.cluster.Leader
	case cluster.KeyInitialize:
		c.Initialize = d.cluster.Initialize
	case cluster.KeyConfig:
		c.Config = d.cluster.Config
	case cluster.KeyFailover:
		c.Failover = d.cluster.Failover
	case cluster.KeySync:
		c.Sync = d.cluster.Sync
	case cluster.KeyStatus:
		c.Status = d.cluster.Status
	case cluster.KeyHistory:
		c.History = d.cluster.History
	case cluster.KeyFailsafe:
		c.Failsafe = d.cluster.Failsafe
	default:
		c.Members = append(c.Members, d.cluster.Members...)
	}
}
