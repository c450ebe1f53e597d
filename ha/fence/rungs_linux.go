package fence

import (
	"slices"
	"strings"
)

// describe brings State up to what is active and what that guarantees: 0 means that nothing is acknowledged after the
// deadline (hazards 2.3: the answer is one of 0, F, unbounded).
func (g *guard) describe() {
	s := &g.state
	s.Rungs = nil
	add := func(r Rung, active bool) {
		if active {
			s.Rungs = append(s.Rungs, r)
		}
	}
	foreign := s.Postmaster.Running && s.Postmaster.Foreign
	namespace := g.options.PIDNamespace && !foreign
	add(RungDeadline, !unguarded)
	add(RungKernelTimer, !unguarded && g.kernel.ready && !foreign)
	add(RungCgroup, g.cgroup != nil && !foreign)
	add(RungAdmission, g.admission.active())
	add(RungPIDNamespace, namespace)
	add(RungWatchdog, g.dog.active())
	s.Bounded = !unguarded && g.kernel.ready && !foreign
	switch {
	case unguarded:
		s.Guarantee = "none: this guard was built without its fence, for tests"
	case foreign:
		s.Guarantee = "a primary ends by the deadline as long as the guard runs; PostgreSQL was not started by the guard, so nothing ends it when the guard is killed or frozen"
	case !g.kernel.ready:
		s.Guarantee = "a primary ends by the deadline as long as the guard runs; the kernel's timer is missing, so a frozen guard ends nothing"
	case namespace:
		s.Guarantee = "nothing is acknowledged after the deadline, whatever is killed or frozen"
	case g.admission.active():
		s.Guarantee = "nothing is acknowledged over TCP after the deadline, whatever is killed or frozen; over a socket file, when agent, guard and postmaster are all killed or frozen, open sessions may go on"
	default:
		s.Guarantee = "nothing is acknowledged after the deadline; only when agent, guard and postmaster are all killed or frozen, open sessions may go on"
	}
	s.Problem = strings.Join(slices.DeleteFunc([]string{g.trouble.kernel, g.trouble.cgroup, g.trouble.admission, g.trouble.watchdog, g.trouble.atRest},
		func(p string) bool { return p == "" }), "; ")
}

// troubles are the reasons why something that was asked for, or that could be, is not active.
type troubles struct{ kernel, cgroup, admission, watchdog, atRest string }

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
