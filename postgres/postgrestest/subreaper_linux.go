package postgrestest

import "golang.org/x/sys/unix"

// becomeSubreaper makes orphaned descendants children of this process, so that it can wait for them.
func becomeSubreaper() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }
