package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgregent/pgregent/examples/internal/lab"
)

// bare is three servers that nobody watches over: a primary and two replicas, driven by PostgreSQL's own programs.
type bare struct {
	b       *bench
	dir     string
	servers []*bareServer // the primary is the first
	writer  *writer
}

type bareServer struct {
	b     *bare
	data  string
	port  int
	probe *probe
	done  chan struct{} // closed when the postmaster has ended
}

// newBare makes the servers, which takes as long as it takes: initdb, postgres, two times pg_basebackup, postgres.
func (b *bench) newBare(ctx context.Context) (*bare, time.Duration, error) {
	dir, err := os.MkdirTemp(b.dir, "b")
	if err != nil {
		return nil, 0, err
	}
	s := &bare{b: b, dir: dir}
	for i := range 3 {
		port, err := lab.FreePort()
		if err != nil {
			s.close()
			return nil, 0, err
		}
		s.servers = append(s.servers, &bareServer{b: s, data: filepath.Join(dir, fmt.Sprint("s", i)), port: port, probe: watchServer(dir, port)})
	}
	began := time.Now()
	if err := s.create(ctx); err != nil {
		s.close()
		return nil, 0, fmt.Errorf("bare servers: %w", err)
	}
	return s, time.Since(began), nil
}

func (s *bare) create(ctx context.Context) error {
	p := s.servers[0]
	if err := s.command(ctx, "initdb", "-D", p.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--data-checksums"); err != nil {
		return err
	}
	conf := fmt.Sprintf("\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '%s'\nhot_standby = on\nwal_level = replica\n"+
		// A startup process that has just failed to stream sleeps this long, and a promotion may have to wait for it: that is
		// chance, not the floor. The default is 5 s.
		"wal_retrieve_retry_interval = 10ms\n"+
		"wal_keep_size = 128MB\n", s.dir) // pg_rewind needs the WAL back to the last common checkpoint
	for _, set := range serverSettings {
		conf += fmt.Sprintf("%s = '%s'\n", set[0], set[1])
	}
	if err := errors.Join(appendTo(filepath.Join(p.data, "postgresql.conf"), conf), p.start(), p.await(ctx, rolePrimary)); err != nil {
		return err
	}
	errs := make([]error, 2)
	var both sync.WaitGroup
	for i, r := range s.servers[1:] {
		both.Go(func() {
			errs[i] = s.command(ctx, "pg_basebackup", "-h", s.dir, "-p", fmt.Sprint(p.port), "-U", "postgres", "-D", r.data, "-c", "fast", "-X", "stream", "-R")
			if errs[i] == nil {
				errs[i] = errors.Join(r.start(), r.await(ctx, roleStreaming))
			}
		})
	}
	both.Wait()
	return errors.Join(errs...)
}

// write begins to write to whichever of them takes writes.
func (s *bare) write(ctx context.Context) (err error) {
	s.writer, err = startWriter(ctx, writerDSN(s.dir, s.servers[0].port, s.servers[1].port))
	return err
}

func (s *bare) close() {
	if s.writer != nil {
		s.writer.stop()
	}
	for _, v := range s.servers {
		v.probe.stop()
		v.kill()
	}
	_ = os.RemoveAll(s.dir)
}

// command runs one of PostgreSQL's programs.
func (s *bare) command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.b.pg, name), args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	log, err := os.OpenFile(filepath.Join(s.dir, "commands.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%s: %w: %s", name, err, said[max(0, len(said)-1000):])
	}
	return nil
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// start starts the postmaster itself: pg_ctl looks only ten times a second whether it is there.
func (v *bareServer) start() error {
	log, err := os.OpenFile(v.data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(v.b.b.pg, "postgres"), "-D", v.data, "-p", fmt.Sprint(v.port)) //nolint:noctx // kill ends it
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = v.data
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	v.done = done
	go func() { _ = cmd.Wait(); close(done) }()
	return nil
}

func (v *bareServer) await(ctx context.Context, r role) error {
	err := await(ctx, 30*time.Second, "a bare server is "+string(r), func() bool { return v.probe.now().role == r })
	if err != nil {
		said, _ := os.ReadFile(v.data + ".log")
		err = fmt.Errorf("%w: %s", err, said[max(0, len(said)-1500):])
	}
	return err
}

