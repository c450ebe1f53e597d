package local

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// Identify implements postgres.Controller, over a replication connection that is closed again: the replication user is
// let in by every member, and needs no database.
func (s *Server) Identify(ctx context.Context, from postgres.Source) (postgres.Line, error) {
	conn, err := s.connect(ctx, target{host: from.Host, port: from.Port, account: s.cfg.Replication, replication: true})
	if err != nil {
		return postgres.Line{}, fmt.Errorf("local: identify %s at %s port %d: %w", from.Name, from.Host, from.Port, err)
	}
	defer closeConn(conn)
	line, err := identifySystem(ctx, conn)
	if err != nil {
		return postgres.Line{}, fmt.Errorf("local: identify %s at %s port %d: %w", from.Name, from.Host, from.Port, err)
	}
	// The server reports this setting by itself at the start of a session (PostgreSQL 14 and later).
	line.Replica = conn.ParameterStatus("in_hot_standby") == "on"
	line.History = wal.History{Tip: line.Position.Timeline}
	if line.Position.Timeline > 1 {
		line.History, err = timelineHistory(ctx, conn, line.Position.Timeline)
		if err != nil {
			return postgres.Line{}, fmt.Errorf("local: identify %s at %s port %d: %w", from.Name, from.Host, from.Port, err)
		}
	}
	return line, nil
}

// identifySystem runs IDENTIFY_SYSTEM. On a standby the position is what it has flushed or replayed.
func identifySystem(ctx context.Context, conn *pgconn.PgConn) (postgres.Line, error) {
	row, err := replicationRow(ctx, conn, "IDENTIFY_SYSTEM", 3)
	if err != nil {
		return postgres.Line{}, err
	}
	timeline, err := wal.ParseTimeline(string(row[1]))
	if err != nil {
		return postgres.Line{}, fmt.Errorf("IDENTIFY_SYSTEM: %w", err)
	}
	lsn, err := wal.ParseLSN(string(row[2]))
	if err != nil {
		return postgres.Line{}, fmt.Errorf("IDENTIFY_SYSTEM: %w", err)
	}
	return postgres.Line{SystemID: string(row[0]), Position: wal.Position{Timeline: timeline, LSN: lsn}}, nil
}

// timelineHistory asks for the history of a timeline.
func timelineHistory(ctx context.Context, conn *pgconn.PgConn, t wal.Timeline) (wal.History, error) {
	row, err := replicationRow(ctx, conn, fmt.Sprintf("TIMELINE_HISTORY %d", t), 2)
	if err != nil {
		return wal.History{}, err
	}
	return wal.ParseHistory(t, row[1])
}

// replicationRow runs a command of the replication protocol that answers one row.
func replicationRow(ctx context.Context, conn *pgconn.PgConn, command string, columns int) ([][]byte, error) {
	results, err := conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < columns {
		return nil, fmt.Errorf("%s: the answer is not one row of %d columns", command, columns)
	}
	return results[0].Rows[0], nil
}
