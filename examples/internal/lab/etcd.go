package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Etcd is a running etcd server of one member.
type Etcd struct {
	Addr    string // host:port for clients
	cmd     *exec.Cmd
	done    chan struct{}
	metrics string
	log     string
}

// EtcdProgram is the etcd server that PGREGENT_ETCD names (.ci/etcd.sh builds it), else the one in the PATH.
func EtcdProgram() (string, error) {
	if p := os.Getenv("PGREGENT_ETCD"); p != "" {
		return p, nil
	}
	p, err := exec.LookPath("etcd")
	if err != nil {
		return "", errors.New(`there is no etcd: eval "$(.ci/env)" after .ci/etcd.sh, or set PGREGENT_ETCD`)
	}
	return p, nil
}

// StartEtcd starts a server with its data below dir, and waits until it is healthy. Its writes are synced to disk, as an
// operator's are.
func StartEtcd(dir string) (*Etcd, error) {
	program, err := EtcdProgram()
	if err != nil {
		return nil, err
	}
	var at [3]string
	for i := range at {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		at[i] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	e := &Etcd{Addr: at[0], metrics: "http://" + at[2], log: filepath.Join(dir, "etcd.log"), done: make(chan struct{})}
	out, err := os.Create(e.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	e.cmd = exec.Command(program, "--name=m0", "--data-dir="+filepath.Join(dir, "etcd"), //nolint:noctx // Stop ends it
		"--listen-client-urls=http://"+at[0], "--advertise-client-urls=http://"+at[0],
		"--listen-peer-urls=http://"+at[1], "--initial-advertise-peer-urls=http://"+at[1], "--initial-cluster=m0=http://"+at[1],
		"--listen-metrics-urls="+e.metrics, "--log-level=warn", "--logger=zap")
	e.cmd.Stdout, e.cmd.Stderr = out, out
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = e.cmd.Wait(); close(e.done) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		if res, err := http.Get(e.metrics + "/health"); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return e, nil
			}
		}
		if time.Since(began) > 20*time.Second {
			e.Stop()
			b, _ := os.ReadFile(e.log)
			return nil, fmt.Errorf("etcd is not healthy after 20 s: %s", b)
		}
	}
}

// PID is the server's process id.
func (e *Etcd) PID() int { return e.cmd.Process.Pid }

// Stop ends the server.
func (e *Etcd) Stop() {
	_ = e.cmd.Process.Kill()
	<-e.done
}

// Metrics are the server's metrics by name, the values of all labels added up; labelled ones also by name{labels}.
func (e *Etcd) Metrics(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.metrics+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	out := map[string]float64{}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			continue
		}
		name, _, labelled := strings.Cut(line[:i], "{")
		out[name] += v
		if labelled {
			out[line[:i]] = v
		}
	}
	return out, lines.Err()
}

// Requests are the messages that the server has got from clients so far, and those of each method: one for each call, and
// one for each renewal or watch on a stream that stays open.
func (e *Etcd) Requests(ctx context.Context) (all float64, methods map[string]float64, err error) {
	m, err := e.Metrics(ctx)
	methods = map[string]float64{}
	for name, v := range m {
		labels, ok := strings.CutPrefix(name, Messages+"{")
		_, method, found := strings.Cut(labels, `grpc_method="`)
		method, _, _ = strings.Cut(method, `"`)
		if ok && found {
			methods[method] += v
		}
	}
	return m[Messages], methods, err
}

// Messages is the metric that Requests reads.
const Messages = "grpc_server_msg_received_total"
