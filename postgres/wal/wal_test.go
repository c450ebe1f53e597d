package wal

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLSN(t *testing.T) {
	for text, want := range map[string]LSN{"0/0": 0, "0/5000": 0x5000, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": ^LSN(0), "a/b": 0xA0000000B} {
		got, err := ParseLSN(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for _, bad := range []string{"", "/", "0", "0/", "/0", "0/0/0", "0x1/0", "-1/0", "+1/0", "123456789/0", " 0/0", "0/0 ", "G/0"} {
		_, err := ParseLSN(bad)
		require.Error(t, err, bad)
	}
	require.Equal(t, "16/B374D848", LSN(0x16B374D848).String())
}

func TestLSNDistance(t *testing.T) {
	require.EqualValues(t, 5, LSN(15).Sub(10))
	require.EqualValues(t, -5, LSN(10).Sub(15))
	require.EqualValues(t, math.MaxInt64, (^LSN(0)).Sub(0))
	require.EqualValues(t, -math.MaxInt64, LSN(0).Sub(^LSN(0)))
	require.EqualValues(t, 5, LSN(10).Lag(15))
	require.EqualValues(t, 0, LSN(15).Lag(10))
}

func TestPosition(t *testing.T) {
	p := Position{2, 0x5000}
	require.Equal(t, "2@0/5000", p.String())
	b, err := json.Marshal(p)
	require.NoError(t, err)
	require.JSONEq(t, `{"timeline":2,"lsn":"0/5000"}`, string(b))
	var got Position
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, p, got)
	for _, bad := range []string{`{"lsn":"5000"}`, `{"lsn":5000}`, `{"timeline":-1}`, `{"timeline":4294967296}`} {
		require.Error(t, json.Unmarshal([]byte(bad), &got), bad)
	}
	require.True(t, Position{}.IsZero())
	require.False(t, p.IsZero())

	ascending := []Position{{}, {1, 1}, {1, 9}, {2, 1}, {2, 2}}
	for i, p := range ascending {
		for j, q := range ascending {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			require.Equal(t, want, p.Compare(q), "%v and %v", p, q)
		}
	}
}

func TestTimeline(t *testing.T) {
	tl, err := ParseTimeline("4294967295")
	require.NoError(t, err)
	require.EqualValues(t, math.MaxUint32, tl)
	for _, bad := range []string{"", "0", "-1", "+1", "4294967296", "1.0", "A", " 1"} {
		_, err := ParseTimeline(bad)
		require.Error(t, err, bad)
	}
}

func FuzzLSN(f *testing.F) {
	f.Add("16/B374D848")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLSN(s)
		if err != nil {
			return
		}
		again, err := ParseLSN(l.String())
		require.NoError(t, err)
		require.Equal(t, l, again)
	})
}

const history = `1	0/3000158	no recovery target specified

# a comment
2	0/5000000	before 2026-11-22 19:58:48
`

func TestHistory(t *testing.T) {
	h, err := ParseHistory(3, []byte(history))
	require.NoError(t, err)
	require.Equal(t, History{Tip: 3, Switches: []Switch{{1, 0x3000158, "no recovery target specified"}, {2, 0x5000000, "before 2026-11-22 19:58:48"}}}, h)
	again, err := ParseHistory(3, []byte(h.String()))
	require.NoError(t, err)
	require.Equal(t, h, again)

	require.True(t, h.Contains(Position{1, 0x3000158}))
	require.False(t, h.Contains(Position{1, 0x3000159}))
	require.True(t, h.Contains(Position{3, 1 << 60}))
	require.False(t, h.Contains(Position{4, 1}))
	begin, ok := h.Begin(2)
	require.True(t, ok)
	require.EqualValues(t, 0x3000158, begin)

	_, err = ParseHistory(0, nil)
	require.Error(t, err, "timeline 0")
	_, ok = h.Begin(4)
	require.False(t, ok)
	require.True(t, h.Known())
	require.False(t, History{}.Known())
	for _, bad := range []string{"x\t0/1\n", "1\n", "1\tzz\n", "3\t0/1\n", "2\t0/2\n1\t0/3\n", "1\t0/5\n2\t0/4\n", "0\t0/1\n"} {
		_, err := ParseHistory(3, []byte(bad))
		require.Error(t, err, bad)
	}
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte(history))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHistory(9, b)
		if err != nil {
			return
		}
		again, err := ParseHistory(9, []byte(h.String()))
		require.NoError(t, err)
		require.Equal(t, h, again)
		for _, s := range h.Switches {
			require.True(t, h.Contains(Position{s.Timeline, s.LSN}))
			require.False(t, s.LSN < ^LSN(0) && h.Contains(Position{s.Timeline, s.LSN + 1}))
		}
	})
}

