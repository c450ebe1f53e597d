package cluster

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/postgres/wal"
)

// FuzzDecode gives every key any value: nothing panics (hazard E3), what is written is JSON in ASCII, and what was written
// once comes back as the same bytes.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"members-node-1", "members-node-2", "status", "history", "sync", "failover", "failsafe", "config"} {
		f.Add([]byte(live(f, name)))
	}
	for _, v := range []string{"a:b", "17", "postgres://x", "{}", "[[1,2,\"\"]]", `{"scheduled_restart":{"x":[1.5e300,-0]},"tags":{"a":1e5}}`, `{"promotion":{"timeline":1}}`} {
		f.Add([]byte(v))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, key := range codecs() {
			first, err := encoded(key, string(value))
			if err != nil {
				continue
			}
			require.True(t, json.Valid(first), "%s: %s", key, first)
			for _, b := range first {
				require.Less(t, b, byte(0x80), "%s: %s", key, first)
			}
			second, err := encoded(key, string(first))
			if key == KeyHistory && err != nil {
				continue
			}
			require.NoError(t, err, "%s: %s", key, first)
			require.Equal(t, string(first), string(second), key)
		}
		c := decode(KeyOptime, string(value))
		require.Equal(t, c.Status.Present, true)
		_ = decode(KeyLeader, string(value))
		_ = decode(KeyInitialize, string(value)).Initialize.Valid()
		if n, err := ParseNote(value); err == nil {
			first, err := EncodeNote(n)
			require.NoError(t, err)
			again, err := ParseNote(first)
			require.NoError(t, err)
			second, err := EncodeNote(again)
			require.NoError(t, err)
			require.Equal(t, string(first), string(second))
		}
	})
}

// FuzzDynamic parses any object as dynamic configuration and patches it with another.
func FuzzDynamic(f *testing.F) {
	f.Add([]byte(live(f, "config")), []byte(`{"slots":{"x":null},"ttl":"0x1f"}`))
	f.Add([]byte(`{"ttl":1e400,"loop_wait":-1,"member_slots_ttl":"5 d"}`), []byte(`{"ttl":null}`))
	f.Fuzz(func(t *testing.T, config, patch []byte) {
		base, err := object(config)
		if err != nil {
			return
		}
		d := ParseDynamic(base)
		require.LessOrEqual(t, d.LoopWait+2*d.RetryTimeout, d.TTL)
		require.Positive(t, d.LoopWait)
		require.Positive(t, d.RetryTimeout)
		p, err := object(patch)
		if err != nil {
			return
		}
		before := EncodeConfig(base)
		if changed := Patch(base, p); !changed {
			require.True(t, SameMember(before, EncodeConfig(base)) || len(before) > len(EncodeConfig(base)), "%s and %s", before, EncodeConfig(base))
		}
		require.False(t, Patch(base, p) && !hasNull(p), "a second time changes nothing more: %s", patch)
	})
}

// hasNull says that a patch holds a null below its first level: stored with a new key, it deletes at the second time.
func hasNull(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		for _, e := range v {
			if hasNull(e) {
				return true
			}
		}
	}
	return false
}

// FuzzCompare compares branches that contradict themselves as the bytes will have it: nothing panics, and what is called
// behind ends on the other's history.
func FuzzCompare(f *testing.F) {
	f.Add([]byte{2, 1, 1, 5, 2, 9, 2, 5}, []byte{3, 2, 1, 5, 2, 7, 3, 9, 2, 5})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		mine, theirs := branchFrom(a), branchFrom(b)
		rel, at := Compare(mine, theirs)
		if rel == RelationBehind {
			require.True(t, theirs.History.Contains(mine.End))
			require.Equal(t, mine.End, at)
		}
		if rel == RelationDiverged {
			require.NotEqual(t, mine.End, at)
		}
	})
}

// branchFrom takes small numbers off: the tip, how many switches, each with timeline and LSN, the end, the promotions.
func branchFrom(b []byte) Branch {
	next := func() uint32 {
		if len(b) == 0 {
			return 0
		}
		v := b[0] % 16
		b = b[1:]
		return uint32(v)
	}
	out := Branch{History: wal.History{Tip: wal.Timeline(next())}}
	for range next() {
		out.History.Switches = append(out.History.Switches, wal.Switch{Timeline: wal.Timeline(next()), LSN: wal.LSN(next())})
	}
	out.End = wal.Position{Timeline: wal.Timeline(next()), LSN: wal.LSN(next())}
	for len(b) > 0 {
		tl := wal.Timeline(next())
		begin, _ := out.History.Begin(tl)
		out.Promotions = append(out.Promotions, Promotion{Timeline: tl, LSN: begin, ID: string(rune('a' + next()%3))})
	}
	return out
}

// FuzzNames looks at slot names and tags.
func FuzzNames(f *testing.F) {
	f.Add("node-1", `{"nofailover":"false","failover_priority":"0x1"}`)
	f.Fuzz(func(t *testing.T, name, tags string) {
		slot := SlotName(name)
		require.Regexp(t, "^[a-z0-9_]{0,63}$", slot)
		m, err := object([]byte(tags))
		if err != nil {
			return
		}
		given := plainNumbers(m)
		shown := given.Published()
		require.Equal(t, given.NoFailover(), shown.NoFailover(), "what is published says the same")
		require.Equal(t, given.FailoverPriority(), shown.FailoverPriority())
		require.Equal(t, given.NoSync(), shown.NoSync())
		require.Equal(t, given.NoLoadBalance(), shown.NoLoadBalance())
		_ = given.Contradictions()
	})
}
