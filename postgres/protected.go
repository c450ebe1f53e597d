package postgres

import (
	"slices"
	"strconv"
	"strings"
)

// Protected is a parameter that standbys and pg_rewind depend on: all members take it from the dynamic configuration,
// and it is passed on the postmaster's command line (reference section 4.6).
type Protected struct {
	Name    string
	Default string
	Accept  func(value string) bool // false: Default is used
	// FileOnly says that it stands in the configuration file only, and that a reload is enough to change it.
	FileOnly bool
}

// ProtectedParameters lists them in the order of the command line.
func ProtectedParameters() []Protected {
	return []Protected{
		{Name: "wal_level", Default: "replica", Accept: oneOf("replica", "logical", "hot_standby")},
		{Name: "hot_standby", Default: "on", Accept: isTrue},
		{Name: "max_connections", Default: "100", Accept: atLeast(25)},
		{Name: "max_wal_senders", Default: "10", Accept: atLeast(3)},
		{Name: "max_prepared_transactions", Default: "0", Accept: atLeast(0)},
		{Name: "max_locks_per_transaction", Default: "64", Accept: atLeast(32)},
		{Name: "track_commit_timestamp", Default: "off", Accept: isBool},
		{Name: "max_replication_slots", Default: "10", Accept: atLeast(4)},
		{Name: "max_worker_processes", Default: "8", Accept: atLeast(2)},
		{Name: "wal_log_hints", Default: "on", Accept: isBool},
		{Name: "wal_keep_size", Default: "128MB", Accept: atLeast16MB, FileOnly: true},
	}
}

// ProtectedParameter finds one by its name, in any case.
func ProtectedParameter(name string) (Protected, bool) {
	for _, p := range ProtectedParameters() {
		if strings.EqualFold(p.Name, name) {
			return p, true
		}
	}
	return Protected{}, false
}

func oneOf(values ...string) func(string) bool {
	return func(v string) bool { return slices.Contains(values, strings.ToLower(v)) }
}

func atLeast(least int) func(string) bool {
	return func(v string) bool {
		n, err := strconv.Atoi(strings.TrimSpace(v))
		return err == nil && n >= least && n <= 1<<30
	}
}

// ParseBool reads a boolean as PostgreSQL does: unique prefixes count.
func ParseBool(v string) (value, ok bool) {
	v = strings.ToLower(strings.TrimSpace(v))
	for word, value := range map[string]bool{"true": true, "yes": true, "on": true, "1": true, "false": false, "no": false, "off": false, "0": false} {
		if v == word || v != "" && v != "o" && strings.HasPrefix(word, v) {
			return value, true
		}
	}
	return false, false
}

func isBool(v string) bool { _, ok := ParseBool(v); return ok }
func isTrue(v string) bool { value, ok := ParseBool(v); return ok && value }

// atLeast16MB checks wal_keep_size, whose plain numbers are megabytes.
func atLeast16MB(v string) bool {
	v = strings.TrimSpace(v)
	digits := strings.TrimRight(v, "kKMGTB ")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return false
	}
	switch strings.TrimSpace(v[len(digits):]) {
	case "":
	case "B":
		n /= 1 << 20
	case "kB":
		n /= 1 << 10
	case "MB":
	case "GB":
		n *= 1 << 10
	case "TB":
		n *= 1 << 20
	default:
		return false
	}
	return n >= 16
}
