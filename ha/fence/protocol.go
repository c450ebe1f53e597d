package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// The protocol: one JSON object a line, each way, over a socket file that only the owner may open; the guard checks the
// peer's credentials too. An agent begins with "hello".
const (
	protocolVersion = 2
	maxMessage      = 1 << 20
)

// errorCodes are the errors that cross the socket by name.
func errorCodes() map[string]error {
	return map[string]error{
		"running": ErrRunning, "no_epoch": ErrNoEpoch, "in_use": ErrInUse, "version": ErrVersion, "watchdog": ErrWatchdog,
	}
}

func code(err error) string {
	for name, e := range errorCodes() {
		if errors.Is(err, e) {
			return name
		}
	}
	return ""
}

// Requests.
const (
	opHello    = "hello"
	opState    = "state"
	opStart    = "start"
	opStop     = "stop"
	opOpen     = "open"
	opExtend   = "extend"
	opPromote  = "promote"
	opAdopt    = "adopt"
	opRetire   = "retire"
	opClose    = "close"
	opShutdown = "shutdown"
)

// request is what the agent sends.
type request struct {
	ID      uint64        `json:"id"`
	Op      string        `json:"op"`
	Version int           `json:"version,omitempty"` // of hello
	Options *Options      `json:"options,omitempty"` // of hello
	Start   *StartRequest `json:"start,omitempty"`
	Mode    Mode          `json:"mode,omitempty"`
	Term    *Term         `json:"term,omitempty"`  // of open and extend
	Epoch   uint64        `json:"epoch,omitempty"` // of promote, retire and close
	PID     int           `json:"pid,omitempty"`   // of adopt
}

// reply is what the guard sends: the answer to a request, or an event.
type reply struct {
	ID    uint64 `json:"id,omitempty"`
	Code  string `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
	PID   int    `json:"pid,omitempty"`
	Proof Proof  `json:"proof,omitempty"`
	State *State `json:"state,omitempty"`
	Event *Event `json:"event,omitempty"`
}

// parseRequest reads one message and checks that it carries what its op needs. What has an id and is refused can be answered.
func parseRequest(b []byte) (request, error) {
	var r request
	if err := json.Unmarshal(b, &r); err != nil {
		return request{}, err
	}
	if r.ID == 0 {
		return request{}, errors.New("a request needs an id")
	}
	switch r.Op {
	case opHello:
		if r.Options == nil {
			return r, errors.New("hello needs options")
		}
	case opStart:
		if r.Start == nil || r.Start.Path == "" {
			return r, errors.New("start needs a path")
		}
	case opStop:
		if _, ok := r.Mode.signal(); !ok {
			return r, fmt.Errorf("there is no stop mode %q", r.Mode)
		}
	case opOpen, opExtend:
		if err := r.Term.check(); err != nil {
			return r, err
		}
	case opAdopt:
		if r.PID <= 1 {
			return r, fmt.Errorf("there is no process %d to adopt", r.PID)
		}
	case opPromote, opClose, opRetire:
		if r.Epoch == 0 {
			return r, fmt.Errorf("%s needs an epoch", r.Op)
		}
	case opState, opShutdown:
	default:
		return r, fmt.Errorf("version %d of the protocol has no request %q", protocolVersion, r.Op)
	}
	return r, nil
}

// longest is far beyond any deadline that means something, and far from the end of what a duration holds.
const longest = 200 * 365 * 24 * time.Hour

func (t *Term) check() error {
	switch {
	case t == nil || t.Epoch == 0:
		return errors.New("a term needs an epoch")
	case t.Deadline < 0 || t.Deadline > longest:
		return fmt.Errorf("the deadline %v is no time since boot", t.Deadline)
	case t.HeadStart < 0 || t.HeadStart > time.Hour:
		return fmt.Errorf("the head start %v is none", t.HeadStart)
	case t.TTL < 0 || t.TTL > 30*24*time.Hour:
		return fmt.Errorf("the ttl %v is none", t.TTL)
	}
	return nil
}
