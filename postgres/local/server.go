package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgregent/pgregent/postgres"
)

// The PostgreSQL major versions that this package knows the file formats and settings of.
const (
	minMajor = 14
	maxMajor = 18
)

// Server is one PostgreSQL server and its data directory. It implements postgres.Controller; see there for who may
// call what when.
type Server struct {
	cfg      Config
	log      *slog.Logger
	programs map[string]string // name to path
	version  int               // major version of the programs
	hosts    []string          // listen_addresses
	port     int
	peerHost string // Config.Connect
	peerPort int

	look  looker   // the kept connection and what is remembered between looks
	files fileLook // pg_control and markers, read beside the SQL look

	mu         sync.Mutex
	configured *configured // what the last Configure wrote
	stale      bool        // a running server may not have read the files that are there
}

var _ postgres.Controller = (*Server)(nil)

// Open checks the configuration and the programs, and makes the controller. It changes nothing, and the data
// directory may be missing. It runs "postgres --version" and returns within seconds. Errors name the field of Config and
// what to do.
func Open(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		return nil, errors.New("local: PostgreSQL does not run as root: run this program as the user that owns the data directory")
	}
	s := &Server{cfg: cfg, log: cfg.Log, stale: true, programs: map[string]string{}}
	s.hosts, s.port, err = splitListen(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("local: Listen is %q: %w", cfg.Listen, err)
	}
	s.peerHost, s.peerPort, err = splitHostPort(cfg.Connect)
	if err != nil {
		return nil, fmt.Errorf("local: Connect is %q: %w", cfg.Connect, err)
	}
	if err := s.findPrograms(); err != nil {
		return nil, fmt.Errorf("local: %w", err)
	}
	if err := s.checkDataDir(); err != nil {
		return nil, fmt.Errorf("local: %w", err)
	}
	s.look.init()
	s.files.init(s)
	return s, nil
}

// Close closes the kept connection. The server goes on running. It may be called twice.
func (s *Server) Close() error {
	s.look.close()
	return nil
}

// Major is the major version of the PostgreSQL programs, from 14 to 18.
func (s *Server) Major() int { return s.version }

// PeerAddress is where other members reach this server.
func (s *Server) PeerAddress() (host string, port int) { return s.peerHost, s.peerPort }

// findPrograms looks for every program, so that a missing one is told at the start and not in the middle of a
// failover.
func (s *Server) findPrograms() error {
	for _, name := range []string{"postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_waldump", "pg_verifybackup"} {
		file := cmpOr(s.cfg.BinNames[name], name)
		if s.cfg.BinDir != "" && !filepath.IsAbs(file) {
			file = filepath.Join(s.cfg.BinDir, file)
		}
		path, err := exec.LookPath(file)
		switch {
		case err == nil:
			s.programs[name] = path
		case name == "pg_verifybackup":
			s.log.Warn("base backups are not checked against their manifest: pg_verifybackup is missing", "bin_dir", s.cfg.BinDir)
		case s.cfg.BinDir != "":
			return fmt.Errorf("BinDir %s has no program %s: point BinDir to the bin folder of a PostgreSQL server installation: %w", s.cfg.BinDir, filepath.Base(file), err)
		default:
			return fmt.Errorf("the program %s is not in PATH: set BinDir to the bin folder of a PostgreSQL server installation: %w", file, err)
		}
	}
	for name := range s.cfg.BinNames {
		switch name {
		case "postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_waldump", "pg_verifybackup":
		case "pg_ctl", "pg_controldata", "pg_isready": // Patroni runs these; this program has no need to
		default:
			return fmt.Errorf("BinNames has %q, which is no program of PostgreSQL that is run: remove it", name)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) //nolint:forbidigo // Open takes no context
	defer cancel()
	out, err := s.run(ctx, tool{program: "postgres", args: []string{"--version"}})
	if err != nil {
		return fmt.Errorf("ask PostgreSQL for its version: %w", err)
	}
	s.version, err = parseMajor(out.stdout)
	if err != nil {
		return fmt.Errorf("%s: %w", s.programs["postgres"], err)
	}
	if s.version < minMajor || s.version > maxMajor {
		return fmt.Errorf("%s is PostgreSQL %d: versions %d to %d are supported", s.programs["postgres"], s.version, minMajor, maxMajor)
	}
	return nil
}

// parseMajor reads "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", also "18beta1".
func parseMajor(text string) (int, error) {
	fields := strings.Fields(text)
	if len(fields) < 3 {
		return 0, fmt.Errorf("the version %q is not understood", strings.TrimSpace(text))
	}
	digits := fields[2]
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	major, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("the version %q is not understood", strings.TrimSpace(text))
	}
	return major, nil
}

// checkDataDir refuses what can never work: a directory of another version, or of another user.
func (s *Server) checkDataDir() error {
	info, err := os.Stat(s.cfg.DataDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("DataDir: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("DataDir %s is not a directory", s.cfg.DataDir)
	}
	if uid, ok := ownerOf(info); ok && uid != os.Geteuid() {
		return fmt.Errorf("DataDir %s belongs to uid %d and this program runs as uid %d: run it as the owner", s.cfg.DataDir, uid, os.Geteuid())
	}
	major, err := readMajor(s.cfg.DataDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("DataDir: %w", err)
	}
	if major != s.version {
		return fmt.Errorf("DataDir %s was made by PostgreSQL %d and BinDir has PostgreSQL %d: point BinDir to version %d", s.cfg.DataDir, major, s.version, major)
	}
	return nil
}

// readMajor reads PG_VERSION.
func readMajor(dir string) (int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		return 0, err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0, fmt.Errorf("%s holds no version number: %w", filepath.Join(dir, "PG_VERSION"), err)
	}
	return major, nil
}
