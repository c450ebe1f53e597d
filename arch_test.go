package pgregent_test

import (
	"os"
	"strings"
	"testing"
)

// module is the import path of the root module; the modules below it continue it.
const module = "github.com/pgregent/pgregent"

// maxFileLines and maxFuncLines are the hard limits; the soft ones (400 and 60) are for reviewers.
const (
	maxFileLines = 800
	maxFuncLines = 100
)

// layer is a row of the import table: what the packages of one folder may import.
type layer struct {
	// path is the folder below the root; "x/..." is x and all below it. The first row that matches is the one.
	path string
	// ours are packages of this project, written like path. "*" is all of them.
	ours []string
	// tests are packages of this project that test files may import, too.
	tests []string
	// others are prefixes of import paths of other modules.
	others []string
	// deny are packages of the standard library, written like path.
	deny []string
	// pure forbids goroutines, channels and reading a clock.
	pure bool
	// seeded forbids randomness that no seed brings back.
	seeded bool
}

// io is what touches the world outside the process. net/url and net/netip are values.
func io() []string {
	return []string{"os/...", "net", "net/http/...", "net/rpc/...", "net/smtp", "net/textproto", "net/mail", "io/ioutil",
		"syscall", "database/sql/...", "plugin", "golang.org/x/sys/..."}
}

// layers is the import table. A package without a row is a violation: whoever adds a package adds its row, and a row
// that widens an existing package needs a record in docs/decisions.
func layers() []layer {
	const (
		etcd = "go.etcd.io/etcd/"
		grpc = "google.golang.org/grpc"
		zap  = "go.uber.org/zap"
		pgx  = "github.com/jackc/pgx/v5"
		prom = "github.com/prometheus/"
		x    = "golang.org/x/"
	)
	pure := append(io(), "context", "sync/...", "log/...", "math/rand/...", "crypto/rand", "runtime/...", "unsafe")
	return []layer{
		{path: "postgres/wal", deny: append(io(), "time")},
		{path: "postgres/local", ours: []string{"postgres", "postgres/wal"}, tests: []string{"postgres/postgrestest"}, others: []string{pgx, x}},
		{path: "postgres/postgrestest", ours: []string{"postgres", "postgres/wal"}, others: []string{pgx, x}},
		{path: "postgres", ours: []string{"postgres/wal"}, deny: []string{"os/exec", "syscall"}},

		{path: "ha/cluster", ours: []string{"postgres/wal"}, deny: io()},
		{path: "ha/policy/policytest", ours: []string{"dcs", "dcs/memory", "ha/cluster", "ha/policy", "postgres/wal"},
			deny: []string{"net/...", "crypto/rand"}, seeded: true},
		{path: "ha/policy/sim/...", ours: []string{"dcs", "dcs/memory", "ha/cluster", "ha/policy", "ha/policy/policytest", "ha/policy/sim", "postgres/wal"},
			deny: []string{"net/...", "crypto/rand"}, seeded: true},
		{path: "ha/policy", ours: []string{"ha/cluster", "postgres/wal"}, tests: []string{"dcs", "dcs/memory", "ha/policy/policytest", "ha/policy/sim"},
			deny: pure, pure: true},
		{path: "ha/fence", ours: []string{"dcs", "postgres", "postgres/wal"}, tests: []string{"postgres/postgrestest"}, others: []string{x}},
		{path: "ha/rest", ours: []string{"dcs", "ha/cluster", "ha/policy", "postgres", "postgres/wal"}, tests: []string{"dcs/memory"}, others: []string{prom}},
		{path: "ha", ours: []string{"dcs", "postgres", "postgres/wal", "callbacks", "ha/..."},
			tests: []string{"dcs/memory", "dcs/dcstest", "postgres/postgrestest"}, others: []string{prom, x}},

		{path: "dcs/memory", ours: []string{"dcs"}, tests: []string{"dcs/dcstest"}},
		{path: "dcs/etcd", ours: []string{"dcs"}, tests: []string{"dcs/dcstest/..."}, others: []string{etcd, grpc, zap, x}},
		{path: "dcs/consul", ours: []string{"dcs"}, tests: []string{"dcs/dcstest/..."}, others: []string{"github.com/hashicorp/consul/api", x}},
		{path: "dcs/zookeeper", ours: []string{"dcs"}, tests: []string{"dcs/dcstest/..."}, others: []string{"github.com/go-zookeeper/zk", x}},
		{path: "dcs/kubernetes", ours: []string{"dcs"}, tests: []string{"dcs/dcstest"}, others: []string{"k8s.io/", x}},
		{path: "dcs/dcstest/servers/...", ours: []string{"dcs", "dcs/dcstest"}, others: []string{etcd}},
		{path: "dcs/dcstest/consulserver", ours: []string{"dcs", "dcs/dcstest"}, others: []string{x}},
		{path: "dcs/dcstest/zookeeperserver", ours: []string{"dcs", "dcs/dcstest"}, others: []string{x}},
		{path: "dcs/dcstest/certs"},
		{path: "dcs/dcstest/etcdserver", ours: []string{"dcs", "dcs/dcstest"}, others: []string{x}},
		{path: "dcs/dcstest", ours: []string{"dcs"}, tests: []string{"dcs/memory"}, others: []string{"github.com/anishathalye/porcupine", x}},
		{path: "dcs", tests: []string{"dcs/memory"}, others: []string{x}},

		{path: "callbacks/...", ours: []string{"callbacks"}},

		{path: "cmd/e2e/rig", ours: []string{"dcs/dcstest/...", "postgres/postgrestest"},
			others: []string{"github.com/go-zookeeper/zk", "github.com/stretchr/testify", pgx, x}},
		{path: "cmd/pgregent/spans", ours: []string{"ha/rest"}, others: []string{"go.opentelemetry.io/otel"}},
		{path: "cmd/...", ours: []string{"*"}, others: []string{"github.com/spf13/cobra", "github.com/spf13/pflag", "go.yaml.in/yaml/v3", pgx, etcd, prom, x}},
		{path: "examples/...", ours: []string{"*"}, others: []string{pgx, etcd, prom, x, zap}},
		{path: ".ci/..."},
		{path: ".", tests: []string{"*"}},
	}
}

// direct are the modules that the root go.mod may require by itself: the stores' clients and what their own interfaces
// are made of, the PostgreSQL client, the metrics registry of an importer, and two for tests. See
// docs/decisions/2026-11-23-modules.md before adding one.
func direct() []string {
	return []string{
		"go.etcd.io/etcd/", "google.golang.org/grpc", "go.uber.org/zap", // the etcd client, its error codes and its logger
		"github.com/hashicorp/consul/api",
		"github.com/go-zookeeper/zk",
		"github.com/jackc/pgx/v5",
		"github.com/prometheus/client_golang",
		"github.com/stretchr/testify",
		"github.com/anishathalye/porcupine",
		"golang.org/x/",
		"go.yaml.in/yaml/v3",
	}
}

// TestTree holds the tree to its rules. TestRulesBite shows that each of them can fail.
func TestTree(t *testing.T) {
	tr, err := load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.files) < 50 {
		t.Fatalf("only %d Go files found: is this the root of the tree?", len(tr.files))
	}
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			if found := r.check(tr); len(found) > 0 {
				t.Errorf("%d violations of %q:\n%s", len(found), r.promise, strings.Join(found, "\n"))
			}
		})
	}
}
