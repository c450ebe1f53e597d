package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReference: the committed files are what the code says.
func TestReference(t *testing.T) {
	for name, want := range pages() {
		got, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", name))
		require.NoError(t, err)
		have := slices.Collect(strings.Lines(string(got)))
		for i, line := range slices.Collect(strings.Lines(want)) {
			require.True(t, i < len(have) && have[i] == line, "docs/reference/%s is old, run go run ./cmd/docgen; line %d should be\n%s", name, i+1, line)
		}
		require.Len(t, string(got), len(want), "docs/reference/%s is old: run go run ./cmd/docgen", name)
		require.Greater(t, strings.Count(want, "\n| "), 20, name)
		for line := range strings.Lines(want) {
			require.False(t, strings.HasPrefix(line, "| ") && strings.Contains(line, "|  |\n"), "%s: nothing describes %s", name, line)
		}
	}
}
