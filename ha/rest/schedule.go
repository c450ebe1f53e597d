package rest

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/pgregent/pgregent/ha/cluster"
)

// parseSchedule reads an unambiguous moment in the future, for an action in Patroni's word for it.
func parseSchedule(s, action string, now time.Time) (time.Time, *refusal) {
	unreadable := &refusal{http.StatusUnprocessableEntity,
		"Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601"}
	s = strings.TrimSpace(s)
	if len(s) > 64 {
		return time.Time{}, unreadable
	}
	t, err := cluster.ParseTime(s)
	if err != nil {
		t, err = time.Parse("2006-01-02 15:04:05 MST", s)
		if zone, offset := t.Zone(); err == nil && offset == 0 && zone != "UTC" && zone != "GMT" {
			return time.Time{}, unreadable // an abbreviation that means nothing here
		}
	}
	switch {
	case err == nil && t.Before(now):
		return time.Time{}, &refusal{http.StatusUnprocessableEntity, fmt.Sprintf("Cannot schedule %s in the past", action)}
	case err == nil && t.Year() < 10000:
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02", "15:04:05", "15:04"} {
		if _, err := time.Parse(layout, s); err == nil {
			return time.Time{}, bad("Timezone information is mandatory for the scheduled %s", action)
		}
	}
	return time.Time{}, unreadable
}

// pythonISO is a moment as Python's isoformat() has it.
func pythonISO(t time.Time) string {
	if t.Nanosecond()/1000 == 0 {
		return t.Format("2006-01-02T15:04:05-07:00")
	}
	return t.Format("2006-01-02T15:04:05.000000-07:00")
}
