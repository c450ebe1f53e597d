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

func loopbackUp() error { return nil }
