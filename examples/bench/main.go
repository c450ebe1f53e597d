// Command pgregent-bench measures what a cluster of three nodes costs and how fast it is: an etcd server, three daemons
// with real PostgreSQL, a writer, and a probe per server. Every scenario is measured beside the same steps done by
// PostgreSQL's own programs on the same machine in the same run, and compared with the project's budgets. With -against
// it measures another daemon that reads a Patroni configuration file.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/pgregent/pgregent/examples/internal/lab"
)

// options are the command line.
type options struct {
	bin, pg, dir, against, run, json, base string
	n                                      int
	idle                                   time.Duration
	times                                  times // zero: each scenario's own
	traces, soak                           bool
}

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func parse() (o options) {
	flag.StringVar(&o.bin, "bin", "bin", "`folder` with the programs pgregent and pgregent-guard")
	flag.StringVar(&o.pg, "pg", "", "`folder` with PostgreSQL's programs (default: the newest below /usr/lib/postgresql)")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "`folder` for the data; what disk it is on matters")
	flag.StringVar(&o.against, "against", "", "measure another daemon: its `command`, with {config} for the path of its Patroni file")
	flag.StringVar(&o.run, "run", "", "only the scenarios that match this `expression`")
	flag.StringVar(&o.json, "json", "", "write all values to this `file`, too")
	flag.StringVar(&o.base, "base", "", "a `file` that -json wrote in a run against another daemon, to compare with")
	flag.IntVar(&o.n, "n", 5, "repetitions")
	flag.DurationVar(&o.idle, "idle", time.Minute, "how long to watch an idle cluster")
	flag.IntVar(&o.times.ttl, "ttl", 0, "ttl in seconds where something fails or changes (with -loop-wait and -retry-timeout); idling is always measured with 30, 10, 10")
	flag.IntVar(&o.times.loopWait, "loop-wait", 0, "loop_wait in seconds")
	flag.IntVar(&o.times.retry, "retry-timeout", 0, "retry_timeout in seconds")
	flag.BoolVar(&o.soak, "soak", false, "also run as many turns as an hour has, in six minutes, and see whether anything grows")
	flag.BoolVar(&o.traces, "traces", false, "print what the daemons logged in the first repetition of each scenario")
	flag.Parse()
	return o
}

func run() (int, error) {
	o := parse()
	if flag.NArg() > 0 {
		return 2, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if o.pg == "" {
		if o.pg = lab.PostgreSQL(); o.pg == "" {
			return 1, errors.New("PostgreSQL is not installed: no /usr/lib/postgresql/*/bin/postgres; install the package postgresql, or name a folder with -pg")
		}
	}
	chosen, err := choose(o)
	if err != nil {
		return 2, err
	}
	if os.Geteuid() == 0 {
		return asUser(o)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := lab.Adopt(); err != nil {
		return 1, err
	}
	b := &bench{options: o, rec: &record{}}
	if b.bin, err = filepath.Abs(o.bin); err != nil {
		return 1, err
	}
	if b.base, err = readBase(o.base); err != nil {
		return 1, err
	}
	if b.dir, err = os.MkdirTemp(o.dir, "pgbench"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(b.dir)
	defer b.release()
	began, load := time.Now(), lab.Load()
	b.measure(ctx, chosen)
	b.rec.finish()
	return b.report(began, load)
}

// asUser runs all this again as an unprivileged user. Files are opened here, where the caller's rights are.
func asUser(o options) (int, error) {
	var files []*os.File
	var extra []string
	hand := func(name, path string, mode int) error {
		if path == "" {
			return nil
		}
		f, err := os.OpenFile(path, mode, 0o644)
		if err != nil {
			return err
		}
		files = append(files, f)
		extra = append(extra, fmt.Sprintf("-%s=fd:%d", name, 2+len(files)))
		return nil
	}
	if err := errors.Join(hand("json", o.json, os.O_CREATE|os.O_TRUNC|os.O_WRONLY), hand("base", o.base, os.O_RDONLY)); err != nil {
		return 1, err
	}
	programs := map[string]string{}
	if o.against == "" {
		for _, p := range []string{"pgregent", "pgregent-guard"} {
			programs[p] = filepath.Join(o.bin, p)
		}
	}
	return lab.AsUser(programs, func(dir string) []string {
		return append(append(append([]string{}, os.Args[1:]...), "-bin="+dir, "-pg="+o.pg), extra...) // the last one counts
	}, files...)
}

// openFile opens a file by its name, or one that was inherited: "fd:3".
func openFile(name string, mode int) (*os.File, error) {
	var fd uintptr
	if _, err := fmt.Sscanf(name, "fd:%d", &fd); err == nil {
		return os.NewFile(fd, name), nil
	}
	return os.OpenFile(name, mode, 0o644)
}

func readBase(name string) (*record, error) {
	if name == "" {
		return nil, nil
	}
	f, err := openFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &record{}
	if err := json.NewDecoder(f).Decode(&document{record: r}); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// document is what -json writes.
type document struct {
	Date    string   `json:"date"`
	Machine string   `json:"machine"`
	Load    float64  `json:"load_before"`
	Daemon  string   `json:"daemon"`
	Command []string `json:"command"`
	*record
	Traces map[string][]event `json:"traces,omitempty"`
}

// report prints the results. Its code is 1 when a repetition failed.
func (b *bench) report(began time.Time, load float64) (int, error) {
	daemon := "pgregent"
	if b.against != "" {
		daemon = b.against
	}
	doc := document{Date: began.Format("2006-01-02"), Machine: lab.Machine(runtime.NumCPU()), Load: load, Daemon: daemon,
		Command: os.Args[1:], record: b.rec, Traces: b.traced}
	fmt.Printf("\n%s: %s, %s; load average before: %.2f, %d repetitions, took %v\n\n%s", daemon, doc.Machine, doc.Date, load, b.n,
		time.Since(began).Round(time.Second), b.rec.table())
	if over := b.rec.over(); len(over) > 0 {
		fmt.Println("\nover budget:")
		for _, f := range over {
			fmt.Printf("  %s, %s: %s\n", f.Scenario, f.Name, format(f.Median, f.Unit))
		}
	}
	for _, f := range b.failed {
		fmt.Println("failed:", f)
	}
	code := 0
	if len(b.failed) > 0 {
		code = 1
	}
	if b.json == "" {
		return code, nil
	}
	f, err := openFile(b.json, os.O_CREATE|os.O_TRUNC|os.O_WRONLY)
	if err != nil {
		return 1, err
	}
	e := json.NewEncoder(f)
	e.SetIndent("", " ")
	return code, errors.Join(e.Encode(doc), f.Close())
}

// choose picks the scenarios that the expression matches.
func choose(o options) ([]scenario, error) {
	match, err := regexp.Compile(o.run)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	if t := o.times; t != (times{}) && (t.ttl <= 0 || t.loopWait <= 0 || t.retry <= 0) {
		return nil, errors.New("-ttl, -loop-wait and -retry-timeout belong together")
	}
	var names []string
	var chosen []scenario
	for _, s := range scenarios(o) {
		names = append(names, s.name)
		if match.MatchString(s.name) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("-run: no scenario matches %q; there are: %s", o.run, strings.Join(names, ", "))
	}
	return chosen, nil
}
