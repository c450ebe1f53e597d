package ha_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/postgres"
)

func TestPlanChange(t *testing.T) {
	server := map[string]ha.Parameter{
		"max_connections":  {Setting: "100", Type: "integer", Context: "postmaster"},
		"shared_buffers":   {Setting: "16384", Unit: "8kB", Type: "integer", Context: "postmaster"},
		"work_mem":         {Setting: "4096", Unit: "kB", Type: "integer", Context: "user"},
		"fsync":            {Setting: "on", Type: "bool", Context: "sighup"},
		"log_connections":  {Setting: "off", Type: "bool", Context: "superuser-backend"},
		"wal_level":        {Setting: "replica", Type: "enum", Context: "postmaster"},
		"deadlock_timeout": {Setting: "1000", Unit: "ms", Type: "integer", Context: "superuser"},
		"random_page_cost": {Setting: "4", Type: "real", Context: "user"},
		"block_size":       {Setting: "8192", Type: "integer", Context: "internal"},
	}
	parameters := func(pairs ...any) map[string]any {
		p := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			p[pairs[i].(string)] = pairs[i+1]
		}
		return map[string]any{"postgresql": map[string]any{"parameters": p}}
	}
	local := postgres.Settings{Parameters: map[string]string{"work_mem": "1MB", "max_connections": "7"}}
	for _, c := range []struct {
		name     string
		local    postgres.Settings
		old, new map[string]any
		role     string
		server   map[string]ha.Parameter
		want     map[string]ha.Effect
	}{
		{"nothing", local, parameters("fsync", true), parameters("fsync", true), "primary", server, map[string]ha.Effect{}},
		{"on the command line", local, parameters(), parameters("max_connections", 120), "primary", server, map[string]ha.Effect{"max_connections": ha.EffectRestart}},
		{"on the command line, not asked", local, parameters(), parameters("max_connections", 120), "primary", nil, map[string]ha.Effect{"max_connections": ha.EffectRestart}},
		{"not accepted", local, parameters(), parameters("max_connections", 10), "primary", server, map[string]ha.Effect{"max_connections": ha.EffectNone}},
		{"its default", local, parameters("max_connections", 100), parameters(), "primary", server, map[string]ha.Effect{"max_connections": ha.EffectNone}},
		{"back to its default", local, parameters("max_connections", 200), parameters(), "primary",
			map[string]ha.Parameter{"max_connections": {Setting: "200", Type: "integer", Context: "postmaster"}}, map[string]ha.Effect{"max_connections": ha.EffectRestart}},
		{"another way to write it", local, parameters("shared_buffers", "128MB"), parameters("shared_buffers", "131072kB"), "primary", server, map[string]ha.Effect{"shared_buffers": ha.EffectNone}},
		{"restart", local, parameters(), parameters("shared_buffers", "256MB"), "replica", server, map[string]ha.Effect{"shared_buffers": ha.EffectRestart}},
		{"the file wins", local, parameters("work_mem", "4MB"), parameters("work_mem", "8MB"), "primary", server, map[string]ha.Effect{"work_mem": ha.EffectNone}},
		{"reload", postgres.Settings{}, parameters("work_mem", "4MB"), parameters("work_mem", "8MB"), "primary", server, map[string]ha.Effect{"work_mem": ha.EffectReload}},
		{"removed", postgres.Settings{}, parameters("fsync", "off", "deadlock_timeout", "1s"), parameters("deadlock_timeout", "1000ms"), "primary", server,
			map[string]ha.Effect{"fsync": ha.EffectReload, "deadlock_timeout": ha.EffectNone}},
		{"types", postgres.Settings{}, parameters(), parameters("fsync", "yes", "random_page_cost", "4.0", "log_connections", true, "block_size", 4096, "my.setting", 1), "primary", server,
			map[string]ha.Effect{"fsync": ha.EffectNone, "random_page_cost": ha.EffectNone, "log_connections": ha.EffectReload, "block_size": ha.EffectNone, "my.setting": ha.EffectReload}},
		{"old name of a value", local, parameters(), parameters("wal_level", "hot_standby"), "primary", server, map[string]ha.Effect{"wal_level": ha.EffectNone}},
		{"the agent's own", local, map[string]any{"ttl": 30.0, "pause": true}, map[string]any{"ttl": 20.0}, "primary", server,
			map[string]ha.Effect{"ttl": ha.EffectLoop, "pause": ha.EffectLoop}},
		{"files", local, map[string]any{}, map[string]any{"postgresql": map[string]any{"pg_hba": []any{"local all all peer"}, "use_slots": false,
			"recovery_conf": map[string]any{"restore_command": "cp a b"}}}, "replica", server,
			map[string]ha.Effect{"postgresql.pg_hba": ha.EffectReload, "postgresql.use_slots": ha.EffectLoop, "postgresql.recovery_conf": ha.EffectReload,
				"wal_retrieve_retry_interval": ha.EffectReload}},
		{"another role", local, map[string]any{}, map[string]any{"postgresql": map[string]any{"parameters_replica": map[string]any{"fsync": "off"}}}, "primary", server, map[string]ha.Effect{}},
		{"this role", local, map[string]any{}, map[string]any{"postgresql": map[string]any{"parameters_replica": map[string]any{"fsync": "off"}}}, "replica", server,
			map[string]ha.Effect{"fsync": ha.EffectReload}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := ha.PlanChange(c.local, c.old, c.new, c.role, c.server)
			got, reload, restart := map[string]ha.Effect{}, false, false
			for _, ch := range p.Changes {
				require.NotContains(t, got, ch.Name)
				got[ch.Name] = ch.Effect
				reload = reload || ch.Effect == ha.EffectReload || ch.Effect == ha.EffectRestart
				restart = restart || ch.Effect == ha.EffectRestart
			}
			require.Equal(t, c.want, got)
			require.Equal(t, [2]bool{reload, restart}, [2]bool{p.Reload, p.Restart})
		})
	}
	p := ha.PlanChange(local, nil, map[string]any{"synchronous_mode": true, "ttl": "x"}, "primary", nil)
	require.Len(t, p.Warnings, 2)
}
