package rest

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// healthCase is a line of testdata/patroni-health.jsonl, made by Patroni 4.1.5 through testdata/health.py.
type healthCase struct {
	Path, Query, State, Mode, Role                            string
	Answered, Recovery, Standby, Leader, Paused, Fresh, Voter bool
	Optime, Latest, Replayed                                  uint64
	Tags                                                      cluster.Tags
	Code                                                      int
}

// node is a node in the state of the case.
func (c healthCase) node() *fakeNode {
	n := primaryNode()
	r := &n.report
	r.State, r.Role, r.IsLeader, r.Paused, r.ClusterFresh, r.Tags = c.State, c.Role, c.Leader, c.Paused, c.Fresh, c.Tags
	r.LeaderUntil = time.Now().Add(time.Hour)
	r.Cluster.Status.Optime, r.Cluster.Config.StandbyCluster = wal.LSN(c.Optime), c.Standby
	if !c.Standby {
		r.Cluster.Config.SynchronousMode = c.Mode
	}
	if c.Voter {
		r.Cluster.Sync = cluster.Sync{Leader: "x", Standbys: []string{r.Name}}
	}
	r.Server = postgres.Status{}
	switch {
	case c.Answered && c.Recovery:
		r.Server = postgres.Status{Answered: true, Role: postgres.RoleReplica, Version: 150000, Replayed: wal.LSN(c.Replayed), LatestEnd: wal.LSN(c.Latest)}
	case c.Answered:
		r.Server = postgres.Status{Answered: true, Role: postgres.RolePrimary, Version: 150000, Current: 1000}
	}
	return n
}

// intended says why a case may be answered in another way than by Patroni; empty: it may not.
func (c healthCase) intended() string {
	switch {
	case !c.Answered:
		return "a server that does not answer gets no clients"
	case c.Leader && c.Recovery && !c.Standby:
		return "a leader that is not promoted yet is neither primary nor replica"
	case c.Standby && !c.Fresh:
		return "Patroni takes a standby cluster for an ordinary one while the store is silent"
	}
	return ""
}

// Health checks answer as Patroni's own code does in the same state.
func TestHealthChecksAsPatroni(t *testing.T) {
	b, err := os.ReadFile("testdata/patroni-health.jsonl")
	require.NoError(t, err)
	all, differ := 0, 0
	for line := range bytes.Lines(b) {
		var c healthCase
		require.NoError(t, json.Unmarshal(line, &c))
		if n, ok := c.Tags["n"].(float64); ok {
			c.Tags["n"] = int(n) // as the YAML parser has it
		}
		all++
		if code := get(t, c.node(), c.Path+"?"+c.Query); code != c.Code {
			require.NotEmpty(t, c.intended(), "%d instead of %s", code, line)
			require.Equal(t, 503, code, "a difference never lets clients in: %s", line)
			differ++
		}
	}
	require.Equal(t, 500, all)
	require.Less(t, differ, all/4)
	t.Logf("%d of %d cases differ on purpose", differ, all)
}
