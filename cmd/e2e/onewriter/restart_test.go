package onewriter

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/cmd/e2e/rig"
)

// TestAgentRestart: an agent that is killed and started again within the deadline goes on where it was. Clients of its
// server notice nothing.
func TestAgentRestart(t *testing.T) {
	f := unprivileged()
	field := newField(t, f.options(t), f)
	dice := dice(t.Name())
	leader := field.leader(30 * time.Second)
	require.NotNil(t, leader)
	field.load.forget()
	failed, postmaster := field.load.failures(leader), leader.Postmaster()
	var longest time.Duration
	for range counted(t, 20, 3) {
		pause(t.Context(), between(dice, 0, loopWait))
		leader.Kill()
		began := time.Now()
		leader.Start()
		rig.Eventually(t, ttl, "the agent leads again", leader.Primary)
		longest = max(longest, time.Since(began))
		require.Equal(t, postmaster, leader.Postmaster(), "the same server")
		// It has to have renewed before the next kill, or its deadline would have no time left.
		pause(context.Background(), loopWait)
	}
	require.Zero(t, field.load.failures(leader)-failed, "failed writes")
	v := judge(field.load.record(), time.Now(), nil)
	require.Len(t, v.spans, 1, "terms")
	require.NotNil(t, field.leader(10*time.Second), "all is well")
	t.Logf("at the longest an agent led again after %v; %d writes, none failed", longest, v.spans[0].acks)
}
