package zookeeperserver_test

import (
	"net"
	"testing"
	"time"

	"github.com/pgregent/pgregent/dcs/dcstest/zookeeperserver"
)

// answers says whether a server answers within half a second.
func answers(t *testing.T, addr string) bool {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("ruok")); err != nil {
		return false
	}
	var b [4]byte
	n, _ := c.Read(b[:])
	return string(b[:n]) == "imok"
}

// A server does what the methods say, and the others elect another leader.
func TestEnsemble(t *testing.T) {
	e := zookeeperserver.Start(t, 3)
	leader := e.Leader()
	e.Freeze(leader)
	if answers(t, e.Addrs()[leader]) {
		t.Error("a frozen server answers")
	}
	if next := e.Leader(); next == leader {
		t.Error("a frozen server leads")
	}
	e.Thaw(leader)
	second := e.Leader()
	e.Kill(second)
	if answers(t, e.Addrs()[second]) {
		t.Error("a killed server answers")
	}
	e.Kill(second) // again is no error
	e.Restart(second)
	for i, addr := range e.Addrs() {
		if end := time.Now().Add(5 * time.Second); !answers(t, addr) {
			for !answers(t, addr) && time.Now().Before(end) {
				<-time.After(20 * time.Millisecond)
			}
			if time.Now().After(end) {
				t.Errorf("server %d does not answer with all of them up", i)
			}
		}
	}
}
