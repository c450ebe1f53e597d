package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs/dcstest/etcdserver"
	"github.com/pgregent/pgregent/postgres/postgrestest"
)

// testCluster is three daemons over a real store, each from a Patroni YAML file.
type testCluster struct {
	t     *testing.T
	root  string
	bin   string // PostgreSQL's programs
	scope string
	store *etcdserver.Cluster
	dcs   string // bootstrap.dcs, indented YAML
	nodes []*daemon
}

// daemon is one node: its file, its process, its ports.
type daemon struct {
	c                *testCluster
	name, file, data string
	pgPort, apiPort  int
	program          []string
	cmd              *exec.Cmd
	done             chan struct{}
}

const fastConfig = `
    ttl: 8
    loop_wait: 2
    retry_timeout: 3`

func newCluster(t *testing.T, pg string, nodes int, dcs string) *testCluster {
	c := &testCluster{t: t, root: t.TempDir(), bin: postgrestest.Binaries(t, pg), scope: "demo", dcs: dcs}
	c.store = etcdserver.StartWith(t, etcdserver.Options{Members: 1, Args: []string{"--heartbeat-interval=50", "--election-timeout=500"}})
	for i := range nodes {
		c.nodes = append(c.nodes, c.add(fmt.Sprintf("pg%d", i+1)))
	}
	return c
}

func (c *testCluster) add(name string) *daemon {
	d := &daemon{
		c: c, name: name, file: filepath.Join(c.root, name+".yml"), data: filepath.Join(c.root, name),
		pgPort: postgrestest.FreePort(c.t), apiPort: postgrestest.FreePort(c.t),
		program: []string{filepath.Join(os.Getenv(programsEnv), "pgregent"), "run"},
	}
	d.write("")
	c.t.Cleanup(func() { d.destroy() })
	return d
}

// write writes the node's file; extra is appended.
func (d *daemon) write(extra string) {
	c := d.c
	text := fmt.Sprintf(`scope: %s
name: %s
restapi:
  listen: 127.0.0.1:%d
  connect_address: 127.0.0.1:%d
etcd3:
  hosts: [%s]
bootstrap:
  dcs:%s
    postgresql:
      use_pg_rewind: true
      parameters: {max_connections: 50}
  initdb:
  - encoding: UTF8
  - data-checksums
postgresql:
  listen: 127.0.0.1:%d
  connect_address: 127.0.0.1:%d
  data_dir: %s
  bin_dir: %s
  pgpass: %s
  authentication:
    superuser: {username: postgres, password: super-secret}
    replication: {username: replicator, password: rep-secret}
    rewind: {username: rewinder, password: rew-secret}
  parameters:
    unix_socket_directories: %s
    shared_buffers: 16MB
    fsync: "off"
  pg_hba:
  - local all all trust
  - host all all 127.0.0.1/32 scram-sha-256
  - host replication replicator 127.0.0.1/32 scram-sha-256
%s`, c.scope, d.name, d.apiPort, d.apiPort, strings.Join(hosts(c.store), ", "), c.dcs, d.pgPort, d.pgPort, d.data, c.bin,
		filepath.Join(c.root, d.name+".pgpass"), c.root, extra)
	require.NoError(c.t, os.WriteFile(d.file, []byte(text), 0o600))
}

func hosts(s *etcdserver.Cluster) []string {
	var out []string
	for _, u := range s.URLs() {
		out = append(out, strings.TrimPrefix(u, "http://"))
	}
	return out
}

// start starts the daemon; its log goes to NAME.log in the cluster's folder.
func (d *daemon) start() {
	d.c.t.Helper()
	out, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(d.c.t, err)
	defer out.Close()
	d.cmd = exec.Command(d.program[0], append(d.program[1:], d.file)...)
	d.cmd.Stdout, d.cmd.Stderr = out, out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(d.c.t, d.cmd.Start())
	cmd, done := d.cmd, make(chan struct{})
	d.done = done
	go func() { _ = cmd.Wait(); close(done) }()
}

func (d *daemon) log() string { return filepath.Join(d.c.root, d.name+".log") }

// stop ends the daemon in order.
func (d *daemon) stop() {
	d.c.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	d.wait(60 * time.Second)
}

func (d *daemon) wait(limit time.Duration) {
	d.c.t.Helper()
	select {
	case <-d.done:
	case <-time.After(limit):
		d.c.t.Fatalf("%s does not end within %v\n%s", d.name, limit, d.tail())
	}
}

func (d *daemon) tail() string {
	b, _ := os.ReadFile(d.log())
	lines := strings.Split(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-150):], "\n")
}

// lose kills agent, guard and PostgreSQL at once, as a lost machine.
func (d *daemon) lose() {
	_ = d.cmd.Process.Kill()
	pids := d.processes()
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-d.done
	reap(pids)
}

// processes are the node's guard and everything that runs in its data directory.
func (d *daemon) processes() []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cwd, _ := os.Readlink("/proc/" + e.Name() + "/cwd")
		env, _ := os.ReadFile("/proc/" + e.Name() + "/environ")
		if cwd == d.data || bytes.Contains(env, []byte("PGREGENT_GUARD_DIR="+d.data+".pgregent\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// reap waits for processes that became this one's children.
func reap(pids []int) {
	for _, pid := range pids {
		for {
			_, err := syscall.Wait4(pid, nil, 0, nil)
			if !errors.Is(err, syscall.EINTR) {
				break
			}
		}
	}
}

// destroy leaves nothing behind, also when the test failed.
func (d *daemon) destroy() {
	if d.cmd != nil {
		select {
		case <-d.done:
		default:
			_ = d.cmd.Process.Kill()
			<-d.done
		}
	}
	pids := d.processes()
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	reap(pids)
	if d.c.t.Failed() {
		d.c.t.Logf("log of %s:\n%s", d.name, d.tail())
	}
}

// postmaster is the process id in postmaster.pid.
func (d *daemon) postmaster() int {
	b, _ := os.ReadFile(filepath.Join(d.data, "postmaster.pid"))
	first, _, _ := strings.Cut(string(b), "\n")
	pid, _ := strconv.Atoi(first)
	return pid
}

// status is the answer of GET path; code 0: none.
func (d *daemon) get(path string) (code int, body map[string]any) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", d.apiPort, path), nil)
	if err != nil {
		return 0, nil
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	_ = json.NewDecoder(res.Body).Decode(&body)
	return res.StatusCode, body
}

// post sends a request and returns code and text.
func (d *daemon) post(path, body string) (int, string) {
	res, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d%s", d.apiPort, path), "application/json", strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

func (d *daemon) primary() bool {
	code, _ := d.get("/primary")
	return code == http.StatusOK
}

func (d *daemon) streaming() bool {
	_, body := d.get("/patroni")
	return body["role"] == "replica" && body["replication_state"] == "streaming"
}

// healthy: one primary, the others stream.
func (c *testCluster) healthy() bool {
	primaries, replicas := 0, 0
	for _, d := range c.nodes {
		switch {
		case d.primary():
			primaries++
		case d.streaming():
			replicas++
		}
	}
	return primaries == 1 && replicas == len(c.nodes)-1
}

func (c *testCluster) leader() *daemon {
	for _, d := range c.nodes {
		if d.primary() {
			return d
		}
	}
	return nil
}

func (c *testCluster) startAll() time.Duration {
	c.t.Helper()
	for _, d := range c.nodes {
		d.start()
	}
	return c.awaitHealthy(60 * time.Second)
}

func (c *testCluster) awaitHealthy(within time.Duration) time.Duration {
	c.t.Helper()
	return eventually(c.t, within, "one primary and all others streaming", c.healthy)
}

// others are all nodes but one.
func (c *testCluster) others(d *daemon) []*daemon {
	var out []*daemon
	for _, o := range c.nodes {
		if o != d {
			out = append(out, o)
		}
	}
	return out
}
