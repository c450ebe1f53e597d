package pgregent_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// rule is one promise about the tree. check returns a line for each violation.
type rule struct {
	name, promise string
	check         func(*tree) []string
}

// rules are all of them.
func rules() []rule {
	return []rule{
		{"imports", "every package imports only what its row of the table allows", (*tree).checkImports},
		{"pure", "the policy starts no goroutine, has no channel and reads no clock", (*tree).checkPure},
		{"seeded", "the simulation draws from its seed only", (*tree).checkSeeded},
		{"words", "package dcs knows no word of PostgreSQL", (*tree).checkWords},
		{"modules", "every module is in go.work, none replaces another, the root requires only what is allowed", (*tree).checkModules},
		{"traces", "no file names a registry's host or a folder of somebody's machine", (*tree).checkTraces},
		{"packages", "every package says what it is", (*tree).checkPackageComments},
		{"docs", "every exported name is documented", (*tree).checkDocs},
		{"sizes", "files and functions can be read in one go", (*tree).checkSizes},
		{"habits", "no init functions, no sleeping tests, no dot imports", (*tree).checkHabits},
	}
}

func (t *tree) checkImports() []string {
	var found []string
	for _, f := range t.files {
		l, ok := layerOf(f.dir)
		if !ok {
			found = append(found, fmt.Sprintf("%s: the package %s has no row in the import table (arch_test.go)", f.path, f.dir))
			continue
		}
		for _, imp := range f.imports {
			if why := l.refuses(f, imp.path); why != "" {
				found = append(found, t.at(imp.pos, "%s may not import %s: %s", f.dir, imp.path, why))
			}
		}
	}
	return found
}

// refuses says why the files of a layer may not import a package, or nothing.
func (l layer) refuses(f *goFile, imp string) string {
	dir, isOurs := ours(imp)
	switch first, _, _ := strings.Cut(imp, "/"); {
	case isOurs && dir == f.dir: // an external test package
		return ""
	case isOurs:
		if top, _, _ := strings.Cut(dir, "/"); (top == "cmd" || top == "examples") && !matches(top+"/...", f.dir) {
			return "programs are not imported"
		}
		if matchesAny(l.ours, dir) || f.test && matchesAny(l.tests, dir) {
			return ""
		}
		return fmt.Sprintf("of this project it may import %v", l.ours)
	case matchesAny(l.deny, imp) && !f.test:
		return "this layer stays free of it"
	case strings.Contains(first, "."):
		if hasPrefix(l.others, imp) || f.test && hasPrefix([]string{"github.com/stretchr/testify", "github.com/jackc/pgx/v5", "golang.org/x"}, imp) {
			return ""
		}
		return fmt.Sprintf("of other modules it may import %v", l.others)
	case imp == "C":
		return "everything is built without cgo"
	}
	return ""
}

func (t *tree) checkPure() []string {
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
	var found []string
	for _, f := range t.files {
		if l, ok := layerOf(f.dir); !ok || !l.pure || f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				found = append(found, t.at(n.Pos(), "a goroutine"))
			case *ast.ChanType:
				found = append(found, t.at(n.Pos(), "a channel"))
			case *ast.SelectStmt:
				found = append(found, t.at(n.Pos(), "a select"))
			case *ast.SelectorExpr:
				if f.from(n, "time") && slices.Contains(clock, n.Sel.Name) {
					found = append(found, t.at(n.Pos(), "time.%s: the time comes in the View", n.Sel.Name))
				}
			}
			return true
		})
	}
	return found
}

func (t *tree) checkSeeded() []string {
	made := []string{"New", "NewPCG", "NewChaCha8", "NewZipf", "Rand", "PCG", "ChaCha8", "Zipf", "Source"}
	var found []string
	for _, f := range t.files {
		if l, ok := layerOf(f.dir); !ok || !l.seeded {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && (f.from(s, "math/rand/v2") || f.from(s, "math/rand")) && !slices.Contains(made, s.Sel.Name) {
				found = append(found, t.at(s.Pos(), "rand.%s has no seed of ours: use the run's *rand.Rand", s.Sel.Name))
			}
			return true
		})
	}
	return found
}

