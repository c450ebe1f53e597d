// Package wal names places in PostgreSQL's write-ahead log: LSN, Timeline, Position, and History, the list of
// timelines that a server's WAL has come along. Values only: they parse, print and compare.
//
// The package reads no files, knows no server, and decides nothing about who should lead.
package wal

// LSN is a byte position in the write-ahead log (PostgreSQL documentation, pg_lsn). Zero means unknown.
type LSN uint64

// Timeline numbers a branch of WAL; the first is 1. Zero means unknown.
type Timeline uint32

// Position is a place on one timeline.
type Position struct {
	Timeline Timeline `json:"timeline"`
	LSN      LSN      `json:"lsn"`
}

// Switch says that Timeline ended at LSN, where the next one of the history begins.
type Switch struct {
	Timeline Timeline
	LSN      LSN
	Reason   string // as PostgreSQL wrote it into the history file
}

// History is the way one server's WAL has come: the switches in ascending order of timeline, then Tip, the timeline it
// is on now, which has no end yet. The zero History is unknown.
type History struct {
	Tip      Timeline
	Switches []Switch
}
