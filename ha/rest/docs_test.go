package rest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write the table of endpoints in docs/rest.md")

// docsTable is the table of endpoints in docs/rest.md.
func docsTable() string {
	var b strings.Builder
	b.WriteString("| method | path | role | parameters | answers | what |\n|---|---|---|---|---|---|\n")
	for _, e := range Endpoints() {
		role := "-"
		if e.Role != RoleNone {
			role = "`" + e.Role.String() + "`"
		}
		var parameters []string
		if e.Query != "" {
			parameters = append(parameters, "query: "+e.Query)
		}
		if e.Body != "" {
			parameters = append(parameters, "body: "+e.Body)
		}
		what := e.What
		if e.Ours {
			what += " Patroni has no such endpoint."
		}
		cell := func(s string) string {
			return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(s)
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | %s |\n", e.Method, e.Path, role, cell(strings.Join(parameters, "; ")), e.Codes, cell(what))
	}
	return b.String()
}

// The table in the documentation is that of the code.
func TestDocs(t *testing.T) {
	const file = "../../docs/rest.md"
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(b), "-rewrite` -->\n")
	require.True(t, ok)
	_, tail, ok := strings.Cut(rest, "<!-- end -->")
	require.True(t, ok)
	want := head + "-rewrite` -->\n" + docsTable() + "<!-- end -->" + tail
	if *rewrite {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(b), "go test ./ha/rest -run TestDocs -rewrite")
}

// Each endpoint is dispatched to, says what it does and which codes it answers with.
func TestEndpoints(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range Endpoints() {
		require.False(t, seen[e.Method+e.Path], e.Path)
		seen[e.Method+e.Path] = true
		require.NotEmpty(t, e.What)
		require.NotEmpty(t, e.Codes, e.Path)
		for m := range strings.SplitSeq(e.Method, ", ") {
			n := fuzzNode()
			code, text, _ := call(n, Options{}, m, e.Path, "")
			require.True(t, strings.Contains(e.Codes, fmt.Sprint(code)) || code == 411, "%s %s: %d %s", m, e.Path, code, text)
		}
	}
	_, _, header := call(primaryNode(), Options{}, "PUT", "/switchover", "")
	require.Equal(t, "GET, HEAD, OPTIONS, DELETE, POST", header.Get("Allow"))
}
