package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSettings: the defaults in the documentation are those of the parser, and what it calls refused is.
func TestSettings(t *testing.T) {
	d := ParseDynamic(nil)
	for _, s := range Settings() {
		require.NotEmpty(t, s.Text, s.Name)
		value := any(s.Default)
		switch s.Type {
		case "mapping":
			value = map[string]any{"host": "h", "group": 0}
		case "list":
			value = []any{"x"}
		case "bool", "bool or quorum":
			value = "on"
		}
		set := ParseDynamic(map[string]any{s.Name: value})
		require.Equal(t, s.Refused, len(set.Unsupported) > 0, s.Name)
		if s.Type != "mapping" && s.Type != "list" && s.Type != "bool" && s.Type != "bool or quorum" {
			set.Warnings, set.Unsupported = d.Warnings, d.Unsupported
			require.Equal(t, d, set, "%s = %s is the default", s.Name, s.Default)
		}
	}
}
