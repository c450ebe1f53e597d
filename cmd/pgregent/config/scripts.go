package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Scripts are the command lines of the file that are run beside PostgreSQL, and how long each may take. post_bootstrap
// is in local.Config, because it runs inside of the bootstrap.
type Scripts struct {
	Callbacks              map[string]string // by action, such as on_start
	PrePromote, BeforeStop string

	CallbackTimeout, PrePromoteTimeout, BeforeStopTimeout time.Duration
}

// Time-outs of scripts when the file sets none. Patroni has none at all: a script that hangs there keeps the cluster
// without a primary, or keeps a server from being stopped.
const (
	callbackTimeout      = 5 * time.Minute
	prePromoteTimeout    = time.Minute
	beforeStopTimeout    = 10 * time.Second
	postBootstrapTimeout = time.Hour
)

func buildScripts(r reader) (Scripts, []error) {
	var errs []error
	s := Scripts{
		Callbacks: r.texts("postgresql.callbacks"), PrePromote: r.text("postgresql.pre_promote"), BeforeStop: r.text("postgresql.before_stop"),
	}
	limit := func(name string, byDefault time.Duration) time.Duration {
		d, err := r.seconds("pgregent.timeouts."+name, byDefault)
		if err != nil {
			errs = append(errs, err)
		}
		return d
	}
	s.CallbackTimeout = limit("callback", callbackTimeout)
	s.PrePromoteTimeout = limit("pre_promote", prePromoteTimeout)
	s.BeforeStopTimeout = limit("before_stop", beforeStopTimeout)
	return s, errs
}

// seconds is a number of seconds greater than 0.
func (r reader) seconds(path string, byDefault time.Duration) (time.Duration, error) {
	if r.at(path) == nil {
		return byDefault, nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(r.text(path)), 0, 32)
	if err != nil || n < 1 {
		return byDefault, fmt.Errorf("%s is %s, expected a number of seconds from 1 on", path, r.text(path))
	}
	return time.Duration(n) * time.Second, nil
}