func TestFork(t *testing.T) {
	mine := History{Tip: 2, Switches: []Switch{{1, 100, ""}}}
	theirs := History{Tip: 3, Switches: []Switch{{1, 100, ""}, {2, 200, ""}}}
	for _, c := range []struct {
		end, want Position
	}{
		{Position{2, 150}, Position{2, 150}}, // all of mine is theirs
		{Position{2, 250}, Position{2, 200}}, // they left earlier
		{Position{1, 90}, Position{1, 90}},
	} {
		got, ok := mine.Fork(theirs, c.end)
		require.True(t, ok)
		require.Equal(t, c.want, got)
	}
	other := History{Tip: 2, Switches: []Switch{{1, 80, ""}}}
	got, ok := mine.Fork(other, Position{2, 150})
	require.True(t, ok)
	require.Equal(t, Position{1, 80}, got, "the same number, begun elsewhere")
	_, ok = History{Tip: 7}.Fork(theirs, Position{7, 1})
	require.False(t, ok)
}

func TestSegments(t *testing.T) {
	require.Equal(t, "000000020000001600000001", SegmentName(2, 0x16_01000000, DefaultSegmentSize))
	require.Equal(t, "000000020000001600000000", SegmentName(2, 0x16_01000000, 1<<30))
	for _, size := range []uint64{0, 1, 1<<20 + 1, 1 << 31, 1 << 40} {
		require.Empty(t, SegmentName(2, 1, size))
		_, _, err := ParseSegmentName("000000020000001600000001", size)
		require.ErrorContains(t, err, "segment size")
	}
	tl, start, err := ParseSegmentName("0000000200000016000000FF", DefaultSegmentSize)
	require.NoError(t, err)
	require.EqualValues(t, 2, tl)
	require.EqualValues(t, 0x16_FF000000, start)
	for _, bad := range []string{"", "0000000200000016000000F", "0000000200000016000001FF", "00000002.history", "0000000200000016000000FG",
		"0000000200000016000000ff", "000000000000001600000001", "000000020000001600000001.partial"} {
		_, _, err := ParseSegmentName(bad, DefaultSegmentSize)
		require.Error(t, err, bad)
	}
	tl, ok := ParseHistoryName(HistoryName(10))
	require.True(t, ok)
	require.EqualValues(t, 10, tl)
	require.Equal(t, "0000000A.history", HistoryName(10))
	for _, bad := range []string{"", ".history", "0000000a.history", "00000000.history", "0000000A.history.tmp", "00000000A.history", "+000000A.history"} {
		_, ok := ParseHistoryName(bad)
		require.False(t, ok, bad)
	}
}

func FuzzSegmentNames(f *testing.F) {
	f.Add("000000020000001600000001", uint8(4))
	f.Add("0000000A.history", uint8(0))
	f.Fuzz(func(t *testing.T, name string, shift uint8) {
		size := uint64(1) << 20 << (shift % 12) // also two sizes that are too large
		if tl, start, err := ParseSegmentName(name, size); err == nil {
			require.Equal(t, name, SegmentName(tl, start, size))
			require.Equal(t, name, SegmentName(tl, start+LSN(size-1), size))
		}
		if tl, ok := ParseHistoryName(name); ok {
			require.Equal(t, name, HistoryName(tl))
		}
	})
}
