//go:build unix && !linux

package postgrestest

import "syscall"

// serverAttr gives a postmaster a session of its own.
func serverAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// reap has nothing to do: orphans are init's children.
func reap(int) {}

// quickDir is the system's default folder for temporary files.
func quickDir() string { return "" }

// userAttr changes the user.
func userAttr(cred *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: cred}
}
