package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDescriptions: every setting of the schema is described, with what makes a change of it count, and its default is the
// one that the reference shows.
func TestDescriptions(t *testing.T) {
	for _, s := range Settings() {
		require.NotEmpty(t, s.Text, "descriptions has no line for %s", s.Path)
		require.NotEmpty(t, s.Change, s.Path)
	}
	byPath := map[string]Setting{}
	for _, s := range Settings() {
		byPath[s.Path] = s
	}
	require.True(t, byPath["scope"].Required)
	require.Equal(t, []string{"PATRONI_SUPERUSER_PASSWORD"}, byPath["postgresql.authentication.superuser.password"].Env)
	require.Equal(t, ChangeReload, byPath["postgresql.pre_promote"].Change)
	require.True(t, byPath["pgregent.timeouts.callback"].Ours)
}
