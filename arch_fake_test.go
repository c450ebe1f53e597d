package pgregent_test

import (
	"maps"
	"strings"
	"testing"
	"testing/fstest"
)

// sound is a small tree that keeps every rule.
func sound() map[string]string {
	return map[string]string{
		"go.work":                     "go 1.26.0\n\nuse (\n\t.\n\t./cmd\n)\n\nreplace " + module + " v0.0.0 => ./\n",
		"go.mod":                      "module " + module + "\n\nrequire github.com/jackc/pgx/v5 v5.0.0\n\nrequire (\n\texample.org/far v1.0.0 // indirect\n)\n",
		"cmd/go.mod":                  "module " + module + "/cmd\n\nrequire example.org/flags v1.0.0\n",
		"doc.go":                      "// Package pgregent is a map.\npackage pgregent\n",
		"postgres/wal/wal.go":         "// Package wal has values.\npackage wal\n\nimport \"strconv\"\n\n// LSN is one.\ntype LSN uint64\n\nvar _ = strconv.Itoa\n",
		"ha/policy/policy.go":         "// Package policy decides.\npackage policy\n\nimport (\n\t\"time\"\n\n\t\"" + module + "/postgres/wal\"\n)\n\n// Wait is long.\nconst Wait = time.Second\n\nvar _ wal.LSN\n",
		"ha/policy/sim/sim.go":        "// Package sim draws.\npackage sim\n\nimport \"math/rand/v2\"\n\nfunc draw(seed uint64) int { return rand.New(rand.NewPCG(seed, 1)).IntN(6) }\n",
		"ha/policy/policy_test.go":    "package policy_test\n\nimport (\n\t\"os\"\n\n\t\"" + module + "/ha/policy\"\n)\n\nvar _ = os.Args\nvar _ = policy.Wait\n",
		"dcs/dcs.go":                  "// Package dcs stores for pgregent.\npackage dcs\n\n// Store is one.\ntype Store interface {\n\t// Read reads.\n\tRead() error\n}\n",
		"dcs/etcd/etcd.go":            "// Package etcd is a store.\npackage etcd\n\nimport (\n\tclient \"go.etcd.io/etcd/client/v3\"\n\n\t\"" + module + "/dcs\"\n)\n\nvar _ dcs.Store\nvar _ client.Client\n",
		"ha/node.go":                  "// Package ha runs.\npackage ha\n\nimport \"" + module + "/ha/policy\"\n\nvar _ = policy.Wait\n",
		"cmd/pgregent/main.go":        "// Command pgregent runs.\npackage main\n\nimport (\n\t\"" + module + "/cmd/pgregent/config\"\n\t\"" + module + "/dcs/etcd\"\n)\n\nfunc main() {}\n",
		"cmd/pgregent/config/c.go":    "// Package config reads.\npackage config\n",
		"ha/policy/testdata/story.go": "package broken on purpose\n",
		"bin/go.mod":                  "module built\n",
	}
}

