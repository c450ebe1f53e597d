package fence

import (
	"sync"
	"time"
)

const proofEvery = 5 * time.Millisecond

// prover waits, beside the guard's goroutine, for pg_control to say "shut down".
type prover struct {
	dir  string
	pid  int
	stop chan struct{}
	once sync.Once
	ok   bool
}

func (p *prover) cancel() { p.once.Do(func() { close(p.stop) }) }

// beginProof watches a primary that is told to shut down. It was seen in production before, so that "shut down" is not
// what an earlier life left in the file.
//
// Safety (hazard A19): PostgreSQL's postmaster begins its shutdown checkpoint only after the last client backend has
// ended, the checkpointer writes "shut down" at the end of it, and from the signal on nobody is let in. So nobody of
// this postmaster can acknowledge a write after that was read, though archiver and walsenders may go on; walsenders
// ship what is written and write nothing.
func (g *guard) beginProof() {
	if g.proof != nil || !g.state.Postmaster.AtRest || g.state.Postmaster.Foreign {
		return
	}
	p := &prover{dir: g.dir, pid: g.state.Postmaster.PID, stop: make(chan struct{})}
	g.proof = p
	go func() {
		p.run()
		g.proved <- p
	}()
}

func (p *prover) run() {
	tick := time.NewTicker(proofEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			if state, ok := controlState(p.dir); ok && state == shutDown {
				p.ok = true
				return
			}
		}
	}
}

// onProved closes the epoch of a server that is shut down and has not ended yet. It is no primary any more.
func (g *guard) onProved(p *prover) {
	if g.proof != p {
		return
	}
	g.proof = nil
	if !p.ok || !g.state.Postmaster.Running || g.state.Postmaster.PID != p.pid {
		return
	}
	var rest []waiter
	for _, w := range g.waiters {
		if !w.early {
			rest = append(rest, w)
			continue
		}
		if w.close == g.state.Epoch {
			g.closeEpoch(ProofShutdown)
		}
		w.to.send(reply{ID: w.id, Proof: ProofShutdown})
	}
	g.waiters = rest
	if !g.state.Open {
		g.state.Postmaster.Primary, g.state.Postmaster.Epoch = false, 0
		g.ladder = ladder{stage: stageFast, begun: g.clock.Now(), at: g.clock.Now() + retiredFor} // also when the agent is gone
		g.note(&g.trouble.admission, g.admission.open())
	}
}
