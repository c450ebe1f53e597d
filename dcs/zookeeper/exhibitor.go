package zookeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Exhibitor finds the hosts by asking Netflix's Exhibitor, which supervises an ensemble (reference section 1.9). The zero
// value is not in use.
type Exhibitor struct {
	// Hosts are the names of machines that run it, without a port.
	Hosts []string
	// Port is where it listens.
	Port int
	// PollInterval is how often it is asked again; 0 means 300 s. When nobody answers, the hosts stay as they are.
	PollInterval time.Duration
}

const (
	exhibitorPath     = "/exhibitor/v1/cluster/list"
	exhibitorInterval = 300 * time.Second
	exhibitorLimit    = 3 * time.Second // for one host to answer
	exhibitorBytes    = 1 << 20         // of an answer
)

func (e Exhibitor) normal() (Exhibitor, error) {
	if len(e.Hosts) == 0 {
		return e, nil
	}
	if e.Port < 1 || e.Port > 65535 {
		return e, fmt.Errorf("the port of Exhibitor is %d; want 1 to 65535", e.Port)
	}
	if e.PollInterval <= 0 {
		e.PollInterval = exhibitorInterval
	}
	return e, nil
}

// find asks the hosts one after the other, until one tells the servers, sorted.
func (e Exhibitor) find(ctx context.Context) ([]string, error) {
	var failures []error
	for _, host := range e.Hosts {
		servers, err := e.ask(ctx, "http://"+net.JoinHostPort(host, strconv.Itoa(e.Port))+exhibitorPath)
		if err == nil {
			return servers, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("exhibitor: no host tells the servers: %w", errors.Join(failures...))
}

func (e Exhibitor) ask(ctx context.Context, url string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, exhibitorLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Close = true // it is minutes until the next
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, resp.Status)
	}
	var answer struct {
		Servers []string `json:"servers"`
		Port    int      `json:"port"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, exhibitorBytes)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s: the answer is not what was expected: %w", url, err)
	}
	if len(answer.Servers) == 0 || answer.Port < 1 || answer.Port > 65535 {
		return nil, fmt.Errorf("%s names %d servers and the port %d", url, len(answer.Servers), answer.Port)
	}
	all, err := splitHosts(answer.Servers, answer.Port)
	slices.Sort(all)
	return all, err
}

// poll asks again and again, and tells what has changed, until ctx ends.
func (e Exhibitor) poll(ctx context.Context, s *Store) {
	tick := time.NewTicker(e.PollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		found, err := e.find(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.config.Logger.WarnContext(ctx, "zookeeper: the hosts stay as they are", "error", err)
		case !slices.Equal(found, s.Hosts()):
			s.config.Logger.InfoContext(ctx, "zookeeper: the hosts have changed", "hosts", found)
			s.setHosts(found)
		}
	}
}
