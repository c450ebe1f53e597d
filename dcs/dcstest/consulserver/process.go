package consulserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	stopSignal     = syscall.SIGSTOP
	continueSignal = syscall.SIGCONT
)

// process is one run of a server.
type process struct {
	os   *os.Process
	gone chan struct{} // closed when it has ended and was waited for
	err  error         // how it ended; read after gone
}

// launch starts a program that writes to logFile. The kernel kills it when this process dies, which no clean-up function
// can promise: a test binary that runs into its time-out runs none. That signal comes when the thread ends that started
// the program, so the thread belongs to it until it is gone.
func launch(program string, args []string, logFile string) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...) //nolint:noctx // it ends by the methods below, or with the test
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &process{gone: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = log.Close()
		p.os = cmd.Process
		started <- err
		if err != nil {
			return
		}
		if p.err = cmd.Wait(); p.err == nil {
			p.err = errors.New("exit status 0")
		}
		close(p.gone)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return p, nil
}

// signal sends a signal. A nil process has ended.
func (p *process) signal(sig os.Signal) error {
	if p == nil {
		return errors.New("it does not run")
	}
	return p.os.Signal(sig)
}

// kill ends it, and returns when it is gone. A nil process has ended.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.os.Kill() // it may have ended by itself
	<-p.gone
}

// terminate asks it to end, and kills it when it has not within the limit.
func (p *process) terminate(limit time.Duration) {
	if p == nil {
		return
	}
	_ = p.os.Signal(syscall.SIGTERM)
	select {
	case <-p.gone:
	case <-time.After(limit):
		p.kill()
	}
}

// stopped waits until every thread has stopped: the signal comes to them one by one, and one may answer a request meanwhile.
func (m *member) stopped(limit time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return errors.New("it does not run")
	}
	for end := time.Now().Add(limit); ; <-time.After(time.Millisecond) {
		running, err := m.process.runningThreads()
		if err != nil || running == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d threads run on after %v", running, limit)
		}
	}
}

// runningThreads counts the threads that are not stopped.
func (p *process) runningThreads() (n int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.os.Pid))
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		// The state is the first letter after the name, which is in parentheses.
		if _, after, found := strings.Cut(string(text), ") "); found && after[0] != 'T' && after[0] != 't' {
			n++
		}
	}
	return n, nil
}

// healthy waits until a member answers a consistent read, which needs a leader.
func (c *Cluster) healthy(m *member) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.options.Patience) //nolint:forbidigo // of a test, which has none that outlives its clean-up
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx, "http://"+m.http+"/v1/kv/consulserver/healthy?consistent", nil)
		if err == nil || errors.Is(err, errForbidden) { // with ACLs a leader says so
			return nil
		}
		select {
		case <-m.process.gone:
			return fmt.Errorf("it has ended (%w):\n%s", m.process.err, m.tail(20))
		case <-ctx.Done():
			return fmt.Errorf("not healthy within %v (%w):\n%s", c.options.Patience, err, m.tail(20))
		case <-tick.C:
		}
	}
}

var errForbidden = errors.New("the member answers, and wants a token")

// ask makes a request that may find nothing, and decodes what it finds into into, unless that is nil.
func ask(ctx context.Context, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	req.Close = true // no idle connection, and no goroutine of one, that a test would find
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusForbidden:
		return errForbidden
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound:
		return fmt.Errorf("%s answers %s", url, resp.Status)
	case into == nil:
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
