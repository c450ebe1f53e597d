package local

import (
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// lookSQL is the one statement of a look. Every function in it is in PostgreSQL 14 to 18 alike. Whether the server is in
// recovery is asked once, because several functions fail on the wrong side of a promotion.
const lookSQL = `SELECT json_build_object(
	'recovery', r.rec,
	'version', current_setting('server_version_num')::int,
	'start', (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
	'sysid', (SELECT system_identifier::text FROM pg_control_system()),
	'file', CASE WHEN NOT r.rec THEN pg_walfile_name(pg_current_wal_flush_lsn()) END,
	'flushed', CASE WHEN NOT r.rec THEN pg_current_wal_flush_lsn() END,
	'received', CASE WHEN r.rec THEN pg_last_wal_receive_lsn() END,
	'replayed', CASE WHEN r.rec THEN pg_last_wal_replay_lsn() END,
	'replayed_at', CASE WHEN r.rec THEN (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint END,
	'paused', CASE WHEN r.rec THEN pg_get_wal_replay_pause_state() <> 'not paused' ELSE false END,
	'restore_command', current_setting('restore_command') <> '',
	'conninfo', current_setting('primary_conninfo'),
	'sync_names', current_setting('synchronous_standby_names'),
	'receiver', (SELECT json_build_object('status', status, 'timeline', received_tli, 'written', written_lsn,
		'latest_end', latest_end_lsn, 'host', sender_host, 'port', sender_port) FROM pg_stat_wal_receiver WHERE r.rec),
	'walsenders', (SELECT json_agg(json_build_object('pid', pid, 'user', usename, 'application_name', application_name,
		'addr', host(client_addr), 'state', state, 'sync_state', sync_state, 'sync_priority', sync_priority,
		'sent', sent_lsn, 'written', write_lsn, 'flushed', flush_lsn, 'replayed', replay_lsn) ORDER BY pid)
		FROM pg_stat_replication WHERE NOT (state = 'startup' AND application_name = 'pgregent')),
	'slots', (SELECT json_agg(json_build_object('name', slot_name, 'type', slot_type, 'active', active,
		'restart', restart_lsn, 'xmin', xmin IS NOT NULL OR catalog_xmin IS NOT NULL, 'wal_status', wal_status) ORDER BY slot_name)
		FROM pg_replication_slots WHERE NOT temporary),
	'standby', json_build_object('max_connections', current_setting('max_connections')::int,
		'max_worker_processes', current_setting('max_worker_processes')::int, 'max_wal_senders', current_setting('max_wal_senders')::int,
		'max_prepared_transactions', current_setting('max_prepared_transactions')::int,
		'max_locks_per_transaction', current_setting('max_locks_per_transaction')::int),
	'pending', (SELECT json_object_agg(name, current_setting(name)) FROM pg_settings WHERE pending_restart)
) FROM (SELECT pg_is_in_recovery() AS rec OFFSET 0) r`

// lookRow is the answer to lookSQL. A null leaves a field zero.
type lookRow struct {
	Recovery       bool              `json:"recovery"`
	Version        int               `json:"version"`
	Start          int64             `json:"start"`
	SystemID       string            `json:"sysid"`
	File           string            `json:"file"`
	Flushed        wal.LSN           `json:"flushed"`
	Received       wal.LSN           `json:"received"`
	Replayed       wal.LSN           `json:"replayed"`
	ReplayedAt     *int64            `json:"replayed_at"`
	Paused         bool              `json:"paused"`
	RestoreCommand bool              `json:"restore_command"`
	ConnInfo       string            `json:"conninfo"`
	SyncNames      string            `json:"sync_names"`
	Receiver       *receiverRow      `json:"receiver"`
	Walsenders     []walsenderRow    `json:"walsenders"`
	Slots          []slotRow         `json:"slots"`
	Pending        map[string]string `json:"pending"`
	Standby        map[string]int    `json:"standby"` // in force, of the parameters of standbyParameters
}

type receiverRow struct {
	Status    string       `json:"status"`
	Timeline  wal.Timeline `json:"timeline"`
	Written   wal.LSN      `json:"written"`
	LatestEnd wal.LSN      `json:"latest_end"`
	Host      string       `json:"host"`
	Port      int          `json:"port"`
}

type walsenderRow struct {
	PID             int     `json:"pid"`
	User            string  `json:"user"`
	ApplicationName string  `json:"application_name"`
	Addr            string  `json:"addr"`
	State           string  `json:"state"`
	SyncState       string  `json:"sync_state"`
	SyncPriority    int     `json:"sync_priority"`
	Sent            wal.LSN `json:"sent"`
	Written         wal.LSN `json:"written"`
	Flushed         wal.LSN `json:"flushed"`
	Replayed        wal.LSN `json:"replayed"`
}

type slotRow struct {
	Name      string  `json:"name"`
	Type      string  `json:"type"`
	Active    bool    `json:"active"`
	Restart   wal.LSN `json:"restart"`
	Xmin      bool    `json:"xmin"`
	WALStatus string  `json:"wal_status"`
}

// status copies the answer into a Status.
func (r lookRow) status(st *postgres.Status) error {
	st.Role, st.Version, st.SystemID = postgres.RolePrimary, r.Version, r.SystemID
	st.PostmasterStart = fromMicro(&r.Start)
	st.RestoreCommand, st.ConnInfo, st.SyncNames = r.RestoreCommand, redact(r.ConnInfo), r.SyncNames
	if r.Recovery {
		st.Role = postgres.RoleReplica
		st.Received, st.Replayed = r.Received, r.Replayed
		st.ReplayedAt, st.ReplayPaused = fromMicro(r.ReplayedAt), r.Paused
	} else {
		t, _, err := wal.ParseSegmentName(r.File, 1<<20) // the smallest size there is takes every name
		if err != nil {
			return err
		}
		st.Timeline, st.Current = t, r.Flushed
	}
	if w := r.Receiver; w != nil {
		st.Timeline, st.Streaming = w.Timeline, w.Status == "streaming"
		st.Written, st.LatestEnd = w.Written, w.LatestEnd
		st.UpstreamHost, st.UpstreamPort = w.Host, w.Port
	}
	for _, w := range r.Walsenders {
		st.Walsenders = append(st.Walsenders, postgres.Walsender{
			PID: w.PID, User: w.User, ApplicationName: w.ApplicationName, ClientAddr: w.Addr,
			State: w.State, SyncState: w.SyncState, SyncPriority: w.SyncPriority,
			Sent: w.Sent, Written: w.Written, Flushed: w.Flushed, Replayed: w.Replayed,
		})
	}
	for _, sl := range r.Slots {
		st.Slots = append(st.Slots, postgres.Slot{
			Name: sl.Name, Type: sl.Type, Active: sl.Active, RestartLSN: sl.Restart, HasXmin: sl.Xmin, WALStatus: sl.WALStatus,
		})
	}
	return nil
}
