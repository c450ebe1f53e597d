package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// cluster is what the demo made: a store, three nodes, a writer.
type cluster struct {
	root, bin, pg string
	etcd          *embed.Etcd
	endpoint      string
	nodes         []*node
	writer        *writer
}

// node is one daemon.
type node struct {
	c          *cluster
	name, data string
	port, api  int
	cmd        *exec.Cmd
	done       chan struct{}
	frozen     []int
}

func newCluster(root, bin, pg string) (*cluster, error) {
	abs, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	c := &cluster{root: root, bin: abs, pg: pg}
	if _, err := os.Stat(filepath.Join(abs, "pgregent")); err != nil {
		return nil, fmt.Errorf("%w (build it with make build)", err)
	}
	if err := c.startEtcd(); err != nil {
		return nil, fmt.Errorf("the embedded etcd: %w", err)
	}
	for i := range 3 {
		n := &node{c: c, name: fmt.Sprintf("pg%d", i+1)}
		n.data = filepath.Join(root, n.name)
		for _, p := range []*int{&n.port, &n.api} {
			if *p, err = freePort(); err != nil {
				c.close()
				return nil, err
			}
		}
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		if err := errors.Join(n.write(), n.start()); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (c *cluster) startEtcd() error {
	client, err := freePort()
	if err != nil {
		return err
	}
	peer, err := freePort()
	if err != nil {
		return err
	}
	at := func(port int) []url.URL { return []url.URL{{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}} }
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.LogOutputs = filepath.Join(c.root, "etcd"), "error", []string{filepath.Join(c.root, "etcd.log")}
	cfg.TickMs, cfg.ElectionMs, cfg.UnsafeNoFsync = 50, 500, true
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = at(client), at(client)
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = at(peer), at(peer)
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	if c.etcd, err = embed.StartEtcd(cfg); err != nil {
		return err
	}
	c.endpoint = fmt.Sprintf("127.0.0.1:%d", client)
	select {
	case <-c.etcd.Server.ReadyNotify():
		return nil
	case <-time.After(20 * time.Second):
		return errors.New("not ready after 20 s")
	}
}

// write writes the node's Patroni file.
func (n *node) write() error {
	c := n.c
	text := fmt.Sprintf(`scope: demo
name: %s
restapi: {listen: "127.0.0.1:%d", connect_address: "127.0.0.1:%d"}
etcd3: {hosts: ["%s"]}
bootstrap:
  dcs: {ttl: 8, loop_wait: 2, retry_timeout: 3, postgresql: {use_pg_rewind: true}}
  initdb: [{encoding: UTF8}, data-checksums]
postgresql:
  listen: 127.0.0.1:%d
  connect_address: 127.0.0.1:%d
  data_dir: %s
  bin_dir: %s
  pgpass: %s.pgpass
  authentication:
    superuser: {username: postgres, password: demo-superuser}
    replication: {username: replicator, password: demo-replicator}
  parameters: {unix_socket_directories: %s, shared_buffers: 32MB}
  pg_hba:
  - local all all trust
  - host all all 127.0.0.1/32 scram-sha-256
  - host replication replicator 127.0.0.1/32 scram-sha-256
`, n.name, n.api, n.api, c.endpoint, n.port, n.port, n.data, c.pg, n.data, c.root)
	return os.WriteFile(n.data+".yml", []byte(text), 0o600)
}

func (n *node) start() error {
	out, err := os.OpenFile(n.data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	n.cmd = exec.Command(filepath.Join(n.c.bin, "pgregent"), "run", n.data+".yml") //nolint:noctx // close ends it
	n.cmd.Stdout, n.cmd.Stderr = out, out
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo
	if err := n.cmd.Start(); err != nil {
		return err
	}
	cmd, done := n.cmd, make(chan struct{})
	n.done = done
	go func() { _ = cmd.Wait(); close(done) }()
	return nil
}

func (n *node) running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// stop ends the daemon in order.
func (n *node) stop(limit time.Duration) error {
	if !n.running() {
		return nil
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s does not end within %v", n.name, limit)
	}
}

// processes are the node's guard and everything that runs in its data directory.
func (n *node) processes() []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cwd, _ := os.Readlink("/proc/" + e.Name() + "/cwd")
		env, _ := os.ReadFile("/proc/" + e.Name() + "/environ")
		if cwd == n.data || bytes.Contains(env, []byte("PGREGENT_GUARD_DIR="+n.data+".pgregent\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kill ends agent, guard and PostgreSQL at once, as a lost machine.
func (n *node) kill() {
	if n.running() {
		_ = n.cmd.Process.Kill()
	}
	for _, pid := range n.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if n.cmd != nil {
		<-n.done
	}
}

// killPostgreSQL kills the postmaster alone.
func (n *node) killPostgreSQL() {
	b, _ := os.ReadFile(filepath.Join(n.data, "postmaster.pid"))
	first, _, _ := strings.Cut(string(b), "\n")
	if pid, err := strconv.Atoi(first); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// freeze stops agent, guard and PostgreSQL; thaw lets them go on.
func (n *node) freeze() {
	n.frozen = append(n.processes(), n.cmd.Process.Pid)
	for _, pid := range n.frozen {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
}

func (n *node) thaw() {
	for _, pid := range n.frozen {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	n.frozen = nil
}

// reapOrphans waits for servers and guards whose parents are gone.
func reapOrphans() {
	for range time.Tick(20 * time.Millisecond) {
		tasks, _ := filepath.Glob("/proc/self/task/*/children")
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			for pid := range strings.FieldsSeq(string(b)) {
				stat, _ := os.ReadFile("/proc/" + pid + "/stat")
				if s := string(stat); strings.Contains(s, " (postgres) Z ") || strings.Contains(s, " (pgregent-guard) Z ") {
					n, _ := strconv.Atoi(pid)
					_, _ = syscall.Wait4(n, nil, syscall.WNOHANG, nil)
				}
			}
		}
	}
}

// close leaves nothing behind.
func (c *cluster) close() {
	if c.writer != nil {
		c.writer.stop()
	}
	for _, n := range c.nodes {
		n.thaw()
		n.kill()
	}
	for _, n := range c.nodes { // what started while it was looked for
		n.kill()
	}
	if c.etcd != nil {
		c.etcd.Close()
	}
}

// status is a node's answer to GET /patroni.
type status struct {
	State    string `json:"state"`
	Role     string `json:"role"`
	Timeline int    `json:"timeline"`
	Repl     string `json:"replication_state"`
	XLog     struct {
		Location uint64 `json:"location"`
		Received uint64 `json:"received_location"`
	} `json:"xlog"`
	Pgregent struct {
		Writable bool   `json:"writable"`
		Reason   string `json:"reason"`
	} `json:"pgregent"`
}

func (n *node) status(ctx context.Context) (s status, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/patroni", n.api), nil)
	if err != nil {
		return s, false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, false
	}
	defer res.Body.Close()
	return s, json.NewDecoder(res.Body).Decode(&s) == nil
}

// leader is the node that takes writes, or nil.
func (c *cluster) leader(ctx context.Context) *node {
	for _, n := range c.nodes {
		if s, ok := n.status(ctx); ok && s.Pgregent.Writable {
			return n
		}
	}
	return nil
}

// healthy: one node takes writes, the others stream.
func (c *cluster) healthy(ctx context.Context) bool {
	writable, streaming := 0, 0
	for _, n := range c.nodes {
		s, ok := n.status(ctx)
		switch {
		case ok && s.Pgregent.Writable:
			writable++
		case ok && s.Repl == "streaming":
			streaming++
		}
	}
	return writable == 1 && streaming == len(c.nodes)-1
}

// switchover asks the leader to hand over to whoever is best.
func (c *cluster) switchover(ctx context.Context) error {
	l := c.leader(ctx)
	if l == nil {
		return errors.New("nobody leads")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/switchover", l.api), strings.NewReader(fmt.Sprintf(`{"leader":%q}`, l.name)))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("switchover: %d %s", res.StatusCode, b)
	}
	return nil
}

// tails prints the ends of the daemons' logs.
func (c *cluster) tails(w io.Writer) {
	for _, n := range c.nodes {
		b, _ := os.ReadFile(n.data + ".log")
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		fmt.Fprintf(w, "--- log of %s\n%s\n", n.name, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}
