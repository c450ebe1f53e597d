package policytest_test

import (
	"flag"
	"testing"

	"github.com/pgregent/pgregent/ha/policy/policytest"
)

var _ = flag.Bool("rewrite", false, "record what happens in the stories")

// TestFound replays what the simulation found, as stories on a calm model.
func TestFound(t *testing.T) { policytest.Run(t, "testdata") }
