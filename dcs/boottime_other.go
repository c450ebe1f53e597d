//go:build !linux

package dcs

// Boottime returns the clock of production. On this system it is a ProcessClock, which may stand still while the machine
// sleeps; its Now counts from this call. On Linux it is CLOCK_BOOTTIME, counting from the boot of the machine.
func Boottime() Clock { return ProcessClock() }
