package policytest

import "time"

// ship gives every replica that is connected and alive what the walsenders of a clean shutdown still hold.
func (w *World) ship(up *Node) {
	for _, n := range w.nodes {
		if n.pg.streaming && n.pg.source == up && n.pg.state == pgRunning && n.pg.frozen <= w.now && w.link(n, up) {
			n.disk.tip = up.disk.tip
			w.feed(n)
		}
	}
}

// connect is the receiver's attempt to stream from the server named in primary_conninfo.
func (n *Node) connect() {
	w := n.w
	if n.pg.state != pgRunning || n.pg.asPrimary || n.pg.streaming || n.pg.upstream == "" {
		return
	}
	up := w.server(n.pg.upstream)
	if up == nil || up == n || !up.accepts() || n.pg.master.still() || !w.link(n, up) {
		n.retry()
		return
	}
	if up.disk.tip.branch.sysid == n.disk.tip.branch.sysid && up.disk.tip.branch.tli >= n.disk.tip.branch.tli {
		n.disk.newest = max(n.disk.newest, up.disk.tip.branch.tli) // the history files come first
	}
	if !numbersAllow(n.disk.tip, up.disk.tip) {
		n.retry()
		return
	}
	w.checkStream(n, up)
	n.pg.streaming, n.pg.source = true, up
	n.received(n.pg.life, up, up.pg.life)
}

// walRetrieveRetry is PostgreSQL's wal_retrieve_retry_interval.
const walRetrieveRetry = 5 * time.Second

func (n *Node) retry() {
	life := n.pg.life
	up := n.pg.upstream
	n.w.after(walRetrieveRetry, func() {
		if n.pg.life == life && n.pg.upstream == up {
			n.connect()
		}
	})
}

// feed sends what the server has to whoever streams from it.
func (w *World) feed(up *Node) {
	for _, n := range w.nodes {
		if n.pg.streaming && n.pg.source == up && !n.pg.pending && n.disk.tip != up.disk.tip {
			n.pg.pending = true
			life, upLife, tip := n.pg.life, up.pg.life, up.disk.tip
			w.after(w.trip()+n.walDelay, func() {
				if n.pg.life != life || n.pg.source != up {
					return
				}
				n.pg.pending = false
				if n.pg.state != pgRunning && n.pg.state != pgStopping || !w.link(n, up) || n.pg.frozen > w.now {
					return
				}
				if tip.n > n.disk.tip.n {
					n.disk.tip = tip
					w.feed(n) // cascading replicas
				}
				n.received(life, up, upLife)
			})
		}
	}
}

func (n *Node) received(life int, up *Node, upLife int) {
	if n.pg.life == life && n.pg.source == up && up.pg.life == upLife {
		n.w.feed(up)
	}
}

// serverDown ends the connections to it.
func (w *World) serverDown(up *Node) {
	for _, n := range w.nodes {
		if n.pg.source == up {
			n.disconnect()
		}
	}
}

func (n *Node) disconnect() {
	n.pg.streaming, n.pg.source, n.pg.pending = false, nil, false
	n.retry()
}

// follow re-points a running replica.
func (n *Node) follow(upstream string) {
	if n.pg.upstream == upstream {
		if !n.pg.streaming {
			n.connect()
		}
		return
	}
	n.pg.upstream, n.disk.upstream = upstream, upstream
	n.pg.streaming, n.pg.source, n.pg.pending = false, nil, false
	n.connect()
}
