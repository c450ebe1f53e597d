package rig

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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs/dcstest"
)

// Node is one daemon: its file, its process, its ports.
type Node struct {
	C                *Cluster
	Name, File, Data string
	PGPort, APIPort  int
	Program          []string        // what Start runs, without the file
	Attr             func(*exec.Cmd) // changes the command before it is started; nil: nothing
	Link             *dcstest.Proxy  // between this daemon and the store; nil: there is none
	Cmd              *exec.Cmd       // the daemon, also when it has ended; nil: never started
	Done             chan struct{}   // closed when it has ended
	store            []string        // where the store is
	id               string          // of files, unlike Name never the same twice
}

// Write writes the node's file; extra is appended. What a killed server leaves of its shared memory stays in its folder.
func (d *Node) Write(extra string) {
	c := d.C
	require.NoError(c.T, os.WriteFile(d.File, []byte(fmt.Sprintf(`scope: %s
name: %s
restapi:
  listen: 127.0.0.1:%d
  connect_address: 127.0.0.1:%d%s
%s
bootstrap:
  dcs:%s
    postgresql:
      use_pg_rewind: true
      parameters: {max_connections: %d}
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
    dynamic_shared_memory_type: mmap
    fsync: "off"%s
  pg_hba:
  - local all all trust
  - host all all 127.0.0.1/32 scram-sha-256
  - host replication replicator 127.0.0.1/32 scram-sha-256
%s`, c.Scope, d.Name, d.APIPort, d.APIPort, c.options.API, c.Store.Section(d.hosts(), d.Link != nil), c.DCS, c.options.MaxConnections, d.PGPort, d.PGPort, d.Data, c.Bin,
		filepath.Join(c.Root, d.id+".pgpass"), c.Root, parameters(c.options.Parameters), extra)), 0o600))
}

func parameters(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("\n    " + l)
	}
	return b.String()
}

// hosts are the addresses at which the daemon reaches the store.
func (d *Node) hosts() []string {
	if d.Link != nil {
		return []string{d.Link.Addr()}
	}
	return d.store
}

// Replace changes the node's file.
func (d *Node) Replace(old, with string) {
	d.C.T.Helper()
	b, err := os.ReadFile(d.File)
	require.NoError(d.C.T, err)
	require.Contains(d.C.T, string(b), old)
	require.NoError(d.C.T, os.WriteFile(d.File, []byte(strings.ReplaceAll(string(b), old, with)), 0o600))
}

// Start starts the daemon; its log goes to NAME.log in the cluster's folder.
func (d *Node) Start() {
	d.C.T.Helper()
	out, err := os.OpenFile(d.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(d.C.T, err)
	defer func() { _ = out.Close() }()
	d.Cmd = exec.Command(d.Program[0], append(slices.Clone(d.Program[1:]), d.File)...)
	d.Cmd.Stdout, d.Cmd.Stderr = out, out
	d.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if d.Attr != nil {
		d.Attr(d.Cmd)
	}
	require.NoError(d.C.T, d.Cmd.Start())
	cmd, done := d.Cmd, make(chan struct{})
	d.Done = done
	go func() { _ = cmd.Wait(); close(done) }()
}

// Log is the file that the daemon's output goes to.
func (d *Node) Log() string { return filepath.Join(d.C.Root, d.id+".log") }

// GuardLog is the file that the guard's output goes to.
func (d *Node) GuardLog() string { return filepath.Join(d.Data+".pgregent", "guard.log") }

// Stop ends the daemon in order.
func (d *Node) Stop() {
	d.C.T.Helper()
	_ = d.Cmd.Process.Signal(syscall.SIGTERM)
	d.Wait(60 * time.Second)
}

// Wait waits until the daemon has ended.
func (d *Node) Wait(limit time.Duration) {
	d.C.T.Helper()
	select {
	case <-d.Done:
	case <-time.After(limit):
		d.C.T.Fatalf("%s does not end within %v\n%s", d.Name, limit, d.Tail())
	}
}

// Running says that the daemon was started and has not ended.
func (d *Node) Running() bool {
	if d.Cmd == nil {
		return false
	}
	select {
	case <-d.Done:
		return false
	default:
		return true
	}
}

// Tail is the end of the daemon's log.
func (d *Node) Tail() string {
	b, _ := os.ReadFile(d.Log())
	lines := strings.Split(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-150):], "\n")
}

// Kill ends the daemon alone, with SIGKILL, and returns when it is gone.
func (d *Node) Kill() {
	_ = d.Cmd.Process.Kill()
	<-d.Done
}

// Lose kills agent, guard and PostgreSQL at once, as a lost machine.
func (d *Node) Lose() {
	_ = d.Cmd.Process.Kill()
	var all []int
	for { // what was forked meanwhile is found in the next round
		pids := d.Processes()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		all = append(all, pids...)
		if len(pids) == 0 {
			break
		}
		reap(pids)
	}
	<-d.Done
	reap(all)
}

// Processes are the node's guard and everything that runs in its data directory.
func (d *Node) Processes() []int { return append(d.Guards(), d.Servers()...) }

// Guards are the processes that serve as this node's guard: one, or none.
func (d *Node) Guards() []int {
	return processes(func(dir string) bool {
		cwd, _ := os.Readlink(dir + "/cwd")
		env, _ := os.ReadFile(dir + "/environ")
		return cwd != d.Data && bytes.Contains(env, []byte("PGREGENT_GUARD_DIR="+d.Data+".pgregent\x00"))
	})
}

// Servers is everything that runs in the node's data directory.
func (d *Node) Servers() []int {
	return processes(func(dir string) bool {
		cwd, _ := os.Readlink(dir + "/cwd")
		return cwd == d.Data
	})
}

func processes(match func(dir string) bool) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && match("/proc/"+e.Name()) {
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

// Destroy leaves nothing behind, also when the test failed.
func (d *Node) Destroy() {
	if d.Cmd != nil {
		d.Lose()
	}
	if d.C.T.Failed() {
		d.C.T.Logf("log of %s:\n%s", d.Name, d.Tail())
	}
}

// Postmaster is the process id of the node's server, 0 when there is none. It is not taken from postmaster.pid, which may
// be old, or speak of another PID namespace.
func (d *Node) Postmaster() int {
	servers := d.Servers()
	for _, pid := range servers {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		program, _, _ := strings.Cut(string(command), "\x00") // of others it is "postgres: what it does"
		if filepath.Base(program) == "postgres" && !slices.Contains(servers, parent(pid)) {
			return pid
		}
	}
	return 0
}

func parent(pid int) int {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(stat), ") ")
	if f := strings.Fields(after); len(f) > 1 {
		n, _ := strconv.Atoi(f[1])
		return n
	}
	return 0
}

// Get is the answer of GET path; code 0: none.
func (d *Node) Get(path string) (code int, body map[string]any) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", d.APIPort, path), nil)
	if err != nil {
		return 0, nil
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = res.Body.Close() }()
	_ = json.NewDecoder(res.Body).Decode(&body)
	return res.StatusCode, body
}

// Post sends a request and returns code and text.
func (d *Node) Post(path, body string) (int, string) {
	res, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d%s", d.APIPort, path), "application/json", strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// Primary says that the daemon says that it leads.
func (d *Node) Primary() bool {
	code, _ := d.Get("/primary")
	return code == http.StatusOK
}

// Streaming says that the daemon is a replica that streams.
func (d *Node) Streaming() bool {
	_, body := d.Get("/patroni")
	return body["role"] == "replica" && body["replication_state"] == "streaming"
}
