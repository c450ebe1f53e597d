//go:build !linux

package postgrestest

import (
	"errors"
	"syscall"
)

const capNetAdmin = 0

func privileged(*syscall.SysProcAttr, Privileges, *syscall.Credential) (func(), error) {
	return nil, errors.New("privileged tests run on Linux only")
}

// LoopbackUp brings the interface up in a new network namespace; there is none here.
func LoopbackUp() error { return nil }
