// Package exec is a Callback that runs scripts as Patroni does: the configured command line, then action, role and
// cluster name as arguments (reference section 5.23).
//
// It uses no shell, and gives a script no password: variables named PATRONI_* and PG*PASS* are left out.
package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/pgregent/pgregent/callbacks"
)

// Scripts runs one command line for each action that has one.
type Scripts struct {
	commands map[callbacks.Action]string
}

var _ callbacks.Callback = (*Scripts)(nil)

// New returns a Callback that runs commands, which are split into words as a shell does it.
func New(commands map[callbacks.Action]string) *Scripts { return &Scripts{commands: commands} }

// Apply runs the action's script and waits for it. When ctx ends the script's whole process group is killed. A script
// that fails is an error with its exit status.
func (s *Scripts) Apply(ctx context.Context, e callbacks.Event) error {
	line := s.commands[e.Action]
	if line == "" {
		return nil
	}
	words, err := Split(line)
	if err != nil || len(words) == 0 {
		return fmt.Errorf("exec: callback %s: the command line %q: %w", e.Action, line, err)
	}
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], string(e.Action), e.Role, e.Scope)...)
	cmd.Env = environment(os.Environ())
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("exec: callback %s was ended by a newer one: %w", e.Action, ctx.Err())
		}
		return fmt.Errorf("exec: callback %s: %w", e.Action, err)
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
