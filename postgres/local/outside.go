package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pgregent/pgregent/postgres"
)

// outsideDir is a folder outside the data directory that belongs to it: a tablespace, or pg_wal with the option waldir
// (hazard D8). A copy is built beside it and changes places with it at the end, like the data directory itself.
type outsideDir struct {
	link    string // the symbolic link, relative to the data directory; empty for a tablespace until the copy is there
	at, new string
	option  string
}

type outsideDirs struct{ dirs []outsideDir }

// planOutside finds out which folders outside the data directory a copy of the source will have. A folder that is not
// empty and that our data directory does not use is somebody else's, and is refused.
func (s *Server) planOutside(ctx context.Context, from postgres.Source) (outsideDirs, error) {
	var plan outsideDirs
	if waldir := optionValue(s.cfg.BasebackupOptions, "waldir"); waldir != "" {
		plan.dirs = append(plan.dirs, outsideDir{link: "pg_wal", at: filepath.Clean(waldir), option: "--waldir="})
	}
	locations, err := s.tablespaces(ctx, from)
	if err != nil {
		s.log.WarnContext(ctx, "the source's tablespaces could not be asked for; if it has any, the copy goes to the same folders", "source", from.Name, "error", err)
	}
	for _, at := range locations {
		mapped := false
		for _, option := range s.cfg.BasebackupOptions {
			mapped = mapped || strings.HasPrefix(option, "--tablespace-mapping="+escapeEquals(at)+"=")
		}
		if !mapped {
			plan.dirs = append(plan.dirs, outsideDir{at: at, option: "--tablespace-mapping=" + escapeEquals(at) + "="})
		}
	}
	ours := s.linkTargets()
	for i := range plan.dirs {
		d := &plan.dirs[i]
		empty, err := isEmptyDir(d.at)
		if err != nil {
			return outsideDirs{}, err
		}
		if !empty && !ours[d.at] {
			return outsideDirs{}, fmt.Errorf("%s is to hold a part of the copy, is not empty, and is not used by %s: empty it, or map the folder by the option tablespace-mapping or waldir of BasebackupOptions", d.at, s.cfg.DataDir)
		}
		d.new = d.at + ".new"
		if err := os.RemoveAll(d.new); err != nil {
			return outsideDirs{}, err
		}
	}
	return plan, nil
}

func escapeEquals(path string) string { return strings.ReplaceAll(path, "=", `\=`) }

// tablespaces asks the source where its tablespaces are.
func (s *Server) tablespaces(ctx context.Context, from postgres.Source) ([]string, error) {
	conn, err := s.connect(ctx, target{host: from.Host, port: from.Port, account: s.cfg.Rewind, params: map[string]string{"statement_timeout": "5000"}})
	if err != nil {
		return nil, err
	}
	defer closeConn(conn)
	result := conn.ExecParams(ctx, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%' ORDER BY 1", nil, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, result.Err
	}
	var locations []string
	for _, row := range result.Rows {
		locations = append(locations, filepath.Clean(string(row[0])))
	}
	return locations, nil
}

// linkTargets are the folders outside that the present data directory uses.
func (s *Server) linkTargets() map[string]bool {
	targets := map[string]bool{}
	links, _ := filepath.Glob(filepath.Join(globEscape(s.cfg.DataDir), "pg_tblspc", "*"))
	for _, link := range append(links, s.data("pg_wal")) {
		to, err := os.Readlink(link)
		if err != nil || !filepath.IsAbs(to) {
			continue
		}
		to = filepath.Clean(to)
		targets[to] = true
		if _, found := s.marked(markClone); found { // a swap stopped half-way: see swap
			targets[strings.TrimSuffix(to, ".old")] = true
		}
	}
	return targets
}

// options are what pg_basebackup is told.
func (o outsideDirs) options() []string {
	var args []string
	for _, d := range o.dirs {
		value := d.new
		if strings.HasPrefix(d.option, "--tablespace") {
			value = escapeEquals(value)
		}
		args = append(args, d.option+value)
	}
	return args
}

// remove deletes what was built.
func (o outsideDirs) remove() error {
	var err error
	for _, d := range o.dirs {
		if d.new != "" {
			err = errors.Join(err, os.RemoveAll(d.new))
		}
	}
	return err
}

// swap puts the new folders into place and points the links of both data directories to where their folders are then:
// the copy in dir, and the one that is to be replaced. The caller has set a marker.
func (o outsideDirs) swap(s *Server, dir string) error {
	for _, d := range o.dirs {
		old := d.at + ".old"
		gone := old
		if s.linkTargets()[old] { // an earlier swap stopped half-way: the data directory's own folder is aside already
			gone = d.at
		}
		if err := os.RemoveAll(gone); err != nil {
			return err
		}
		if exists(d.at) {
			if err := os.Rename(d.at, old); err != nil {
				return fmt.Errorf("move %s aside: %w", d.at, err)
			}
		}
		if err := os.Rename(d.new, d.at); err != nil {
			return fmt.Errorf("put %s into place: %w", d.at, err)
		}
		if err := syncDir(filepath.Dir(d.at)); err != nil {
			return err
		}
		if dir != s.cfg.DataDir {
			if err := relink(s.cfg.DataDir, d.at, old); err != nil {
				return err
			}
		}
		if err := relink(dir, d.new, d.at); err != nil {
			return err
		}
	}
	return nil
}

// relink points the links of a data directory that lead to one folder to another.
func relink(dataDir, from, to string) error {
	links, err := filepath.Glob(filepath.Join(globEscape(dataDir), "pg_tblspc", "*"))
	if err != nil {
		return err
	}
	for _, link := range append(links, filepath.Join(dataDir, "pg_wal")) {
		target, err := os.Readlink(link)
		if err != nil || filepath.Clean(target) != from {
			continue
		}
		temp := filepath.Join(filepath.Dir(link), ".relink.tmp")
		if err := errors.Join(removeIfThere(temp), os.Symlink(to, temp), os.Rename(temp, link), syncDir(filepath.Dir(link))); err != nil {
			return err
		}
	}
	return nil
}
