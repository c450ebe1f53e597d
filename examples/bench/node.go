package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/pgregent/pgregent/examples/internal/lab"
)

// serverSettings are postgresql.conf of the nodes and of the bare servers, so that both do the same work.
var serverSettings = [][2]string{{"shared_buffers", "32MB"}, {"max_connections", "50"}, {"wal_log_hints", "on"}}

// node is one daemon.
type node struct {
	c          *cluster
	name, data string
	port, api  int
	cmd        *exec.Cmd
	done       chan struct{}
	probe      *probe
}

// write writes the node's Patroni file.
func (n *node) write() error {
	t := n.c.times
	var settings []string
	for _, s := range serverSettings {
		settings = append(settings, fmt.Sprintf("%s: '%s'", s[0], s[1]))
	}
	text := fmt.Sprintf(`scope: bench
name: %s
restapi: {listen: "127.0.0.1:%d", connect_address: "127.0.0.1:%d"}
etcd3: {hosts: ["%s"]}
bootstrap:
  dcs: {ttl: %d, loop_wait: %d, retry_timeout: %d, postgresql: {use_pg_rewind: true, parameters: {%s}}}
  initdb: [{encoding: UTF8}, data-checksums]
postgresql:
  listen: 127.0.0.1:%d
  connect_address: 127.0.0.1:%d
  data_dir: %s
  bin_dir: %s
  pgpass: %s.pgpass
  authentication:
    superuser: {username: postgres, password: bench-superuser}
    replication: {username: replicator, password: bench-replicator}
  parameters: {unix_socket_directories: %s}
  pg_hba:
  - local all all trust
  - host all all 127.0.0.1/32 scram-sha-256
  - host replication replicator 127.0.0.1/32 scram-sha-256
`, n.name, n.api, n.api, n.c.etcd.Addr, t.ttl, t.loopWait, t.retry, strings.Join(settings, ", "),
		n.port, n.port, n.data, n.c.b.pg, n.data, n.c.dir)
	return os.WriteFile(n.data+".yml", []byte(text), 0o600)
}

// start starts the daemon.
func (n *node) start() error {
	out, err := os.OpenFile(n.data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	args := n.c.b.daemon(n.data + ".yml")
	n.cmd = exec.Command(args[0], args[1:]...) //nolint:noctx // lose ends it
	n.cmd.Stdout, n.cmd.Stderr = out, out
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.cmd.Start(); err != nil {
		return err
	}
	cmd, done := n.cmd, make(chan struct{})
	n.done = done
	go func() { _ = cmd.Wait(); close(done) }()
	return nil
}

// tail is the end of the daemon's log.
func (n *node) tail(lines int) string {
	b, _ := os.ReadFile(n.data + ".log")
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// servers is everything that runs in the data directory.
func (n *node) servers() []int { return serversIn(n.data) }

func serversIn(data string) []int {
	return lab.Processes(func(_ int, dir string) bool {
		cwd, _ := os.Readlink(dir + "/cwd")
		return cwd == data
	})
}

// postmasterIn is the server's first process, 0 when there is none.
func postmasterIn(data string) int {
	for _, pid := range serversIn(data) {
		if lab.Program(pid) == "postgres" {
			return pid
		}
	}
	return 0
}

// agents are the daemon and what it started beside PostgreSQL; guards are the processes that outlive it.
func (n *node) agents() []int {
	if n.cmd == nil {
		return nil
	}
	top := n.cmd.Process.Pid
	return lab.Processes(func(pid int, dir string) bool {
		if pid == top {
			return true
		}
		cwd, _ := os.Readlink(dir + "/cwd")
		return lab.Parent(pid) == top && cwd != n.data && lab.Program(pid) != "pgregent-guard"
	})
}

func (n *node) guards() []int {
	return lab.Processes(func(pid int, dir string) bool {
		cwd, _ := os.Readlink(dir + "/cwd")
		env, _ := os.ReadFile(dir + "/environ")
		return cwd != n.data && bytes.Contains(env, []byte("PGREGENT_GUARD_DIR="+n.data+".pgregent\x00"))
	})
}

// lose kills agent, guard and PostgreSQL at once, as a lost machine, and returns when nothing is left.
func (n *node) lose() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill()
	for {
		pids := append(n.guards(), n.servers()...)
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond) // others reap them
	}
	<-n.done
	n.cmd = nil
}

// get fetches a path of the node's REST API.
func (n *node) get(ctx context.Context, path string) (int, []byte, error) {
	return n.request(ctx, http.MethodGet, path, "")
}

func (n *node) request(ctx context.Context, method, path, body string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, n.url(path), strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

func (n *node) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", n.api, path) }
