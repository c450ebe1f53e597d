package onewriter

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// full says that the long form was asked for.
func full() bool { return os.Getenv("PROVE") == "full" }

// counted is how many counted runs a scenario gets.
func counted(t *testing.T, inFull, inShort int) int {
	t.Helper()
	n := inShort
	if full() {
		n = inFull
	}
	if text := os.Getenv("RUNS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err, "RUNS")
	}
	return n
}

// wanted is the scenarios that ONLY names, or all of them.
func wanted(t *testing.T, all []scenario) []scenario {
	t.Helper()
	only, err := regexp.Compile(os.Getenv("ONLY"))
	require.NoError(t, err, "ONLY")
	var out []scenario
	for _, s := range all {
		if only.MatchString(s.name) {
			out = append(out, s)
		}
	}
	return out
}

// seed is SEED, or one that is new in every call.
var seed = sync.OnceValue(func() uint64 { //nolint:gochecknoglobals // printed once, used everywhere
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		return n
	}
	return rand.Uint64() % 1e9
})

// dice are the random choices of one scenario: the same for the same seed, whichever cluster runs it.
func dice(name string) *rand.Rand {
	var h uint64
	for _, c := range name {
		h = h*31 + uint64(c)
	}
	return rand.New(rand.NewPCG(seed(), h))
}

// between draws a time.
func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)))
}

// unguardedEnv names a guard that guards nothing, for the positive control.
const unguardedEnv = "PGREGENT_UNGUARDED"

// buildUnguarded builds the guard of the positive control, once, before the user changes. undo removes it.
func buildUnguarded() (undo func(), err error) {
	if os.Getenv(unguardedEnv) != "" {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "pgregent-unguarded")
	if err != nil {
		return nil, err
	}
	undo = func() { _ = os.RemoveAll(dir) }
	err = errors.Join(os.Chmod(dir, 0o755), rig.Build(dir, "pgregent-guard", "-tags", "pgregent_unguarded"),
		os.Setenv(unguardedEnv, filepath.Join(dir, "pgregent-guard")))
	if err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

// pgVersion is the PostgreSQL that the proof runs on.
func pgVersion() string { return cmp.Or(os.Getenv("PGREGENT_PG_ONLY"), "15") }
