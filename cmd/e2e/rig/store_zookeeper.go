package rig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgregent/pgregent/dcs/dcstest/zookeeperserver"
)

type zooKeeper struct {
	*zookeeperserver.Ensemble
	prefix string
}

func newZooKeeper(t testing.TB, o Options, prefix string) *zooKeeper {
	return &zooKeeper{zookeeperserver.Start(t, max(o.Servers, 1)), prefix}
}

func (z *zooKeeper) Section(addrs []string, _ bool) string {
	return "zookeeper:\n  hosts: [" + strings.Join(addrs, ", ") + "]"
}

func (z *zooKeeper) Addrs(int) []string { return z.Ensemble.Addrs() }

// do connects for one call: tests make few of them.
func (z *zooKeeper) do(f func(*zk.Conn) error) error {
	conn, events, err := zk.Connect(z.Ensemble.Addrs(), 5*time.Second, zk.WithLogger(silent{}))
	if err != nil {
		return err
	}
	defer conn.Close()
	limit := time.After(5 * time.Second)
	for {
		select {
		case e := <-events:
			if e.State == zk.StateHasSession {
				return f(conn)
			}
		case <-limit:
			return errors.New("zookeeper: no server answers")
		}
	}
}

type silent struct{}

func (silent) Printf(string, ...any) {}

func (z *zooKeeper) Get(key string) (k Key, err error) {
	err = z.do(func(c *zk.Conn) error {
		value, stat, err := c.Get(z.prefix + key)
		if err != nil {
			return err
		}
		k = Key{Value: string(value), Version: uint64(stat.Mzxid)}
		if stat.EphemeralOwner != 0 {
			k.Session = strconv.FormatInt(stat.EphemeralOwner, 10)
		}
		return nil
	})
	return k, err
}

// Put writes a key that is there, or makes it.
func (z *zooKeeper) Put(key, value string) error {
	return z.do(func(c *zk.Conn) error {
		_, err := c.Set(z.prefix+key, []byte(value), -1)
		if errors.Is(err, zk.ErrNoNode) {
			_, err = c.Create(z.prefix+key, []byte(value), 0, zk.WorldACL(zk.PermAll))
		}
		return err
	})
}

func (z *zooKeeper) Delete(key string) error {
	return z.do(func(c *zk.Conn) error {
		err := c.Delete(z.prefix+key, -1)
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		return err
	})
}

// EndSession takes the session over, with the password that a server derives from its number, and closes it: a client
// cannot end another one's session, and an administrator only in the server's own process.
func (z *zooKeeper) EndSession(k Key) error {
	session, err := strconv.ParseInt(k.Session, 10, 64)
	if err != nil {
		return fmt.Errorf("the key is bound to no session: %w", err)
	}
	// Its owner connects again at once and takes it back: whoever is quicker.
	for range 10 {
		for _, addr := range z.Ensemble.Addrs() {
			var over bool
			if over, err = endSession(addr, session); over {
				return z.ended(session)
			}
		}
	}
	return fmt.Errorf("zookeeper: session %#x cannot be ended: %w", session, err)
}

// ended makes sure that no session of this number holds the key `leader`, the only one that is bound to one: a wrong
// password is answered as an unknown session is.
func (z *zooKeeper) ended(session int64) error {
	k, err := z.Get("leader")
	if err == nil && k.Session == strconv.FormatInt(session, 10) {
		return fmt.Errorf("zookeeper: session %#x lives on", session)
	}
	return nil
}

// endSession says whether the session is over.
func endSession(addr string, session int64) (bool, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	// ConnectRequest: protocol version, last zxid seen, time-out, session, password, read-only. And right behind it the
	// request to close: number, operation.
	const closeSession = -11
	hello := binary.BigEndian.AppendUint32(nil, 0)
	hello = binary.BigEndian.AppendUint64(hello, 0)
	hello = binary.BigEndian.AppendUint32(hello, 4000)
	hello = binary.BigEndian.AppendUint64(hello, uint64(session))
	hello = binary.BigEndian.AppendUint32(hello, 16)
	hello = append(append(hello, sessionPassword(session)...), 0)
	end := binary.BigEndian.AppendUint32(nil, 1)
	end = binary.BigEndian.AppendUint32(end, 1<<32+closeSession)
	if _, err := conn.Write(append(framed(hello), framed(end)...)); err != nil {
		return false, err
	}
	answer, err := message(conn)
	if err != nil {
		return false, err
	}
	if len(answer) < 16 || int64(binary.BigEndian.Uint64(answer[8:])) != session {
		return true, nil // the server knows no such session any more
	}
	_, err = message(conn)
	return err == nil, err
}

func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
}

// message reads one message with its length.
func message(conn net.Conn) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head)
	if n > 1<<20 {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(conn, body)
	return body, err
}

// sessionPassword is ZooKeeperServer.generatePasswd: Java's random generator, seeded with the session's number.
func sessionPassword(session int64) []byte {
	const secret, multiplier, mask = 0xB3415C00, 0x5DEECE66D, 1<<48 - 1
	seed := (uint64(session) ^ secret ^ multiplier) & mask
	out := make([]byte, 0, 16)
	for len(out) < 16 {
		seed = (seed*multiplier + 0xB) & mask
		n := uint32(seed >> 16)
		out = append(out, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	}
	return out
}

func (z *zooKeeper) Requests() (total float64, err error) {
	for _, addr := range z.Ensemble.Addrs() {
		text, err := fourLetters(addr, "mntr")
		if err != nil {
			return 0, err
		}
		total += sum(strings.ReplaceAll(text, "\t", " "), "zk_packets_received ")
	}
	return total, nil
}

func fourLetters(addr, word string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte(word)); err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	return string(text), err
}

func (z *zooKeeper) Servers() int  { return len(z.Ensemble.Addrs()) }
func (z *zooKeeper) Agent(int) int { return -1 }
