package local

import "strings"

// isSlotName says that PostgreSQL takes the name for a replication slot.
func isSlotName(name string) bool {
	return name != "" && len(name) <= 63 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}
