package pgregent_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// tree is what the rules look at: every file below the root, except what is built or belongs to git.
type tree struct {
	texts map[string][]byte // every text file by its path
	files []*goFile         // the Go files among them, testdata left out, in the order of their paths
	fset  *token.FileSet
}

// goFile is a parsed file.
type goFile struct {
	path, dir string
	test      bool
	lines     int
	syntax    *ast.File
	imports   []imported
}

// imported is an import of a file.
type imported struct {
	path string
	name string // as the file calls it
	pos  token.Pos
}

// load reads the tree.
func load(fsys fs.FS) (*tree, error) {
	t := &tree{texts: map[string][]byte{}, fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == ".git" || p == "bin" {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || path.Ext(p) == ".test" || path.Ext(p) == ".out" {
			return nil
		}
		data, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		if bytes.IndexByte(data, 0) >= 0 {
			return nil
		}
		t.texts[p] = data
		if path.Ext(p) != ".go" || slices.Contains(strings.Split(p, "/"), "testdata") {
			return nil
		}
		return t.parse(p, data)
	})
	if err != nil {
		return nil, fmt.Errorf("load the tree: %w", err)
	}
	return t, nil
}

// parse adds a Go file.
func (t *tree) parse(p string, data []byte) error {
	syntax, err := parser.ParseFile(t.fset, p, data, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f := &goFile{path: p, dir: path.Dir(p), test: strings.HasSuffix(p, "_test.go"), lines: bytes.Count(data, []byte("\n")), syntax: syntax}
	for _, spec := range syntax.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("%s: import %s: %w", p, spec.Path.Value, err)
		}
		name := path.Base(imp)
		if v := strings.TrimPrefix(name, "v"); v != name && strings.Trim(v, "0123456789") == "" {
			name = path.Base(path.Dir(imp)) // math/rand/v2 is called rand
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		f.imports = append(f.imports, imported{path: imp, name: name, pos: spec.Pos()})
	}
	t.files = append(t.files, f)
	return nil
}

// from reports whether a selector takes something out of the imported package.
func (f *goFile) from(s *ast.SelectorExpr, pkg string) bool {
	x, ok := s.X.(*ast.Ident)
	return ok && slices.ContainsFunc(f.imports, func(i imported) bool { return i.path == pkg && i.name == x.Name })
}

// at prints where and what.
func (t *tree) at(pos token.Pos, format string, args ...any) string {
	p := t.fset.Position(pos)
	return fmt.Sprintf("%s:%d: %s", p.Filename, p.Line, fmt.Sprintf(format, args...))
}

// matches reports whether name is what pattern says: itself, or for "x/..." x and all below it, or for "*" anything.
func matches(pattern, name string) bool {
	if pattern == "*" || pattern == name {
		return true
	}
	below, ok := strings.CutSuffix(pattern, "/...")
	return ok && (name == below || strings.HasPrefix(name, below+"/"))
}

// matchesAny is matches over several patterns.
func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) })
}

// hasPrefix reports whether one of the prefixes begins name, at a border between path elements.
func hasPrefix(prefixes []string, name string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		rest, ok := strings.CutPrefix(name, p)
		return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(p, "/"))
	})
}

// layerOf finds the row of a folder.
func layerOf(dir string) (layer, bool) {
	for _, l := range layers() {
		if matches(l.path, dir) {
			return l, true
		}
	}
	return layer{}, false
}

// ours cuts the module's path off an import path: the folder, and whether the package is of this project.
func ours(imp string) (string, bool) {
	if imp == module {
		return ".", true
	}
	return strings.CutPrefix(imp, module+"/")
}
