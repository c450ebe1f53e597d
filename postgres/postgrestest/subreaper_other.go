//go:build !linux

package postgrestest

// becomeSubreaper does nothing: only Linux lets a process adopt the orphans below it.
func becomeSubreaper() error { return nil }
