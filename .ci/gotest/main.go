// Command gotest reads what "go test -json" writes and prints what a person wants of it: go test's own line for every
// package, and all that a failed test said.
//
//	go test -json PACKAGES 2>&1 | go run ./.ci/gotest [-skip fail] [-v]
//
// It ends with 1 when something failed, when nothing passed, when the stream breaks off, and with -skip fail also
// when a test skipped itself, whatever the exit code of go test is. A skip is taken from the event, not from the text: in this mode the
// test binary marks its own lines, so that no test can print one or hide one.
//
// It runs nothing, and it does not know which tests there should have been.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is one line of "go test -json"; see "go doc test2json". Build output carries ImportPath instead of Package.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	FailedBuild string
}

// digest gathers the events of one stream.
type digest struct {
	out     io.Writer
	verbose bool

	tests    map[string][]string // output by package and test, of those that have not ended
	open     map[string]bool     // packages that have not ended
	passed   int
	failed   []string
	skipped  []string
	packages int
}

// newDigest has seen nothing yet.
func newDigest(out io.Writer) *digest {
	return &digest{out: out, tests: map[string][]string{}, open: map[string]bool{}}
}

func main() {
	skip := flag.String("skip", "show", "what a skipped test means: show or fail")
	verbose := flag.Bool("v", false, "print the output of tests that pass, too")
	flag.Parse()
	if flag.NArg() != 0 || *skip != "show" && *skip != "fail" {
		flag.Usage()
		os.Exit(2)
	}
	d := newDigest(os.Stdout)
	d.verbose = *verbose
	if err := d.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
	if !d.report(*skip == "fail") {
		os.Exit(1)
	}
}

// read consumes the stream to its end. Lines that are no events come from the go command itself and are printed.
func (d *digest) read(r io.Reader) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			var e event
			if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
				fmt.Fprint(d.out, line)
			} else {
				d.add(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the events: %w", err)
		}
	}
}

// add takes one event.
func (d *digest) add(e event) {
	if e.Package == "" {
		if e.Action == "build-output" {
			fmt.Fprint(d.out, e.Output)
		}
		return
	}
	key := e.Package + " " + e.Test
	switch e.Action {
	case "start":
		d.open[e.Package] = true
	case "output":
		switch {
		case d.verbose || e.Test == "" && summary(e.Output):
			fmt.Fprint(d.out, e.Output)
		default:
			d.tests[key] = append(d.tests[key], e.Output)
		}
	case "pass", "fail", "skip":
		d.end(e, key)
	}
}

// end closes a test, or a package when the event names no test.
func (d *digest) end(e event, key string) {
	output := d.tests[key]
	delete(d.tests, key)
	switch {
	case e.Action == "fail":
		if e.Test == "" {
			// A test that never ended (a panic, a time-out) said what it had to say under its own name.
			for k, lines := range d.tests {
				if strings.HasPrefix(k, e.Package+" ") {
					output = append(lines, output...)
					delete(d.tests, k)
				}
			}
		}
		fmt.Fprint(d.out, strings.Join(output, ""))
		d.failed = append(d.failed, strings.TrimSpace(key))
	case e.Test == "":
	case e.Action == "pass":
		d.passed++
	case e.Action == "skip":
		if !d.verbose {
			fmt.Fprint(d.out, strings.Join(output, ""))
		}
		d.skipped = append(d.skipped, key)
	}
	if e.Test == "" {
		d.packages++
		delete(d.open, e.Package)
	}
}

// summary tells go test's own line for a package from what the package printed.
func summary(line string) bool {
	for _, prefix := range []string{"ok  \t", "FAIL\t", "?   \t", "\t"} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// report prints the totals and says whether all is well.
func (d *digest) report(skipFails bool) bool {
	for p := range d.open {
		d.failed = append(d.failed, p+" (never ended)")
	}
	fmt.Fprintf(d.out, "gotest: %d packages, %d tests passed, %d skipped, %d failed\n", d.packages, d.passed, len(d.skipped), len(d.failed))
	for _, name := range d.failed {
		fmt.Fprintln(d.out, "gotest: failed:", name)
	}
	for _, name := range d.skipped {
		fmt.Fprintln(d.out, "gotest: skipped:", name)
	}
	if d.passed == 0 {
		fmt.Fprintln(d.out, "gotest: no test passed: were there any?")
		return false
	}
	if skipFails && len(d.skipped) > 0 {
		fmt.Fprintln(d.out, "gotest: a skipped test is a failure here: install what it misses (.ci/deps), or repair the test")
		return false
	}
	return len(d.failed) == 0
}
