// Command pgregent-guard is the guard as a program of its own, smaller in memory than a re-executed daemon. The daemon
// starts it; nobody else needs to.
package main

import (
	"fmt"
	"os"

	"github.com/pgregent/pgregent/ha/fence"
)

func main() {
	fence.Main()
	fmt.Fprintln(os.Stderr, "pgregent-guard is started by pgregent, and does nothing by itself")
	os.Exit(2)
}
