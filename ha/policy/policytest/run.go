package policytest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Run plays the story in the file path, or every *.txt of the directory path as a subtest each, and compares what
// happened with what the file records. With the flag -rewrite (to be defined by the test's own package, as a bool) it
// writes what happened into the file instead. A broken invariant is an error in either case.
func Run(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !info.IsDir() {
		runFile(t, path)
		return
	}
	files, err := filepath.Glob(filepath.Join(path, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories in %s (%v)", path, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { runFile(t, f) })
	}
}

func rewriting() bool {
	f := flag.Lookup("rewrite")
	return f != nil && f.Value.String() == "true"
}

func runFile(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, violations, err := Play(string(text), Options{})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, v := range violations {
		t.Errorf("%s: %s", path, v)
	}
	if got == string(text) {
		return
	}
	if rewriting() {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s: %s\nrun the test with -rewrite to record it, and commit it only if you understand every change",
		path, firstDifference(string(text), got))
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "(end of file)", "(end of file)"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d differs\nrecorded: %s\nhappened: %s", i+1, a, b)
		}
	}
	return "no difference"
}

// Play plays a story: text with the outputs replaced by what happened, and the invariants that were broken. The error
// is about the story's own text.
func Play(text string, opt Options) (string, []Violation, error) {
	var out strings.Builder
	env := NewStory(opt, false)
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i := 0; i < len(lines); {
		line := lines[i]
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			out.WriteString(line + "\n")
			i++
			continue
		}
		begin := i
		for i < len(lines) && lines[i] != "----" {
			if strings.TrimSpace(lines[i]) == "" {
				return "", nil, fmt.Errorf("line %d: a command needs ---- after it", begin+1)
			}
			out.WriteString(lines[i] + "\n")
			i++
		}
		block := lines[begin:i]
		for i < len(lines) && strings.TrimSpace(lines[i]) != "" { // skip what was recorded
			i++
		}
		result, err := env.block(block)
		if err != nil {
			return "", nil, fmt.Errorf("line %d: %w", begin+1, err)
		}
		out.WriteString("----\n" + result)
	}
	var violations []Violation
	if env.w != nil {
		violations = env.w.violations
	}
	return out.String(), violations, nil
}
