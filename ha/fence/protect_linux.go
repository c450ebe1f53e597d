package fence

import (
	"fmt"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The guard is small and must run when the machine is short of everything: where it may, it asks the kernel for CPU time
// before others and not to be chosen when memory runs out. None of this is for PostgreSQL (design section 7).

const guardNice = -20

// protect sets what the guard may set, without a word where it may not.
func protect() {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, tid, guardNice) // later threads inherit it
		}
	}
}

// dropAmbient takes the capabilities that the guard was given for its rungs from what its children inherit. It changes
// this thread alone, the one that forks.
func dropAmbient() {
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}

// keepDescriptors keeps what this process may have inherited through its agent from what PostgreSQL inherits.
func keepDescriptors() { _ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) }

// unprotect gives a new postmaster the ordinary priority and score: a backend that eats the memory is the right one to go.
func unprotect(pid int) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, 0)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("0"), 0)
}
