package wal

import (
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
	tl, start, err := ParseSegmentName("0000000200000016000000FF", DefaultSegmentSize)
	require.NoError(t, err)
	require.EqualValues(t, 2, tl)
	require.EqualValues(t, 0x16_FF000000, start)
	for _, bad := range []string{"", "0000000200000016000000F", "0000000200000016000001FF", "00000002.history", "0000000200000016000000FG"} {
		_, _, err := ParseSegmentName(bad, DefaultSegmentSize)
		require.Error(t, err, bad)
	}
	tl, ok := ParseHistoryName(HistoryName(10))
	require.True(t, ok)
	require.EqualValues(t, 10, tl)
}
