package dcstest

import (
	"errors"
	"math/rand/v2"
	"net"
	"time"
)

// Faults are what a Proxy does to what its mode lets through. Clients cannot tell them from a bad network.
type Faults struct {
	// RequestDelay holds what clients send for this long.
	RequestDelay time.Duration
	// ReplyDelay holds what the server sends for this long. Order and content stay; what is held when the delay becomes
	// shorter keeps its own.
	ReplyDelay time.Duration
	// ReplyLoss is the chance, 0 to 1, that a piece of what the server sends is lost. The connection is cut with it, as no
	// stream goes on with a hole in it: the request was performed, and its sender does not know.
	ReplyLoss float64
	// Rate is how many bytes a second a connection carries in each direction; 0 means as many as it can.
	Rate int
}

// SetFaults changes the faults, for open connections and new ones.
func (p *Proxy) SetFaults(f Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
}

var errLost = errors.New("the proxy lost a reply")

// forward writes b to its receiver, or does to it what the faults say. late belongs to the caller's direction.
func (l *link) forward(to net.Conn, b []byte, direction int, late *late) error {
	l.proxy.mu.Lock()
	f := l.proxy.faults
	l.proxy.mu.Unlock()
	delay := f.RequestDelay
	if direction == replies {
		if delay = f.ReplyDelay; f.ReplyLoss > 0 && rand.Float64() < f.ReplyLoss {
			return errLost
		}
	}
	if delay > 0 || f.Rate > 0 || late.used() {
		late.write(b, delay, f.Rate)
		return nil
	}
	_, err := to.Write(b)
	return err
}

// late is the queue of what a connection's receiver gets later. Once used, all goes through it, so that nothing overtakes.
type late struct {
	link      *link
	to        net.Conn
	direction int
	last      time.Time // when the piece before is due
	queue     chan piece
	done      chan struct{}
	ended     bool
}

type piece struct {
	data []byte
	due  time.Time
}

func newLate(l *link, to net.Conn, direction int) *late {
	return &late{link: l, to: to, direction: direction}
}

func (q *late) used() bool { return q.queue != nil }

// write queues b, to be delivered after the delay and as fast as rate allows.
func (q *late) write(b []byte, delay time.Duration, rate int) {
	if q.queue == nil {
		q.queue, q.done = make(chan piece, 4096), make(chan struct{})
		go q.run()
	}
	due := time.Now().Add(delay)
	if rate > 0 {
		if q.last.After(due) {
			due = q.last
		}
		due = due.Add(time.Duration(len(b)) * time.Second / time.Duration(rate))
		q.last = due
	}
	q.queue <- piece{data: append([]byte(nil), b...), due: due}
}

// run writes each piece when it is due, unless the mode loses it by then.
func (q *late) run() {
	defer close(q.done)
	for p := range q.queue {
		wait(time.Until(p.due))
		if !q.link.passes(q.direction) {
			continue
		}
		if _, err := q.to.Write(p.data); err != nil {
			continue // it is cut: the reader finds that out by itself
		}
	}
}

// end returns when everything that was written has been delivered, or could not be.
func (q *late) end() {
	if q.queue == nil || q.ended {
		return
	}
	q.ended = true
	close(q.queue)
	<-q.done
}