// TestRulesBite breaks the sound tree in one place at a time: the named rule must see it, and no other.
func TestRulesBite(t *testing.T) {
	const (
		wal    = "// Package wal has values.\npackage wal\n\n"
		policy = "// Package policy decides.\npackage policy\n\n"
		dcs    = "// Package dcs stores.\npackage dcs\n\n"
	)
	imports := func(path string) string { return "import _ \"" + path + "\"\n" }
	slash := "/"
	for _, c := range []struct {
		name, rule, says string
		with             map[string]string
	}{
		{"nothing broken", "", "", nil},

		{"wal imports ours", "imports", "postgres/wal may not import", map[string]string{"postgres/wal/w.go": wal + imports(module+"/dcs")}},
		{"wal tells the time", "imports", "import time", map[string]string{"postgres/wal/w.go": wal + imports("time")}},
		{"wal reads files", "imports", "import os", map[string]string{"postgres/wal/w.go": wal + imports("os")}},
		{"cluster opens sockets", "imports", "import net", map[string]string{"ha/cluster/c.go": "// Package cluster has records.\npackage cluster\n\n" + imports("net")}},
		{"cluster starts programs", "imports", "import os/exec", map[string]string{"ha/cluster/c.go": "// Package cluster has records.\npackage cluster\n\n" + imports("os/exec")}},
		{"policy has a context", "imports", "import context", map[string]string{"ha/policy/p.go": policy + imports("context")}},
		{"policy opens sockets", "imports", "import net/http", map[string]string{"ha/policy/p.go": policy + imports("net/http")}},
		{"policy locks", "imports", "import sync", map[string]string{"ha/policy/p.go": policy + imports("sync")}},
		{"policy counts atomically", "imports", "import sync/atomic", map[string]string{"ha/policy/p.go": policy + imports("sync/atomic")}},
		{"policy logs", "imports", "import log/slog", map[string]string{"ha/policy/p.go": policy + imports("log/slog")}},
		{"policy throws dice", "imports", "import math/rand/v2", map[string]string{"ha/policy/p.go": policy + imports("math/rand/v2")}},
		{"policy knows the store", "imports", "import " + module + "/dcs", map[string]string{"ha/policy/p.go": policy + imports(module+"/dcs")}},
		{"policy's test knows a backend", "imports", "dcs/etcd", map[string]string{"ha/policy/p_test.go": "package policy\n\n" + imports(module+"/dcs/etcd")}},
		{"policy starts a goroutine", "pure", "p.go:4: a goroutine", map[string]string{"ha/policy/p.go": policy + "func f() { go f() }\n"}},
		{"policy has a channel", "pure", "a channel", map[string]string{"ha/policy/p.go": policy + "type c struct{ done chan bool }\n"}},
		{"policy selects", "pure", "a select", map[string]string{"ha/policy/p.go": policy + "func f() { select {} }\n"}},
		{"policy reads the clock", "pure", "time.Now", map[string]string{"ha/policy/p.go": policy + "import \"time\"\n\nfunc f() { _ = time.Now() }\n"}},
		{"policy reads the clock under another name", "pure", "time.Since", map[string]string{"ha/policy/p.go": policy + "import clock \"time\"\n\nvar f = clock.Since\n"}},
		{"simulation without a seed", "seeded", "rand.IntN", map[string]string{"ha/policy/sim/s.go": "package sim\n\nimport \"math/rand/v2\"\n\nfunc f() int { return rand.IntN(2) }\n"}},
		{"store knows a backend", "imports", "dcs may not import", map[string]string{"dcs/d.go": dcs + imports(module+"/dcs/memory")}},
		{"store speaks of the server", "words", "PostgreS", map[string]string{"dcs/d.go": dcs + "const kind = \"a PostgreSQL server\"\n"}},
		{"store names a position", "words", "LSN", map[string]string{"dcs/d.go": dcs + "type record struct{ LSN uint64 }\n"}},
		{"backend imports backend", "imports", "dcs/etcd may not import", map[string]string{"dcs/etcd/e.go": "package etcd\n\n" + imports(module+"/dcs/consul")}},
		{"backend imports the loop", "imports", "dcs/etcd may not import", map[string]string{"dcs/etcd/e.go": "package etcd\n\n" + imports(module+"/ha")}},
		{"backend takes another client", "imports", "of other modules", map[string]string{"dcs/etcd/e.go": "package etcd\n\n" + imports("github.com/hashicorp/consul/api")}},
		{"controller knows the store", "imports", "postgres may not import", map[string]string{"postgres/p.go": "// Package postgres controls.\npackage postgres\n\n" + imports(module+"/dcs")}},
		{"local knows the loop", "imports", "postgres/local may not import", map[string]string{"postgres/local/l.go": "// Package local runs.\npackage local\n\n" + imports(module+"/ha/cluster")}},
		{"callback knows the loop", "imports", "callbacks/exec may not import", map[string]string{"callbacks/exec/e.go": "// Package exec runs.\npackage exec\n\n" + imports(module+"/ha")}},
		{"loop knows a backend", "imports", "ha may not import", map[string]string{"ha/h.go": "package ha\n\n" + imports(module+"/dcs/etcd")}},
		{"loop knows the real server", "imports", "ha may not import", map[string]string{"ha/h.go": "package ha\n\n" + imports(module+"/postgres/local")}},
		{"loop knows the model store", "imports", "ha may not import", map[string]string{"ha/h.go": "package ha\n\n" + imports(module+"/dcs/memory")}},
		{"rest imports the loop", "imports", "ha/rest may not import", map[string]string{"ha/rest/r.go": "// Package rest serves.\npackage rest\n\n" + imports(module+"/ha")}},
		{"library imports a program", "imports", "programs are not imported", map[string]string{"ha/h.go": "package ha\n\n" + imports(module+"/cmd/pgregent/config")}},
		{"example imports a program", "imports", "programs are not imported", map[string]string{"examples/a/main.go": "// Command a shows.\npackage main\n\n" + imports(module+"/cmd/pgregent/config")}},
		{"a logging framework", "imports", "github.com/sirupsen/logrus", map[string]string{"ha/h.go": "package ha\n\n" + imports("github.com/sirupsen/logrus")}},
		{"cgo", "imports", "without cgo", map[string]string{"ha/h.go": "package ha\n\n" + imports("C")}},
		{"a new package", "imports", "no row in the import table", map[string]string{"util/u.go": "// Package util is vague.\npackage util\n"}},

		{"a module outside the workspace", "modules", "examples/go.mod is not in go.work", map[string]string{"examples/go.mod": "module " + module + "/examples\n"}},
		{"a replacement", "modules", "replace directive", map[string]string{"cmd/go.mod": "module " + module + "/cmd\n\nreplace " + module + " => ../\n"}},
		{"a replacement in a block", "modules", "replace directive", map[string]string{"cmd/go.mod": "module " + module + "/cmd\n\nreplace (\n\t" + module + " => ../\n)\n"}},
		{"a workspace that leaves the tree", "modules", "outside the tree", map[string]string{"go.work": "go 1.26.0\n\nuse .\nuse ./cmd\n\nreplace example.org/a => ../a\n"}},
		{"a requirement", "modules", "may not require k8s.io/client-go", map[string]string{"go.mod": "module " + module + "\n\nrequire k8s.io/client-go v0.1.0\n"}},
		{"a requirement that looks allowed", "modules", "may not require github.com/jackc/pgx/v5x", map[string]string{"go.mod": "module " + module + "\n\nrequire github.com/jackc/pgx/v5x v5.0.0\n"}},
		{"no workspace", "modules", "go.work is missing", map[string]string{"go.work": ""}},

		{"a folder of this machine", "traces", "a.md:2", map[string]string{"docs/a.md": "first\nsee " + slash + "work/dev/a\n"}},
		{"a home", "traces", "a.md:1", map[string]string{"docs/a.md": "see `" + slash + "root/.cache`\n"}},
		{"a host", "traces", "a.sh:1", map[string]string{".ci/a.sh": "export GOPROXY=https:" + slash + "/proxy.golang" + ".org\n"}},

		{"a package without a comment", "packages", "callbacks: no comment", map[string]string{"callbacks/c.go": "package callbacks\n"}},
		{"a program without a comment", "packages", "cmd/pgregent-guard: no comment", map[string]string{"cmd/pgregent-guard/main.go": "package main\n\nfunc main() {}\n"}},
		{"a bare function", "docs", "Open has no comment", map[string]string{"dcs/d.go": dcs + "func Open() {}\n"}},
		{"a bare method", "docs", "Close has no comment", map[string]string{"dcs/d.go": dcs + "// T is one.\ntype T[K any] struct{}\n\nfunc (*T[K]) Close() {}\n"}},
		{"a bare method of an interface", "docs", "T.Close has no comment", map[string]string{"dcs/d.go": dcs + "// T is one.\ntype T interface{ Close() }\n"}},
		{"a bare type", "docs", "T has no comment", map[string]string{"dcs/d.go": dcs + "type T int\n"}},
		{"a bare constant", "docs", "B has no comment", map[string]string{"dcs/d.go": dcs + "const (\n\tA = 1 // a\n\tB = 2\n)\n"}},
		{"a bare variable", "docs", "V has no comment", map[string]string{"dcs/d.go": dcs + "var V int\n"}},
		{"a directive is no comment", "docs", "Open has no comment", map[string]string{"dcs/d.go": dcs + "//go:noinline\nfunc Open() {}\n"}},

		{"a long file", "sizes", "801 lines", map[string]string{"dcs/d_test.go": "package dcs\n" + strings.Repeat("\n", 800)}},
		{"a long function", "sizes", "f has 102 lines", map[string]string{"dcs/d.go": dcs + "func f() {\n" + strings.Repeat("\tf()\n", 100) + "}\n"}},
		{"an init function", "habits", "func init", map[string]string{"dcs/d.go": dcs + "func init() {}\n"}},
		{"a sleeping test", "habits", "time.Sleep in a test", map[string]string{"dcs/d_test.go": "package dcs\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n"}},
		{"a dot import", "habits", "dot import", map[string]string{"dcs/d.go": dcs + "import . \"time\"\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := sound()
			maps.Copy(files, c.with)
			tr := fake(t, files)
			for _, r := range rules() {
				found := strings.Join(r.check(tr), "\n")
				switch {
				case r.name == c.rule && !strings.Contains(found, c.says):
					t.Errorf("rule %s does not say %q, it says: %q", r.name, c.says, found)
				case r.name != c.rule && found != "":
					t.Errorf("rule %s: %s", r.name, found)
				}
			}
		})
	}
}

// fake loads a tree from memory. An empty file is left out.
func fake(t *testing.T, files map[string]string) *tree {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		if text != "" {
			fsys[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	tr, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}
