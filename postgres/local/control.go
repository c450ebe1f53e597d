package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// control is pg_control as read from the file, with what postgres.Control has no field for.
type control struct {
	postgres.Control
	redo        wal.LSN
	segmentSize uint64
}

// Where things are in pg_control (PostgreSQL source, ControlFileData). The layout up to the checksum version is the same
// from PostgreSQL 14 to 18 on machines with 8-byte alignment: fields that were added took up padding.
const (
	atSystemID    = 0
	atVersion     = 8
	atState       = 16
	atCheckpoint  = 32
	atRedo        = 40
	atTimeline    = 48
	atMinRecovery = 136
	atMinTimeline = 144
	atLogHints    = 172 + 4
	atSettings    = 180 // max_connections, max_worker_processes, max_wal_senders, max_prepared_xacts, max_locks_per_xact
	atBlockSizes  = 216
	atSegmentSize = atBlockSizes + 12
	atChecksums   = 252
)

// controlSizes gives, for each known version of the format, where its CRC is: it covers everything before it.
func controlCRC(version uint32) (offset int, known bool) {
	switch version {
	case 1300, 1700: // PostgreSQL 14 to 17
		return 288, true
	case 1800: // PostgreSQL 18 added one flag
		return 292, true
	}
	return 0, false
}

// readControl reads pg_control. The server overwrites the file in place, so a torn read is possible and is tried again
// at once, a few times; then the checksum error is told.
func readControl(dataDir string) (control, error) {
	path := filepath.Join(dataDir, "global", "pg_control")
	var err error
	for range 5 {
		var data []byte
		data, err = os.ReadFile(path)
		if err != nil {
			return control{}, err
		}
		var c control
		c, err = parseControl(data)
		if err == nil {
			return c, nil
		}
	}
	return control{}, fmt.Errorf("%s: %w", path, err)
}

// parseControl takes the content of pg_control apart.
func parseControl(data []byte) (control, error) {
	if len(data) < 300 {
		return control{}, fmt.Errorf("only %d bytes long", len(data))
	}
	order := binary.NativeEndian
	u32 := func(at int) uint32 { return order.Uint32(data[at:]) }
	u64 := func(at int) uint64 { return order.Uint64(data[at:]) }
	crcAt, known := controlCRC(u32(atVersion))
	if !known {
		return control{}, fmt.Errorf("format version %d on %s is not known: PostgreSQL %d to %d are supported", u32(atVersion), runtime.GOARCH, minMajor, maxMajor)
	}
	if crc32.Checksum(data[:crcAt], crc32.MakeTable(crc32.Castagnoli)) != u32(crcAt) {
		return control{}, errors.New("checksum does not match: the file is damaged")
	}
	state, err := controlState(u32(atState))
	if err != nil {
		return control{}, err
	}
	c := control{redo: wal.LSN(u64(atRedo)), segmentSize: uint64(u32(atSegmentSize))}
	c.State = state
	c.SystemID = strconv.FormatUint(u64(atSystemID), 10)
	c.Checkpoint = wal.Position{Timeline: wal.Timeline(u32(atTimeline)), LSN: wal.LSN(u64(atCheckpoint))}
	c.MinRecovery = wal.Position{Timeline: wal.Timeline(u32(atMinTimeline)), LSN: wal.LSN(u64(atMinRecovery))}
	c.WALLogHints = data[atLogHints] != 0
	c.DataChecksums = u32(atChecksums) != 0
	c.Settings = map[string]int{}
	for i, name := range []string{"max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_xacts", "max_locks_per_xact"} {
		c.Settings[name] = int(int32(u32(atSettings + 4*i)))
	}
	if n := c.segmentSize; n < 1<<20 || n > 1<<30 || n&(n-1) != 0 {
		return control{}, fmt.Errorf("a WAL segment size of %d bytes makes no sense", n)
	}
	return c, nil
}

// controlState names PostgreSQL's DBState.
func controlState(n uint32) (postgres.ControlState, error) {
	names := []postgres.ControlState{
		"starting up", // written by initdb only
		postgres.ControlShutDown, postgres.ControlShutDownInRecovery, postgres.ControlShuttingDown,
		postgres.ControlInCrashRecovery, postgres.ControlInArchiveRecovery, postgres.ControlInProduction,
	}
	if int(n) >= len(names) {
		return "", fmt.Errorf("cluster state %d is not known", n)
	}
	return names[n], nil
}
