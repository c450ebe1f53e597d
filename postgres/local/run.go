package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// tool is one run of a program of PostgreSQL. No argument and no variable holds a password: those go through a
// password file (hazard E2).
type tool struct {
	program string // a key of Server.programs, or a path
	args    []string
	env     []string
	dir     string            // working directory; by default /
	locale  bool              // the tool sees the environment's locale, and its messages may be translated
	lines   func(line string) // called with each line of standard error; may be nil
}

// output is what a tool printed: the last 64 kB of each stream.
type output struct {
	stdout, stderr string
}

// run runs the tool to its end, in a process group of its own that is killed when ctx ends, and on Linux also when this
// program dies. The error holds the last lines of what the tool wrote on standard error.
func (s *Server) run(ctx context.Context, t tool) (output, error) {
	path := cmpOr(s.programs[t.program], t.program)
	var stdout, stderr tail
	cmd := exec.CommandContext(ctx, path, t.args...)
	cmd.Env = append(toolEnv(os.Environ(), t.locale), t.env...)
	cmd.Dir = cmpOr(t.dir, "/")
	cmd.Stdout = &stdout
	cmd.Stderr = &stderr
	if t.lines != nil {
		cmd.Stderr = io.MultiWriter(&stderr, &lineWriter{each: t.lines})
	}
	cmd.SysProcAttr = toolAttr()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	begin := time.Now()
	err := runLocked(cmd)
	s.log.DebugContext(ctx, "a program ended", "program", filepath.Base(path), "took", time.Since(begin), "ok", err == nil)
	out := output{stdout: stdout.String(), stderr: stderr.String()}
	if err == nil {
		return out, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return out, fmt.Errorf("%s was stopped: %w", filepath.Base(path), cause)
	}
	if text := lastLines(out.stderr, 4); text != "" {
		return out, fmt.Errorf("%s: %w: %s", filepath.Base(path), err, text)
	}
	return out, fmt.Errorf("%s: %w", filepath.Base(path), err)
}

// runLocked starts and waits on one locked thread: the kernel's death signal follows the thread that forked, and Go
// ends threads when it likes.
func runLocked(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- cmd.Run()
	}()
	return <-done
}

// toolEnv is the environment of a tool: no setting of this program or of libpq reaches it but those given on purpose,
// and unless locale is set its messages are not translated, because they are read.
func toolEnv(environ []string, locale bool) []string {
	env := serverEnv(environ)
	env = slices.DeleteFunc(env, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		isLocale := strings.HasPrefix(name, "LC_") || name == "LANG" || name == "LANGUAGE"
		return strings.HasPrefix(name, "PG") || isLocale && !locale
	})
	if locale {
		return env
	}
	return append(env, "LANG=C", "LC_ALL=C")
}

// serverEnv is the environment of a postmaster: without this program's settings, which can hold secrets, and without
// the socket that is for this program only (reference section 7). A PGPASSWORD that happened to be there would win over the
// password file that the replication connection is given, and so keep the replica from its primary.
func serverEnv(environ []string) []string {
	env := slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		for _, prefix := range []string{"PATRONI_", "KUBERNETES_", "PGREGENT_", "NOTIFY_SOCKET=", "PG_GRANDPARENT_PID=", "PGPASSWORD="} {
			if strings.HasPrefix(kv, prefix) {
				return true
			}
		}
		return false
	})
	return env
}

// lastLines returns the last n lines that are not empty, joined to one.
func lastLines(text string, n int) string {
	lines := slices.DeleteFunc(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }),
		func(line string) bool { return strings.TrimSpace(line) == "" })
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

// tail keeps the last 64 kB written to it.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	const limit = 64 << 10
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - limit; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.buf) }

// lineWriter hands on whole lines; a carriage return ends one too, as in a progress display.
type lineWriter struct {
	each func(string)
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		i := bytes.IndexAny(w.rest, "\r\n")
		if i < 0 {
			break
		}
		if line := string(w.rest[:i]); line != "" {
			w.each(line)
		}
		w.rest = w.rest[i+1:]
	}
	if len(w.rest) > 64<<10 {
		w.rest = nil
	}
	return len(p), nil
}

// splitWords splits a command line into words as a POSIX shell does: blanks separate, single quotes keep everything,
// double quotes keep all but backslash escapes. Nothing is expanded.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\n', '\r':
			if inWord {
				words, inWord = append(words, word.String()), false
				word.Reset()
			}
		case '\'', '"':
			end, text, err := quoted(line, i)
			if err != nil {
				return nil, err
			}
			word.WriteString(text)
			i, inWord = end, true
		case '\\':
			if i+1 == len(line) {
				return nil, errors.New("the line ends with a backslash")
			}
			i++
			word.WriteByte(line[i])
			inWord = true
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// quoted reads the quoted text that begins at line[start], and returns where its closing quote is.
func quoted(line string, start int) (end int, text string, err error) {
	var b strings.Builder
	quote := line[start]
	for i := start + 1; i < len(line); i++ {
		c := line[i]
		switch {
		case c == quote:
			return i, b.String(), nil
		case c == '\\' && quote == '"' && i+1 < len(line) && strings.IndexByte(`"\$`+"`", line[i+1]) >= 0:
			i++
			b.WriteByte(line[i])
		default:
			b.WriteByte(c)
		}
	}
	return 0, "", fmt.Errorf("the quote at byte %d is not closed", start)
}
