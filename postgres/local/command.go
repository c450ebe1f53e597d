package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/pgregent/pgregent/postgres"
)

// Command implements postgres.Controller. The protected parameters stand on the command line (reference section 4.6),
// so that nobody can lower them in a file; restart_after_crash is off there too, because a postmaster that restarts by
// itself would find standby.signal and turn a running primary into a replica (design section 7).
func (s *Server) Command(ctx context.Context, role postgres.Role) (postgres.Command, error) {
	if err := ctx.Err(); err != nil {
		return postgres.Command{}, fmt.Errorf("local: command: %w", err)
	}
	if role != postgres.RolePrimary && role != postgres.RoleReplica {
		return postgres.Command{}, errors.New("local: command: the role is neither primary nor replica")
	}
	s.mu.Lock()
	conf := s.configured
	s.mu.Unlock()
	if conf == nil {
		return postgres.Command{}, errors.New("local: command: Configure was not called before")
	}
	state, problem, control := s.dataState()
	if state != postgres.DataReady {
		return postgres.Command{}, fmt.Errorf("local: command: %w: %s", postgres.ErrDataDir, cmpOr(problem, "it is empty"))
	}
	if control.CatalogMajor != s.version {
		return postgres.Command{}, fmt.Errorf("local: command: %w: it was made by PostgreSQL %d and the programs are of %d", postgres.ErrDataDir, control.CatalogMajor, s.version)
	}
	if role == postgres.RolePrimary && (control.State == postgres.ControlInArchiveRecovery || control.State == postgres.ControlShutDownInRecovery) {
		return postgres.Command{}, fmt.Errorf("local: command: %w: it is a replica's (%s) and would go on as a primary on the timeline of another: start it as a replica and promote it", postgres.ErrDataDir, control.State)
	}
	env, err := s.commandEnv()
	if err != nil {
		return postgres.Command{}, fmt.Errorf("local: command: %w", err)
	}
	parameters := conf.parameters
	if role == postgres.RoleReplica {
		parameters = raise(parameters, control.Settings)
	}
	if err := s.setSignal(role == postgres.RoleReplica); err != nil {
		return postgres.Command{}, fmt.Errorf("local: command: %w", err)
	}
	return postgres.Command{Path: s.programs["postgres"], Args: s.commandArgs(parameters), Env: env, Dir: s.cfg.DataDir, Log: s.cfg.ServerLog}, nil
}

func (s *Server) commandArgs(parameters map[string]string) []string {
	args := []string{"-D", s.cfg.DataDir, "--config_file=" + s.configFile()}
	for _, name := range []string{"listen_addresses", "port", "cluster_name"} {
		args = append(args, "--"+name+"="+parameters[name])
	}
	for _, p := range postgres.ProtectedParameters() {
		if !p.FileOnly {
			args = append(args, "--"+p.Name+"="+parameters[p.Name])
		}
	}
	return append(args, "--restart_after_crash=off")
}

// commandEnv is the postmaster's environment. When postmaster.pid names a process that has nothing to do with this data
// directory, PostgreSQL is told so; it would refuse to start for a process number that was used again, and for a zombie:
// in a container the first process may be late to wait for a postmaster that was killed.
func (s *Server) commandEnv() ([]string, error) {
	env := serverEnv(os.Environ())
	if s.cfg.KerberosService != "" {
		env = append(env, "PGKRBSRVNAME="+s.cfg.KerberosService)
	}
	p, err := readPID(s.cfg.DataDir)
	if errors.Is(err, errPIDGarbage) {
		return nil, fmt.Errorf("%w: %s holds no process number: remove the file if no PostgreSQL runs in that directory", postgres.ErrDataDir, s.data("postmaster.pid"))
	}
	if err != nil {
		return nil, err
	}
	if ownerOfPID(p.pid, s.cfg.DataDir) != ownerOurs && p.pid > 0 && syscall.Kill(p.pid, 0) != syscall.ESRCH {
		env = append(env, "PG_GRANDPARENT_PID="+strconv.Itoa(p.pid))
	}
	return env, nil
}
