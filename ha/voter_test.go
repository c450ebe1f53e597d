package ha

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
	"github.com/pgregent/pgregent/ha/rest"
)

func openTestVoter(dir, boot string, clock dcs.Clock) *voter {
	v := openVoter(dir, boot, clock, slog.New(slog.DiscardHandler), func() time.Duration { return 8 * time.Second })
	v.closed.Store(true)
	return v
}

func joinedVoter(t *testing.T, dir string, clock dcs.Clock) *voter {
	v := openTestVoter(dir, "boot", clock)
	v.seen("7000000000000000001", dcs.Stamp{Epoch: 1, Counter: 1}, false)
	require.Eventually(t, func() bool { return v.snapshot.Load().Joined() && !v.joining.Load() }, 5*time.Second, time.Millisecond)
	return v
}

func promiseTo(nonce string, counter uint64) dcs.PromiseRequest {
	return dcs.PromiseRequest{Holder: "a", Nonce: nonce, Stamp: dcs.Stamp{Epoch: 1, Counter: counter}, TTL: dcs.Seconds(8 * time.Second)}
}

// Promise and vote are on disk before they are answered (R14): a voter that is opened anew knows them.
func TestVoterRemembers(t *testing.T) {
	dir, clock := t.TempDir(), memory.NewManualClock()
	v := joinedVoter(t, dir, clock)
	require.True(t, v.Promise(promiseTo("n", 2)).Yes)
	clock.Advance(3 * time.Second)
	v = openTestVoter(dir, "boot", clock)
	_, left := v.snapshot.Load().Promised(clock.Now())
	require.Equal(t, 5*time.Second, left)
	require.False(t, v.Vote(dcs.VoteRequest{Stamp: dcs.Stamp{Epoch: 1, Counter: 2}}).Yes)
	clock.Advance(5 * time.Second)
	require.True(t, v.Vote(dcs.VoteRequest{Stamp: dcs.Stamp{Epoch: 1, Counter: 2}}).Yes)
	v = openTestVoter(dir, "boot", clock)
	require.False(t, v.Promise(promiseTo("n", 2)).Yes, "a vote binds over a restart")
	require.True(t, v.Promise(promiseTo("n", 3)).Yes)
	require.NoError(t, os.Remove(filepath.Join(dir, "voter.json")))
	v = openTestVoter(dir, "boot", clock)
	require.False(t, v.Promise(promiseTo("n", 9)).Yes, "lost: neither promises nor votes")
	require.False(t, v.Vote(dcs.VoteRequest{Stamp: dcs.Stamp{Epoch: 1, Counter: 9}}).Yes)
}

// A memory that cannot be written promises nothing.
func TestVoterThatCannotWrite(t *testing.T) {
	dir := t.TempDir()
	v := joinedVoter(t, dir, memory.NewManualClock())
	require.NoError(t, os.Mkdir(filepath.Join(dir, "voter.json.tmp"), 0o700))
	a := v.Promise(promiseTo("n", 2))
	require.False(t, a.Yes)
	require.Equal(t, errSaveVoter.Error(), a.Why)
	require.False(t, v.Vote(dcs.VoteRequest{Stamp: dcs.Stamp{Epoch: 1, Counter: 9}}).Yes, "what it would have forbidden is forbidden")
}

func TestVoterFlags(t *testing.T) {
	v := joinedVoter(t, t.TempDir(), memory.NewManualClock())
	vote := dcs.VoteRequest{Stamp: dcs.Stamp{Epoch: 1, Counter: 2}}
	v.closed.Store(false)
	require.False(t, v.Promise(promiseTo("n", 2)).Yes)
	require.False(t, v.Vote(vote).Yes)
	v.closed.Store(true)
	v.enabled.Store(false)
	require.False(t, v.Promise(promiseTo("n", 2)).Yes)
	_, err := v.Accept("p")
	require.ErrorIs(t, err, rest.ErrFailsafeOff)
	v.enabled.Store(true)
	v.primary.Store(true)
	_, err = v.Accept("p")
	require.ErrorIs(t, err, rest.ErrPrimary)
	v.primary.Store(false)

	require.NoError(t, v.beginTake())
	_, err = v.Accept("p")
	require.ErrorContains(t, err, "taking the lease")
	v.endTake()
	_, err = v.Accept("p")
	require.NoError(t, err)
	require.ErrorContains(t, v.beginTake(), "a Patroni leader goes on")
	require.False(t, v.taking.Load())
	require.False(t, v.Vote(vote).Yes)
}

// The memory of another cluster says nothing about this one.
func TestVoterOfAnotherCluster(t *testing.T) {
	v := joinedVoter(t, t.TempDir(), memory.NewManualClock())
	require.True(t, v.Vote(dcs.VoteRequest{Stamp: dcs.Stamp{Epoch: 9, Counter: 2}}).Yes)
	v.seen("7000000000000000002", dcs.Stamp{Epoch: 1, Counter: 1}, true)
	require.Eventually(t, func() bool { return !v.joining.Load() }, 5*time.Second, time.Millisecond)
	require.False(t, v.snapshot.Load().Joined(), "listed: it must be taken into the list anew")
	v.seen("7000000000000000002", dcs.Stamp{Epoch: 1, Counter: 1}, false)
	require.Eventually(t, func() bool { return v.snapshot.Load().Joined() }, 5*time.Second, time.Millisecond)
	require.True(t, v.Promise(promiseTo("n", 2)).Yes)
}

// Accept and beginTake never both succeed, however they interleave.
func TestAcceptOrTake(t *testing.T) {
	dir := t.TempDir()
	for range 30 {
		v := joinedVoter(t, dir, dcs.ProcessClock())
		done := make(chan bool)
		go func() { _, err := v.Accept("p"); done <- err == nil }()
		took := v.beginTake() == nil
		require.False(t, <-done && took)
		require.NoError(t, os.Remove(filepath.Join(dir, "voter.json")))
	}
}
