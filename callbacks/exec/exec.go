// Package exec is a Callback that runs scripts as Patroni does: the configured command line, then action, role and
// cluster name as arguments (reference section 5.23). Run runs any other command line of the configuration in the same
// way.
//
// It uses no shell, and gives a script no password: variables named PATRONI_* and PG*PASS* are left out. Each script has
// a process group of its own, which is killed as a whole when its time is over.
package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgregent/pgregent/callbacks"
)

// Scripts runs one command line for each action that has one. It may be used from any goroutine.
type Scripts struct {
	mu       sync.Mutex
	commands map[callbacks.Action]string
	limit    time.Duration
}

var _ callbacks.Callback = (*Scripts)(nil)

// New returns a Callback that runs commands, which are split into words as a shell does it.
func New(commands map[callbacks.Action]string) *Scripts { return &Scripts{commands: commands} }

// Set replaces the command lines, and how long one of them may run; 0: until a newer event replaces it. What runs
// already is left alone.
func (s *Scripts) Set(commands map[callbacks.Action]string, limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands, s.limit = commands, limit
}

// Apply runs the action's script and waits for it. When ctx or the time limit ends, the script's whole process group is
// killed. A script that fails is an error with its exit status.
func (s *Scripts) Apply(ctx context.Context, e callbacks.Event) error {
	s.mu.Lock()
	line, limit := s.commands[e.Action], s.limit
	s.mu.Unlock()
	if strings.TrimSpace(line) == "" {
		return nil
	}
	call, cancel := Limit(ctx, limit)
	defer cancel()
	err := Run(call, line, string(e.Action), e.Role, e.Scope)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("exec: callback %s was ended by a newer one: %w", e.Action, ctx.Err())
	}
	return fmt.Errorf("exec: callback %s: %w", e.Action, err)
}

// Limit is context.WithTimeout whose cause says how long the script was given; 0 sets no limit.
func Limit(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %v and was killed", limit))
}

// Run runs a command line with further arguments and waits for it. The line is split into words by Split. When ctx ends
// the whole process group is killed, and the error is the context's cause; a program that fails is an error with its
// exit status. What it prints goes to this program's standard error.
func Run(ctx context.Context, line string, args ...string) error {
	words, err := Split(line)
	if err == nil && len(words) == 0 {
		err = errors.New("it names no program")
	}
	if err != nil {
		return fmt.Errorf("the command line %q: %w", line, err)
	}
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], args...)...)
	cmd.Env = environment(os.Environ())
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("%s: %w", words[0], cause)
		}
		return fmt.Errorf("%s: %w", words[0], err)
	}
	return nil
}

func environment(environ []string) []string {
	var out []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "PATRONI_") || name == "NOTIFY_SOCKET" || (strings.HasPrefix(name, "PG") && strings.Contains(name, "PASS")) {
			continue
		}
		out = append(out, kv)
	}
	return out
}

// Split cuts a command line into words: blanks separate, single quotes keep everything, double quotes keep all but
// backslashes before " and \, and a backslash outside of quotes keeps the next character.
func Split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	in, quote, escaped := false, rune(0), false
	for _, r := range line {
		switch {
		case escaped:
			if quote == '"' && r != '"' && r != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, in = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote or backslash is not closed")
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}
