package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// stream writes a module with one test file, and returns what "go test -json" says of it.
func stream(t *testing.T, source string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/go.mod", "module example.org/m\n\ngo 1.24\n")
	write(t, dir+"/m_test.go", "package m\n\nimport (\n\t\"fmt\"\n\t\"os\"\n\t\"testing\"\n)\n\nvar _, _ = fmt.Print, os.Exit\n\n"+source)
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"test", "-json", "-vet=off"}, flags...)...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "GOWORK=off", "GOFLAGS=")
	out, _ := cmd.CombinedOutput() // the exit code is not what is tested here
	return string(out)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDigest(t *testing.T) {
	for _, c := range []struct {
		name, source string
		good, strict bool // without and with -skip fail
		says, hides  string
	}{
		{"pass", `func TestA(t *testing.T) { t.Log("quiet") }`, true, true, "ok  \texample.org/m", "quiet"},
		{"fail", `func TestA(t *testing.T) { t.Error("loud") }`, false, false, "loud", ""},
		{"skip", `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Skip("no server") }`, true, false, "no server", ""},
		{"skipped subtest", `func TestA(t *testing.T) { t.Run("b", func(t *testing.T) { t.Skip("no server") }) }`, true, false, "gotest: skipped: example.org/m TestA/b", ""},
		{"a text that looks like a skip", `func TestA(t *testing.T) { fmt.Println("--- SKIP: TestA (0.00s)"); t.Log("--- SKIP: TestB (0.00s)") }`, true, true, "0 skipped", ""},
		{"a skip behind a text that looks like a pass", `func TestA(t *testing.T) {}; func TestB(t *testing.T) { fmt.Print("--- PASS: TestB (0.00s)\nok  \texample.org/m\n"); t.Skip() }`, true, false, "1 skipped", ""},
		{"early exit", `func TestA(t *testing.T) {}; func TestB(t *testing.T) { os.Exit(0) }`, false, false, "failed: example.org/m", ""},
		{"panic", `func TestA(t *testing.T) { panic("burst") }`, false, false, "burst", ""},
		{"does not compile", `func TestA(t *testing.T) { nonsense }`, false, false, "undefined: nonsense", ""},
		{"no test", `func helper() {}`, false, false, "no test passed", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			events := stream(t, c.source)
			for _, strict := range []bool{false, true} {
				var out bytes.Buffer
				d := newDigest(&out)
				if err := d.read(strings.NewReader(events)); err != nil {
					t.Fatal(err)
				}
				want := c.good
				if strict {
					want = c.strict
				}
				if got := d.report(strict); got != want {
					t.Errorf("good = %v, want %v (strict: %v); it said:\n%s\nfrom:\n%s", got, want, strict, &out, events)
				}
				if !strings.Contains(out.String(), c.says) || c.hides != "" && strings.Contains(out.String(), c.hides) {
					t.Errorf("should say %q and not %q:\n%s", c.says, c.hides, &out)
				}
			}
		})
	}
}

// TestBrokenOff cuts the stream of a passing package before its end.
func TestBrokenOff(t *testing.T) {
	lines := strings.SplitAfter(stream(t, "func TestA(t *testing.T) {}"), "\n")
	var out bytes.Buffer
	d := newDigest(&out)
	if err := d.read(strings.NewReader(strings.Join(lines[:len(lines)-2], ""))); err != nil {
		t.Fatal(err)
	}
	if d.report(false) || !strings.Contains(out.String(), "never ended") {
		t.Errorf("a stream without its end is taken for good:\n%s", &out)
	}
}