// postgresWord finds the words that belong to PostgreSQL in a Go name or a string. Our own name is none of them.
var postgresWord = regexp.MustCompile(`(?i)postgres|postmaster|\bpg_|pgdata|standby|timeline|\blsn\b|walsender|replication slot`)

func (t *tree) checkWords() []string {
	var found []string
	for _, f := range t.files {
		if f.dir != "dcs" || f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			var word string
			switch n := n.(type) {
			case *ast.Ident:
				word = n.Name
			case *ast.BasicLit:
				word = n.Value
			}
			if m := postgresWord.FindString(word); m != "" {
				found = append(found, t.at(n.Pos(), "%q: the store and the lease know nothing of the server", m))
			}
			return true
		})
	}
	return found
}

func (t *tree) checkModules() []string {
	var found []string
	work, ok := t.texts["go.work"]
	if !ok {
		return []string{"go.work is missing"}
	}
	use := directives(work, "use")
	for i, dir := range use {
		use[i] = path.Clean(dir)
	}
	for _, line := range directives(work, "replace") {
		if _, to, _ := strings.Cut(line, "=>"); strings.HasPrefix(strings.TrimSpace(to), "/") || strings.HasPrefix(strings.TrimSpace(to), "..") {
			found = append(found, "go.work: a replacement outside the tree: "+line)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(t.texts)) {
		if path.Base(p) != "go.mod" || slices.Contains(strings.Split(p, "/"), "testdata") {
			continue
		}
		if !slices.Contains(use, path.Dir(p)) {
			found = append(found, fmt.Sprintf("%s is not in go.work: add ./%s", p, path.Dir(p)))
		}
		for _, line := range directives(t.texts[p], "replace") {
			found = append(found, p+": a replace directive would break it from outside: "+line)
		}
		if p != "go.mod" {
			continue
		}
		for _, line := range directives(t.texts[p], "require") {
			if name, _, _ := strings.Cut(line, " "); !strings.HasSuffix(line, "// indirect") && !hasPrefix(direct(), name) {
				found = append(found, p+": the library may not require "+name+" (docs/decisions/2026-11-23-modules.md)")
			}
		}
	}
	return found
}

// directives returns the arguments of a directive of go.mod or go.work, one a line or in a block.
func directives(file []byte, verb string) []string {
	var all []string
	block := false
	for line := range strings.Lines(string(file)) {
		line = strings.TrimSpace(line)
		rest, ours := strings.CutPrefix(line, verb+" ")
		switch {
		case line == "" || strings.HasPrefix(line, "//"):
		case block && line == ")":
			block = false
		case block:
			all = append(all, line)
		case ours && strings.TrimSpace(rest) == "(":
			block = true
		case ours:
			all = append(all, strings.TrimSpace(rest))
		}
	}
	return all
}

// traces are texts that belong to one machine or one mirror. They are put together here so that this file has none.
func traces() []*regexp.Regexp {
	hosts := []string{"proxy.golang", "sum.golang", "goproxy", "pypi", "files.pythonhosted", "registry.npmjs", "deb.debian", "snapshot.debian",
		"security.debian", "apt.postgresql", "download.postgresql", "docker", "ghcr", "quay", "gcr", "registry.k8s"}
	return []*regexp.Regexp{
		regexp.MustCompile(`(^|[^\w.*$})~-])/(` + "work" + `|` + "root" + `)(/|\b)`),
		regexp.MustCompile(`\b(` + strings.ReplaceAll(strings.Join(hosts, "|"), ".", `\.`) + `)\.(org|io|com|cn)\b`),
	}
}

func (t *tree) checkTraces() []string {
	patterns := traces()
	var found []string
	for _, p := range slices.Sorted(maps.Keys(t.texts)) {
		if base := path.Base(p); base == "go.sum" || base == "go.work.sum" {
			continue
		}
		n := 0
		for line := range strings.Lines(string(t.texts[p])) {
			n++
			for _, re := range patterns {
				if m := re.FindString(line); m != "" {
					found = append(found, fmt.Sprintf("%s:%d: %q", p, n, strings.TrimSpace(m)))
				}
			}
		}
	}
	return found
}

func (t *tree) checkPackageComments() []string {
	said := map[string]bool{}
	for _, f := range t.files {
		if f.test {
			continue
		}
		doc := f.syntax.Doc.Text()
		said[f.dir] = said[f.dir] || strings.HasPrefix(doc, "Package "+f.syntax.Name.Name) || f.syntax.Name.Name == "main" && strings.HasPrefix(doc, "Command ")
	}
	var found []string
	for _, dir := range slices.Sorted(maps.Keys(said)) {
		if !said[dir] {
			found = append(found, fmt.Sprintf("%s: no comment that begins with %q", dir, "Package "+path.Base(dir)+" (or Command, for a program)"))
		}
	}
	return found
}

func (t *tree) checkDocs() []string {
	var found []string
	missing := func(pos token.Pos, what string) { found = append(found, t.at(pos, "%s has no comment", what)) }
	for _, f := range t.files {
		if f.test {
			continue
		}
		for _, decl := range f.syntax.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				stringer := d.Recv != nil && d.Name.Name == "String" // fmt.Stringer says what it does
				if d.Doc.Text() == "" && d.Name.IsExported() && !stringer && (d.Recv == nil || ast.IsExported(receiver(d))) {
					missing(d.Pos(), d.Name.Name)
				}
			case *ast.GenDecl:
				undocumented(d, missing)
			}
		}
	}
	return found
}

