// Command docgen writes the reference documentation, docs/reference, out of the code: settings, metrics and reasons. Its
// test fails when the files are not what it would write. Run it in the root of the repository.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

func main() {
	if err := write(filepath.Join("docs", "reference")); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

// write writes all pages.
func write(dir string) error {
	if _, err := os.Stat("go.work"); err != nil {
		return fmt.Errorf("run it in the root of the repository: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // documentation
		return err
	}
	all := pages()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(all[name]), 0o644); err != nil { //nolint:gosec // documentation
			return err
		}
	}
	return nil
}

// pages are the files by name.
func pages() map[string]string {
	return map[string]string{"settings.md": settings(), "metrics.md": metrics(), "reasons.md": reasons()}
}
