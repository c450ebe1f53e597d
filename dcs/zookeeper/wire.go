package zookeeper

import (
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// Of ZooKeeper's protocol (jute), what the library does not tell: the answer to the first message holds the TTL that the
// server grants, and that a request to close was answered.
const (
	headBytes = 20  // of a message: its length, and the 16 bytes that each has at least
	opClose   = -11 // the operation that ends a session
)

// wire is one TCP connection under the library. It limits the first conversation, which the library gives ten times as long
// as later ones, and looks at what passes.
type wire struct {
	net.Conn
	server string
	until  time.Time // the first conversation must be over by then

	greeted func(ttl time.Duration, session int64)
	closed  func() // the server has answered the request to end the session

	broken chan struct{} // closed with the connection, on this side
	once   sync.Once
	served bool // there was a session; guarded by link.mu

	mu       sync.Mutex
	hello    bool  // the first message has come
	closing  bool  // the request to end the session was sent,
	closeXid int32 // with this number
	head     []byte
	zxid     int64 // the newest that an answer has named: the server has all up to it
	skip     int   // bytes of the current message that are of no interest
}

// SetReadDeadline implements net.Conn.
func (w *wire) SetReadDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.hello {
		t = w.until
	}
	return w.Conn.SetReadDeadline(t)
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.once.Do(func() { close(w.broken) })
	return w.Conn.Close()
}

// Write implements net.Conn. The library writes each request as a whole. A failure closes the connection and is not told: the
// library finds out when it reads. Told of it here, it would answer the request twice, and a request that was made while
// its client was being closed three times, for which there is no room: its goroutine would hang for good.
func (w *wire) Write(b []byte) (int, error) {
	if len(b) >= 12 && int32(binary.BigEndian.Uint32(b[8:])) == opClose {
		w.mu.Lock()
		w.closing, w.closeXid = true, int32(binary.BigEndian.Uint32(b[4:]))
		w.mu.Unlock()
	}
	if _, err := w.Conn.Write(b); err != nil {
		_ = w.Close()
	}
	return len(b), nil
}

// Read implements net.Conn.
func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.look(b[:n])
	return n, err
}

// look follows the messages.
func (w *wire) look(b []byte) {
	for len(b) > 0 {
		if n := min(w.skip, len(b)); n > 0 {
			w.skip -= n
			b = b[n:]
			continue
		}
		n := min(headBytes-len(w.head), len(b))
		w.head = append(w.head, b[:n]...)
		b = b[n:]
		if len(w.head) == headBytes {
			w.skip = max(int(binary.BigEndian.Uint32(w.head))-(headBytes-4), 0)
			w.message(w.head)
			w.head = w.head[:0]
		}
	}
}

// message is told of each message when its head is there.
func (w *wire) message(head []byte) {
	w.mu.Lock()
	first := !w.hello
	w.hello = true
	if xid := int32(binary.BigEndian.Uint32(head[4:])); !first && xid > 0 { // otherwise no answer, but a ping or an event
		w.zxid = max(w.zxid, int64(binary.BigEndian.Uint64(head[8:])))
	}
	answered := w.closing && int32(binary.BigEndian.Uint32(head[4:])) == w.closeXid
	w.mu.Unlock()
	switch {
	case first:
		ttl := time.Duration(int32(binary.BigEndian.Uint32(head[8:]))) * time.Millisecond
		w.greeted(ttl, int64(binary.BigEndian.Uint64(head[12:])))
	case answered:
		w.closed()
	}
}