// kill ends the postmaster and everything below it, as a loss of power.
func (v *bareServer) kill() {
	for {
		pids := serversIn(v.data)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
}

// exec runs a statement.
func (v *bareServer) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", v.b.dir, v.port))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// bareOutage measures the write outage that an action on fresh servers under a writer causes.
func (b *bench) bareOutage(ctx context.Context, action func(s *bare) error) (float64, error) {
	s, _, err := b.newBare(ctx)
	if err != nil {
		return 0, err
	}
	defer s.close()
	if err := s.write(ctx); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := action(s); err != nil {
		return 0, err
	}
	if err := s.writer.flowing(ctx, time.Now(), 30*time.Second); err != nil {
		return 0, err
	}
	from, to := s.writer.gap(began)
	return to.Sub(from).Seconds(), nil
}

// byPgCtl is a switchover by two commands, after a checkpoint while writes flow.
func byPgCtl(ctx context.Context, s *bare) error {
	if err := s.servers[0].exec(ctx, "checkpoint"); err != nil {
		return err
	}
	return errors.Join(s.command(ctx, "pg_ctl", "-D", s.servers[0].data, "stop", "-m", "fast"),
		s.command(ctx, "pg_ctl", "-D", s.servers[1].data, "promote"))
}

// bySignals is the same without pg_ctl, which looks only ten times a second.
func bySignals(ctx context.Context, s *bare) error {
	old, next := s.servers[0], s.servers[1]
	if err := old.exec(ctx, "checkpoint"); err != nil {
		return err
	}
	stop, target := postmasterIn(old.data), postmasterIn(next.data)
	_ = syscall.Kill(stop, syscall.SIGINT)
	<-old.done
	if err := os.WriteFile(filepath.Join(next.data, "promote"), nil, 0o600); err != nil {
		return err
	}
	return syscall.Kill(target, syscall.SIGUSR1)
}

// crashRestart kills the postmaster alone and starts another as soon as nothing of it is left.
func crashRestart(ctx context.Context, s *bare) error {
	p := s.servers[0]
	_ = syscall.Kill(postmasterIn(p.data), syscall.SIGKILL)
	if err := await(ctx, 10*time.Second, "the backends end", func() bool { return len(serversIn(p.data)) == 0 }); err != nil {
		return err
	}
	return errors.Join(p.start(), p.await(ctx, rolePrimary))
}

// bareRejoin brings a crashed primary back as a standby of another that was promoted: with writes that the other lacks
// by pg_rewind. It returns how long pg_rewind took, and all of it.
func (b *bench) bareRejoin(ctx context.Context, diverged bool) (rewind, all float64, err error) {
	s, _, err := b.newBare(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer s.close()
	if err := s.write(ctx); err != nil {
		return 0, 0, err
	}
	old, next := s.servers[0], s.servers[1]
	if err := diverge(ctx, old.data, s.writer, diverged); err != nil {
		return 0, 0, err
	}
	old.kill()
	if err := errors.Join(s.command(ctx, "pg_ctl", "-D", next.data, "promote"), next.exec(ctx, "checkpoint")); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if diverged {
		err := s.command(ctx, "pg_rewind", "-D", old.data, "--source-server", fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", s.dir, next.port))
		if err != nil {
			return 0, 0, err
		}
		rewind = time.Since(began).Seconds()
	}
	err = errors.Join(os.WriteFile(filepath.Join(old.data, "standby.signal"), nil, 0o600),
		appendTo(filepath.Join(old.data, "postgresql.auto.conf"), fmt.Sprintf("\nprimary_conninfo = 'host=%s port=%d user=postgres'\n", s.dir, next.port)),
		old.start())
	if err == nil {
		err = old.await(ctx, roleStreaming)
	}
	return rewind, old.probe.now().at.Sub(began).Seconds(), err
}

// diverge makes a primary have writes that nobody has received, or makes sure that it has none.
func diverge(ctx context.Context, data string, w *writer, diverged bool) error {
	if !diverged {
		w.stop()
		pause(ctx, 500*time.Millisecond) // what was written last is received
		return ctx.Err()
	}
	for _, pid := range serversIn(data) {
		if p := lab.Program(pid); len(p) > 20 && p[:20] == "postgres: walsender " {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
	}
	since := time.Now()
	return w.flowing(ctx, since, 5*time.Second)
}
