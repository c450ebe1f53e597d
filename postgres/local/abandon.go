package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// AbandonCluster sets the data of a bootstrap that failed aside, as DataDir + ".failed", with a WAL folder that is kept
// elsewhere beside its own place, and returns where it is. An earlier one is removed: it is what an earlier bootstrap
// left that failed. The server is stopped. The data directory is gone afterwards, so that a new cluster can be made or
// cloned there (reference section 5.3). It is for a cluster that PrepareCluster never finished, and for no other.
func (s *Server) AbandonCluster(ctx context.Context) (kept string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("local: abandon cluster: %w", err)
		}
	}()
	if err := s.mustBeStopped("abandon cluster"); err != nil {
		return "", err
	}
	kept = s.cfg.DataDir + ".failed"
	if err := os.RemoveAll(kept); err != nil {
		return "", err
	}
	if err := os.Rename(s.cfg.DataDir, kept); err != nil {
		return "", err
	}
	s.log.WarnContext(ctx, "the data of a bootstrap that failed is set aside", "folder", kept)
	wal := filepath.Join(kept, "pg_wal")
	if target, err := os.Readlink(wal); err == nil {
		if err := moveWAL(wal, target); err != nil {
			return kept, fmt.Errorf("its WAL folder: %w", err)
		}
	}
	// The cluster that this member was the first of is no more: another one may begin in its place.
	return kept, errors.Join(s.unmark(memberOf), syncDir(filepath.Dir(kept)))
}

// moveWAL gives the WAL folder's place free, and leaves the link to where it is now.
func moveWAL(link, target string) error {
	aside := target + ".failed"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Rename(target, aside); err != nil {
		return err
	}
	if err := os.Mkdir(target, 0o700); err != nil {
		return err
	}
	return errors.Join(os.Remove(link), os.Symlink(aside, link))
}
