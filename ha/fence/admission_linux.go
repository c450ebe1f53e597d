package fence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// admission lets TCP clients reach a primary only until its deadline, by the kernel alone: packets to and from the port
// are dropped when the element of a set has timed out, those of established connections too, so that a statement that
// ends late cannot be acknowledged (hazards 2.3, rung 1). It needs CAP_NET_ADMIN and the program nft. Connections over
// the socket file are not covered. While the server is a replica the port is open. A nil admission does nothing.
//
// nft makes the table, once, when nothing runs. After that the guard speaks to the kernel by itself: it must not start a
// program while a primary runs (invariant I21), and a child of its own would look like PostgreSQL's.
type admission struct {
	port   uint16
	table  string
	socket int
	admits bool // the port is in the set `lease`, as far as is known
	leads  bool // the port is in the set `leading`
}

// newAdmission makes the table anew. Nothing of an earlier primary may be left: its port is open afterwards.
func newAdmission(port int) (*admission, error) {
	if port <= 0 || port > 65535 {
		return nil, fmt.Errorf("admission needs PostgreSQL's port, not %d", port)
	}
	a := &admission{port: uint16(port), table: fmt.Sprintf("pgregent_%d", port)}
	nft, err := exec.LookPath("nft")
	if err != nil {
		nft = "/usr/sbin/nft"
	}
	script := strings.ReplaceAll(`table inet NAME
delete table inet NAME
table inet NAME {
 set lease { type inet_service; flags timeout; }
 set leading { type inet_service; }
 chain in { type filter hook input priority -10; policy accept; tcp dport @leading tcp dport != @lease drop; }
 chain out { type filter hook output priority -10; policy accept; tcp sport @leading tcp sport != @lease drop; }
}
`, "NAME", a.table)
	if err := runHere(nft, []string{"-f", "-"}, script); err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	if a.socket, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER); err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	_ = unix.SetsockoptTimeval(a.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	return a, nil
}

// runHere runs a program and waits for it on the guard's own goroutine, which also waits for every other child.
func runHere(path string, args []string, input string) error {
	var in, out [2]int
	if err := errors.Join(unix.Pipe2(in[:], unix.O_CLOEXEC), unix.Pipe2(out[:], unix.O_CLOEXEC)); err != nil {
		return err
	}
	_, _ = unix.Write(in[1], []byte(input)) // less than a pipe holds
	_ = unix.Close(in[1])
	pid, err := syscall.ForkExec(path, append([]string{path}, args...), &syscall.ProcAttr{
		Files: []uintptr{uintptr(in[0]), uintptr(out[1]), uintptr(out[1])},
		Sys:   &syscall.SysProcAttr{AmbientCaps: []uintptr{unix.CAP_NET_ADMIN}},
	})
	_, _ = unix.Close(in[0]), unix.Close(out[1])
	defer func() { _ = unix.Close(out[0]) }()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var status syscall.WaitStatus
	if err := awaitChild(pid, &status, 2*time.Second); err != nil { // no longer: the guard has other things to do
		return fmt.Errorf("%s: %w", path, err)
	}
	_ = unix.SetNonblock(out[0], true)
	said := make([]byte, 4096)
	n, _ := unix.Read(out[0], said)
	if status.ExitStatus() != 0 {
		return fmt.Errorf("%s: exit %d: %s", path, status.ExitStatus(), strings.TrimSpace(string(said[:max(n, 0)])))
	}
	return nil
}

// awaitChild waits for a child, and kills it when that takes longer than d.
func awaitChild(pid int, status *syscall.WaitStatus, d time.Duration) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		got, err := syscall.Wait4(pid, status, syscall.WNOHANG, nil)
		if got == pid || err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		if time.Since(began) > d {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func (a *admission) active() bool { return a != nil }

// admit lets clients in for d, and no longer.
func (a *admission) admit(d time.Duration) error {
	if a == nil {
		return nil
	}
	ms := max(d.Milliseconds(), 1)
	batch := [][]byte{}
	if a.admits {
		batch = append(batch, a.element(unix.NFT_MSG_DELSETELEM, "lease", 0))
	}
	batch = append(batch, a.element(unix.NFT_MSG_NEWSETELEM, "lease", ms))
	if !a.leads {
		batch = append(batch, a.element(unix.NFT_MSG_NEWSETELEM, "leading", 0))
	}
	err := a.send(batch)
	if errors.Is(err, unix.ENOENT) && a.admits { // it has timed out
		a.admits = false
		return a.admit(d)
	}
	if err == nil {
		a.admits, a.leads = true, true
	}
	return err
}

// open lets everybody in without a limit: nothing of a primary is left.
func (a *admission) open() error {
	if a == nil || !a.leads {
		return nil
	}
	err := a.send([][]byte{a.element(unix.NFT_MSG_DELSETELEM, "leading", 0)})
	if err == nil || errors.Is(err, unix.ENOENT) {
		a.leads = false
		return nil
	}
	return err
}

// element is a message that adds the port to a set, or takes it out (linux/netfilter/nf_tables.h).
func (a *admission) element(kind uint16, set string, timeout int64) []byte {
	key := attribute(unix.NFTA_DATA_VALUE, binary.BigEndian.AppendUint16(nil, a.port))
	elem := nested(unix.NFTA_SET_ELEM_KEY, key)
	if timeout > 0 {
		elem = append(elem, attribute(unix.NFTA_SET_ELEM_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(timeout)))...)
	}
	var body []byte
	body = append(body, attribute(unix.NFTA_SET_ELEM_LIST_TABLE, append([]byte(a.table), 0))...)
	body = append(body, attribute(unix.NFTA_SET_ELEM_LIST_SET, append([]byte(set), 0))...)
	body = append(body, nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, nested(unix.NFTA_LIST_ELEM, elem))...)
	flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK)
	if kind == unix.NFT_MSG_NEWSETELEM {
		flags |= unix.NLM_F_CREATE
	}
	return message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, unix.NFPROTO_INET, 0, body)
}

// send performs messages as one transaction of the kernel, and returns the first error.
func (a *admission) send(batch [][]byte) error {
	b := message(unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	for _, m := range batch {
		b = append(b, m...)
	}
	b = append(b, message(unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)...)
	if err := unix.Sendto(a.socket, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	var buf [8192]byte
	for range batch {
		n, _, err := unix.Recvfrom(a.socket, buf[:], 0)
		if err != nil {
			return fmt.Errorf("admission: the kernel did not answer: %w", err)
		}
		if err := acknowledged(buf[:n]); err != nil {
			a.drain(buf[:])
			return fmt.Errorf("admission: %w", err)
		}
	}
	return nil
}

// drain takes answers that nobody waits for any more.
func (a *admission) drain(buf []byte) {
	for {
		if _, _, err := unix.Recvfrom(a.socket, buf, unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}

func acknowledged(b []byte) error {
	const header = unix.SizeofNlMsghdr
	if len(b) < header+4 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return errors.New("an answer of the kernel is no acknowledgement")
	}
	if code := int32(binary.NativeEndian.Uint32(b[header:])); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}

// message is a netlink message of nfnetlink: header, struct nfgenmsg, attributes.
func message(kind, flags uint16, family byte, resource uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+4+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence and port: the answers come in order
	b = append(b, family, 0)
	b = binary.BigEndian.AppendUint16(b, resource)
	return append(b, body...)
}

func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func nested(kind uint16, value []byte) []byte { return attribute(kind|unix.NLA_F_NESTED, value) }