// receiver is the name of a method's type.
func receiver(d *ast.FuncDecl) string {
	name := ""
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && name == "" {
			name = id.Name
		}
		return true
	})
	return name
}

// undocumented reports the exported types, methods of interfaces, constants and variables of a declaration that have
// neither a comment of their own nor share that of their group.
func undocumented(d *ast.GenDecl, missing func(token.Pos, string)) {
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc.Text() == "" && d.Doc.Text() == "" {
				missing(s.Pos(), s.Name.Name)
			}
			if i, ok := s.Type.(*ast.InterfaceType); ok && s.Name.IsExported() {
				for _, m := range i.Methods.List {
					if len(m.Names) > 0 && m.Names[0].IsExported() && m.Doc.Text() == "" && m.Comment.Text() == "" {
						missing(m.Pos(), s.Name.Name+"."+m.Names[0].Name)
					}
				}
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if name.IsExported() && s.Doc.Text() == "" && s.Comment.Text() == "" && d.Doc.Text() == "" {
					missing(name.Pos(), name.Name)
				}
			}
		}
	}
}

func (t *tree) checkSizes() []string {
	var found []string
	for _, f := range t.files {
		if f.lines > maxFileLines {
			found = append(found, fmt.Sprintf("%s: %d lines, the limit is %d", f.path, f.lines, maxFileLines))
		}
		for _, decl := range f.syntax.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok || f.test {
				continue
			}
			if n := t.fset.Position(d.End()).Line - t.fset.Position(d.Pos()).Line + 1; n > maxFuncLines {
				found = append(found, t.at(d.Pos(), "%s has %d lines, the limit is %d", d.Name.Name, n, maxFuncLines))
			}
		}
	}
	return found
}

func (t *tree) checkHabits() []string {
	var found []string
	for _, f := range t.files {
		for _, imp := range f.imports {
			if imp.name == "." {
				found = append(found, t.at(imp.pos, "a dot import of %s", imp.path))
			}
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					found = append(found, t.at(n.Pos(), "func init: let the caller call it"))
				}
			case *ast.SelectorExpr:
				if f.test && f.from(n, "time") && n.Sel.Name == "Sleep" {
					found = append(found, t.at(n.Pos(), "time.Sleep in a test: wait for an event, or use testing/synctest"))
				}
			}
			return true
		})
	}
	return found
}
