package fence

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
)

// A3: a wall clock that jumps forward may mean a pause that nobody here saw. It comes off the deadline, and off that of a
// renewal which was sent before; one that is sent after it counts in full. Backwards, a little, and in a pause nothing
// happens.
func TestJump(t *testing.T) {
	g := &guard{clock: dcs.Boottime()}
	before := g.clock.Now()
	require.NoError(t, g.open(Term{Epoch: 1, Deadline: before + time.Minute, Sent: before}))
	g.onJump(-time.Hour)
	g.onJump(jumpMatters / 2)
	require.Equal(t, before+time.Minute, g.state.Deadline)
	g.onJump(10 * time.Second)
	require.Equal(t, before+50*time.Second, g.state.Deadline)
	require.NoError(t, g.extend(Term{Epoch: 1, Deadline: before + 2*time.Minute, Sent: before}), "a renewal that was under way")
	require.Equal(t, before+110*time.Second, g.state.Deadline)
	after := g.clock.Now() + time.Nanosecond
	require.NoError(t, g.extend(Term{Epoch: 1, Deadline: after + time.Minute, Sent: after}))
	require.Equal(t, after+time.Minute, g.state.Deadline)
	require.NoError(t, g.extend(Term{Epoch: 1, Deadline: before + 100*365*24*time.Hour, Sent: before}))
	g.onJump(time.Hour)
	require.Equal(t, before+100*365*24*time.Hour, g.state.Deadline, "in a pause there is no deadline")
}
