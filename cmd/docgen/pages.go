package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
)

const generated = "<!-- Written by `go run ./cmd/docgen`: change the code, not this file. -->\n\n"

// page collects Markdown.
type page struct{ strings.Builder }

func newPage(title string) *page {
	p := &page{}
	p.text("# %s\n\n%s", title, generated)
	return p
}

func (p *page) text(format string, args ...any) { fmt.Fprintf(&p.Builder, format, args...) }

// row writes a row of a table.
func (p *page) row(cells ...string) {
	for i, c := range cells {
		cells[i] = strings.ReplaceAll(c, "|", `\|`)
	}
	p.text("| %s |\n", strings.Join(cells, " | "))
}

func (p *page) table(head ...string) {
	p.row(head...)
	p.text("|%s\n", strings.Repeat("---|", len(head)))
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// settings are the local file and the dynamic configuration.
func settings() string {
	p := newPage("Settings")
	p.text("The local file is Patroni's: `pgregent run FILE.yml`, a file or a folder of them, with the environment's variables laid over it.\n" +
		"\"Counts after\" says what makes a change of it count: **reload** (SIGHUP), **agent** (`pgregent detach`, then start it: PostgreSQL goes\non), " +
		"**new cluster** (when a cluster is created, and never again), **accepted only** (Patroni's, without effect here), **refused** (the\n" +
		"daemon does not start with it). *Ours*: Patroni does not know it. *Dynamic*: it may stand in the dynamic configuration too, where the file wins.\n\n" +
		"The accounts `superuser`, `replication` and `rewind` below `postgresql.authentication` have the same settings.\n\n## The local file\n\n")
	p.table("setting", "type", "default", "counts after", "variable", "what it is")
	for _, s := range config.Settings() {
		def, what := s.Default, s.Text
		if s.Required {
			def = "required"
		}
		if s.Ours {
			what += " *Ours.*"
		}
		if s.Dynamic {
			what += " *Dynamic.*"
		}
		p.row(code(s.Path), s.Type, def, string(s.Change), code(strings.Join(s.Env, "`, `")), what)
	}
	p.text("\n## The dynamic configuration\n\nThe key `config` in the store, the same for all members. A change counts at once; parameters of PostgreSQL that need a restart are\n" +
		"shown as pending. A key that is marked *refused* is not supported yet and changes safety: a member that sees it follows, does not lead,\nand says why.\n\n")
	p.table("setting", "type", "default", "what it is")
	for _, s := range cluster.Settings() {
		what := s.Text
		if s.Refused {
			what = "*Refused.* " + what
		}
		p.row(code(s.Name), s.Type, s.Default, what)
	}
	return p.String()
}

// reasons are the words of the decisions.
func reasons() string {
	p := newPage("Reasons")
	p.text("Each turn of the loop has one reason. It is shown by `GET /patroni` below `pgregent` and `GET /decisions`, and in the log when it changes.\nTools may match on it.\n\n")
	p.table("reason", "what it rests on, and what happens")
	for _, e := range policy.Explain() {
		p.row(code(string(e.Reason)), e.Text)
	}
	return p.String()
}

// sample is a node whose report has everything that can be in one.
type sample struct{ rest.Node }

func (sample) Report() *rest.Report {
	r := &rest.Report{Name: "pg1", Scope: "demo", Counters: map[string]float64{}}
	r.Server.Answered, r.Server.Role = true, postgres.RolePrimary
	for _, rung := range []fence.Rung{fence.RungDeadline, fence.RungKernelTimer, fence.RungCgroup, fence.RungAdmission, fence.RungPIDNamespace} {
		r.Fence.Rungs = append(r.Fence.Rungs, string(rung))
	}
	for name := range ha.Counters() {
		r.Counters[name] = 1
	}
	r.Histograms = map[string]rest.Histogram{}
	for name := range ha.Histograms() {
		r.Histograms[name] = rest.Histogram{Counts: []uint64{0}}
	}
	r.Store = &dcs.Stats{}
	return r
}

// metrics are read from an answer of GET /metrics.
func metrics() string {
	p := newPage("Metrics")
	p.text("`GET /metrics`, in Prometheus' text format. Each has the labels `scope` and `name`. Those that begin with `patroni_` are Patroni's, by name and\ntype. " +
		"A counter of ours appears once something was counted, and a rung of the fence when it is active.\n\n")
	p.table("metric", "type", "what it is")
	w := httptest.NewRecorder()
	req, err := http.NewRequest(http.MethodGet, "/metrics", nil) //nolint:noctx // no request is sent
	if err != nil {
		panic(err) // the line above is right or wrong for ever
	}
	rest.Handler(sample{}).ServeHTTP(w, req)
	help, counters := "", ha.Counters()
	maps.Copy(counters, ha.Histograms())
	for line := range strings.Lines(w.Body.String()) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			_, help, _ = strings.Cut(rest, " ")
		} else if rest, ok := strings.CutPrefix(line, "# Values: "); ok {
			help += " " + rest + "."
		}
		rest, ok := strings.CutPrefix(line, "# TYPE ")
		if !ok {
			continue
		}
		name, kind, _ := strings.Cut(rest, " ")
		if own, ok := counters[strings.TrimPrefix(name, "pgregent_")]; ok && strings.HasPrefix(name, "pgregent_") {
			help = own
		}
		p.row(code(name), kind, help)
	}
	return p.String()
}
