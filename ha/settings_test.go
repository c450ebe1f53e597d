package ha

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/postgres"
)

func object(t *testing.T, text string) (m map[string]any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &m))
	return m
}

// TestMergeRoles: settings for one role are laid over the others, the local ones over the dynamic ones, and the parameters
// that all members must agree on have none.
func TestMergeRoles(t *testing.T) {
	local := postgres.Settings{
		Parameters: map[string]string{"work_mem": "1MB", "max_connections": "7"},
		ByRole: map[postgres.Role]postgres.Overlay{
			postgres.RolePrimary: {Parameters: map[string]string{"work_mem": "2MB"}, HBA: []string{"local all all peer"}},
		},
	}
	s := mergeSettings(local, object(t, `{"parameters":{"work_mem":"9MB","max_connections":50,"jit":false},"pg_hba":["host all all all md5"],
		"parameters_primary":{"work_mem":"8MB","jit":true,"max_connections":60},"parameters_replica":{"hot_standby_feedback":"on"},
		"pg_hba_primary":["x"],"pg_hba_replica":["y"],"parameters_standby_leader":{"jit":true}}`))
	p, r := s.For(postgres.RolePrimary), s.For(postgres.RoleReplica)
	require.Equal(t, map[string]string{"work_mem": "2MB", "jit": "on", "max_connections": "50", "wal_retrieve_retry_interval": "500ms"}, p.Parameters)
	require.Equal(t, map[string]string{"work_mem": "1MB", "jit": "off", "max_connections": "50", "hot_standby_feedback": "on", "wal_retrieve_retry_interval": "500ms"}, r.Parameters)
	require.Equal(t, []string{"local all all peer"}, p.HBA)
	require.Equal(t, []string{"y"}, r.HBA)
	require.Nil(t, p.ByRole)
	require.Equal(t, "1MB", s.Parameters["work_mem"], "a copy was changed")
}

func TestPlanChange(t *testing.T) {
	contexts := map[string]string{"work_mem": "user", "max_connections": "postmaster", "server_version": "internal", "archive_command": "sighup", "jit": "user"}
	local := postgres.Settings{Parameters: map[string]string{"jit": "off"}}
	before := object(t, `{"ttl":30,"loop_wait":10,"postgresql":{"parameters":{"max_connections":100,"archive_command":"/bin/true"}}}`)
	after := object(t, `{"ttl":20,"loop_wait":10,"pause":true,"postgresql":{"parameters":{"max_connections":200,"work_mem":"8MB","jit":true,"no_such":1,"my.own":2,
		"server_version":"9"},"parameters_replica":{"work_mem":"4MB"},"pg_hba":["local all all peer"]}}`)
	require.Equal(t, []SettingChange{
		{Name: "archive_command", Old: "/bin/true", Effect: EffectReload},
		{Name: "jit", Old: "off", New: "off", Effect: EffectNone, Why: "the member's own file sets it"},
		{Name: "max_connections", Old: "100", New: "200", Effect: EffectRestart},
		{Name: "my.own", New: "2", Effect: EffectReload},
		{Name: "no_such", New: "1", Effect: EffectNone, Why: "the server does not know it"},
		{Name: "pause", New: "on", Effect: EffectAgent},
		{Name: "pg_hba", New: "local all all peer", Effect: EffectReload},
		{Name: "server_version", New: "9", Effect: EffectNone, Why: "it cannot be set"},
		{Name: "ttl", Old: "30", New: "20", Effect: EffectAgent},
		{Name: "work_mem", New: "8MB", Effect: EffectReload},
	}, PlanChange(before, after, local, postgres.RolePrimary, contexts))
	for _, c := range PlanChange(before, after, local, postgres.RoleReplica, contexts) {
		if c.Name == "work_mem" {
			require.Equal(t, "4MB", c.New)
		}
	}
	require.Empty(t, PlanChange(before, before, local, postgres.RolePrimary, contexts))
}
