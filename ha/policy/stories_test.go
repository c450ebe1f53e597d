package policy_test

import (
	"flag"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/ha/policy/policytest"
)

// rewrite records what happens; policytest looks it up by name.
var _ = flag.Bool("rewrite", false, "record the outputs of the stories")

// TestStories runs the specification: every file in testdata is a situation, told with a model cluster. Record outputs
// with -rewrite, and commit a rewritten file only when every change in it is understood.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 30)
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) { policytest.Run(t, f) })
	}
}
