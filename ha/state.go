package ha

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres/wal"
)

// state is what must survive the process and the data directory (hazards B10, D2, D4): which promotions the WAL in the
// data directory has come along, and a promotion that was begun. A timeline number alone does not tell two promotions
// apart, their identities do.
type state struct {
	path string

	// SystemID is the cluster that the rest belongs to; another one empties it.
	SystemID   string              `json:"system_id,omitempty"`
	Promotions []cluster.Promotion `json:"promotions,omitempty"` // ascending by timeline
	// Intent is a promotion that was ordered and whose timeline is not known yet.
	Intent *intent `json:"intent,omitempty"`
	// Prepared says that the users of a new cluster were made.
	Unprepared bool `json:"unprepared,omitempty"`
	// Due says that an operator's request stopped PostgreSQL, and that it has not come back since.
	Due bool `json:"due,omitempty"`
}

type intent struct {
	Epoch uint64       `json:"epoch"`
	ID    string       `json:"id"`
	From  wal.Position `json:"from"`
}

func loadState(dir string) (*state, error) {
	s := &state{path: filepath.Join(dir, "state.json")}
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ha: read the node's state: %w", err)
	}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("ha: %s is damaged: %w; move it away to let the node compare timelines by number only", s.path, err)
	}
	return s, nil
}

// save writes the state durably: temporary file, fsync, rename, fsync of the folder.
func (s *state) save() error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("ha: state: %w", err)
	}
	if err := writeDurably(s.path, append(b, '\n')); err != nil {
		return fmt.Errorf("ha: save the node's state: %w", err)
	}
	return nil
}

func writeDurably(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// learn records that the local WAL is on p, and forgets promotions of later timelines. It says whether anything changed.
func (s *state) learn(p cluster.Promotion) bool {
	i, found := slices.BinarySearchFunc(s.Promotions, p.Timeline,
		func(have cluster.Promotion, tl wal.Timeline) int { return int(have.Timeline) - int(tl) })
	if found && s.Promotions[i].ID == p.ID {
		if len(s.Promotions) == i+1 {
			return false
		}
		s.Promotions = s.Promotions[:i+1]
		return true
	}
	s.Promotions = append(slices.Clone(s.Promotions[:i]), p)
	if n := len(s.Promotions); n > cluster.MaxPromotions {
		s.Promotions = s.Promotions[n-cluster.MaxPromotions:]
	}
	return true
}

// replace takes over the promotions of the server that the data directory was copied from, or rewound to.
func (s *state) replace(all []cluster.Promotion, upTo wal.Timeline) {
	s.Promotions = s.Promotions[:0:0]
	for _, p := range all {
		if p.Timeline <= upTo {
			s.Promotions = append(s.Promotions, p)
		}
	}
	s.Intent = nil
}

// noteAll is every promotion of the line that a lease note describes, ascending.
func noteAll(n cluster.Note) []cluster.Promotion { return n.Line() }
