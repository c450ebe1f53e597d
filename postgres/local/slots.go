package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/pgregent/postgres/wal"
)

// slotsFile is the file in StateDir with the names of the slots that SyncSlots made.
const slotsFile = "slots.json"

// slotState is a physical slot as SyncSlots needs to know it.
type slotState struct {
	Name      string  `json:"name"`
	Physical  bool    `json:"physical"`
	Active    bool    `json:"active"`
	Restart   wal.LSN `json:"restart"`
	Xmin      bool    `json:"xmin"`
	WALStatus string  `json:"wal_status"`
}

// SyncSlots implements postgres.Controller, on a primary and on a replica: a replica that becomes the leader must have
// the slots at once, because a receiver that meets a missing slot waits five seconds (design section 8). A new slot
// reserves WAL from the start. A slot in use is left to its user.
func (s *Server) SyncSlots(ctx context.Context, slots map[string]wal.LSN) error {
	conn, err := s.connectLocal(ctx, map[string]string{"statement_timeout": "5000"})
	if err != nil {
		return fmt.Errorf("local: slots: %w", err)
	}
	defer closeConn(conn)
	have, inRecovery, err := listSlots(ctx, conn)
	if err != nil {
		return fmt.Errorf("local: slots: %w", s.classify(err))
	}
	made, err := s.madeSlots()
	if err != nil {
		return fmt.Errorf("local: slots: %w", err)
	}
	before := maps.Clone(made)
	for name := range slots {
		if _, found := have[name]; !found {
			made[name] = true
		}
	}
	if err := s.saveMade(before, made); err != nil { // before they are made: a crash must not orphan one
		return fmt.Errorf("local: slots: %w", err)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(slots)) {
		if err := ensureSlot(ctx, conn, name, have[name], slots[name], inRecovery); err != nil {
			errs = append(errs, fmt.Errorf("local: slots: %s: %w", name, err))
		}
	}
	before = maps.Clone(made)
	for name := range before {
		if _, wanted := slots[name]; wanted {
			continue
		}
		gone, err := dropSlot(ctx, conn, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("local: slots: drop %s: %w", name, err))
		}
		if gone {
			delete(made, name)
		}
	}
	if err := s.saveMade(before, made); err != nil {
		errs = append(errs, fmt.Errorf("local: slots: %w", err))
	}
	return errors.Join(errs...)
}

func listSlots(ctx context.Context, conn *pgconn.PgConn) (have map[string]*slotState, inRecovery bool, err error) {
	text, err := queryText(ctx, conn, `SELECT json_build_object('recovery', pg_is_in_recovery(), 'slots', (SELECT json_agg(json_build_object(
		'name', slot_name, 'physical', slot_type = 'physical' AND NOT temporary, 'active', active, 'restart', restart_lsn,
		'xmin', xmin IS NOT NULL, 'wal_status', wal_status)) FROM pg_replication_slots))`)
	if err != nil {
		return nil, false, err
	}
	var answer struct {
		Recovery bool         `json:"recovery"`
		Slots    []*slotState `json:"slots"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, false, fmt.Errorf("the list of slots is not understood: %w", err)
	}
	have = map[string]*slotState{}
	for _, slot := range answer.Slots {
		have[slot.Name] = slot
	}
	return have, answer.Recovery, nil
}

// ensureSlot makes the slot exist, usable, and no further behind than it has to be.
func ensureSlot(ctx context.Context, conn *pgconn.PgConn, name string, slot *slotState, known wal.LSN, inRecovery bool) error {
	const create = "SELECT pg_create_physical_replication_slot($1, true)"
	switch {
	case !isSlotName(name):
		return errors.New("the name has other characters than a-z, 0-9 and _, or is longer than 63")
	case slot == nil:
		_, err := queryText(ctx, conn, create, name)
		return err
	case !slot.Physical:
		return errors.New("there is a logical or temporary slot of this name")
	case slot.Active:
		return nil
	case slot.Restart == 0 || slot.WALStatus == "lost" || slot.Xmin && inRecovery:
		// It holds nothing back, or holds back dead rows for a standby that streams from somewhere else now.
		if _, err := dropSlot(ctx, conn, name); err != nil {
			return err
		}
		_, err := queryText(ctx, conn, create, name)
		return err
	case known > slot.Restart:
		_, err := queryText(ctx, conn, `SELECT end_lsn FROM (SELECT LEAST($2::pg_lsn,
			CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END) AS l OFFSET 0) t,
			pg_replication_slot_advance($1, l) WHERE l > $3::pg_lsn`, name, known.String(), slot.Restart.String())
		return err
	}
	return nil
}

// dropSlot drops a slot that nobody uses. gone says that there is no such slot any more.
func dropSlot(ctx context.Context, conn *pgconn.PgConn, name string) (gone bool, err error) {
	if _, err := queryText(ctx, conn, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active AND slot_type = 'physical'", name); err != nil {
		return false, err
	}
	left, err := queryText(ctx, conn, "SELECT 1 FROM pg_replication_slots WHERE slot_name = $1", name)
	return err == nil && left == "", err
}

func (s *Server) madeSlots() (map[string]bool, error) {
	made := map[string]bool{}
	data, err := os.ReadFile(filepath.Join(s.cfg.StateDir, slotsFile))
	if errors.Is(err, os.ErrNotExist) {
		return made, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	if err := json.Unmarshal(data, &names); err != nil {
		s.log.Warn("the list of own slots is not understood and begun anew", "file", filepath.Join(s.cfg.StateDir, slotsFile), "error", err)
	}
	for _, name := range names {
		made[name] = true
	}
	return made, nil
}

func (s *Server) saveMade(before, made map[string]bool) error {
	if maps.Equal(before, made) {
		return nil
	}
	if err := os.MkdirAll(s.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("StateDir: %w", err)
	}
	data, err := json.Marshal(slices.Sorted(maps.Keys(made)))
	if err != nil {
		return err
	}
	_, err = writeFile(filepath.Join(s.cfg.StateDir, slotsFile), append(data, '\n'), 0o600)
	return err
}
